//! The limiter on simulated devices. Nothing here looks at a clock or at a random number: a run is the same
//! on every machine.

use super::*;

/// A device that runs `width` operations at once, in order of arrival; what else is sent waits inside it.
#[derive(Clone, Copy)]
struct Device {
    width: usize,
    service_s: f64,
    /// Service times vary by so much to either side, evenly.
    jitter: f64,
    /// Every so many operations, one takes twenty times as long; 0 for never.
    hiccup: u64,
    /// After every so many operations, everything stands still for 50 ms; 0 for never.
    standstill: usize,
    /// What the pool itself spends on an operation, beside the device.
    overhead_s: f64,
    /// Clients that have one request under way each.
    clients: usize,
}

impl Device {
    const fn new(width: usize, service_s: f64) -> Self {
        Self {
            width,
            service_s,
            jitter: 0.05,
            hiccup: 0,
            standstill: 0,
            overhead_s: 0.0,
            clients: 96,
        }
    }

    /// Operations per second that it can do at most.
    fn capacity(&self) -> f64 {
        let mean = if self.hiccup > 0 {
            self.service_s * (1.0 + 19.0 / f64::from(u32::try_from(self.hiccup).unwrap()))
        } else {
            self.service_s
        };
        float(self.width) / mean
    }
}

/// What a run showed in its second half.
#[derive(Debug)]
struct Seen {
    /// Median of the numbers that the limiter thought best.
    found: usize,
    per_second: f64,
    p99_s: f64,
}

/// Runs `operations` on the device with as many at a time as the limiter allows.
fn simulate(limiter: &mut Limiter, device: Device, operations: usize) -> Seen {
    let mut noise = 1_u64;
    let mut now = 0.0_f64;
    let mut servers = vec![0.0_f64; device.width];
    // When each operation ends, and when it began.
    let mut running = Vec::<(f64, f64)>::new();
    let (mut found, mut latencies, mut half) = (Vec::new(), Vec::new(), 0.0);
    for turn in 0..operations {
        while running.len() < limiter.limit().min(device.clients) {
            noise = noise
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let random = f64::from(u32::try_from(noise >> 40).unwrap()) / 16_777_216.0;
            let mut service = device.service_s * (1.0 + device.jitter * (2.0 * random - 1.0));
            if device.hiccup > 0 && (noise >> 13).is_multiple_of(device.hiccup) {
                service *= 20.0;
            }
            let free = servers.iter_mut().min_by(|a, b| a.total_cmp(b)).unwrap();
            let end = free.max(now) + service;
            *free = end;
            running.push((end + device.overhead_s, now));
        }
        if device.standstill > 0 && turn % device.standstill == 0 {
            servers.iter_mut().for_each(|free| *free += 0.05);
            running.iter_mut().for_each(|(end, _)| *end += 0.05);
        }
        let first = (0..running.len())
            .min_by(|a, b| running[*a].0.total_cmp(&running[*b].0))
            .unwrap();
        let in_flight = running.len();
        let (end, begun) = running.swap_remove(first);
        now = end;
        let waited = device.clients > in_flight;
        limiter.completed(Duration::from_secs_f64(end - begun), in_flight, waited);
        if turn == operations / 2 {
            half = now;
        }
        if turn > operations / 2 {
            found.push(limiter.settled());
            latencies.push(end - begun);
        }
    }
    found.sort_unstable();
    latencies.sort_unstable_by(f64::total_cmp);
    Seen {
        found: found[found.len() / 2],
        per_second: float(latencies.len()) / (now - half),
        p99_s: latencies[latencies.len() * 99 / 100],
    }
}

/// Finds the width of the device, gives at least 95 % of what it can do, and keeps its latency.
#[track_caller]
fn assert_found(start: usize, device: Device, operations: usize) {
    let mut limiter = Limiter::new(start, 64);
    let seen = simulate(&mut limiter, device, operations);
    let width = device.width;
    let what = format!(
        "from {start}, a device of {width} x {} s: {seen:?}",
        device.service_s
    );
    // A number that gives 98 % of the speed is as good.
    let least = width - width / 48;
    let most = width + (width / 8).max(1);
    assert!((least..=most).contains(&seen.found), "{what}");
    assert!(seen.per_second >= 0.95 * device.capacity(), "{what}");
    let ideal = device.service_s * (1.0 + device.jitter) + device.overhead_s;
    assert!(seen.p99_s <= 2.0 * ideal, "{what}");
}

#[test]
fn the_width_of_any_device_is_found_from_both_sides() {
    for start in [4, 64] {
        for width in [2, 8, 16, 48] {
            for millis in [1.0, 5.0, 20.0] {
                assert_found(start, Device::new(width, millis / 1e3), 30_000);
            }
        }
    }
}

/// Times that vary by half to either side, and time that the pool itself takes.
#[test]
fn it_is_found_in_noise() {
    for start in [4, 64] {
        for width in [2, 8, 16, 48] {
            let device = Device {
                jitter: 0.5,
                overhead_s: 0.000_1,
                ..Device::new(width, 0.005)
            };
            let seen = simulate(&mut Limiter::new(start, 64), device, 60_000);
            let what = format!("from {start}, a device of {width}: {seen:?}");
            assert!(
                (width..=width + width / 4 + 1).contains(&seen.found),
                "{what}"
            );
            assert!(seen.per_second >= 0.95 * device.capacity(), "{what}");
        }
    }
}

/// A device that is away: between two operations a place stands still, so one more than the device is wide fills
/// the gaps, and is one too many all the same.
#[test]
fn a_place_that_only_fills_gaps_is_not_wanted() {
    for start in [4, 64] {
        for (width, gap_s) in [(16, 0.000_12), (16, 0.000_2), (8, 0.000_2)] {
            let device = Device {
                overhead_s: gap_s,
                jitter: 0.02,
                ..Device::new(width, 0.005)
            };
            let seen = simulate(&mut Limiter::new(start, 64), device, 60_000);
            let what = format!("from {start}, a device of {width}, {gap_s} s away: {seen:?}");
            assert_eq!(seen.found, width, "{what}");
            assert!(seen.per_second >= 0.95 * device.capacity(), "{what}");
        }
    }
}

/// A machine that stands still now and then spoils some rounds, and no search.
#[test]
fn standstills_do_not_decide() {
    for start in [4, 64] {
        let device = Device {
            standstill: 1_700,
            overhead_s: 0.000_1,
            ..Device::new(16, 0.005)
        };
        let seen = simulate(&mut Limiter::new(start, 64), device, 60_000);
        assert!((16..=18).contains(&seen.found), "from {start}: {seen:?}");
    }
}

/// One operation in 500 takes twenty times as long: throughput is kept, and the number is not far off.
#[test]
fn hiccups_do_not_decide() {
    for start in [4, 64] {
        let device = Device {
            hiccup: 500,
            ..Device::new(16, 0.005)
        };
        let mut limiter = Limiter::new(start, 64);
        let seen = simulate(&mut limiter, device, 60_000);
        assert!((15..=24).contains(&seen.found), "from {start}: {seen:?}");
        assert!(
            seen.per_second >= 0.93 * device.capacity(),
            "from {start}: {seen:?}"
        );
    }
}

/// As many clients as sessions: nobody ever waits for a place, and they wait for each other in the device.
#[test]
fn clients_without_a_queue_are_seen_too() {
    for start in [4, 64] {
        let device = Device {
            clients: 64,
            ..Device::new(16, 0.005)
        };
        assert_found(start, device, 40_000);
    }
}

/// A processor shared by all: one at a time is as fast as many.
#[test]
fn a_device_that_does_one_at_a_time_gets_one() {
    for start in [1, 4, 64] {
        let seen = simulate(
            &mut Limiter::new(start, 64),
            Device::new(1, 0.000_5),
            40_000,
        );
        assert!(seen.found <= 2, "from {start}: {seen:?}");
    }
}

/// How long it takes from the worst start: seconds of a device that answers 3,200 times a second.
#[test]
fn it_is_found_soon() {
    for start in [4, 64] {
        let mut limiter = Limiter::new(start, 64);
        let seen = simulate(&mut limiter, Device::new(16, 0.005), 12_000);
        assert!((16..=18).contains(&seen.found), "from {start}: {seen:?}");
    }
}

#[test]
fn it_follows_a_device_that_changes() {
    let mut limiter = Limiter::new(16, 64);
    for (width, operations) in [(16, 20_000), (4, 20_000), (32, 120_000), (16, 40_000)] {
        let seen = simulate(&mut limiter, Device::new(width, 0.005), operations);
        assert!(
            seen.found >= width && seen.found <= width + width / 4,
            "now {width}: {seen:?}"
        );
    }
}

/// A line before the device that takes its own time: the more at once the faster, ever more slowly so. What is
/// given up for a shorter wait is the little that was meant to be.
#[test]
fn without_a_clear_limit_little_speed_is_given_up() {
    let latency = |in_flight: usize| 0.004 + 0.000_5 * float(in_flight);
    let rate = |in_flight: usize| float(in_flight) / latency(in_flight);
    for start in [4, 64] {
        let mut limiter = Limiter::new(start, 64);
        for _ in 0..200_000 {
            let in_flight = limiter.limit();
            limiter.completed(Duration::from_secs_f64(latency(in_flight)), in_flight, true);
        }
        let part = rate(limiter.settled()) / rate(64);
        assert!(part > 0.90, "from {start}: {} {part}", limiter.settled());
    }
}

#[test]
fn where_the_limit_does_not_bind_nothing_is_concluded() {
    let mut limiter = Limiter::new(16, 64);
    for _ in 0..10_000 {
        limiter.completed(Duration::from_millis(5), 3, false);
    }
    assert_eq!(limiter.settled(), 16);
}

#[test]
fn a_busy_device_gets_less_at_once_and_the_cap_is_kept() {
    let mut limiter = Limiter::new(16, 16);
    limiter.rest(FIRST_REST);
    limiter.shrink();
    assert_eq!((limiter.limit(), limiter.settled()), (12, 12));
    limiter.set_cap(5);
    assert_eq!(limiter.limit(), 5);
    limiter.shrink();
    assert_eq!(limiter.limit(), 5, "told twice at once");
    for _ in 0..10 {
        limiter.completed(Duration::from_millis(5), 5, true);
        limiter.shrink();
    }
    assert_eq!(limiter.limit(), 1);
    limiter.set_cap(0);
    assert_eq!(limiter.limit(), 1);
}

/// While it searches, it never asks for more than there are sessions, nor for nothing.
#[test]
fn the_cap_is_kept_whatever_is_tried() {
    let mut limiter = Limiter::new(64, 64);
    for turn in 0_u64..200_000 {
        if turn.is_multiple_of(5_000) {
            limiter.set_cap(1 + usize::try_from(turn / 5_000).unwrap());
        }
        if turn.is_multiple_of(7_001) {
            limiter.shrink();
        }
        let in_flight = limiter.limit();
        assert!(in_flight >= 1 && in_flight <= limiter.cap, "{limiter:?}");
        let millis = 5 + turn.wrapping_mul(turn) % 7;
        limiter.completed(Duration::from_millis(millis), in_flight, true);
    }
}
