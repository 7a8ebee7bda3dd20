//! How long a connection is not read from after it was refused for overload.
//!
//! A refusal is cheap, but whoever asks again at once turns ten times too much work into nothing
//! but refusals: the I/O thread goes before the crypto threads, and at 130,000 refusals a second
//! it took three quarters of a core that could have signed. So refusing has a budget, a share of
//! the I/O thread's time. What a connection's refusals have cost is saved up again before it is
//! read next; until then its requests wait where they are, in the buffers of the kernel and of the
//! client, and come in fewer, larger reads.

use std::cell::Cell;
use std::time::Duration;

use crate::limits;

/// About what it costs to read, open, seal and write once, however little is in it.
const TURN: Duration = Duration::from_micros(5);

/// About what one refusal adds.
const REFUSAL: Duration = Duration::from_nanos(600);

/// Counts the connections that are not read from.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    paused: Cell<u32>,
}

/// One connection that is not read from; until it is dropped.
#[derive(Debug)]
pub(crate) struct Paused<'a>(&'a Pace);

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
    pub(crate) fn pause(&self) -> Paused<'_> {
        self.paused.set(self.paused.get() + 1);
        Paused(self)
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        self.0.paused.set(self.0.paused.get().saturating_sub(1));
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
                let paused: Vec<_> = (1..connections).map(|_| pace.pause()).collect();
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
}
