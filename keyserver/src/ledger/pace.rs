//! How often the ledger writes.
//!
//! A sync costs some 50 us of CPU time whatever it covers, so where many ciphertexts are opened it is made for
//! many of them: at 10,000 a second one write in [`PACE`] is 1 us of each. Where few are, each is written at once.

use std::time::{Duration, Instant};

/// Of the ciphertexts of such a time the first [`AT_ONCE`] are written as they come, all others at its end.
const PACE: Duration = Duration::from_millis(4);

/// One client that asks for one ciphertext after the other stays below it where a sync takes half a millisecond.
const AT_ONCE: usize = 8;

/// What was written in the time that goes on.
#[derive(Debug)]
pub(super) struct Pace {
    began: Instant,
    jobs: usize,
}

impl Pace {
    /// Nothing was written.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            began: now,
            jobs: 0,
        }
    }

    /// How long to wait after a write for so many jobs that began at `began` and ended now.
    pub(super) fn after(&mut self, jobs: usize, began: Instant, now: Instant) -> Duration {
        if began.saturating_duration_since(self.began) >= PACE {
            *self = Self::new(began);
        }
        self.jobs += jobs;
        if self.jobs < AT_ONCE {
            Duration::ZERO
        } else {
            (self.began + PACE).saturating_duration_since(now)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const SYNC: Duration = Duration::from_micros(500);

    /// Writes in a second, if jobs come so often and each write takes half a millisecond.
    fn writes(every: Duration) -> u128 {
        let start = clock::now();
        let mut pace = Pace::new(start);
        let (mut now, mut done, mut writes) = (start, 0_u128, 0);
        while now < start + Duration::from_secs(1) {
            let came = (now - start).as_micros() / every.as_micros();
            if came == done {
                now += every;
                continue;
            }
            let began = now;
            now += SYNC;
            let jobs = usize::try_from(came - done).unwrap();
            now += pace.after(jobs, began, now);
            writes += 1;
            done = came;
        }
        writes
    }

    #[test]
    fn few_are_written_as_they_come_and_many_together() {
        // 1,000 a second: one write each.
        assert!(writes(Duration::from_millis(1)) > 900);
        // 10,000 a second: one write in each pace.
        assert!((240..=260).contains(&writes(Duration::from_micros(100))));
    }

    #[test]
    fn what_is_written_slowly_waits_no_longer() {
        let start = clock::now();
        let mut pace = Pace::new(start);
        assert_eq!(pace.after(100, start, start + 2 * PACE), Duration::ZERO);
    }
}
