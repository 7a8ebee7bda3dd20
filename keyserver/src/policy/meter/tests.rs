//! What a meter hands out, when, and what it remembers.

use super::*;
use crate::clock;

const DAILY: Limits = Limits {
    rate: None,
    daily: Some(100),
};

fn rate(count: u32, period: u64, burst: u32) -> Limits {
    let rate = Rate {
        count,
        period: Duration::from_secs(period),
        burst,
    };
    Limits {
        rate: Some(rate),
        daily: None,
    }
}

/// How often it can be used now.
fn uses(meter: &Meter, limits: &Limits, now: Instant, day: u64) -> usize {
    let once = || meter.take(limits, now, day, Count::Use).is_ok();
    (0..1000).filter(|_| once()).count()
}

#[test]
fn a_burst_then_the_rate() {
    let (meter, limits, now) = (Meter::default(), rate(10, 1, 5), clock::now());
    assert_eq!(uses(&meter, &limits, now, 0), 5);
    let refused = meter.take(&limits, now, 0, Count::Use).unwrap_err();
    let retry_after = Duration::from_millis(100);
    assert_eq!(refused, Unmet::Rate { retry_after });
    assert_eq!(uses(&meter, &limits, now + retry_after, 0), 1);
    assert_eq!(
        uses(&meter, &limits, now + Duration::from_millis(450), 0),
        3
    );
    // What is not used is saved up to the burst and no further.
    assert_eq!(uses(&meter, &limits, now + Duration::from_secs(100), 0), 5);
    // A clock that seems to go back gives nothing.
    assert_eq!(uses(&meter, &limits, now, 0), 0);
}

#[test]
fn slow_rates_count_too() {
    let (meter, limits, now) = (Meter::default(), rate(2, 3600, 1), clock::now());
    assert_eq!(uses(&meter, &limits, now, 0), 1);
    assert_eq!(uses(&meter, &limits, now + Duration::from_secs(1799), 0), 0);
    assert_eq!(uses(&meter, &limits, now + Duration::from_secs(1800), 0), 1);
}

#[test]
fn looking_takes_nothing() {
    let (meter, now) = (Meter::default(), clock::now());
    let limits = Limits {
        daily: Some(1),
        ..rate(1, 60, 1)
    };
    for _ in 0..3 {
        meter.take(&limits, now, 0, Count::Look).unwrap();
    }
    assert_eq!(uses(&meter, &limits, now, 0), 1);
    meter.take(&limits, now, 0, Count::Look).unwrap_err();
    meter.take(&limits, now, 0, Count::Nothing).unwrap();
}

#[test]
fn a_day_has_its_uses_and_the_next_has_them_again() {
    let (meter, now) = (Meter::default(), clock::now());
    assert_eq!(uses(&meter, &DAILY, now, 7), 100);
    assert_eq!(meter.take(&DAILY, now, 7, Count::Use), Err(Unmet::Daily));
    assert!(meter.alarm(100, 7) && !meter.alarm(100, 7));
    assert_eq!(uses(&meter, &DAILY, now, 8), 100);
    assert!(meter.alarm(100, 8));
    // A clock that is set back gives nothing more.
    assert_eq!(meter.take(&DAILY, now, 7, Count::Use), Err(Unmet::Daily));
    assert_eq!(meter.used_on(8), 100);
}

#[test]
fn both_limits_hold_and_a_refusal_by_one_takes_nothing_of_the_other() {
    let (meter, now) = (Meter::default(), clock::now());
    let limits = Limits {
        daily: Some(3),
        ..rate(1, 1, 2)
    };
    assert_eq!(uses(&meter, &limits, now, 0), 2);
    assert_eq!(meter.used_on(0), 2);
    assert_eq!(uses(&meter, &limits, now + Duration::from_secs(60), 0), 1);
    let refused = meter.take(&limits, now + Duration::from_secs(60), 0, Count::Use);
    assert_eq!(refused, Err(Unmet::Daily));
}

/// A meter with its uses written down in `disk`, as the thread of the meters does.
fn kept(disk: Option<Reserved>, day: u64) -> Meter {
    let meter = Meter::default();
    meter.keep(disk, day, Bell::default());
    meter
}

fn write_down(meter: &Meter, day: u64) -> Reserved {
    let written = meter.to_reserve(100, day);
    meter.reserved(written);
    written
}

#[test]
fn what_is_kept_hands_out_what_is_written_down() {
    let now = clock::now();
    let meter = kept(None, 7);
    let waits = meter.take(&DAILY, now, 7, Count::Use);
    assert_eq!(waits, Err(Unmet::Rate { retry_after: DISK }));
    let mut total = 0;
    while total < 100 {
        write_down(&meter, 7);
        let got = uses(&meter, &DAILY, now, 7);
        assert!(got > 0 && got <= 8, "{got}");
        total += got;
    }
    assert_eq!(meter.take(&DAILY, now, 7, Count::Use), Err(Unmet::Daily));
}

#[test]
fn a_crash_never_gives_a_use_back_and_costs_few() {
    let now = clock::now();
    let mut disk = None;
    let mut total = 0;
    let mut crashes = 0;
    loop {
        let meter = kept(disk, 7);
        disk = Some(write_down(&meter, 7));
        let got = (0..3)
            .filter(|_| meter.take(&DAILY, now, 7, Count::Use).is_ok())
            .count();
        if got == 0 {
            break;
        }
        total += got;
        crashes += 1;
    }
    assert!(total <= 100, "{total}");
    // Eight are written ahead each time; three are used.
    assert!((11..=13).contains(&crashes), "{crashes}");
}

#[test]
fn a_clean_end_costs_nothing() {
    let now = clock::now();
    let mut disk = None;
    let mut total = 0;
    for _ in 0..40 {
        let meter = kept(disk, 7);
        write_down(&meter, 7);
        total += (0..3)
            .filter(|_| meter.take(&DAILY, now, 7, Count::Use).is_ok())
            .count();
        disk = Some(meter.close(7));
        let waits = meter.take(&DAILY, now, 7, Count::Use);
        assert!(waits.is_err(), "closed");
    }
    assert_eq!(total, 100);
    // And the next day is whole.
    let meter = kept(disk, 8);
    assert_eq!(meter.used_on(8), 0);
}

#[test]
fn midnight_is_written_down_before_it_comes() {
    let now = clock::now();
    let meter = kept(None, 7);
    let written = write_down(&meter, 7);
    assert_eq!((written.upto, written.next), (8, 8));
    // Nobody waits for the disk at midnight, and what was used then is not had again after a crash.
    assert_eq!(uses(&meter, &DAILY, now, 8), 8);
    let again = kept(Some(written), 8);
    write_down(&again, 8);
    assert_eq!(again.used_on(8), 8);
    // A week later it is forgotten.
    assert_eq!(kept(Some(written), 14).used_on(14), 0);
    // Disk of tomorrow, clock of yesterday: it goes on counting tomorrow.
    let set_back = kept(Some(written), 3);
    assert_eq!(set_back.used_on(3), 8);
}

#[test]
fn a_write_that_ends_after_midnight_counts_for_the_right_day() {
    let now = clock::now();
    let meter = kept(None, 7);
    let written = meter.to_reserve(100, 7);
    meter.take(&DAILY, now, 8, Count::Look).unwrap_err();
    meter.reserved(written);
    assert_eq!(uses(&meter, &DAILY, now, 8), 8);
}
