//! Crypto threads: each takes a batch of one class, runs it, hands the results back.
//!
//! Nothing is allocated per job: the hands are made once, and what a batch needs is on the stack.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use accel::Class;
use smallvec::SmallVec;

use super::completion::CompletionRing;
use super::dispatcher::{Dispatcher, Hands, Next};
use super::job::{Job, Outcome};
use crate::admin::metrics::Stage;
use crate::ledger::Ledger;
use crate::placement::Cell;
use crate::state::{Heartbeat, ServerState};
use crate::{clock, limits, os};

/// What every crypto thread works with.
#[derive(Debug, Clone)]
pub(crate) struct WorkerContext {
    /// Where the work comes from.
    pub(crate) dispatcher: Arc<Dispatcher>,
    /// The engine that does it, and what is counted.
    pub(crate) state: Arc<ServerState>,
    /// Where the results go, by I/O thread.
    pub(crate) completions: Arc<[Arc<CompletionRing>]>,
    /// I/O threads run on the same CPUs.
    pub(crate) gives_way: bool,
    /// Where opened ciphertexts go first.
    pub(crate) ledger: Ledger,
}

/// Starts the crypto threads of a cell, numbered from `first` on.
///
/// # Errors
///
/// The system refused a thread.
pub(crate) fn spawn_workers(
    context: &WorkerContext,
    cell: &Cell,
    first: usize,
) -> std::io::Result<Vec<JoinHandle<()>>> {
    let mut threads = Vec::with_capacity(cell.crypto_threads);
    for in_cell in 0..cell.crypto_threads {
        let context = context.clone();
        let (index, cpu) = (first + in_cell, cell.cpu_of_crypto_thread(in_cell));
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
    let mut hands = Hands::new();
    let mut brief = Hands::new();
    let mut ended = None;
    // When the I/O threads of this CPU had last taken all results.
    let mut let_in_at = clock::now();
    let engine = context.state.engine();
    let prepare = || engine.idle();
    let idle = engine
        .precomputes()
        .then_some(&prepare as &dyn Fn() -> bool);
    loop {
        match context.dispatcher.take(ended, heartbeat, &mut hands, idle) {
            Next::Turn(turn) => {
                // A long batch is no reason for brief work to wait: it is run in between, a turn
                // at a time, so that neither stops the other.
                run_batch(context, turn.class, &mut hands.batch, &mut || {
                    if let Some(turn) = context.dispatcher.take_brief(&mut brief) {
                        run_batch(context, turn.class, &mut brief.batch, &mut || {});
                    }
                    hand_back(context, &mut brief, &mut let_in_at);
                });
                ended = Some(turn);
            }
            Next::OnlyLate => ended = None,
            Next::Stop => return,
        }
        hand_back(context, &mut hands, &mut let_in_at);
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
    let stops = context.state.stops.current();
    for job in batch.iter_mut() {
        let Job {
            admitted,
            operation,
            exchange,
            input,
            output,
            outcome,
            admitted_at,
            taken_at: stamp,
            ..
        } = &mut **job;
        *stamp = taken_at;
        context.state.metrics.observe_stage(
            Stage::Queue,
            taken_at.saturating_duration_since(*admitted_at),
        );
        let Some(admitted) = admitted else {
            // A job is only queued with its permission; without one it is not run.
            *outcome = Outcome::TooLate;
            continue;
        };
        if let Some(stopped) = stops.forbid(admitted) {
            *outcome = Outcome::Stopped(stopped);
            continue;
        }
        work.push(accel::Job {
            exchange: *exchange,
            ..accel::Job::new(admitted.key(), *operation, input, output)
        });
        outcomes.push(outcome);
    }
    drop(stops);
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

/// Gives everything in hand to the I/O threads it came from, and wakes each of them once. What the ledger has to
/// decide about goes there, and from there to its I/O thread, which is not woken twice for it.
fn hand_back(context: &WorkerContext, hands: &mut Hands, let_in_at: &mut Instant) {
    for job in &mut hands.late {
        job.outcome = Outcome::TooLate;
    }
    let mut touched = 0_u64;
    for job in hands.batch.drain(..).chain(hands.late.drain(..)) {
        let job = if job.awaits_ledger() {
            let Err(refused) = context.ledger.submit(job) else {
                continue;
            };
            refused
        } else {
            job
        };
        let shard = job.shard;
        if let Some(ring) = context.completions.get(shard) {
            ring.push(job);
            touched |= 1 << (shard % 64);
        }
    }
    let mut is_left = false;
    for (shard, ring) in context.completions.iter().enumerate() {
        if touched & (1 << (shard % 64)) != 0 {
            ring.notify();
            is_left |= ring.has_waiting();
        }
    }
    if !context.gives_way || touched == 0 {
        return;
    }
    // An I/O thread that is woken runs at once, unless it has just run for long: then the scheduler lets it wait, and
    // looks again at its next tick only, up to 4 ms later. To give way after each short batch would be as bad, since
    // many replies cost little more than few.
    let now = clock::now();
    if !is_left {
        *let_in_at = now;
    } else if now.saturating_duration_since(*let_in_at) > limits::LET_IN_AFTER {
        std::thread::yield_now();
        *let_in_at = clock::now();
    }
}
