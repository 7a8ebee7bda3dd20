//! What a connection has in flight.

use std::cell::Cell;

use crate::dispatch::Job;
use crate::limits;

/// Requests of one connection that have not been answered.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    all: Cell<usize>,
    /// Of those, the ones that open a ciphertext.
    opening: Cell<usize>,
    /// And the ones that count in the window.
    in_window: Cell<usize>,
    /// The window is full, or was, and not yet half of it has been answered.
    is_full: Cell<bool>,
}

impl InFlight {
    /// Counts a request.
    pub(crate) fn started(&self, job: &Job) {
        self.all.set(self.all.get() + 1);
        add(&self.opening, job.exchange.is_some());
        add(&self.in_window, job.in_window);
    }

    /// Counts it back.
    pub(crate) fn ended(&self, job: &Job) {
        self.all.set(self.all.get().saturating_sub(1));
        take(&self.opening, job.exchange.is_some());
        take(&self.in_window, job.in_window);
    }

    /// Whether there is any.
    pub(crate) fn is_any(&self) -> bool {
        self.all.get() > 0
    }

    /// Whether another may open a ciphertext, of `most` in all. The rest of the room is for what needs no ledger.
    pub(crate) fn may_open(&self, most: usize) -> bool {
        self.opening.get() < (most - most / limits::ROOM_WITHOUT_LEDGER).max(1)
    }

    /// Whether there may be another, of `most` in all and so many in the window. Once that is full it empties by half
    /// first, so that requests are taken up in turns and not one by one.
    pub(crate) fn has_room(&self, most: usize, window: usize) -> bool {
        let counted = self.in_window.get();
        let empties = window < most && self.is_full.get() && counted > window / 2;
        self.is_full.set(counted >= window || empties);
        self.all.get() < most && !self.is_full.get()
    }
}

fn add(count: &Cell<usize>, one: bool) {
    count.set(count.get() + usize::from(one));
}

fn take(count: &Cell<usize>, one: bool) {
    count.set(count.get().saturating_sub(usize::from(one)));
}
