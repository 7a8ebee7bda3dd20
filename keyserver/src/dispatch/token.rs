//! Jobs whose key is in a token: from the I/O thread straight to the pool of the key's slot.
//!
//! ```text
//!  I/O thread                                pool of the slot                       I/O thread
//!  Job -> SlotJob -> TokenKey::submit -> queue -> session -> finish -> CompletionRing -> reply
//!                          |                         |hangs
//!                          +-- full: finish(Busy)    +-- watchdog: finish(Deadline)
//! ```
//!
//! They never see a class queue or a crypto thread, so a device that hangs keeps nobody waiting but
//! its own clients. Whatever happens to the call, the box of the job comes back, and with it its place
//! in the completion ring: the pool finishes a job by its deadline even while the thread that took it
//! is stuck in the module, and a job that is dropped unfinished is handed back by its destructor.

use std::sync::Arc;
use std::time::{Duration, Instant};

use accel::pkcs11::{TokenFailure, TokenJob, TokenKey};
use accel::{JobError, Key, Operation};

use super::completion::CompletionRing;
use super::job::{Job, Outcome};
use super::scheduler::Overload;
use crate::{clock, limits};

/// A job on its way through a slot, and the ring that waits for it.
struct SlotJob {
    /// Taken out when it is handed back.
    job: Option<Box<Job>>,
    ring: Arc<CompletionRing>,
}

/// Sends a job to the slot of its key, if its key is in a token; gives it back otherwise.
///
/// A slot that cannot take it finishes it at once: the answer comes over the ring like any other.
pub(crate) fn submit(job: Box<Job>, ring: &Arc<CompletionRing>) -> Option<Box<Job>> {
    let token = job
        .admitted
        .as_ref()
        .and_then(|admitted| admitted.key().token());
    let Some(token) = token.cloned() else {
        return Some(job);
    };
    let checked = check(&job);
    let mut job = SlotJob {
        job: Some(job),
        ring: Arc::clone(ring),
    };
    if let Err(error) = checked {
        job.hand_back(Outcome::Failed(error), Duration::ZERO);
        return None;
    }
    match job.challenge() {
        Some(challenge) => send(&token, Box::new(FirstExchange { job, challenge })),
        None => send(&token, Box::new(job)),
    }
    None
}

fn send(token: &TokenKey, job: Box<dyn TokenJob>) {
    if let Err(refused) = token.submit(job) {
        refused.finish(Err(TokenFailure::Busy), Duration::ZERO);
    }
}

/// What an engine would check before it computes: a device is not asked what has no answer.
fn check(job: &Job) -> Result<(), JobError> {
    let key = job.admitted.as_ref().ok_or(JobError::Failed)?.key();
    accel::Job::new(key, job.operation, &job.input, &mut Vec::new()).validate()
}

/// A device opens a block; what the asker may see of it is decided here, as the engine does for keys in
/// memory.
fn answer_key_exchange(job: &mut Job) -> Result<(), JobError> {
    let (Some(exchange), Some(admitted)) = (job.exchange, &job.admitted) else {
        return Ok(());
    };
    exchange.answer(admitted.key(), &job.input, &mut job.output)
}

impl SlotJob {
    fn key(&self) -> Option<&Arc<Key>> {
        Some(self.job.as_ref()?.admitted.as_ref()?.key())
    }

    /// What the token has to open before it gets this request.
    fn challenge(&self) -> Option<Vec<u8>> {
        self.job.as_ref()?.exchange?;
        self.key()?.key_exchange_challenge()
    }

    /// With `patience` others will follow within it.
    fn hand_back(&mut self, outcome: Outcome, patience: Duration) {
        if let Some(mut job) = self.job.take() {
            job.outcome = outcome;
            self.ring.push(job);
            if patience.is_zero() {
                self.ring.notify();
            } else {
                self.ring.notify_in_time(patience);
            }
        }
    }
}

/// The first key exchange of a key whose slot was down when it was loaded: the token computes what the
/// answers to such requests need, as it does at the start otherwise, and then gets the request.
struct FirstExchange {
    job: SlotJob,
    challenge: Vec<u8>,
}

impl TokenJob for FirstExchange {
    fn operation(&self) -> Operation {
        Operation::RsaPrivate
    }

    fn input(&self) -> &[u8] {
        &self.challenge
    }

    fn deadline(&self) -> Instant {
        self.job.deadline()
    }

    fn finish(self: Box<Self>, result: Result<&[u8], TokenFailure>, patience: Duration) {
        let job = Box::new(self.job);
        let key = job.key().cloned();
        match (result, &key, key.as_ref().and_then(|key| key.token())) {
            (Ok(opened), Some(key), Some(token)) => {
                key.prepare_key_exchange(opened);
                send(token, job);
            }
            (Ok(_), ..) => job.finish(Err(TokenFailure::Unavailable), patience),
            (Err(failure), ..) => job.finish(Err(failure), patience),
        }
    }
}

impl TokenJob for SlotJob {
    fn operation(&self) -> Operation {
        self.job
            .as_ref()
            .map_or(Operation::Ed25519Sign, |job| job.operation)
    }

    fn input(&self) -> &[u8] {
        self.job.as_ref().map_or(&[], |job| &job.input)
    }

    fn deadline(&self) -> Instant {
        self.job
            .as_ref()
            .map_or_else(clock::now, |job| job.deadline)
    }

    fn finish(mut self: Box<Self>, result: Result<&[u8], TokenFailure>, patience: Duration) {
        let outcome = match result {
            Ok(output) => self.job.as_deref_mut().map_or(Outcome::Done, |job| {
                job.output.clear();
                job.output.extend_from_slice(output);
                answer_key_exchange(job).map_or_else(Outcome::Failed, |()| Outcome::Done)
            }),
            Err(TokenFailure::Job(error)) => Outcome::Failed(error),
            Err(TokenFailure::Busy) => Outcome::Refused(Overload::Busy {
                retry_after: limits::SLOT_RETRY_AFTER,
            }),
            Err(TokenFailure::Deadline) => Outcome::TooLate,
            Err(TokenFailure::Unavailable) => Outcome::Unavailable,
        };
        self.hand_back(outcome, patience);
    }
}

impl Drop for SlotJob {
    fn drop(&mut self) {
        self.hand_back(Outcome::Unavailable, Duration::ZERO);
    }
}
