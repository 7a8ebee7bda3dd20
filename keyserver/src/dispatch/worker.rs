//! Crypto threads: each takes a batch of one class, runs it, hands the results back.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use accel::{Class, Engine};
use smallvec::SmallVec;

use super::batching::{batch_size, is_brief};
use super::classqueue::ClassQueues;
use super::completion::CompletionRing;
use super::job::{Job, Outcome};
use crate::admin::metrics::Stage;
use crate::placement::Placement;
use crate::state::{Heartbeat, ServerState};
use crate::{clock, limits, os};

/// The queues between the I/O threads and the crypto threads.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    waiting: Mutex<Waiting>,
    work: Condvar,
}

#[derive(Debug)]
struct Waiting {
    queues: ClassQueues<Box<Job>>,
    /// Crypto threads that sleep. A wake-up is a system call, so nobody is woken who is awake.
    asleep: usize,
    stopping: bool,
}

impl Dispatcher {
    /// Empty queues of at most `bound` jobs a class.
    pub(crate) fn new(bound: usize) -> Self {
        let waiting = Waiting {
            queues: ClassQueues::new(bound),
            asleep: 0,
            stopping: false,
        };
        Self {
            waiting: Mutex::new(waiting),
            work: Condvar::new(),
        }
    }

    /// Queues `jobs` and empties it, except for those whose class is full: they stay, to be refused.
    pub(crate) fn submit(&self, jobs: &mut Vec<Box<Job>>) {
        let now = clock::now();
        let mut waiting = self.lock();
        let mut refused = SmallVec::<[Box<Job>; 8]>::new();
        for job in jobs.drain(..) {
            if let Err(job) = waiting.queues.push(job.class, now, job) {
                refused.push(job);
            }
        }
        jobs.extend(refused);
        let wake = waiting.asleep.min(waiting.queues.len());
        drop(waiting);
        for _ in 0..wake {
            self.work.notify_one();
        }
    }

    /// Waits for work and moves one batch of one class to `batch`. Nothing: the server stops.
    ///
    /// `heartbeat` beats while it waits, so that silence means a thread stuck in the engine.
    fn take(
        &self,
        engine: &Engine,
        heartbeat: &Heartbeat,
        batch: &mut Vec<Box<Job>>,
    ) -> Option<Class> {
        let rule = |class, waiting| batch_size(engine.costs(), class, waiting);
        let mut waiting = self.lock();
        loop {
            heartbeat.tick();
            if let Some(class) = waiting.queues.take(clock::now(), &rule, batch) {
                return Some(class);
            }
            if waiting.stopping {
                return None;
            }
            waiting.asleep += 1;
            let woken = self.work.wait_timeout(waiting, limits::HEARTBEAT);
            (waiting, _) = woken.unwrap_or_else(PoisonError::into_inner);
            waiting.asleep -= 1;
        }
    }

    /// Like [`Self::take`] for brief work only, and without waiting for it.
    fn take_brief(&self, engine: &Engine, batch: &mut Vec<Box<Job>>) -> Option<Class> {
        let rule = |class, waiting| batch_size(engine.costs(), class, waiting);
        let brief = |class| is_brief(engine.costs(), class);
        self.lock().queues.take_brief(&brief, &rule, batch)
    }

    /// Jobs waiting in a class.
    pub(crate) fn waiting(&self, class: Class) -> usize {
        self.lock().queues.class_len(class)
    }

    /// Lets the crypto threads finish what is queued and end.
    pub(crate) fn stop(&self) {
        self.lock().stopping = true;
        self.work.notify_all();
    }

    /// The lock guards plain data that is whole after every statement, so a panic elsewhere while
    /// it was held leaves nothing broken.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What every crypto thread works with.
#[derive(Debug, Clone)]
pub(crate) struct WorkerContext {
    /// Where the work comes from.
    pub(crate) dispatcher: Arc<Dispatcher>,
    /// The engine that does it, and what is counted.
    pub(crate) state: Arc<ServerState>,
    /// Where the results go, by I/O thread.
    pub(crate) completions: Arc<[Arc<CompletionRing>]>,
}

/// Starts the crypto threads of `placement`.
///
/// # Errors
///
/// The system refused a thread.
pub(crate) fn spawn_workers(
    context: &WorkerContext,
    placement: &Placement,
) -> std::io::Result<Vec<JoinHandle<()>>> {
    let mut threads = Vec::with_capacity(placement.crypto_threads);
    for index in 0..placement.crypto_threads {
        let context = context.clone();
        let cpu = placement.cpu_of_crypto_thread(index);
        threads.push(
            std::thread::Builder::new()
                .name(format!("crypto-{index}"))
                .spawn(move || {
                    os::settle_crypto_thread(cpu);
                    let heartbeat = context.state.health.watch(format!("crypto-{index}"));
                    run(&context, &heartbeat);
                    context.state.health.unwatch(&heartbeat);
                })?,
        );
    }
    Ok(threads)
}

fn run(context: &WorkerContext, heartbeat: &Heartbeat) {
    let engine = context.state.engine();
    let mut batch: Vec<Box<Job>> = Vec::with_capacity(limits::BATCH_MAX);
    let mut brief: Vec<Box<Job>> = Vec::with_capacity(limits::BATCH_MAX);
    while let Some(class) = context.dispatcher.take(engine, heartbeat, &mut batch) {
        // A long batch is no reason for brief work to wait: it is run in between, a turn at a
        // time, so that neither stops the other.
        run_batch(context, class, &mut batch, &mut || {
            if let Some(class) = context.dispatcher.take_brief(engine, &mut brief) {
                run_batch(context, class, &mut brief, &mut || {});
                hand_back(context, &mut brief);
            }
        });
        hand_back(context, &mut batch);
    }
}

fn run_batch(
    context: &WorkerContext,
    class: Class,
    batch: &mut [Box<Job>],
    between: &mut dyn FnMut(),
) {
    let taken_at = clock::now();
    let mut work = SmallVec::<[accel::Job<'_>; limits::BATCH_MAX]>::new();
    let mut outcomes = SmallVec::<[&mut Outcome; limits::BATCH_MAX]>::new();
    for job in batch.iter_mut() {
        let Job {
            admitted,
            operation,
            input,
            output,
            outcome,
            deadline,
            admitted_at,
            taken_at: stamp,
            ..
        } = &mut **job;
        *stamp = taken_at;
        context.state.metrics.observe_stage(
            Stage::Queue,
            taken_at.saturating_duration_since(*admitted_at),
        );
        match admitted {
            Some(admitted) if taken_at <= *deadline => {
                work.push(accel::Job {
                    key: admitted.key(),
                    operation: *operation,
                    exchange: None,
                    input,
                    output,
                    result: Ok(()),
                });
                outcomes.push(outcome);
            }
            _ => *outcome = Outcome::TooLate,
        }
    }
    if work.is_empty() {
        return;
    }
    context.state.metrics.batch(class, work.len());
    context.state.engine().run_yielding(&mut work, between);
    let spent = clock::now().saturating_duration_since(taken_at);
    context.state.metrics.observe_stage(Stage::Crypto, spent);
    for (job, outcome) in work.iter().zip(outcomes) {
        *outcome = job.result.map_or_else(Outcome::Failed, |()| Outcome::Done);
    }
}

fn hand_back(context: &WorkerContext, batch: &mut Vec<Box<Job>>) {
    let mut touched = 0_u64;
    for job in batch.drain(..) {
        let shard = job.shard;
        if let Some(ring) = context.completions.get(shard) {
            ring.push(job);
            touched |= 1 << (shard % 64);
        }
    }
    for (shard, ring) in context.completions.iter().enumerate() {
        if touched & (1 << (shard % 64)) != 0 {
            ring.notify();
        }
    }
}
