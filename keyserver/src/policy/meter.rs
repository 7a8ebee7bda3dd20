//! How often a grant may be used: a rate with a burst, and a number of times a day.
//!
//! Both count what was admitted, all keys of the grant together. The rate is a token bucket by the monotonic clock. The
//! day is that of the calendar, in UTC, and never goes back: who turns the clock back gets nothing more.
//!
//! What a day allows must not be had twice because the server was killed in between. So a [`Meter`] that is kept on disk
//! hands out only what has been written down as used *before*: some uses ahead, so that nobody waits for the disk.
//! After a crash those count as used. See [`crate::meters`].

use std::fmt;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::unmet::Unmet;
use crate::meters::Bell;

/// What a client is told when the disk has not caught up: about what a write takes.
const DISK: Duration = Duration::from_millis(10);

/// Uses that are written down ahead at least, where the day has so many.
const AHEAD_MIN: u64 = 4;

/// The part of a day's uses that is written down ahead: one 32nd.
const AHEAD_SHARE: u64 = 32;

/// The limits of one grant; the default sets none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// `rate`, with `burst`.
    pub rate: Option<Rate>,
    /// `daily`: uses in a day.
    pub daily: Option<u64>,
}

/// `count` uses in each `period`, and `burst` at once after a quiet time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// At least one.
    pub count: u32,
    /// A second, a minute or an hour.
    pub period: Duration,
    /// At least one.
    pub burst: u32,
}

/// Whether a decision counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// The key is going to be used.
    Use,
    /// It is not, but it is asked whether it could be now.
    Look,
    /// Limits are left out of account: it is asked about another time.
    Nothing,
}

/// How much of the limits of one grant is used. Outlives reloads.
#[derive(Debug, Default)]
pub struct Meter {
    spent: Mutex<Spent>,
    /// Rung when more should be written down. Without one, nothing is.
    bell: OnceLock<Bell>,
}

#[derive(Debug, Default)]
struct Spent {
    /// When what was used would be over had it come at the rate. May run ahead of the clock by the burst.
    paid_until: Option<Instant>,
    /// Days since 1970.
    day: u64,
    used: u64,
    /// Of `day`, written down.
    reserved: u64,
    /// Of the day after it, written down.
    reserved_next: u64,
    /// The day on which the alarm was raised.
    alarmed: Option<u64>,
}

/// What is written down about a meter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Reserved {
    /// Days since 1970.
    pub day: u64,
    /// Uses on that day, at most.
    pub upto: u64,
    /// Uses on the day after it, at most.
    pub next: u64,
}

impl Limits {
    /// Whether there are none.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.rate.is_none() && self.daily.is_none()
    }
}

impl Rate {
    /// The time between two uses at this rate.
    fn interval(self) -> Duration {
        self.period / self.count.max(1)
    }
}

impl fmt::Display for Rate {
    /// Without the burst, as it is written: `600/min`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.period.as_secs() {
            1 => "s",
            60 => "min",
            _ => "h",
        };
        write!(f, "{}/{unit}", self.count)
    }
}

impl Spent {
    /// Comes to `day`, unless it is there or beyond.
    fn turn(&mut self, day: u64) {
        if day > self.day {
            self.reserved = if day == self.day + 1 {
                self.reserved_next
            } else {
                0
            };
            (self.reserved_next, self.used, self.day) = (0, 0, day);
        }
    }
}

/// How many uses are written down ahead of what was used.
const fn ahead(ceiling: u64) -> u64 {
    let share = ceiling / AHEAD_SHARE;
    if share > AHEAD_MIN { share } else { AHEAD_MIN }
}

impl Meter {
    /// Takes one use, if the limits have it.
    ///
    /// # Errors
    ///
    /// [`Unmet::Rate`] or [`Unmet::Daily`]; nothing was taken then.
    pub fn take(&self, limits: &Limits, now: Instant, day: u64, count: Count) -> Result<(), Unmet> {
        if count == Count::Nothing {
            return Ok(());
        }
        let mut spent = self.lock();
        if let Some(ceiling) = limits.daily {
            spent.turn(day);
            if spent.used >= ceiling {
                return Err(Unmet::Daily);
            }
            if let Some(bell) = self.bell.get() {
                if spent.reserved < ceiling && spent.reserved <= spent.used + ahead(ceiling) {
                    bell.ring();
                }
                if spent.used >= spent.reserved {
                    return Err(Unmet::Rate { retry_after: DISK });
                }
            }
        }
        let paid_until = match limits.rate {
            Some(rate) => Some(pay(spent.paid_until, rate, now)?),
            None => spent.paid_until,
        };
        if count == Count::Use {
            spent.paid_until = paid_until;
            spent.used += u64::from(limits.daily.is_some());
        }
        Ok(())
    }

    /// Uses on `day` so far.
    #[must_use]
    pub fn used_on(&self, day: u64) -> u64 {
        let mut spent = self.lock();
        spent.turn(day);
        spent.used
    }

    /// Whether the day's uses are over and nobody was told yet. Says so once a day.
    pub fn alarm(&self, ceiling: u64, day: u64) -> bool {
        let mut spent = self.lock();
        spent.turn(day);
        let (is_over, day) = (spent.used >= ceiling, spent.day);
        is_over && spent.alarmed.replace(day) != Some(day)
    }

    /// Whether more should be written down before somebody has to wait for it.
    pub(crate) fn is_low(&self, ceiling: u64, day: u64) -> bool {
        let mut spent = self.lock();
        spent.turn(day);
        let few = spent.reserved <= spent.used + ahead(ceiling);
        (few && spent.reserved < ceiling) || spent.reserved_next == 0
    }

    /// Begins with what was written down, and from now on hands out only what is.
    pub(crate) fn keep(&self, before: Option<Reserved>, day: u64, bell: Bell) {
        if self.bell.set(bell).is_err() {
            return;
        }
        let mut spent = self.lock();
        if let Some(before) = before {
            spent.day = before.day;
            (spent.used, spent.reserved) = (before.upto, before.upto);
            spent.reserved_next = before.next;
            let used_next = before.next;
            if day > spent.day {
                spent.turn(day);
                // Whoever wrote ahead may have used it after midnight.
                spent.used = if day == before.day + 1 { used_next } else { 0 };
            }
        } else {
            spent.turn(day);
        }
    }

    /// What is to be written down next: so much ahead that it lasts until the next time.
    pub(crate) fn to_reserve(&self, ceiling: u64, day: u64) -> Reserved {
        let mut spent = self.lock();
        spent.turn(day);
        let ahead = 2 * ahead(ceiling);
        Reserved {
            day: spent.day,
            upto: (spent.used + ahead).min(ceiling).max(spent.reserved),
            next: ahead.min(ceiling),
        }
    }

    /// It was written down.
    pub(crate) fn reserved(&self, written: Reserved) {
        let mut spent = self.lock();
        if spent.day == written.day {
            (spent.reserved, spent.reserved_next) = (written.upto, written.next);
        } else if spent.day == written.day + 1 {
            spent.reserved = spent.reserved.max(written.next);
        }
    }

    /// What was used, to the number; nothing is handed out after that.
    pub(crate) fn close(&self, day: u64) -> Reserved {
        let mut spent = self.lock();
        spent.turn(day);
        (spent.reserved, spent.reserved_next) = (spent.used, 0);
        Reserved {
            day: spent.day,
            upto: spent.used,
            next: 0,
        }
    }

    /// The figures are whole after every statement, so a panic elsewhere while it was held leaves nothing broken.
    fn lock(&self) -> MutexGuard<'_, Spent> {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When everything is paid with one more use.
fn pay(paid_until: Option<Instant>, rate: Rate, now: Instant) -> Result<Instant, Unmet> {
    let interval = rate.interval();
    let paid_until = paid_until.map_or(now, |until| until.max(now)) + interval;
    let over = paid_until
        .saturating_duration_since(now)
        .saturating_sub(interval * rate.burst);
    if over.is_zero() {
        Ok(paid_until)
    } else {
        Err(Unmet::Rate { retry_after: over })
    }
}

#[cfg(test)]
mod tests;
