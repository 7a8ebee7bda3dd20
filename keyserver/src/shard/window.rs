//! How many requests of one connection may be under way.
//!
//! The class queues bound what waits for the crypto threads. Brief operations wait elsewhere: on a CPU that both share, an
//! I/O thread takes longer to read and answer a request than the crypto thread to sign it, and of some thousand that are
//! under way each waits until all have been read and signed and until those before it are written. How long that is depends on
//! the machine. So it is measured, and a window follows it, the same for all connections: it shrinks by a quarter when an answer took
//! longer than its promise allows, and grows while all are early. What is beyond it is left unread, as what is
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
        let target = limits::target(class);
        if target > limits::BRIEF_TARGET {
            // The queue of its class is where it waits.
            return;
        }
        self.slowest.set(self.slowest.get().max(took));
        if now < self.due.get() {
            return;
        }
        let (size, slowest) = (self.size.get(), self.slowest.take());
        self.due.set(now + limits::WINDOW_INTERVAL);
        if slowest > target + target / 2 && under_way > limits::WINDOW_JOBS {
            self.size.set((size - size / 4).max(1));
        } else if slowest < target {
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
    fn floods_wait_no_longer_than_promised_on_slow_machines_and_all_is_taken_on_quick_ones() {
        for connections in [16, 64, 256] {
            for each in [4, 7, 12].map(Duration::from_micros) {
                let window = Window::new(256, clock::now());
                let waits = run(&window, connections, each);
                let (longest, size) = waits[9];
                assert!(longest < 10, "{connections} x {each:?}: {waits:?}");
                // It is not given up more than the promise asks for, nor below what keeps the threads busy.
                let full = each * u32::try_from(connections * size.min(64)).unwrap();
                let busy = connections * size.min(64) >= limits::WINDOW_JOBS / 2;
                assert!(full > Duration::from_millis(3) || busy, "{waits:?}");
            }
        }
        let window = Window::new(256, clock::now());
        let (_, size) = run(&window, 16, Duration::from_micros(2))[9];
        assert_eq!(size, 256);
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
        assert_eq!(window.size(), 192);
        for later in 4..8 {
            window.answered(Class::P256, Duration::ZERO, 4000, now + step * later);
        }
        assert_eq!(window.size(), 256);
    }
}
