//! How much may be asked twice.

use std::time::{Duration, Instant};

/// Of this many calls one may be repeated.
const CALLS_PER_RETRY: f64 = 10.0;
/// Retries allowed each second whatever the load, so that a quiet client may retry too.
const LEAST_PER_SECOND: f64 = 10.0;
/// The most that can be saved up: what is in flight to a few servers when one of them dies.
const SAVED_MAX: f64 = 1024.0;
/// What a new client starts with.
const SAVED_FIRST: f64 = 256.0;

/// Retries and hedges spend what calls earn: 10 % of them. Without such a bound, a fleet that is
/// overloaded is asked everything twice, and falls over.
#[derive(Clone, Debug)]
pub(crate) struct RetryBudget {
    saved: f64,
    updated: Instant,
}

impl RetryBudget {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            saved: SAVED_FIRST,
            updated: now,
        }
    }

    /// A call begins.
    pub(crate) fn earn(&mut self) {
        self.saved = (self.saved + 1.0 / CALLS_PER_RETRY).min(SAVED_MAX);
    }

    /// Whether one more request may be sent than calls were made.
    pub(crate) fn spend(&mut self, now: Instant) -> bool {
        let elapsed: Duration = now.saturating_duration_since(self.updated);
        self.updated = now;
        self.saved = (self.saved + elapsed.as_secs_f64() * LEAST_PER_SECOND).min(SAVED_MAX);
        if self.saved < 1.0 {
            return false;
        }
        self.saved -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_and_no_more() {
        let now = Instant::now();
        let mut budget = RetryBudget::new(now);
        while budget.spend(now) {}
        let mut spent = 0;
        for _ in 0..10_000 {
            budget.earn();
            spent += u32::from(budget.spend(now));
        }
        assert!((995..=1_001).contains(&spent), "{spent}");
        // Time earns a little, and never more than the bound.
        let later = now + Duration::from_secs(3600);
        let saved = (0..10_000).take_while(|_| budget.spend(later)).count();
        assert_eq!(saved, 1024);
    }
}
