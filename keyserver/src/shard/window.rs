//! How many requests of one connection may be under way.
//!
//! The class queues bound what waits for the crypto threads. Brief operations wait elsewhere: on a CPU that both share, an
//! I/O thread takes longer to read and answer a request than the crypto thread to sign it, and of some thousand that are
//! under way each waits until all have been read and signed and until those before it are written. How long that is depends on
//! the machine. So it is measured, and a window follows it, the same for all connections: it shrinks when an answer took
//! almost as long as is promised, and grows while all are early. What is beyond it is left unread, as what is
//! beyond the cap of a connection.
//!
//! With less than [`limits::WINDOW_JOBS`] under way it does not shrink: then something else is slow, and fewer requests would
//! only take work from the crypto threads.

use std::cell::Cell;
use std::time::{Duration, Instant};

use accel::Class;

use crate::limits;

/// The window of an I/O thread's connections.
#[derive(Debug)]
pub(crate) struct Window {
    most: usize,
    size: Cell<usize>,
    /// When it is next adapted.
    due: Cell<Instant>,
    /// The longest that an answer took since it was last adapted.
    slowest: Cell<Duration>,
}

impl Window {
    /// A window of `most` requests, which is also as large as it gets.
    pub(crate) fn new(most: usize, now: Instant) -> Self {
        Self {
            most,
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
        // Twice the target is promised to what is admitted.
        let limit = limits::BRIEF_TARGET.mul_f32(1.8);
        if slowest > limit && under_way > limits::WINDOW_JOBS {
            // In proportion to the time, but by half at most: a machine may have stood still.
            let in_time = size as u128 * limit.as_nanos() / slowest.as_nanos();
            let in_time = usize::try_from(in_time).unwrap_or(size);
            self.size.set(in_time.max(size / 2).max(1));
        } else if slowest < limits::BRIEF_TARGET.mul_f32(1.4) {
            self.size.set((size + size / 8 + 1).min(self.most));
        }
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

    #[test]
    fn floods_wait_no_longer_than_promised_or_than_what_may_be_under_way_takes() {
        let promise = 2 * limits::BRIEF_TARGET;
        for connections in [16, 64, 256] {
            for each in [2, 4, 7, 12].map(Duration::from_micros) {
                let window = Window::new(256, clock::now());
                let waits = run(&window, connections, each);
                let (longest, size) = waits[9];
                let taken = |jobs: usize| each * u32::try_from(jobs).unwrap();
                let bound = promise.max(taken(limits::WINDOW_JOBS));
                assert!(
                    longest <= bound.as_millis(),
                    "{connections} x {each:?}: {waits:?}"
                );
                // Not less than needed: a window of all they ask for, or work for most of that time.
                let under_way = connections * size.min(64);
                assert!(
                    size >= 64 || taken(under_way) > bound / 2,
                    "{connections} x {each:?}: {waits:?}"
                );
            }
        }
    }

    #[test]
    fn what_is_slow_for_another_reason_does_not_shrink_it() {
        let (now, step) = (clock::now(), limits::WINDOW_INTERVAL);
        let window = Window::new(256, now);
        let slow = Duration::from_millis(50);
        window.answered(Class::P256, slow, limits::WINDOW_JOBS, now + step);
        window.answered(Class::Rsa2048, slow, 4000, now + step * 2);
        assert_eq!(window.size(), 256);
        window.answered(Class::P256, slow, 4000, now + step * 3);
        assert_eq!(window.size(), 128);
        // Whatever comes after a flood: it is not kept small for those who had no part in it.
        for later in 4..10 {
            window.answered(Class::Rsa2048, slow, 4000, now + step * later);
        }
        assert_eq!(window.size(), 256);
    }
}
