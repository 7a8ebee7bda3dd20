//! A key whose private half is in a token, in one slot or in several.

use std::fmt;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::error::TokenFailure;
use super::settings::SlotChoice;
use super::slot::{Slot, SlotKey};
use super::state::Phase;
use super::ticket::{Retried, Ticket, TokenJob};
use crate::class::KeyType;
use crate::error::{JobError, KeyError};
use crate::job::Operation;
use crate::public::PublicKey;

/// Most slots that may hold one key: they are remembered one bit each.
pub(super) const MAX_SLOTS: usize = 64;
/// Deadline of operations that are waited for, at start and in tests.
const BLOCKING_DEADLINE: Duration = Duration::from_secs(30);
/// Pause before a full queue is tried again by one that waits.
const FULL_PAUSE: Duration = Duration::from_millis(1);

/// What every slot has to know about a key.
pub(super) struct TokenKeyParts {
    pub(super) label: String,
    pub(super) key_type: KeyType,
    pub(super) public: PublicKey,
}

impl fmt::Debug for TokenKeyParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenKeyParts")
            .field("label", &self.label)
            .field("key_type", &self.key_type)
            .finish_non_exhaustive()
    }
}

/// A slot that holds the key.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) slot: Arc<Slot>,
    pub(super) key: Arc<SlotKey>,
}

/// All slots that hold the key, in the order of the configuration.
#[derive(Debug)]
pub(super) struct Routes {
    pub(super) parts: Arc<TokenKeyParts>,
    routes: Vec<Route>,
    choice: SlotChoice,
}

impl Routes {
    pub(super) fn at(&self, at: usize) -> Option<&Route> {
        self.routes.get(at)
    }

    pub(super) fn has_other_than(&self, at: usize) -> bool {
        self.routes.iter().enumerate().any(|(other, route)| {
            other != at
                && route
                    .slot
                    .phase_if_free()
                    .is_none_or(|phase| phase.takes_requests())
        })
    }

    /// The slots to try, best first: ready ones before those that are just logging in.
    fn candidates(&self, failed: u64) -> Vec<usize> {
        let mut candidates: Vec<_> = self
            .routes
            .iter()
            .enumerate()
            .filter(|(at, _)| failed & (1 << at) == 0)
            .filter_map(|(at, route)| {
                let state = route.slot.lock();
                let load = match self.choice {
                    SlotChoice::Ordered => 0,
                    SlotChoice::LeastLoaded => state.load(),
                };
                let recovering = state.phase != Phase::Ready;
                // A slot that recovers looks for its keys meanwhile.
                let may_have_it = recovering || route.key.is_there();
                (may_have_it && state.phase.takes_requests()).then_some((recovering, load, at))
            })
            .collect();
        candidates.sort_unstable();
        candidates.into_iter().map(|(_, _, at)| at).collect()
    }

    /// Gives a request to the best slot; `Err` with the request and the reason when none takes it.
    fn dispatch(mut ticket: Ticket) -> Result<(), (Ticket, TokenFailure)> {
        let routes = Arc::clone(&ticket.routes);
        let mut reason = TokenFailure::Unavailable;
        for at in routes.candidates(ticket.failed) {
            let Some(route) = routes.at(at) else { continue };
            ticket.at = at;
            match route.slot.submit(ticket) {
                Ok(()) => return Ok(()),
                Err(back) => {
                    ticket = back;
                    if route.slot.lock().phase.takes_requests() {
                        reason = TokenFailure::Busy;
                    }
                }
            }
        }
        Err((ticket, reason))
    }

    /// Moves a request that its slot has failed to another, or answers it when there is none left.
    pub(super) fn elsewhere(mut ticket: Ticket) {
        ticket.failed |= 1 << ticket.at;
        ticket.retried = Retried::default();
        if let Err((ticket, reason)) = Self::dispatch(ticket) {
            ticket.job.finish(Err(reason), Duration::ZERO);
        }
    }
}

/// The private half of a key in a token. Cheap to clone.
#[derive(Clone)]
pub struct TokenKey {
    routes: Arc<Routes>,
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenKey")
            .field("label", &self.routes.parts.label)
            .field("key_type", &self.routes.parts.key_type)
            .field("slots", &self.routes.routes.len())
            .finish_non_exhaustive()
    }
}

impl TokenKey {
    pub(super) fn new(
        label: &str,
        spki: &[u8],
        routes: Vec<Route>,
        choice: SlotChoice,
    ) -> Result<Self, KeyError> {
        let (key_type, public) = PublicKey::from_spki(spki)?;
        let parts = Arc::new(TokenKeyParts {
            label: label.to_owned(),
            key_type,
            public,
        });
        Ok(Self {
            routes: Arc::new(Routes {
                parts,
                routes,
                choice,
            }),
        })
    }

    pub(crate) fn public(&self) -> &PublicKey {
        &self.routes.parts.public
    }

    pub(crate) fn key_type(&self) -> KeyType {
        self.routes.parts.key_type
    }

    /// The key's name in the configuration.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.routes.parts.label
    }

    /// How many slots are asked.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.routes.routes.len()
    }

    /// Whether it can be served by every slot that `other` can be served by.
    #[must_use]
    pub fn has_every_slot_of(&self, other: &Self) -> bool {
        other.routes.routes.iter().all(|theirs| {
            let mut ours = self.routes.routes.iter();
            ours.any(|ours| Arc::ptr_eq(&ours.slot, &theirs.slot))
        })
    }

    /// Gives a job to a slot that holds the key. The job must have passed what [`Job::validate`] checks.
    /// When no slot can be used it is finished as [`TokenFailure::Unavailable`] before this returns.
    ///
    /// # Errors
    ///
    /// The job comes back, not finished, when the queue of each usable slot is full: refuse it as busy.
    ///
    /// [`Job::validate`]: crate::Job::validate
    pub fn submit(&self, job: Box<dyn TokenJob>) -> Result<(), Box<dyn TokenJob>> {
        let ticket = Ticket {
            job,
            routes: Arc::clone(&self.routes),
            at: 0,
            failed: 0,
            retried: Retried::default(),
        };
        match Routes::dispatch(ticket) {
            Ok(()) => Ok(()),
            Err((ticket, TokenFailure::Busy)) => Err(ticket.job),
            Err((ticket, reason)) => {
                ticket.job.finish(Err(reason), Duration::ZERO);
                Ok(())
            }
        }
    }

    /// Whether a slot that holds the key takes requests now.
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.routes
            .routes
            .iter()
            .any(|route| route.key.is_there() && route.slot.lock().phase.takes_requests())
    }

    /// Whether a slot that holds the key has a mechanism for the operation, and the key the right to it.
    pub(crate) fn allows(&self, operation: Operation) -> bool {
        self.routes.routes.iter().any(|route| {
            route
                .key
                .place()
                .is_some_and(|place| place.abilities.allow(operation))
        })
    }

    /// Runs one operation and waits for it.
    pub(crate) fn run(
        &self,
        operation: Operation,
        input: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<(), JobError> {
        self.begin(operation, input)?.wait(output)
    }

    /// Begins an operation that will be waited for.
    pub(super) fn begin(&self, operation: Operation, input: &[u8]) -> Result<Answer, JobError> {
        let (reply, answer) = mpsc::sync_channel(1);
        let deadline = Instant::now() + BLOCKING_DEADLINE;
        let mut job: Box<dyn TokenJob> = Box::new(Waiting {
            operation,
            input: Zeroizing::new(input.to_vec()),
            deadline,
            reply,
        });
        while let Err(back) = self.submit(job) {
            if Instant::now() >= deadline {
                return Err(JobError::Failed);
            }
            job = back;
            thread::sleep(FULL_PAUSE);
        }
        Ok(Answer(answer))
    }
}

/// What will come of an operation.
pub(super) struct Answer(mpsc::Receiver<Result<Zeroizing<Vec<u8>>, TokenFailure>>);

impl Answer {
    /// Waits for it, and appends the result to `output`.
    pub(super) fn wait(self, output: &mut Vec<u8>) -> Result<(), JobError> {
        match self.0.recv() {
            Ok(Ok(result)) => {
                output.extend_from_slice(&result);
                Ok(())
            }
            Ok(Err(TokenFailure::Job(error))) => Err(error),
            _ => Err(JobError::Failed),
        }
    }
}

/// A job that somebody waits for.
struct Waiting {
    operation: Operation,
    input: Zeroizing<Vec<u8>>,
    deadline: Instant,
    reply: mpsc::SyncSender<Result<Zeroizing<Vec<u8>>, TokenFailure>>,
}

impl TokenJob for Waiting {
    fn operation(&self) -> Operation {
        self.operation
    }

    fn input(&self) -> &[u8] {
        &self.input
    }

    fn deadline(&self) -> Instant {
        self.deadline
    }

    fn finish(self: Box<Self>, outcome: Result<&[u8], TokenFailure>, _: Duration) {
        let outcome = outcome.map(|result| Zeroizing::new(result.to_vec()));
        // The other side waits until this arrives.
        let _ = self.reply.try_send(outcome);
    }
}
