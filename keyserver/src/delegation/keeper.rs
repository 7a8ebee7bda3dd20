//! The thread that writes credentials down: a signed one goes through it before it is released, so that no crash
//! gives its place in the quota back, and no I/O thread waits for a disk.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::dispatch::scheduler::Overload;
use crate::dispatch::{CompletionRing, Job, Outcome};
use crate::state::ServerState;
use crate::{clock, limits};

/// Credentials that share a write, at most.
const BATCH_MAX: usize = 64;

/// Credentials that may wait for the disk: as many as the next write takes. More are refused as busy. Those of a disk that
/// hangs stay where they are until it answers, so they must not fill a connection, nor what a client may have under way.
const WAITING_MAX: usize = 64;

const _: () = assert!(BATCH_MAX + WAITING_MAX <= limits::IN_FLIGHT_PER_CONNECTION / 2);

/// What a client is told to wait after "busy": some writes of a disk that works.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// The way to it, for I/O threads. Without a state directory there is none, and nothing is written down.
#[derive(Debug, Clone, Default)]
pub(crate) struct Keeper(Option<SyncSender<Box<Job>>>);

/// Starts the thread, where there is a state directory; `rings` are those of the I/O threads, in order. It ends when
/// the last [`Keeper`] is dropped.
///
/// It has no heartbeat: whether the disk answers is told by [`super::Outstanding::is_hung`], and one that does not must not end a
/// server that can still sign.
///
/// # Errors
///
/// The system refused a thread.
pub(crate) fn start(
    state: &Arc<ServerState>,
    rings: &Arc<[Arc<CompletionRing>]>,
) -> io::Result<(Keeper, Option<JoinHandle<()>>)> {
    if !state.credentials.is_kept() {
        return Ok((Keeper::default(), None));
    }
    let (sender, waiting) = sync_channel(WAITING_MAX);
    let (state, rings) = (Arc::clone(state), Arc::clone(rings));
    let handle = thread::Builder::new()
        .name("credentials".to_owned())
        .spawn(move || run(&state, &rings, &waiting))?;
    Ok((Keeper(Some(sender)), Some(handle)))
}

impl Keeper {
    /// Takes a job whose credential is signed, to have it written down. It comes back through the completion ring.
    ///
    /// # Errors
    ///
    /// Gives it back where nothing is written down; with its outcome where too many wait.
    pub(crate) fn submit(&self, mut job: Box<Job>) -> Result<(), Box<Job>> {
        let Some(sender) = &self.0 else {
            job.is_recorded = true;
            return Err(job);
        };
        sender.try_send(job).map_err(|error| {
            let (mut job, outcome) = match error {
                TrySendError::Full(job) => {
                    let retry_after = RETRY_AFTER;
                    (job, Outcome::Refused(Overload::Busy { retry_after }))
                }
                TrySendError::Disconnected(job) => (job, Outcome::Unwritten),
            };
            job.outcome = outcome;
            job
        })
    }
}

fn run(state: &ServerState, rings: &[Arc<CompletionRing>], waiting: &Receiver<Box<Job>>) {
    let mut failed_at: Option<Instant> = None;
    while let Ok(first) = waiting.recv() {
        let mut batch = vec![first];
        batch.extend(waiting.try_iter().take(BATCH_MAX - 1));
        // A disk that refuses is not asked for each of them.
        let now = clock::now();
        let is_asked =
            failed_at.is_none_or(|at| now.saturating_duration_since(at) > limits::HEARTBEAT);
        if is_asked {
            let result = state.credentials.write();
            // Said once, not every second.
            if let (Err(error), None) = (&result, failed_at) {
                tracing::error!(
                    alarm = "credentials_unwritable",
                    "{error}: no delegated credential is issued until it can be written; signing goes on"
                );
            }
            failed_at = result.is_err().then_some(now);
        }
        for mut job in batch {
            job.is_recorded = true;
            if failed_at.is_some() {
                job.outcome = Outcome::Unwritten;
            }
            if let Some(ring) = rings.get(job.shard) {
                ring.push(job);
                ring.notify();
            }
        }
    }
}
