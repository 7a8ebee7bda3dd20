//! Handshakes of one I/O thread: how many may be open, and how much of its time they may take.
//!
//! A step of a handshake takes up to a millisecond, a turn of an established connection some
//! microseconds. So steps are taken one at a time, in the order in which they became due. Before
//! each, the thread looks at its sockets and serves who is established: they wait for one step at
//! most. And steps take half of the thread's time at most, however many strangers flood in.
//!
//! When more are open than there may be, the oldest is closed, not the newest refused: an honest
//! handshake is over in a few round trips, so the oldest is the one that least likely is one.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::time::Instant;

use tokio::sync::Semaphore;

use super::table::ConnectionId;
use crate::{clock, limits};

/// The handshakes of one I/O thread.
#[derive(Debug)]
pub(crate) struct Handshakes {
    /// Held during a step and the pause after it. Fair: first come, first served.
    gate: Semaphore,
    /// When the time that steps have taken will be half of what has passed.
    paid_until: Cell<Instant>,
    most: usize,
    open: Cell<usize>,
    /// Open ones, oldest first, with some that have ended since.
    oldest: RefCell<VecDeque<ConnectionId>>,
}

impl Handshakes {
    /// Room for so many at a time.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            gate: Semaphore::new(1),
            paid_until: Cell::new(clock::now()),
            most: most.max(1),
            open: Cell::new(0),
            oldest: RefCell::default(),
        }
    }

    /// Waits until it is this handshake's turn, and takes `step`.
    pub(crate) async fn take_turn(&self, step: impl FnOnce()) {
        // Fails only when the gate is closed, which nobody does.
        let _turn = self.gate.acquire().await;
        // Comes back when the sockets have been looked at, and behind what they brought.
        tokio::task::yield_now().await;
        let ahead = self.paid_until.get().checked_duration_since(clock::now());
        if let Some(ahead) = ahead.filter(|ahead| *ahead > limits::HANDSHAKE_ADVANCE) {
            tokio::time::sleep(ahead).await;
        }
        let began = clock::now();
        step();
        let took = clock::now().saturating_duration_since(began);
        // As long as the step itself belongs to the others.
        let cost = 2 * took.min(limits::HANDSHAKE_STEP_MAX);
        self.paid_until.set(self.paid_until.get().max(began) + cost);
    }

    /// A handshake begins.
    pub(crate) fn begin(&self, id: ConnectionId) {
        self.open.set(self.open.get() + 1);
        self.oldest.borrow_mut().push_back(id);
    }

    /// A handshake has ended, one way or the other.
    pub(crate) fn end(&self) {
        self.open.set(self.open.get().saturating_sub(1));
        if self.open.get() == 0 {
            self.oldest.borrow_mut().clear();
        }
    }

    /// The oldest that is to be closed because there are too many. `is_open` says which still are
    /// handshakes.
    pub(crate) fn surplus(&self, is_open: impl Fn(ConnectionId) -> bool) -> Option<ConnectionId> {
        let mut oldest = self.oldest.borrow_mut();
        // Whatever happens to it, the list is no longer than twice what may be open.
        if oldest.len() > 2 * self.most {
            oldest.retain(|id| is_open(*id));
        }
        if self.open.get() <= self.most {
            return None;
        }
        std::iter::from_fn(|| oldest.pop_front()).find(|id| is_open(*id))
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::time::Duration;

    use super::super::table::Table;
    use super::*;

    fn ids(count: usize) -> Vec<ConnectionId> {
        let mut table = Table::default();
        let mut ids = Vec::new();
        for _ in 0..count {
            table.insert_with(|id| {
                ids.push(id);
                Rc::new(())
            });
        }
        ids
    }

    #[test]
    fn the_oldest_that_is_still_open_is_the_one_too_many() {
        let ids = ids(4);
        let handshakes = Handshakes::new(2);
        handshakes.begin(ids[0]);
        handshakes.begin(ids[1]);
        assert_eq!(handshakes.surplus(|_| true), None);
        // The first is complete; two are open again after the third.
        handshakes.end();
        handshakes.begin(ids[2]);
        assert_eq!(handshakes.surplus(|id| id != ids[0]), None);
        handshakes.begin(ids[3]);
        assert_eq!(handshakes.surplus(|id| id != ids[0]), Some(ids[1]));
        handshakes.end();
        assert_eq!(handshakes.surplus(|_| true), None);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let ids = ids(100);
        let handshakes = Handshakes::new(4);
        for id in ids {
            handshakes.begin(id);
            assert_eq!(handshakes.surplus(|other| other == id), None);
            handshakes.end();
            handshakes.begin(id);
            assert!(handshakes.oldest.borrow().len() <= 10);
            handshakes.end();
        }
    }

    /// In the long run, as much time is left to the others as steps take.
    #[tokio::test]
    async fn steps_leave_half_of_the_time() {
        let handshakes = Handshakes::new(4);
        let began = clock::now();
        let spin = || {
            let until = clock::now() + Duration::from_millis(2);
            while clock::now() < until {}
        };
        for _ in 0..10 {
            handshakes.take_turn(spin).await;
        }
        // Ten steps of 2 ms and as much between them, but for the last and what may be ahead.
        let least = Duration::from_millis(38) - limits::HANDSHAKE_ADVANCE;
        assert!(clock::now() - began >= least);
    }
}
