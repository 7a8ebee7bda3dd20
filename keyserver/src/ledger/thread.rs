//! The thread between the I/O threads and the class queues: what opens a ciphertext goes through it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::UNIX_EPOCH;

use accel::{KeyExchange, Seed};

use super::rule::Verdict;
use super::store::{LedgerError, Question, Store};
use super::tag::Tagger;
use super::watch::ReplayAlarm;
#[cfg(feature = "pkcs11")]
use crate::dispatch::submit_to_slot;
use crate::dispatch::{CompletionRing, Dispatcher, Job, Outcome};
use crate::state::{Heartbeat, ServerState};
use crate::{clock, limits};

/// Jobs that share a write to the disk, at most. While one write is under way the next batch gathers.
const BATCH_MAX: usize = 512;

/// Jobs that may wait for it: those of sixteen I/O threads that all wait for nothing else.
const WAITING_MAX: usize = 16 * limits::JOBS_PER_SHARD;

/// The way into the ledger, for I/O threads. Without a `[ledger]` there is none, and nothing passes.
#[derive(Clone, Default)]
pub(crate) struct Ledger(Option<SyncSender<Box<Job>>>);

/// Where jobs go from here, for each I/O thread: on to its queues, or back to it.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    /// The queues of the thread's cell.
    pub(crate) dispatcher: Arc<Dispatcher>,
    /// The thread itself.
    pub(crate) completions: Arc<CompletionRing>,
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ledger").field(&self.0.is_some()).finish()
    }
}

/// An open ledger whose thread has not started.
pub(crate) struct Opened {
    store: Store,
    tagger: Tagger,
    sender: SyncSender<Box<Job>>,
    waiting: Receiver<Box<Job>>,
}

/// Opens the ledger in `directory`, or begins one.
///
/// # Errors
///
/// [`LedgerError`] with the way out.
pub(crate) fn open(directory: &Path) -> Result<Opened, LedgerError> {
    let (store, tagger) = Store::open(directory)?;
    let (sender, waiting) = sync_channel(WAITING_MAX);
    Ok(Opened {
        store,
        tagger,
        sender,
        waiting,
    })
}

impl Opened {
    /// The way into it.
    pub(crate) fn handle(&self) -> Ledger {
        Ledger(Some(self.sender.clone()))
    }

    /// Starts the thread; `routes` are those of the I/O threads, in order. It ends when the last
    /// [`Ledger`] is dropped.
    ///
    /// # Errors
    ///
    /// The system refused a thread.
    pub(crate) fn start(
        self,
        state: Arc<ServerState>,
        routes: Vec<Route>,
    ) -> std::io::Result<JoinHandle<()>> {
        drop(self.sender);
        let receiver = self.waiting;
        let mut clerk = Clerk {
            store: self.store,
            tagger: self.tagger,
            alarm: ReplayAlarm::default(),
            state,
            routes,
            questions: Vec::with_capacity(BATCH_MAX),
            verdicts: Vec::with_capacity(BATCH_MAX),
            passed: Vec::with_capacity(BATCH_MAX),
        };
        std::thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || {
                let heartbeat = clerk.state.health.watch("ledger".to_owned());
                clerk.run(&receiver, &heartbeat);
                clerk.state.health.unwatch(&heartbeat);
            })
    }
}

impl Ledger {
    /// Takes a job to decide about.
    ///
    /// # Errors
    ///
    /// Gives it back, with its outcome, where there is no ledger, it has ended, or too many wait.
    pub(crate) fn submit(&self, job: Box<Job>) -> Result<(), Box<Job>> {
        let refused = match &self.0 {
            None => Err(job),
            Some(sender) => sender.try_send(job).map_err(|error| match error {
                TrySendError::Full(job) | TrySendError::Disconnected(job) => job,
            }),
        };
        refused.map_err(|mut job| {
            job.outcome = Outcome::NoLedger;
            job
        })
    }
}

/// The thread's own.
struct Clerk {
    store: Store,
    tagger: Tagger,
    alarm: ReplayAlarm,
    state: Arc<ServerState>,
    routes: Vec<Route>,
    questions: Vec<Question>,
    verdicts: Vec<Verdict>,
    passed: Vec<Box<Job>>,
}

impl Clerk {
    fn run(&mut self, waiting: &Receiver<Box<Job>>, heartbeat: &Heartbeat) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        loop {
            heartbeat.tick();
            match waiting.recv_timeout(limits::HEARTBEAT) {
                Ok(job) => batch.push(job),
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return,
            }
            batch.extend(waiting.try_iter().take(BATCH_MAX - 1));
            self.settle(&batch);
            self.send_on(&mut batch);
        }
    }

    /// Decides about a batch and makes the decisions durable. Whatever fails leaves fewer verdicts than
    /// jobs, and a job without one is refused.
    fn settle(&mut self, batch: &[Box<Job>]) {
        self.questions.clear();
        self.verdicts.clear();
        for job in batch {
            let Some(question) = question(&self.tagger, job) else {
                // Only a job without a permission could come here; it ends the batch's luck.
                return;
            };
            self.questions.push(question);
        }
        let begun = clock::now();
        let now_ms = clock::wall()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0));
        match (self.store).settle(&self.questions, now_ms, &mut self.verdicts) {
            Ok(()) => self
                .state
                .metrics
                .ledger_write(clock::now().saturating_duration_since(begun), batch.len()),
            Err(error) => {
                self.state.metrics.ledger_failure();
                tracing::error!(
                    alarm = "ledger_unwritable",
                    refused = batch.len(),
                    "{error}: nothing is decrypted until it can be written again; signing goes on"
                );
            }
        }
    }

    /// Sends every job where its verdict says, and empties the batch.
    fn send_on(&mut self, batch: &mut Vec<Box<Job>>) {
        let mut verdicts = self.verdicts.drain(..);
        for mut job in batch.drain(..) {
            match verdicts.next() {
                Some(Verdict::Answer(_)) => {
                    self.passed.extend(past_slots(&self.routes, job));
                    continue;
                }
                Some(Verdict::Replay) => {
                    self.state.metrics.ledger_replay();
                    self.alarm.raise(&job);
                    job.outcome = Outcome::Replayed;
                }
                None => job.outcome = Outcome::NoLedger,
            }
            give_back(&self.routes, job);
        }
        drop(verdicts);
        // Few I/O threads, and most batches are of one: what is passed goes on in runs.
        while let Some(shard) = self.passed.first().map(|job| job.shard) {
            let mut run: Vec<_> = self
                .passed
                .extract_if(.., |job| job.shard == shard)
                .collect();
            if let Some(route) = self.routes.get(shard) {
                route.dispatcher.submit(&mut run);
            }
            run.into_iter().for_each(|job| give_back(&self.routes, job));
        }
        for route in &self.routes {
            route.completions.notify();
        }
    }
}

/// Sends a job whose key is in a token to its slot; gives any other back.
fn past_slots(routes: &[Route], job: Box<Job>) -> Option<Box<Job>> {
    #[cfg(feature = "pkcs11")]
    if let Some(route) = routes.get(job.shard) {
        return submit_to_slot(job, &route.completions);
    }
    let _ = routes;
    Some(job)
}

/// Hands a job that goes no further back to its I/O thread, which is woken once for all.
fn give_back(routes: &[Route], job: Box<Job>) {
    if let Some(route) = routes.get(job.shard) {
        route.completions.push(job);
    }
}

fn question(tagger: &Tagger, job: &Job) -> Option<Question> {
    let admitted = job.admitted.as_ref()?;
    let client = admitted.snapshot().policy.client_name(admitted.client());
    let handshake: &[u8] = match &job.exchange {
        Some(KeyExchange::Master { seed, .. }) => match seed {
            Seed::Randoms(randoms) => randoms,
            Seed::SessionHash256(hash) => hash,
            Seed::SessionHash384(hash) => hash,
        },
        Some(KeyExchange::Premaster { .. } | KeyExchange::Compatible) | None => &[],
    };
    Some(Question {
        tag: tagger.tag(admitted.key().spki_der(), &job.input),
        binding: tagger.binding(client, handshake),
    })
}
