//! Everything at once, at a load that the machine can carry.

use accel::Class;
use keyserver::limits::target;

use crate::load::Source;
use crate::{MS, US, by_class, by_work, first_come, ours, show, with_lanes, without_lanes};

/// 80 % of a machine: much RSA-2048, some RSA-4096, and P-256 that takes hardly any time.
fn four_fifths(times: &keyserver::dispatch::scheduler::Times, threads: usize) -> Vec<Source> {
    vec![
        by_work(times, threads, 1, Class::P256, 0.01),
        by_work(times, threads, 2, Class::Rsa2048, 0.59),
        by_work(times, threads, 3, Class::Rsa4096, 0.20),
    ]
}

#[test]
fn brief_work_does_not_wait_for_long_work() {
    let times = with_lanes();
    for (threads, measured) in [(1, 1000), (4, 500), (16, 200), (64, 100)] {
        let sources = four_fifths(&times, threads);
        let record = ours(&times, threads, &sources, MS * measured);
        let brief = record.p99(Class::P256);
        show(format_args!(
            "{threads} threads: P-256 {brief:?}, RSA-2048 {:?}, RSA-4096 {:?}, goodput {:.3}",
            record.p99(Class::Rsa2048),
            record.p99(Class::Rsa4096),
            record.goodput()
        ));
        // On one thread a lone RSA-4096 job, 1.4 ms, may be under way: nothing can be slipped into it.
        let most = if threads == 1 { MS } else { US * 300 };
        assert!(brief < most, "{threads} threads: {brief:?}");
        for class in [Class::Rsa2048, Class::Rsa4096] {
            let (p99, bound) = (record.p99(class), target(class));
            assert!(
                p99 < bound,
                "{threads} threads: {class:?} {p99:?}, target {bound:?}"
            );
        }
        assert_eq!((record.refusals(), record.expirations()), (0, 0));
        let plain = first_come(&times, threads, &sources, MS * measured);
        show(format_args!("   fifo: {:?}", plain.p99(Class::P256)));
        assert!(
            plain.p99(Class::P256) > 3 * brief,
            "{threads} threads: {:?}",
            plain.p99(Class::P256)
        );
    }
}

/// Without lanes nothing can be slipped in: one thread that stays free of long turns does it.
#[test]
fn a_thread_is_kept_free_where_nothing_can_be_slipped_in() {
    let times = without_lanes();
    for (threads, measured) in [(4, 500), (16, 200)] {
        let sources = [
            by_work(&times, threads, 1, Class::P256, 0.05),
            by_work(&times, threads, 3, Class::Rsa4096, 0.65),
        ];
        let record = ours(&times, threads, &sources, MS * measured);
        let plain = by_class(&times, threads, &sources, MS * measured);
        let (brief, without) = (record.p99(Class::P256), plain.p99(Class::P256));
        show(format_args!(
            "{threads} threads without lanes: {brief:?}, by class alone {without:?}, RSA-4096 {:?}",
            record.p99(Class::Rsa4096)
        ));
        assert!(brief < US * 300, "{threads} threads: {brief:?}");
        if threads == 4 {
            assert!(without > 3 * brief, "{threads} threads: {without:?}");
        }
    }
}

/// More RSA-2048 than the machine can do does not starve RSA-4096, and RSA-4096 does not take over.
#[test]
fn dear_work_ages_past_cheap_work() {
    let times = with_lanes();
    for (threads, measured) in [(1, 1500), (4, 500), (16, 200)] {
        let sources = [
            by_work(&times, threads, 1, Class::Rsa2048, 2.0),
            by_work(&times, threads, 2, Class::Rsa4096, 0.2),
        ];
        let record = ours(&times, threads, &sources, MS * measured);
        let (share, p99) = (
            record.share_of_class(Class::Rsa4096),
            record.p99(Class::Rsa4096),
        );
        show(format_args!(
            "{threads} threads: RSA-4096 has {share:.2}, p99 {p99:?}"
        ));
        assert!(
            share > 0.15,
            "{threads} threads: RSA-4096 has {share:.2} of 0.2"
        );
        let bound = 2 * target(Class::Rsa4096);
        assert!(
            p99 < bound,
            "{threads} threads: {p99:?}, twice the target {bound:?}"
        );
        let plain = by_class(&times, threads, &sources, MS * measured);
        assert!(
            plain.share_of_class(Class::Rsa4096) < 0.1,
            "it does not starve"
        );

        // The other way round: a flood of RSA-4096 beside some RSA-2048.
        let sources = [
            by_work(&times, threads, 1, Class::Rsa2048, 0.2),
            by_work(&times, threads, 2, Class::Rsa4096, 4.0),
        ];
        let record = ours(&times, threads, &sources, MS * measured);
        let p99 = record.p99(Class::Rsa2048);
        show(format_args!(
            "   flood of RSA-4096: RSA-2048 {p99:?} share {:.2}",
            record.share_of_class(Class::Rsa2048)
        ));
        assert!(p99 < MS * 12, "{threads} threads: {p99:?}");
        let plain = first_come(&times, threads, &sources, MS * measured);
        assert!(
            plain.p99(Class::Rsa2048) > 2 * p99,
            "{:?}",
            plain.p99(Class::Rsa2048)
        );
    }
}
