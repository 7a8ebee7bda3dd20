//! The dispatcher on machines that we do not have: its own code, under a clock that jumps.
//!
//! Each scenario runs with the server's queues and with plainer ones, and asserts both that ours
//! keep the contract and that the plainer ones do not: a scenario in which everybody passes would
//! show nothing. Costs are those measured on one core of a Zen 5 server, with lanes and without.
//!
//! `docs/performance.md` has the contract; `keyserver::dispatch::scheduler` is what is tested.

mod fairness;
mod load;
mod machine;
mod mixed;
mod overload;
mod plain;
mod record;

use std::time::Duration;

use accel::{Class, Cost};
use keyserver::dispatch::scheduler::{Bounds, Scheduler, Times};
use keyserver::limits;

use crate::load::Source;
use crate::machine::{Job, Machine, Queue};
use crate::plain::Plain;
use crate::record::Record;

pub(crate) const US: Duration = Duration::from_micros(1);
pub(crate) const MS: Duration = Duration::from_millis(1);

/// One core of a Zen 5 server, with AVX-512 IFMA.
pub(crate) fn with_lanes() -> Times {
    times(true)
}

/// The same without: every operation by itself, and none can be interrupted.
pub(crate) fn without_lanes() -> Times {
    times(false)
}

fn times(lanes: bool) -> Times {
    let cost = |single: u32, batch: Option<u32>| Cost {
        single: US * single,
        batch: batch.filter(|_| lanes).map(|time| [US * time; 8]),
    };
    Times::new(Class::ALL.map(|class| match class {
        Class::P256 => cost(12, Some(12)),
        Class::P384 => cost(63, Some(28)),
        Class::P521 => cost(110, None),
        Class::Ed25519 => cost(12, None),
        Class::MlDsa => cost(120, None),
        Class::Rsa2048 => cost(222, Some(526)),
        Class::Rsa3072 => cost(641, Some(1641)),
        Class::Rsa4096 => cost(1393, Some(3796)),
        Class::RsaOther => cost(9000, None),
    }))
}

/// Shows a figure to those who run the tests with `--no-capture`.
#[expect(clippy::print_stderr, reason = "that is what it is for")]
pub(crate) fn show(text: std::fmt::Arguments<'_>) {
    eprintln!("{text}");
}

/// The bounds of a server with its default configuration.
pub(crate) fn bounds(threads: usize) -> Bounds {
    Bounds {
        threads,
        queue_time: limits::QUEUE_TIME,
        jobs_min: limits::IN_FLIGHT_PER_CONNECTION,
        jobs_max: 4 * limits::JOBS_PER_SHARD,
    }
}

/// A class by the part of all threads that its requests would take.
pub(crate) fn by_work(
    times: &Times,
    threads: usize,
    client: u64,
    class: Class,
    part: f64,
) -> Source {
    let rate = part * threads as f64 / times.job(class).as_secs_f64();
    Source::new(client, class, load::Pace::Open(rate))
}

/// With the queues of the server.
pub(crate) fn ours(
    times: &Times,
    threads: usize,
    sources: &[Source],
    measured: Duration,
) -> Record {
    let queue: Scheduler<Job> = Scheduler::new(times.clone(), bounds(threads));
    run(times, threads, queue, sources, measured)
}

/// First come, first served, with a bound of 1,024 jobs.
pub(crate) fn first_come(
    times: &Times,
    threads: usize,
    sources: &[Source],
    measured: Duration,
) -> Record {
    run(
        times,
        threads,
        Plain::first_come(times, 1024),
        sources,
        measured,
    )
}

/// The cheapest class first, always, with the same bound.
pub(crate) fn by_class(
    times: &Times,
    threads: usize,
    sources: &[Source],
    measured: Duration,
) -> Record {
    run(
        times,
        threads,
        Plain::by_class(times, 1024),
        sources,
        measured,
    )
}

/// The first third of every run, and at least 50 ms, is not looked at: queues fill in it.
pub(crate) fn run(
    times: &Times,
    threads: usize,
    queue: impl Queue,
    sources: &[Source],
    measured: Duration,
) -> Record {
    let warmup = (measured / 2).max(MS * 50);
    Machine::new(times, threads, queue, sources).run(warmup, measured)
}
