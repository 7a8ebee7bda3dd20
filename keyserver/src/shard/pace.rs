//! How long a connection is not read from after it was refused for overload.
//!
//! A refusal is cheap, but whoever asks again at once turns ten times too much work into nothing
//! but refusals: the I/O thread goes before the crypto threads, and at 130,000 refusals a second
//! it took three quarters of a core that could have signed. So refusing has a budget, a share of
//! the I/O thread's time. What a connection's refusals have cost is saved up again before it is
//! read next; until then its requests wait where they are, in the buffers of the kernel and of the
//! client, and come in fewer, larger reads.
//!
//! All that ask for too much may pause at one time, for longer than what was admitted lasts. So when the crypto threads
//! run out of work, one that was refused because they had enough is read at once.

use std::cell::Cell;
use std::time::Duration;

use tokio::sync::Notify;

use crate::limits;

/// About what it costs to wake up, read, open, seal and write once, however little is in it, on a slow virtual machine.
const TURN: Duration = Duration::from_micros(20);

/// About what one refusal adds, there: with 20,000 a second RSA-2048 lost 7 %, with 5,000 it lost 3.
const REFUSAL: Duration = Duration::from_nanos(2500);

/// Counts the connections that are not read from.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    paused: Cell<u32>,
    /// Of those, the ones that wait for the queues to have room.
    for_room: Cell<u32>,
    room: Notify,
}

/// Why a connection was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The crypto threads had enough to do.
    Queues,
    /// Anything else.
    Other,
}

/// One connection that is not read from; until it is dropped.
#[derive(Debug)]
pub(crate) struct Paused<'a> {
    pace: &'a Pace,
    reason: Reason,
}

impl Pace {
    /// How long a connection is to pause after a turn with so many refusals.
    ///
    /// The connections that pause share the budget: the more they are, the longer each pauses, and
    /// all together never cost more. One that was refused little pauses little.
    pub(crate) fn after(&self, refusals: u32) -> Duration {
        let cost = TURN + REFUSAL * refusals;
        (cost * limits::REFUSING_SHARE)
            .saturating_mul(self.paused.get() + 1)
            .min(limits::REFUSED_PAUSE_MAX)
    }

    /// A connection begins to pause.
    pub(crate) fn pause(&self, reason: Reason) -> Paused<'_> {
        self.paused.set(self.paused.get() + 1);
        if reason == Reason::Queues {
            self.for_room.set(self.for_room.get() + 1);
        }
        Paused { pace: self, reason }
    }

    /// The crypto threads run out of work: the connection that has waited for that longest is read now.
    pub(crate) fn has_room(&self) {
        if self.for_room.get() > 0 {
            self.room.notify_one();
        }
    }
}

impl Paused<'_> {
    /// Waits until the crypto threads run out of work, if it was refused because they had enough.
    pub(crate) async fn until_room(&self) {
        match self.reason {
            Reason::Queues => self.pace.room.notified().await,
            Reason::Other => std::future::pending().await,
        }
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        let Self { pace, reason } = self;
        pace.paused.set(pace.paused.get().saturating_sub(1));
        if *reason == Reason::Queues {
            pace.for_room.set(pace.for_room.get().saturating_sub(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However many connections are refused, and however much they ask, refusing takes its share.
    #[test]
    fn refusals_take_their_share_of_the_time_and_no_more() {
        for connections in [1_usize, 8, 64, 512] {
            for refusals in [1, 64] {
                let pace = Pace::default();
                let paused: Vec<_> = (1..connections)
                    .map(|_| pace.pause(Reason::Other))
                    .collect();
                let pause = pace.after(refusals);
                let cost = (TURN + REFUSAL * refusals) * u32::try_from(connections).unwrap();
                if pause < limits::REFUSED_PAUSE_MAX {
                    assert_eq!(pause, cost * limits::REFUSING_SHARE);
                }
                drop(paused);
                assert!(pace.after(refusals) <= pause);
            }
        }
    }

    /// Room is for the one that has waited longest of those who were refused for want of it.
    #[tokio::test]
    async fn room_ends_the_pause_of_one_that_waits_for_it() {
        let pace = Pace::default();
        pace.has_room();
        let ended = std::cell::RefCell::new(Vec::new());
        let wait = async |number: u32, reason| {
            let paused = pace.pause(reason);
            let waited = tokio::time::timeout(Duration::from_millis(100), paused.until_room());
            if waited.await.is_ok() {
                ended.borrow_mut().push(number);
            }
        };
        tokio::join!(
            wait(1, Reason::Other),
            wait(2, Reason::Queues),
            wait(3, Reason::Queues),
            async { pace.has_room() },
        );
        assert_eq!(*ended.borrow(), [2]);
        assert_eq!((pace.paused.get(), pace.for_room.get()), (0, 0));
    }
}
