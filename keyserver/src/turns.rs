//! Who writes the file of the stops: one at a time, and nobody waits for a disk for longer than a person would.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The right to write, which one has at a time.
#[derive(Debug, Default)]
pub(super) struct Turns {
    inside: Mutex<Inside>,
    free: Condvar,
}

#[derive(Debug, Default)]
struct Inside {
    is_taken: bool,
    /// Somebody gave up waiting: whoever has the turn writes what that one would have.
    is_owed: bool,
}

/// Whose turn it is. Dropped, it is the next one's, whatever is owed.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    is_over: bool,
}

impl Turns {
    /// Waits for the turn for so long. Past it, nothing, and the one who has it is left the writing if `leaves_it`.
    pub(super) fn take(&self, patience: Duration, leaves_it: bool) -> Option<Turn<'_>> {
        let (mut inside, _) = self
            .free
            .wait_timeout_while(self.lock(), patience, |inside| inside.is_taken)
            .unwrap_or_else(PoisonError::into_inner);
        if inside.is_taken {
            inside.is_owed |= leaves_it;
            return None;
        }
        inside.is_taken = true;
        Some(Turn {
            turns: self,
            is_over: false,
        })
    }

    /// Never held while a disk is waited for.
    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    /// Ends the turn, unless somebody has left the writing to whoever has it: then it goes on, and `false`. Looking and
    /// ending are one step, so nobody can leave it to a turn that is over.
    pub(super) fn end(&mut self) -> bool {
        let mut inside = self.turns.lock();
        if std::mem::take(&mut inside.is_owed) {
            return false;
        }
        inside.is_taken = false;
        self.is_over = true;
        drop(inside);
        self.turns.free.notify_one();
        true
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.turns.lock().is_taken = false;
            self.turns.free.notify_one();
        }
    }
}
