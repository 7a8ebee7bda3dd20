//! How many requests of one connection may be under way.
//!
//! The class queues bound what waits for the crypto threads. Brief operations wait elsewhere: on a CPU that both share, an
//! I/O thread takes longer to read and answer a request than the crypto thread to sign it, and of some thousand that are
//! under way each waits until all have been read and signed and until those before it are written. How long that is depends on
//! the machine. So it is measured, and a window follows it, the same for all connections: it shrinks when an answer took
//! most of the time that is promised, and grows while all are early. What is beyond it is left unread, as what is
//! beyond the cap of a connection.
//!
//! Down to [`limits::WINDOW_LEAST`] for each connection that costs nothing, because replies still leave together. With less they
//! leave alone. So it shrinks further only where the promise is about to be
//! broken, and only while there is more under way than such a machine needs.
//!
//! With no more under way than one connection may have by default it does not shrink: then something else is slow.

use std::cell::Cell;
use std::time::{Duration, Instant};

use accel::Class;

use crate::limits;

/// The window of an I/O thread's connections.
#[derive(Debug)]
pub(crate) struct Window {
    most: usize,
    /// Jobs under way that are not too many, however long they take.
    jobs: usize,
    size: Cell<usize>,
    /// When it is next adapted.
    due: Cell<Instant>,
    /// The longest that an answer took since it was last adapted.
    slowest: Cell<Duration>,
}

impl Window {
    /// A window of `most` requests, which is also as large as it gets, where a crypto thread takes so long for `each` of the
    /// briefest.
    pub(crate) fn new(most: usize, each: Duration, now: Instant) -> Self {
        // To read and answer it takes about as long again.
        let in_time = limits::WINDOW_PROMISE.as_nanos() / (each.as_nanos() * 2).max(1);
        let in_time = usize::try_from(in_time).unwrap_or(usize::MAX);
        Self {
            most,
            jobs: in_time.clamp(limits::IN_FLIGHT_PER_CONNECTION, limits::WINDOW_JOBS),
            size: Cell::new(most),
            due: Cell::new(now + limits::WINDOW_INTERVAL),
            slowest: Cell::new(Duration::ZERO),
        }
    }

    /// Requests that one connection may have under way.
    pub(crate) fn size(&self) -> usize {
        self.size.get()
    }

    /// An answer is there after so long, with so many jobs under way on this thread.
    pub(crate) fn answered(&self, class: Class, took: Duration, under_way: usize, now: Instant) {
        // Others wait in the queue of their class. An interval with none but those gives the window back.
        if limits::target(class) <= limits::BRIEF_TARGET {
            self.slowest.set(self.slowest.get().max(took));
        }
        if now < self.due.get() {
            return;
        }
        let (size, slowest) = (self.size.get(), self.slowest.take());
        self.due.set(now + limits::WINDOW_INTERVAL);
        let (limit, least) = if slowest > limits::WINDOW_PROMISE && under_way > self.jobs {
            (limits::WINDOW_PROMISE, 1)
        } else if slowest > limits::WINDOW_TIME && under_way > limits::IN_FLIGHT_PER_CONNECTION {
            (limits::WINDOW_TIME, limits::WINDOW_LEAST)
        } else {
            if slowest < limits::WINDOW_TIME * 2 / 3 {
                self.size.set((size + size / 8 + 1).min(self.most));
            }
            return;
        };
        // In proportion to the time, but by half at most: a machine may have stood still.
        let in_time = size as u128 * limit.as_nanos() / slowest.as_nanos();
        let in_time = usize::try_from(in_time).unwrap_or(size);
        self.size.set(in_time.max(size / 2).max(least).min(size));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    /// A thread that spends so long on each request, and connections that always have as many more as they may. The longest
    /// wait in each tenth of the time, in milliseconds, and the window at its end.
    fn run(window: &Window, connections: usize, each: Duration) -> Vec<(u128, usize)> {
        let mut now = clock::now();
        let mut waits = Vec::new();
        for _ in 0..10 {
            let (end, mut longest) = (now + Duration::from_millis(200), Duration::ZERO);
            while now < end {
                let under_way = connections * window.size().min(64);
                let took = each * u32::try_from(under_way).unwrap();
                longest = longest.max(took);
                now += took;
                for left in (0..under_way).rev() {
                    window.answered(Class::P256, took, left, now);
                    // Answers leave together; the first of them finds all others under way.
                    if left + 1 == under_way {
                        window.answered(Class::P256, took, under_way, now);
                    }
                }
            }
            waits.push((longest.as_millis(), window.size()));
        }
        waits
    }

    /// Floods of a few connections are kept to [`limits::WINDOW_TIME`], those of many to what is promised, if as little as a
    /// machine needs can be done in that time.
    #[test]
    fn floods_wait_no_longer_than_promised_and_keep_the_threads_busy() {
        for connections in [16_usize, 64, 256] {
            for each in [2, 4, 7, 12, 24].map(Duration::from_micros) {
                let window = Window::new(256, each / 2, clock::now());
                let waits = run(&window, connections, each);
                let (longest, size) = waits[9];
                let case = format!("{connections} x {each:?}: {waits:?}");
                let taken = |jobs: usize| each * u32::try_from(jobs).unwrap();
                let little = taken(connections * limits::WINDOW_LEAST).max(limits::WINDOW_TIME);
                let bound = little.min(limits::WINDOW_PROMISE.max(taken(window.jobs)));
                // It grows until it is too large, by an eighth.
                assert!(longest <= (bound + bound / 7).as_millis(), "{case}");
                let under_way = taken(connections * size.min(64));
                assert!(size >= 64 || under_way > limits::WINDOW_TIME / 2, "{case}");
            }
        }
    }

    #[test]
    fn a_slow_machine_needs_less_under_way_and_never_less_than_one_connection_may_have() {
        let jobs = |each| Window::new(256, Duration::from_micros(each), clock::now()).jobs;
        assert_eq!([0, 2, 17, 160].map(jobs), [1280, 1280, 264, 256]);
    }

    #[test]
    fn what_is_slow_for_another_reason_does_not_shrink_it() {
        let (now, step) = (clock::now(), limits::WINDOW_INTERVAL);
        let window = Window::new(256, Duration::ZERO, now);
        let slow = Duration::from_millis(50);
        window.answered(Class::P256, slow, 256, now + step);
        window.answered(Class::Rsa2048, slow, 4000, now + step * 2);
        assert_eq!(window.size(), 256);
        window.answered(Class::P256, slow, 4000, now + step * 3);
        assert_eq!(window.size(), 128);
        // Whatever comes after a flood: it is not kept small for those who had no part in it.
        for later in 4..10 {
            window.answered(Class::Rsa2048, slow, 4000, now + step * later);
        }
        assert_eq!(window.size(), 256);
        // Replies of a few connections go on leaving together, however slow they are.
        for later in 10..30 {
            window.answered(Class::P256, slow, 1000, now + step * later);
        }
        assert_eq!(window.size(), limits::WINDOW_LEAST);
        window.answered(Class::P256, slow, 4000, now + step * 30);
        assert_eq!(window.size(), limits::WINDOW_LEAST / 2);
    }
}
