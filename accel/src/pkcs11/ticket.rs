//! A request on its way through the slots.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::TokenFailure;
use super::token_key::Routes;
use crate::job::Operation;

/// A request to a token, made by the caller of [`TokenKey::submit`](super::TokenKey::submit).
pub trait TokenJob: Send {
    /// What to do with the key.
    fn operation(&self) -> Operation;

    /// The hash value, message or ciphertext, see [`Operation`].
    fn input(&self) -> &[u8];

    /// When an answer is no longer wanted.
    fn deadline(&self) -> Instant;

    /// Takes the answer. Called exactly once: from a thread of the pool, from the watchdog that gives up on a
    /// hung call, or from `submit` itself when no slot can be used. Must not block.
    ///
    /// `patience` is not zero when many others wait in the same slot, several operations long each, and it works: their
    /// answers follow soon, so it may be worth while to pass several on together, those that come within that time. It
    /// is a quarter of what each of them has to wait, or less.
    fn finish(self: Box<Self>, outcome: Result<&[u8], TokenFailure>, patience: Duration);
}

/// Which classes of failure a request has been retried for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Retried {
    pub(super) session: bool,
    pub(super) login: bool,
    pub(super) library: bool,
}

/// A request with its history.
pub(super) struct Ticket {
    pub(super) job: Box<dyn TokenJob>,
    /// Where its key is.
    pub(super) routes: Arc<Routes>,
    /// Which of these it is at.
    pub(super) at: usize,
    /// Which of these have failed it, one bit each.
    pub(super) failed: u64,
    pub(super) retried: Retried,
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("at", &self.at)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

/// What is to be done with requests once no lock is held.
#[derive(Debug)]
pub(super) enum Parting {
    /// Answer it.
    Answer(Ticket, TokenFailure),
    /// Try the other slots that hold its key.
    Elsewhere(Ticket),
}

impl Parting {
    pub(super) fn carry_out(self) {
        match self {
            Self::Answer(ticket, failure) => ticket.job.finish(Err(failure), Duration::ZERO),
            Self::Elsewhere(ticket) => Routes::elsewhere(ticket),
        }
    }
}

/// Carries out what was gathered under a lock.
pub(super) fn part(partings: Vec<Parting>) {
    partings.into_iter().for_each(Parting::carry_out);
}
