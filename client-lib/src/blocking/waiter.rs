//! A thread that waits: for the outcome of its call, or for its turn to do the input and output.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::error::Error;

/// One waiting thread.
#[derive(Default)]
pub(super) struct Waiter {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    outcome: Option<Result<Vec<u8>, Error>>,
    leads: bool,
    /// The thread sleeps. One that leads does not, and waking it would be a system call for nothing.
    sleeps: bool,
}

/// What a waiter was woken for.
pub(super) enum Turn {
    /// The call is over.
    Done(Result<Vec<u8>, Error>),
    /// Input and output are this thread's business now.
    Lead,
}

impl Waiter {
    pub(super) fn finish(&self, outcome: Result<Vec<u8>, Error>) {
        self.change(|state| state.outcome = Some(outcome));
    }

    /// Hands the lead to this thread.
    pub(super) fn lead(&self) {
        self.change(|state| state.leads = true);
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        if state.sleeps {
            self.changed.notify_one();
        }
    }

    /// The outcome, if there is one.
    pub(super) fn outcome(&self) -> Option<Result<Vec<u8>, Error>> {
        self.lock().outcome.take()
    }

    /// Whether the lead was handed over, too late to be of use.
    pub(super) fn has_lead(&self) -> bool {
        self.lock().leads
    }

    pub(super) fn wait(&self) -> Turn {
        let mut state = self.lock();
        loop {
            if let Some(outcome) = state.outcome.take() {
                return Turn::Done(outcome);
            }
            if state.leads {
                return Turn::Lead;
            }
            state.sleeps = true;
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
            state.sleeps = false;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
