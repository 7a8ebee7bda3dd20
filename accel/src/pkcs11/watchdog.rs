//! The thread that never calls a module: it answers requests whose deadline has passed, and gives up threads
//! that are stuck in a call.
//!
//! A hung call cannot be cancelled. The request is answered, the thread is marked lost, and another takes
//! its place, up to twice the number of sessions. When the call returns after all, the lost thread ends. A slot
//! whose threads are all lost is shut until one ends, and one whose keeper hangs while requests wait for it, until it
//! returns.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::error::TokenFailure;
use super::slot::Slot;
use super::state::{Phase, State};
use super::ticket::{Parting, part};

/// How late an answer at the deadline may be.
const TICK: Duration = Duration::from_millis(10);

/// The main function of the thread.
pub(super) fn run(slot: &Arc<Slot>) {
    loop {
        let mut partings = Vec::new();
        let mut state = slot.lock();
        if state.phase == Phase::Stopped && state.workers.is_empty() {
            return;
        }
        let now = Instant::now();
        expire_waiting(&mut state, now, &mut partings);
        let (lost, mut shut) =
            look_at_workers(&mut state, now, slot.settings.call_timeout, &mut partings);
        if lost > 0 && state.is_exhausted(&slot.settings) {
            // Nobody would take what waits, nor count another failure.
            shut |= state.shut_down(&mut partings);
        }
        shut |= look_at_keeper(&mut state, now, slot.settings.call_timeout, &mut partings);
        state.pump();
        if partings.is_empty() && lost == 0 && !shut {
            // Workers that begin something without a request are looked at with the next request.
            let watching = state.in_flight > 0
                || !state.waiting.is_empty()
                || state.keeper_call.is_some()
                || state.workers.values().any(|worker| worker.call.is_some())
                || state.phase == Phase::Stopped;
            if watching {
                drop(slot.watch.wait_timeout(state, TICK));
            } else {
                state.watchdog_sleeps = true;
                drop(
                    slot.watch
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner),
                );
            }
            continue;
        }
        drop(state);
        if shut {
            slot.look();
        }
        part(partings);
        if lost > 0 {
            slot.staff();
        }
    }
}

fn expire_waiting(state: &mut State, now: Instant, partings: &mut Vec<Parting>) {
    if state
        .waiting
        .iter()
        .all(|ticket| ticket.job.deadline() > now)
    {
        return;
    }
    let (late, kept): (Vec<_>, Vec<_>) = state
        .waiting
        .drain(..)
        .partition(|ticket| ticket.job.deadline() <= now);
    state.waiting.extend(kept);
    let answer = |ticket| Parting::Answer(ticket, TokenFailure::Deadline);
    partings.extend(late.into_iter().map(answer));
}

/// Shuts a slot whose keeper is stuck in a call while requests wait for its login. What the keeper does when the call
/// returns opens the slot again, or leaves it to the breaker.
fn look_at_keeper(
    state: &mut State,
    now: Instant,
    call_timeout: Duration,
    partings: &mut Vec<Parting>,
) -> bool {
    let hangs = state
        .keeper_call
        .is_some_and(|since| now.saturating_duration_since(since) > call_timeout);
    if state.phase != Phase::Recovering || !hangs {
        return false;
    }
    state.note("hung call");
    state.shut_down(partings)
}

/// Answers what is late, and counts the threads that were lost just now. True when that shut the slot.
fn look_at_workers(
    state: &mut State,
    now: Instant,
    call_timeout: Duration,
    partings: &mut Vec<Parting>,
) -> (usize, bool) {
    let mut lost = 0;
    let mut freed = 0;
    for worker in state.workers.values_mut() {
        let late = worker
            .current
            .as_mut()
            .filter(|current| current.deadline <= now)
            .and_then(|current| current.ticket.take());
        let answer = |ticket| Parting::Answer(ticket, TokenFailure::Deadline);
        partings.extend(late.map(answer));
        let hung = worker
            .call
            .is_some_and(|since| now.saturating_duration_since(since) > call_timeout);
        if hung && !worker.lost {
            worker.lost = true;
            lost += 1;
            if let Some(current) = &mut worker.current {
                freed += 1;
                // Another slot may still be in time. A single one leaves it to the deadline.
                let elsewhere = current
                    .ticket
                    .take_if(|ticket| ticket.routes.has_other_than(ticket.at));
                partings.extend(elsewhere.map(Parting::Elsewhere));
            }
        }
    }
    state.in_flight = state.in_flight.saturating_sub(freed);
    let mut shut = false;
    for _ in 0..lost {
        state.note("hung call");
        shut |= state.slot_failed(partings);
    }
    (lost, shut)
}
