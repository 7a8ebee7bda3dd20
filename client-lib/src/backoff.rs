//! How long to wait before the next attempt to connect.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Doubles from [`Backoff::FIRST`] to [`Backoff::LONGEST`], each time with a random share of up to
/// half taken off, so that many clients of one server that restarts do not come back in step.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    random: RandomState,
    drawn: u64,
}

impl Backoff {
    pub(crate) const FIRST: Duration = Duration::from_millis(50);
    pub(crate) const LONGEST: Duration = Duration::from_secs(5);

    pub(crate) fn new() -> Self {
        Self {
            next: Self::FIRST,
            random: RandomState::new(),
            drawn: 0,
        }
    }

    /// The wait before the next attempt.
    pub(crate) fn wait(&mut self) -> Duration {
        let whole = self.next;
        self.next = whole.saturating_mul(2).min(Self::LONGEST);
        self.drawn = self.drawn.wrapping_add(1);
        // The standard library's keyed hash is random enough to spread clients.
        let permille = self.random.hash_one(self.drawn) % 500;
        let off = u128::from(permille) * whole.as_micros() / 1000;
        whole.saturating_sub(Duration::from_micros(u64::try_from(off).unwrap_or(0)))
    }

    /// After a connection that worked.
    pub(crate) fn reset(&mut self) {
        self.next = Self::FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_are_spread() {
        let mut backoff = Backoff::new();
        let first = backoff.wait();
        assert!(first <= Backoff::FIRST && first >= Backoff::FIRST / 2);
        let waits: Vec<Duration> = (0..40).map(|_| backoff.wait()).collect();
        assert!(waits.iter().all(|wait| *wait <= Backoff::LONGEST));
        let late = &waits[20..];
        assert!(late.iter().all(|wait| *wait >= Backoff::LONGEST / 2));
        assert!(late.windows(2).any(|pair| pair[0] != pair[1]), "no jitter");
        backoff.reset();
        assert!(backoff.wait() <= Backoff::FIRST);
    }
}
