//! What one does at a time and a disk may keep waiting: nobody has to wait for it for longer than a person would.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A right that one has at a time.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    inside: Mutex<Inside>,
    free: Condvar,
}

#[derive(Debug, Default)]
struct Inside {
    is_taken: bool,
    /// Somebody gave up waiting, and left it to whoever has the turn.
    is_owed: bool,
}

/// Whose turn it is. Dropped, it is the next one's, whatever is owed.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    is_over: bool,
}

impl Turns {
    /// Waits for the turn for so long. Past it, nothing, and it is left to the one who has it if `leaves_it`.
    pub(crate) fn take(&self, patience: Duration, leaves_it: bool) -> Option<Turn<'_>> {
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
    /// Ends the turn, unless somebody has left something to whoever has it: then it goes on, and `false`. Looking and
    /// ending are one step, so nobody can leave it to a turn that is over.
    pub(crate) fn end(&mut self) -> bool {
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
