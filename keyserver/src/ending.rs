//! Ends of what was given away, which no step of the clock brings forward.
//!
//! When something ends is a time of day, and the clock of a machine may be ahead for a moment: set by hand, or by a time
//! server that errs or lies. What is forgotten in that moment would not be remembered when the clock is right again. So a
//! thing has ended only when its end has passed and so much time has gone by, since this process learnt of it, as it had to
//! last then.
//!
//! The cost is on the safe side. After a step that was right, or a time in which the machine slept, a thing is remembered for
//! at most as long as it had to last when it was learnt of.

use std::sync::LazyLock;
use std::time::{Duration, Instant, UNIX_EPOCH};

use crate::clock;

/// When this process first asked.
static BEGUN: LazyLock<Instant> = LazyLock::new(clock::now);

/// What both clocks say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// The time of day, in seconds since 1970. It may be set.
    pub wall: u64,
    /// Seconds that have gone by for this process. They only grow.
    pub steady: u64,
}

impl Now {
    /// Asks them.
    #[must_use]
    pub fn read() -> Self {
        let steady = clock::now().saturating_duration_since(*BEGUN).as_secs();
        let wall = (clock::wall().duration_since(UNIX_EPOCH)).map_or(0, |since| since.as_secs());
        Self { wall, steady }
    }

    /// Both clocks run together, as they mostly do.
    #[cfg(test)]
    pub(crate) const fn of(seconds: u64) -> Self {
        Self {
            wall: seconds,
            steady: seconds,
        }
    }
}

/// When something ends, by both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    /// The time of day, in seconds since 1970.
    pub(crate) wall: u64,
    steady: u64,
}

impl End {
    /// In the past of every clock.
    pub(crate) const PASSED: Self = Self { wall: 0, steady: 0 };

    /// In the future of every clock.
    pub(crate) const NEVER: Self = Self {
        wall: u64::MAX,
        steady: u64::MAX,
    };

    /// The end at this time of day, of something that is learnt of now.
    pub(crate) const fn at(wall: u64, now: Now) -> Self {
        let left = wall.saturating_sub(now.wall);
        let steady = now.steady.saturating_add(left);
        Self { wall, steady }
    }

    /// The same of something that never had to last longer than `longest`, whatever the clock says now.
    pub(crate) fn within(wall: u64, longest: Duration, now: Now) -> Self {
        let latest = now.steady.saturating_add(longest.as_secs());
        let end = Self::at(wall, now);
        Self {
            steady: end.steady.min(latest),
            ..end
        }
    }

    pub(crate) const fn has_passed(self, now: Now) -> bool {
        self.wall <= now.wall && self.steady <= now.steady
    }

    /// The time of day at which it will have passed, if nobody sets the clock.
    pub(crate) fn seen_from(self, now: Now) -> u64 {
        let left = self.steady.saturating_sub(now.steady);
        self.wall.max(now.wall.saturating_add(left))
    }

    /// Earlier than each of both, by each clock.
    pub(crate) fn earlier(self, other: Self) -> Self {
        Self {
            wall: self.wall.min(other.wall),
            steady: self.steady.min(other.steady),
        }
    }

    /// Later than each of both, by each clock.
    pub(crate) fn later(self, other: Self) -> Self {
        Self {
            wall: self.wall.max(other.wall),
            steady: self.steady.max(other.steady),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_has_passed_when_both_clocks_say_so() {
        let end = End::at(110, Now::of(100));
        let now = |wall, steady| Now { wall, steady };
        assert!(end.has_passed(now(110, 110)));
        assert!(!end.has_passed(now(1_000_000, 109)));
        assert!(!end.has_passed(now(109, 1_000_000)));
        assert_eq!(end.seen_from(now(105, 105)), 110);
        assert_eq!(end.seen_from(now(1_000, 105)), 1_005);
        assert_eq!(end.seen_from(now(50, 105)), 110);
    }

    #[test]
    fn what_is_read_back_lasts_no_longer_than_it_could() {
        let now = Now {
            wall: 100,
            steady: 3,
        };
        let week = Duration::from_secs(70);
        for (wall, steady) in [(90, 3), (110, 13), (1_000_000, 73)] {
            assert_eq!(End::within(wall, week, now), End { wall, steady });
        }
    }
}
