//! Clients beside each other.

use accel::Class;
use keyserver::dispatch::scheduler::{Bounds, Scheduler};
use keyserver::limits::target;

use crate::load::{Pace, Source};
use crate::machine::Job;
use crate::{MS, bounds, first_come, ours, run, show, with_lanes};

/// One client with 1,024 requests in flight, and ten light ones.
#[test]
fn a_greedy_client_does_not_slow_light_ones() {
    let times = with_lanes();
    for class in [Class::Rsa2048, Class::Rsa4096] {
        for threads in [1, 4, 16] {
            let mut sources = vec![Source::new(0, class, Pace::Closed(1024))];
            sources
                .extend((1..=10).map(|light| Source::new(light, Class::Rsa2048, Pace::Open(50.0))));
            let light = |source: usize, _| source > 0;
            let record = ours(&times, threads, &sources, MS * 600);
            let p99 = record.percentile(0.99, light);
            assert!(p99 < MS * 5, "{threads} threads beside {class:?}: {p99:?}");
            show(format_args!(
                "beside {class:?}, {threads} threads: {p99:?}, {:.3}",
                record.goodput()
            ));
            if threads <= 4 {
                let plain = first_come(&times, threads, &sources, MS * 600);
                let plain = plain.percentile(0.99, light);
                assert!(plain > 3 * p99, "{threads} threads: {plain:?}");
            }
        }
    }
}

/// All the work there is, shared by weight, whatever each asks for.
#[test]
fn work_is_shared_by_weight() {
    let times = with_lanes();
    for threads in [4, 16] {
        let weights = [(1_u32, 256), (2, 2048), (4, 512), (1, 4096)];
        let sources: Vec<Source> = (0..)
            .zip(weights)
            .map(|(client, (weight, in_flight))| Source {
                weight,
                ..Source::new(client, Class::Rsa2048, Pace::Closed(in_flight))
            })
            .collect();
        let record = ours(&times, threads, &sources, MS * 200);
        for (source, (weight, _)) in weights.into_iter().enumerate() {
            let (share, due) = (record.share(source), f64::from(weight) / 8.0);
            show(format_args!(
                "{threads} threads: source {source} has {share:.3} of {due:.3}"
            ));
            assert!(
                (share / due - 1.0).abs() < 0.1,
                "{threads} threads: client {source} has {share:.3}"
            );
        }
        let plain = first_come(&times, threads, &sources, MS * 200);
        assert!(
            plain.share(2) < 0.4,
            "first come, first served knows no weights"
        );
    }
}

/// A client that uses the whole in-flight allowance of a connection, or 16 connections that use 16
/// each, is served on the smallest machine without a refusal.
#[test]
fn the_announced_allowance_is_never_refused() {
    let times = with_lanes();
    let sources = [Source::new(1, Class::Rsa2048, Pace::Closed(256))];
    let record = ours(&times, 1, &sources, MS * 500);
    assert_eq!((record.refusals(), record.expirations()), (0, 0));
    assert!(record.goodput() > 0.98, "{:.3}", record.goodput());
    assert!(record.p99(Class::Rsa2048) <= 2 * target(Class::Rsa2048));
    let short = Bounds {
        jobs_min: 8,
        ..bounds(1)
    };
    let queue: Scheduler<Job> = Scheduler::new(times.clone(), short);
    let record = run(&times, 1, queue, &sources, MS * 500);
    assert!(
        record.refusals() > 0,
        "the bound in time alone would refuse it"
    );
}
