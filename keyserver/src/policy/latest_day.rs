//! The latest day that was ever seen. Rights that end on a day are judged by it, so that a clock that is set back, or a
//! machine that starts with an old one, gives back nothing that has ended.

use std::sync::atomic::{AtomicU64, Ordering};

/// The latest of all days that it was shown, in days since 1970. Only grows.
#[derive(Debug, Default)]
pub struct LatestDay(AtomicU64);

impl LatestDay {
    /// One that was seen before.
    #[must_use]
    pub const fn from(day: u64) -> Self {
        Self(AtomicU64::new(day))
    }

    /// Shows it a day, and returns the latest. A number that only grows guards nothing else, hence relaxed.
    pub fn see(&self, day: u64) -> u64 {
        let latest = self.get();
        if day <= latest {
            // Nearly always: nobody else has to fetch the line again.
            return latest;
        }
        self.0.fetch_max(day, Ordering::Relaxed).max(day)
    }

    /// The latest so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
