//! How long one connection may keep its I/O thread.
//!
//! Requests that no crypto thread sees (lists of keys, proofs, tickets) are served where they are read, and
//! some take as long as hundreds of others. A read can carry thousands of them. So what a turn does is
//! counted, in steps and not by a clock, and a turn that has had its share ends. What is left in its buffer
//! is served in further turns, one connection after the other, each after the thread has looked at its
//! sockets and served all others.

use std::cell::Cell;

use tokio::sync::Semaphore;

use crate::limits;

/// Work of an I/O thread: one is about what a ping or a refusal takes, 0.6 us.
pub(crate) type Steps = u32;

/// A server information: a document of its own for each client.
pub(crate) const SERVER_INFO: Steps = 16;

/// What is made of the master of session tickets: a few derivations, a sealed ticket.
pub(crate) const TICKETS: Steps = 8;

/// The check of a proof of possession, for the dearest curve: some 200 us.
pub(crate) const PROOF: Steps = 340;

/// Keys that are looked at for a page of the key list in one step: 50 ns each.
const KEYS_PER_STEP: u32 = 12;

/// An entry of the key list: some 3 us.
pub(crate) const LISTED_KEY: Steps = 5;

/// Looking at so many keys for a page of the key list.
pub(crate) const fn looking_at(keys: u32) -> Steps {
    keys / KEYS_PER_STEP
}

/// What a connection has done in its turn.
#[derive(Debug, Default)]
pub(crate) struct Turn(Cell<Steps>);

impl Turn {
    /// A turn begins.
    pub(crate) fn begin(&self) {
        self.0.set(0);
    }

    /// So much was done.
    pub(crate) fn spend(&self, steps: Steps) {
        self.0.set(self.0.get().saturating_add(steps));
    }

    /// It has had its share.
    pub(crate) fn is_over(&self) -> bool {
        self.0.get() >= limits::TURN_STEPS
    }
}

/// The connections whose turns were too long.
#[derive(Debug)]
pub(crate) struct LongTurns {
    /// Fair: first come, first served.
    gate: Semaphore,
}

impl Default for LongTurns {
    fn default() -> Self {
        Self {
            gate: Semaphore::new(1),
        }
    }
}

impl LongTurns {
    /// Waits until a connection may have another turn. However many ask, they get one turn in each
    /// [`limits::TURN_PAUSE`] together.
    pub(crate) async fn another(&self) {
        // Fails only when the gate is closed, which nobody does.
        let _turn = self.gate.acquire().await;
        // A timer and no yield: io_uring gets what was submitted when the thread has nothing else to do.
        tokio::time::sleep(limits::TURN_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn a_turn_ends_with_its_share_and_begins_anew() {
        let turn = Turn::default();
        // A full pipeline of ordinary requests is one turn.
        for _ in 0..limits::IN_FLIGHT_PER_CONNECTION {
            assert!(!turn.is_over());
            turn.spend(1);
        }
        assert!(!turn.is_over());
        // Two proofs, or two pages for which as many keys are looked at as may be, are one.
        turn.begin();
        turn.spend(PROOF);
        assert!(!turn.is_over());
        turn.spend(PROOF);
        assert!(turn.is_over());
        turn.begin();
        assert!(!turn.is_over());
        turn.spend(u32::MAX);
        turn.spend(1);
        assert!(turn.is_over());
    }

    /// In the order in which they asked, and never two in one pause.
    #[tokio::test]
    async fn long_turns_come_one_by_one() {
        let turns = LongTurns::default();
        let order = Cell::new(0);
        let began = clock::now();
        let wait = async |number| {
            turns.another().await;
            assert_eq!(order.replace(number + 1), number);
        };
        tokio::join!(wait(0), wait(1), wait(2));
        assert!(clock::now() - began >= limits::TURN_PAUSE * 3);
    }
}
