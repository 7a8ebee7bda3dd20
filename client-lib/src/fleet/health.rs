//! Whether a server may be given calls.
//!
//! ```text
//!   down --connected--> up --5 failures in a row--> ejected --time, then an answer--> up
//!                        |--"draining"--> draining --goodbye--> down
//!                        '--busy--> left alone for as long as it asked
//! ```

use std::time::{Duration, Instant};

/// Failures without a success between them after which a server is ejected.
const FAILURES_IN_A_ROW: u32 = 5;
/// The first ejection lasts this long; each further one twice as long as the one before.
const EJECTED_FIRST: Duration = Duration::from_secs(1);
/// The longest ejection.
const EJECTED_LONGEST: Duration = Duration::from_secs(30);
/// After so long without an ejection the next one is a first one again.
const EJECTED_FORGOTTEN: Duration = Duration::from_secs(60);
/// A busy server that names no time is left alone for this long.
const BUSY_DEFAULT: Duration = Duration::from_millis(50);
/// And never for longer than this, whatever it says.
const BUSY_LONGEST: Duration = Duration::from_secs(1);

/// What speaks for and against giving a server a call, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// Nothing against it.
    Ready,
    /// It failed too often in a row. Better than nothing.
    Ejected,
    /// It wants no new calls, and still answers them until it says goodbye.
    Draining,
    /// It asked to be left alone until then.
    Busy(Instant),
    /// There is no connection.
    Down,
}

/// The health of one server as seen by this client.
#[derive(Clone, Debug, Default)]
pub(crate) struct Health {
    connected: bool,
    draining: bool,
    failures: u32,
    ejected_until: Option<Instant>,
    /// When the last ejection was over.
    returned_at: Option<Instant>,
    ejections: u32,
    busy_until: Option<Instant>,
    /// When a connection could last not be made, or was lost.
    lost_at: Option<Instant>,
}

impl Health {
    pub(crate) fn standing(&self, now: Instant) -> Standing {
        if !self.connected {
            return Standing::Down;
        }
        if let Some(until) = self.busy_until.filter(|until| *until > now) {
            return Standing::Busy(until);
        }
        if self.draining {
            return Standing::Draining;
        }
        if self.ejected_until.is_some_and(|until| until > now) {
            return Standing::Ejected;
        }
        Standing::Ready
    }

    pub(crate) fn lost_at(&self) -> Option<Instant> {
        self.lost_at
    }

    /// A connection was made. Says whether the server drains.
    pub(crate) fn connected(&mut self, draining: bool) {
        *self = Self {
            connected: true,
            draining,
            ejections: self.ejections,
            ejected_until: self.ejected_until,
            returned_at: self.returned_at,
            lost_at: self.lost_at,
            ..Self::default()
        };
    }

    pub(crate) fn lost(&mut self, now: Instant) {
        self.connected = false;
        self.draining = false;
        self.busy_until = None;
        self.lost_at = Some(now);
    }

    /// Returns whether that is news.
    pub(crate) fn drains(&mut self) -> bool {
        !std::mem::replace(&mut self.draining, true)
    }

    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }

    pub(crate) fn busy(&mut self, retry_after: Option<Duration>, now: Instant) {
        let wait = retry_after.unwrap_or(BUSY_DEFAULT).min(BUSY_LONGEST);
        self.busy_until = Some(now + wait);
    }

    /// It did not answer a question about its health: it is ejected at once. For how long.
    pub(crate) fn unanswered(&mut self, now: Instant) -> Option<Duration> {
        self.failures = FAILURES_IN_A_ROW;
        self.failed(now)
    }

    /// Counts a failure; when it was one too many, for how long the server is ejected.
    pub(crate) fn failed(&mut self, now: Instant) -> Option<Duration> {
        self.failures = self.failures.saturating_add(1);
        if self.failures < FAILURES_IN_A_ROW || self.ejected_until.is_some() {
            return None;
        }
        let forgotten = |at| now.saturating_duration_since(at) > EJECTED_FORGOTTEN;
        if self.returned_at.is_some_and(forgotten) {
            self.ejections = 0;
        }
        let doubled = EJECTED_FIRST.saturating_mul(1 << self.ejections.min(5));
        let duration = doubled.min(EJECTED_LONGEST);
        self.ejections = self.ejections.saturating_add(1);
        self.ejected_until = Some(now + duration);
        Some(duration)
    }

    /// Whether it was ejected and has served its time, which this call ends.
    pub(crate) fn returns(&mut self, now: Instant) -> bool {
        let over = self.ejected_until.is_some_and(|until| until <= now);
        if over {
            self.returned_at = self.ejected_until.take();
            self.failures = 0;
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_eject_and_time_brings_back() {
        let now = Instant::now();
        let mut health = Health::default();
        assert_eq!(health.standing(now), Standing::Down);
        health.connected(false);
        for _ in 1..FAILURES_IN_A_ROW {
            assert_eq!(health.failed(now), None);
        }
        health.succeeded();
        for _ in 1..FAILURES_IN_A_ROW {
            assert_eq!(health.failed(now), None);
        }
        assert_eq!(health.failed(now), Some(EJECTED_FIRST));
        assert_eq!(health.standing(now), Standing::Ejected);
        let later = now + EJECTED_FIRST;
        assert!(health.returns(later));
        assert_eq!(health.standing(later), Standing::Ready);
        for _ in 1..FAILURES_IN_A_ROW {
            assert_eq!(health.failed(later), None);
        }
        assert_eq!(health.failed(later), Some(EJECTED_FIRST * 2));
    }

    #[test]
    fn busy_is_honoured_within_reason() {
        let now = Instant::now();
        let mut health = Health::default();
        health.connected(false);
        health.busy(Some(Duration::from_secs(3600)), now);
        assert_eq!(health.standing(now), Standing::Busy(now + BUSY_LONGEST));
        assert_eq!(health.standing(now + BUSY_LONGEST), Standing::Ready);
    }

    #[test]
    fn a_draining_server_is_left_until_it_is_another_one() {
        let now = Instant::now();
        let mut health = Health::default();
        health.connected(false);
        assert!(health.drains() && !health.drains());
        assert_eq!(health.standing(now), Standing::Draining);
        health.lost(now);
        assert_eq!(health.standing(now), Standing::Down);
        health.connected(false);
        assert_eq!(health.standing(now), Standing::Ready);
    }
}
