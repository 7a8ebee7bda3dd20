//! The thread between the I/O threads and the disk: an opened ciphertext goes through it before it is answered.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, UNIX_EPOCH};

use accel::{KeyExchange, Seed};

use super::pace::Pace;
use super::rule::Verdict;
use super::store::{LedgerError, Question, Store};
use super::tag::Tagger;
use super::watch::ReplayAlarm;
use crate::dispatch::{CompletionRing, Job, Outcome};
use crate::state::ServerState;
use crate::{clock, limits};

/// Jobs that share a write to the disk, at most. While one write is under way the next batch gathers.
const BATCH_MAX: usize = 512;

/// Jobs that may wait for it: those of sixteen I/O threads that all wait for nothing else.
const WAITING_MAX: usize = 16 * limits::JOBS_PER_SHARD;

/// Between two attempts to open a ledger again that failed.
const REOPEN_EVERY: Duration = Duration::from_secs(1);

/// The way into the ledger, for I/O threads. Without a `[ledger]` there is none, and nothing passes.
#[derive(Clone, Default)]
pub(crate) struct Ledger(Option<SyncSender<Box<Job>>>);

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

/// Opens the ledger in `directory`, or begins one if the state directory does not know any.
///
/// # Errors
///
/// [`LedgerError`] with the way out.
pub(crate) fn open(directory: &Path, state: Option<&Path>) -> Result<Opened, LedgerError> {
    let (store, tagger) = Store::open_known(directory, state)?;
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

    /// Starts the thread; `rings` are those of the I/O threads, in order. It ends when the last
    /// [`Ledger`] is dropped.
    ///
    /// It has no heartbeat: whether the disk answers is told by [`super::LedgerHealth`], and a disk that does not
    /// must not end a server that can still sign.
    ///
    /// # Errors
    ///
    /// The system refused a thread.
    pub(crate) fn start(
        self,
        state: Arc<ServerState>,
        rings: Arc<[Arc<CompletionRing>]>,
    ) -> std::io::Result<JoinHandle<()>> {
        drop(self.sender);
        let receiver = self.waiting;
        state.ledger.opened();
        state.ledger.measured(self.store.size());
        let mut clerk = Clerk {
            store: self.store,
            tagger: self.tagger,
            alarm: ReplayAlarm::default(),
            state,
            rings,
            questions: Vec::with_capacity(BATCH_MAX),
            verdicts: Vec::with_capacity(BATCH_MAX),
            minded_at: clock::now(),
        };
        std::thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || {
                clerk.run(&receiver);
                clerk.close();
            })
    }
}

impl Ledger {
    /// Takes an opened ciphertext to decide whether it is answered.
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
    rings: Arc<[Arc<CompletionRing>]>,
    questions: Vec<Question>,
    verdicts: Vec<Verdict>,
    /// When it last looked after itself.
    minded_at: Instant,
}

impl Clerk {
    fn run(&mut self, waiting: &Receiver<Box<Job>>) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        let mut pace = Pace::new(clock::now());
        loop {
            match waiting.recv_timeout(limits::HEARTBEAT) {
                Ok(job) => batch.push(job),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if !batch.is_empty() {
                batch.extend(waiting.try_iter().take(BATCH_MAX - 1));
                let (jobs, began_at) = (batch.len(), clock::now());
                self.settle(&batch, began_at);
                self.give_back(&mut batch);
                // It sleeps before it waits for the next, not after that has come: while there is enough to do,
                // nobody has to wake it.
                std::thread::sleep(pace.after(jobs, began_at, clock::now()));
            }
            self.mind();
        }
    }

    /// Closes the store, which waits for the disk.
    fn close(self) {
        let Self { store, state, .. } = self;
        state.ledger.writing();
        drop(store);
        state.ledger.minded();
    }

    /// Decides about a batch and makes the decisions durable. Whatever fails leaves fewer verdicts than
    /// jobs, and a job without one is refused.
    fn settle(&mut self, batch: &[Box<Job>], now: Instant) {
        self.questions.clear();
        self.verdicts.clear();
        if !self.store.is_open() {
            return;
        }
        for job in batch {
            let Some(question) = question(&self.tagger, job) else {
                // Only a job without a permission could come here; it ends the batch's luck.
                return;
            };
            self.questions.push(question);
        }
        let now_ms = clock::wall()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0));
        self.state.ledger.writing();
        let settled = (self.store).settle(&self.questions, now_ms, &mut self.verdicts);
        let time = clock::now().saturating_duration_since(now);
        (self.state.ledger).written(time, settled.is_ok().then_some(batch.len()));
        let Err(error) = settled else {
            return;
        };
        if self.store.is_open() {
            tracing::warn!(refused = batch.len(), "{error}: refused");
        } else {
            self.state.ledger.closed(&error);
            tracing::error!(
                alarm = "ledger_unwritable",
                refused = batch.len(),
                "{error}: nothing is decrypted until it can be written again; signing goes on"
            );
            self.minded_at = now;
        }
    }

    /// Hands every job back to its I/O thread with what its verdict says, and empties the batch.
    fn give_back(&mut self, batch: &mut Vec<Box<Job>>) {
        let mut verdicts = self.verdicts.drain(..);
        for mut job in batch.drain(..) {
            job.is_recorded = true;
            match verdicts.next() {
                Some(Verdict::Answer(_)) => {}
                Some(Verdict::Replay) => {
                    self.state.ledger.replayed();
                    self.alarm.replayed(&job);
                    job.outcome = Outcome::Replayed;
                }
                Some(Verdict::Dropped) => {
                    self.alarm.dropped(&job);
                    job.outcome = Outcome::Replayed;
                }
                None => job.outcome = Outcome::NoLedger,
            }
            if let Some(ring) = self.rings.get(job.shard) {
                ring.push(job);
            }
        }
        for ring in self.rings.iter() {
            ring.notify();
        }
    }

    /// Once a second: opens a closed ledger again, carries out commands, measures.
    fn mind(&mut self) {
        let now = clock::now();
        if now.saturating_duration_since(self.minded_at) < REOPEN_EVERY {
            return;
        }
        // All of it waits for the disk.
        self.state.ledger.writing();
        if !self.store.is_open() {
            match self.store.reopen() {
                Ok(()) => {
                    self.state.ledger.opened();
                    tracing::warn!("the ledger can be written again: decryption goes on");
                }
                Err(error) => {
                    self.state.ledger.closed(&error);
                    tracing::debug!("still: {error}");
                }
            }
        }
        for command in self.state.ledger.take_commands() {
            let outcome = self.store.drop_key(command.key);
            if let (Err(error), false) = (&outcome, self.store.is_open()) {
                self.state.ledger.closed(error);
            }
            // Whoever asked may have given up waiting.
            let _ = command.done.send(outcome);
        }
        self.state.ledger.measured(self.store.size());
        self.state.ledger.minded();
        self.minded_at = clock::now();
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
        key: admitted.key().ski(),
        tag: tagger.tag(admitted.key().spki_der(), &job.input),
        binding: tagger.binding(client, handshake),
    })
}
