//! When a slot is no longer asked, and when it is asked again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use aws_lc_rs::rand;

/// So many failures within [`WINDOW`] open the breaker.
const FAILURES: usize = 5;
const WINDOW: Duration = Duration::from_secs(10);
/// Seconds from opening to the first probe, from there to the second, and so on; the last repeats.
const DELAYS_S: [u32; 6] = [1, 2, 5, 10, 60, 300];

/// Counts the failures of a slot.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: VecDeque<Instant>,
    open: Option<Open>,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    since: Instant,
    until: Instant,
    attempt: usize,
}

impl Breaker {
    /// The slot failed. True when this opens the breaker.
    pub(super) fn failed(&mut self, now: Instant) -> bool {
        self.failures.push_back(now);
        while self
            .failures
            .front()
            .is_some_and(|first| now.duration_since(*first) > WINDOW)
        {
            self.failures.pop_front();
        }
        if self.open.is_none() && self.failures.len() >= FAILURES {
            self.open(now);
            return true;
        }
        false
    }

    /// Opens without counting: the slot could not even be opened. Each further call, as after a probe
    /// that failed, waits longer.
    pub(super) fn open(&mut self, now: Instant) {
        let attempt = self.open.map_or(0, |open| open.attempt + 1);
        let seconds = DELAYS_S.get(attempt).or(DELAYS_S.last()).copied();
        let delay = Duration::from_secs(seconds.map_or(1, u64::from));
        self.open = Some(Open {
            since: self.open.map_or(now, |open| open.since),
            until: now + jittered(delay),
            attempt,
        });
        self.failures.clear();
    }

    /// The slot is ready again. What made it open is forgotten. While it was closed it only logged in again, and that
    /// may heal nothing: failures go on being counted.
    pub(super) fn close(&mut self) {
        if self.open.is_some() {
            *self = Self::default();
        }
    }

    /// When the next probe is due; `None` while closed.
    pub(super) fn until(&self) -> Option<Instant> {
        self.open.map(|open| open.until)
    }

    /// When it opened, if it is open.
    pub(super) fn open_since(&self) -> Option<Instant> {
        self.open.map(|open| open.since)
    }
}

/// Within a fifth of `pause`, so that many servers do not ask a device that comes back all at once.
pub(super) fn jittered(pause: Duration) -> Duration {
    let mut byte = [128];
    // Without randomness the middle is as good.
    let _ = rand::fill(&mut byte);
    pause.mul_f64(0.8 + 0.4 * f64::from(byte[0]) / 255.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_failures_within_ten_seconds_open_it() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut breaker = Breaker::default();
        assert!((0..20).all(|turn| !breaker.failed(after(turn * 3))));
        let mut breaker = Breaker::default();
        let opened: Vec<_> = (0..6).map(|turn| breaker.failed(after(turn))).collect();
        assert_eq!(opened, [false, false, false, false, true, false]);
        breaker.close();
        assert_eq!(breaker.until(), None);
        let opened: Vec<_> = (7..12)
            .map(|turn| {
                // As after each login.
                breaker.close();
                breaker.failed(after(turn))
            })
            .collect();
        assert_eq!(opened, [false, false, false, false, true]);
    }

    #[test]
    fn each_probe_that_fails_waits_longer() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        let mut pauses = Vec::new();
        for _ in 0..7 {
            breaker.open(now);
            pauses.push(breaker.until().unwrap().duration_since(now).as_secs_f64());
        }
        for (pause, expected) in pauses.iter().zip([1.0, 2.0, 5.0, 10.0, 60.0, 300.0, 300.0]) {
            assert!(
                *pause >= 0.79 * expected && *pause <= 1.21 * expected,
                "{pauses:?}"
            );
        }
        assert_eq!(breaker.open_since(), Some(now));
    }
}
