//! A slot: its queue, its threads and what is known about it, under one lock.
//!
//! ```text
//!  submit --> waiting (bounded) --+--> worker, the one that was busy last first (its session is warm)
//!                                 |       |  C_SignInit, C_Sign, verify
//!     limit not reached, ready ---+       v
//!                                      complete --> answer | again from the front | to another slot
//!  keeper:   holds the login, finds keys, probes, keeps alive          (keeper.rs)
//!  watchdog: answers at the deadline, gives up threads that are stuck  (watchdog.rs)
//! ```
//!
//! No call into a module is made, and no job is finished, while the lock is held.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::error::TokenFailure;
use super::failure::Failure;
use super::keeper::Command;
use super::mechanism::Abilities;
use super::module::{Module, lock};
use super::settings::{BreakerState, SlotSettings, SlotStatus};
use super::state::{Phase, State, Task, Worker};
use super::ticket::{Parting, Retried, Ticket, part};
use super::token_key::TokenKeyParts;
use super::uri::TokenUri;
use super::worker;
use crate::job::Operation;

/// What is noted when a token turns out not to have a key.
pub(super) const KEY_GONE: &str = "key not on the token";

/// Which token a slot holds, as the module told it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TokenName {
    pub(super) slot_id: u64,
    pub(super) label: String,
    pub(super) serial: String,
    /// It is in this slot and in no other: the configuration says so.
    pub(super) is_bound: bool,
}

/// A key of a slot.
#[derive(Debug)]
pub(super) struct SlotKey {
    /// How it is found again.
    pub(super) uri: TokenUri,
    /// Where it was found last.
    place: Mutex<Option<Place>>,
    /// Whether it was found, for those who choose a slot: they need not wait for a lock.
    is_there: AtomicBool,
    /// What it must be; unset until the first slot of the key has told it.
    pub(super) spki: Mutex<Option<Arc<[u8]>>>,
}

impl SlotKey {
    /// A key that was not looked for yet.
    pub(super) fn new(uri: TokenUri, spki: Option<Arc<[u8]>>) -> Self {
        Self {
            uri,
            place: Mutex::default(),
            is_there: AtomicBool::new(false),
            spki: Mutex::new(spki),
        }
    }

    pub(super) fn place(&self) -> Option<Place> {
        *lock(&self.place)
    }

    /// Notes where it is, or that it is not there.
    pub(super) fn put(&self, place: Option<Place>) {
        let mut at = lock(&self.place);
        *at = place;
        self.is_there.store(place.is_some(), Ordering::Relaxed);
    }

    /// Whether it was found when it was last looked for.
    pub(super) fn is_there(&self) -> bool {
        self.is_there.load(Ordering::Relaxed)
    }
}

/// Where a key is, until the slot's generation changes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) handle: u64,
    pub(super) abilities: Abilities,
}

/// One slot of one module.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) module: Arc<Module>,
    pub(super) settings: SlotSettings,
    pub(super) keeper: Sender<Command>,
    state: Mutex<State>,
    /// Wakes the watchdog when there is something to watch.
    pub(super) watch: Condvar,
    /// Wakes workers that wait for their turn to open a session.
    pub(super) opened: Condvar,
    /// Each thread of the slot holds a copy while it runs.
    pub(super) threads: Arc<()>,
}

/// What a worker takes along: all it needs without the lock.
#[derive(Debug)]
pub(super) struct Assignment {
    pub(super) key: Arc<SlotKey>,
    pub(super) parts: Arc<TokenKeyParts>,
    pub(super) operation: Operation,
    pub(super) input: Zeroizing<Vec<u8>>,
    pub(super) deadline: Instant,
    pub(super) generation: u64,
    pub(super) shut_times: u64,
    pub(super) retried: Retried,
    pub(super) begun: Instant,
}

/// A result that is still to be checked.
pub(super) struct Unchecked {
    pub(super) assignment: Assignment,
    pub(super) result: Zeroizing<Vec<u8>>,
    /// From the beginning until the device had given it.
    pub(super) latency: Duration,
}

impl fmt::Debug for Unchecked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unchecked")
            .field("operation", &self.assignment.operation)
            .finish_non_exhaustive()
    }
}

impl Unchecked {
    /// Whether the public key says that it is right.
    pub(super) fn is_right(&self) -> bool {
        let assignment = &self.assignment;
        let public = &assignment.parts.public;
        public.verifies(assignment.operation, &assignment.input, &self.result)
    }
}

/// How a worker's task ended.
#[derive(Debug)]
pub(super) enum Ending<'a> {
    /// With a result.
    Done(&'a [u8]),
    /// With an answer that another slot would not change.
    Failed(TokenFailure),
    /// It is to run again here, once the keeper has done this.
    Again(Retried, Option<Command>),
    /// The slot is in order, but does not have the key.
    Elsewhere,
    /// The slot failed it.
    SlotFailed,
    /// The result was wrong.
    Wrong,
}

/// What a worker does next.
#[derive(Debug)]
pub(super) enum Next {
    Run(Assignment),
    Check(Box<Unchecked>),
    KeepAlive,
    Exit,
}

impl Slot {
    pub(super) fn new(
        module: Arc<Module>,
        settings: SlotSettings,
        token: TokenName,
        keeper: Sender<Command>,
    ) -> Self {
        Self {
            module,
            settings,
            keeper,
            state: Mutex::new(State::new(&settings, token)),
            watch: Condvar::new(),
            opened: Condvar::new(),
            threads: Arc::new(()),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The phase, without waiting for the lock: for those who hold another slot's.
    pub(super) fn phase_if_free(&self) -> Option<Phase> {
        self.state.try_lock().ok().map(|state| state.phase)
    }

    /// Queues a request; gives it back when the queue is full or the slot takes none.
    pub(super) fn submit(&self, ticket: Ticket) -> Result<(), Ticket> {
        let mut state = self.lock();
        let full = state.waiting.len() >= state.queue_len(&self.settings);
        if full || !state.phase.takes_requests() {
            return Err(ticket);
        }
        state.waiting.push_back(ticket);
        state.pump();
        if state.watchdog_sleeps {
            state.watchdog_sleeps = false;
            self.watch.notify_one();
        }
        Ok(())
    }

    /// Waits for work, as the worker `id`.
    pub(super) fn next(&self, id: usize) -> Next {
        let mut partings = Vec::new();
        let next = self.next_or_part(id, &mut partings);
        part(partings);
        next
    }

    fn next_or_part(&self, id: usize, partings: &mut Vec<Parting>) -> Next {
        let mut state = self.lock();
        loop {
            let surplus = state.working() > state.cap;
            let Some(worker) = state.workers.get_mut(&id) else {
                return Next::Exit;
            };
            if worker.lost || (surplus && worker.handed.is_none()) {
                state.pump();
                return Next::Exit;
            }
            let handed = worker.handed.take();
            let wake = Arc::clone(&worker.wake);
            let ticket = match handed {
                Some(Task::Check(unchecked)) => return Next::Check(unchecked),
                Some(Task::Run(ticket)) => Some(ticket),
                None => state.take_waiting(partings),
            };
            if let Some(ticket) = ticket {
                if let Some(assignment) = state.assign(id, ticket, partings) {
                    return Next::Run(assignment);
                }
                continue;
            }
            if state.phase == Phase::Stopped {
                return Next::Exit;
            }
            if !partings.is_empty() {
                // Answer them before going to sleep.
                drop(state);
                part(std::mem::take(partings));
                state = self.lock();
                continue;
            }
            state.idle.push(id);
            let (after, timeout) = wake
                .wait_timeout(state, self.settings.keepalive)
                .unwrap_or_else(PoisonError::into_inner);
            state = after;
            let at = state.idle.iter().position(|idle| *idle == id);
            let still_idle = at.map(|at| state.idle.remove(at)).is_some();
            if timeout.timed_out() && still_idle && state.phase == Phase::Ready {
                return Next::KeepAlive;
            }
        }
    }

    /// Notes that a call into the module begins. False when a worker's request was answered meanwhile.
    pub(super) fn calling(&self, id: usize) -> bool {
        let mut state = self.lock();
        let Some(worker) = state.workers.get_mut(&id) else {
            return false;
        };
        worker.call = Some(Instant::now());
        worker
            .current
            .as_ref()
            .is_some_and(|current| current.ticket.is_some())
    }

    /// Notes that the call has returned. False when the worker was given up meanwhile.
    pub(super) fn returned(&self, id: usize) -> bool {
        let mut state = self.lock();
        let Some(worker) = state.workers.get_mut(&id) else {
            return false;
        };
        worker.call = None;
        !worker.lost
    }

    /// Gives a result of the worker `id` to another to check, and the next request to this one; see
    /// [`State::hand_over`].
    pub(super) fn hand_over(
        &self,
        id: usize,
        unchecked: Box<Unchecked>,
    ) -> Result<Option<Assignment>, Box<Unchecked>> {
        let mut partings = Vec::new();
        let next = self.lock().hand_over(id, unchecked, &mut partings);
        part(partings);
        next
    }

    /// A worker's task has ended.
    pub(super) fn complete(&self, id: usize, begun: Instant, ending: Ending<'_>) {
        let mut partings = Vec::new();
        let mut shut = false;
        let answer = {
            let mut state = self.lock();
            let waited = !state.waiting.is_empty();
            let patience = state.patience();
            let in_flight = state.in_flight;
            let Some(worker) = state.workers.get_mut(&id) else {
                return;
            };
            worker.call = None;
            let current = worker.current.take();
            let counts = current.as_ref().is_none_or(|current| current.in_flight);
            let ticket = current.and_then(|current| current.ticket);
            let comes_back = !worker.lost;
            if counts && comes_back {
                state.in_flight = in_flight.saturating_sub(1);
            }
            let answer = match ending {
                Ending::Done(output) => {
                    state.operations += 1;
                    if counts {
                        state.gave(begun.elapsed(), in_flight, waited);
                    }
                    ticket.map(|ticket| (ticket, Ok(output), patience))
                }
                Ending::Failed(failure) => {
                    ticket.map(|ticket| (ticket, Err(failure), Duration::ZERO))
                }
                Ending::Again(retried, command) => {
                    if let Some(mut ticket) = ticket {
                        ticket.retried = retried;
                        state.again(ticket, &mut partings);
                    }
                    if let Some(command) = command {
                        state.recover(&self.keeper, command);
                    }
                    None
                }
                Ending::Elsewhere => {
                    partings.extend(ticket.map(Parting::Elsewhere));
                    None
                }
                Ending::SlotFailed | Ending::Wrong => {
                    state.check_failures += u64::from(matches!(ending, Ending::Wrong));
                    shut = state.slot_failed(&mut partings);
                    partings.extend(ticket.map(Parting::Elsewhere));
                    None
                }
            };
            // This worker comes back for the next itself: its session is warm, and it runs.
            state.pump_all_but(usize::from(comes_back));
            answer
        };
        if shut {
            self.look();
        }
        if let Some((ticket, outcome, patience)) = answer {
            ticket.job.finish(outcome, patience);
        }
        part(partings);
    }

    /// Has the keeper look when to probe a slot that was shut just now.
    pub(super) fn look(&self) {
        // A keeper that is gone probes nothing.
        let _ = self.keeper.send(Command::Look);
    }

    /// Counts an error by its name.
    pub(super) fn note(&self, failure: &Failure) {
        self.lock().note(&failure.name);
    }

    /// Starts workers until there are as many as there should be.
    pub(super) fn staff(self: &Arc<Self>) {
        let mut state = self.lock();
        let most = self.settings.most_threads();
        while state.workers.len() < most
            && state.working() < state.cap
            && state.phase != Phase::Stopped
        {
            let id = state.next_worker;
            state.next_worker += 1;
            state.workers.insert(
                id,
                Worker {
                    wake: Arc::new(Condvar::new()),
                    handed: None,
                    current: None,
                    call: None,
                    lost: false,
                },
            );
            let slot = Arc::clone(self);
            let running = Arc::clone(&self.threads);
            let name = format!("hsm-{}-{id}", state.token.slot_id);
            let body = move || drop((worker::run(&slot, id), running));
            let started = std::thread::Builder::new().name(name).spawn(body);
            if started.is_err() {
                state.workers.remove(&id);
                state.note("no thread");
                return;
            }
        }
    }

    /// Has one worker fewer than there are sessions: the keeper's comes first.
    pub(super) fn make_room(&self) {
        let mut state = self.lock();
        state.cap = state.sessions.saturating_sub(1).max(1);
        let cap = state.cap;
        state.limiter.set_cap(cap);
        for worker in state.workers.values() {
            worker.wake.notify_one();
        }
    }

    /// What the slot looks like now.
    pub(super) fn status(&self) -> SlotStatus {
        let state = self.lock();
        let (p50, p99) = state.latencies.p50_and_p99();
        SlotStatus {
            module: self.module.path().to_owned(),
            slot_id: state.token.slot_id,
            token_label: state.token.label.clone(),
            serial: state.token.serial.clone(),
            breaker: match (state.phase, state.breaker.until()) {
                (Phase::Terminal, _) => BreakerState::Terminal,
                (Phase::Probing, _) => BreakerState::HalfOpen,
                (_, Some(until)) => BreakerState::Open { until },
                _ => BreakerState::Closed,
            },
            ready: state.phase == Phase::Ready,
            generation: state.generation,
            sessions: state.sessions,
            limit: state.limiter.settled(),
            in_flight: state.in_flight,
            queued: state.waiting.len(),
            stuck_threads: state.stuck(self.settings.call_timeout),
            errors: state.errors.clone().into_iter().collect(),
            operations: state.operations,
            check_failures: state.check_failures,
            p50,
            p99,
        }
    }

    /// Counts `key` among those that use the slot, for as long as the key lives. False if the slot has ended.
    pub(super) fn hold_for(&self, key: &Arc<SlotKey>) -> bool {
        let mut state = self.lock();
        state.keys.retain(|known| known.strong_count() > 0);
        let is_open = state.phase != Phase::Stopped;
        if is_open {
            state.keys.push(Arc::downgrade(key));
        }
        is_open
    }

    /// Ends the slot: refuses what waits, and lets its threads go when their calls return.
    pub(super) fn stop(&self) {
        self.end(self.lock());
    }

    /// Ends a slot that no key uses, and says so. Looked at and ended under one lock: a key that comes meanwhile finds
    /// the slot open and holds it, or ended.
    pub(super) fn stop_if_unused(&self) -> bool {
        let state = self.lock();
        let unused = state.keys.iter().all(|key| key.strong_count() == 0);
        if unused {
            self.end(state);
        }
        unused
    }

    fn end(&self, mut state: MutexGuard<'_, State>) {
        let mut partings = Vec::new();
        state.phase = Phase::Stopped;
        state.refuse_waiting(&mut partings);
        for worker in state.workers.values() {
            worker.wake.notify_one();
        }
        self.watch.notify_one();
        drop(state);
        // A keeper that is gone needs no telling.
        let _ = self.keeper.send(Command::Stop);
        part(partings);
    }
}
