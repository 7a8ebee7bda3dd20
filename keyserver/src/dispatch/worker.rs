//! Crypto threads: each takes a batch of one class, runs it, hands the results back.
//!
//! Nothing is allocated per job: the hands are made once, and what a batch needs is on the stack.

use std::sync::Arc;
use std::thread::JoinHandle;

use accel::Class;
use smallvec::SmallVec;

use super::completion::CompletionRing;
use super::dispatcher::{Dispatcher, Hands, Next};
use super::job::{Job, Outcome};
use super::results::Results;
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
    let mut results = Results::new(&context.completions, context.gives_way);
    let engine = context.state.engine();
    loop {
        let next = context
            .dispatcher
            .take(ended, heartbeat, &mut hands, &mut || {
                results.announce();
                engine.precomputes() && engine.idle()
            });
        match next {
            Next::Turn(turn) => {
                results.before(turn.time);
                // A long batch is no reason for brief work to wait: it is run in between, a turn
                // at a time, so that neither stops the other. Brief work itself is soon over, and its results
                // are gathered.
                run_batch(context, turn.class, &mut hands.batch, &mut || {
                    if turn.is_brief {
                        return;
                    }
                    if let Some(turn) = context.dispatcher.take_brief(&mut brief) {
                        run_batch(context, turn.class, &mut brief.batch, &mut || {});
                    }
                    hand_back(context, &mut brief, &mut results);
                    results.announce();
                });
                ended = Some(turn);
            }
            Next::OnlyLate => ended = None,
            Next::Stop => {
                results.announce();
                return;
            }
        }
        hand_back(context, &mut hands, &mut results);
    }
}

/// Gives everything in hand to the I/O threads it came from. What the ledger has to decide about goes there, and from
/// there to its I/O thread, which is not woken twice for it.
fn hand_back(context: &WorkerContext, hands: &mut Hands, results: &mut Results<'_>) {
    for job in &mut hands.late {
        job.outcome = Outcome::TooLate;
    }
    let now = clock::now();
    for job in hands.batch.drain(..).chain(hands.late.drain(..)) {
        let job = if job.awaits_ledger() {
            let Err(refused) = context.ledger.submit(job) else {
                continue;
            };
            refused
        } else {
            job
        };
        results.add(job, now);
    }
    results.added();
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
