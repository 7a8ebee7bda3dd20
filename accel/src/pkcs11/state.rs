//! What changes in a slot, under its one lock: who waits, who works, what has been seen.

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Weak};
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::breaker::Breaker;
use super::error::TokenFailure;
use super::keeper::Command;
use super::latency::Latencies;
use super::limiter::Limiter;
use super::pin::Pin;
use super::settings::SlotSettings;
use super::slot::{Assignment, SlotKey, TokenName};
use super::ticket::{Parting, Ticket};

/// A slot is crowded when so many wait for each place.
const CROWD: usize = 4;

/// Whether requests are given to workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The keeper is logging in and finding keys; requests wait.
    Recovering,
    /// Requests run.
    Ready,
    /// The breaker is open; requests are refused.
    Down,
    /// The breaker is open and the keeper is trying the slot.
    Probing,
    /// The PIN was refused.
    Terminal,
    /// The slot is no longer used by anything.
    Stopped,
}

/// Everything that changes.
#[derive(Debug)]
pub(super) struct State {
    pub(super) phase: Phase,
    pub(super) token: TokenName,
    pub(super) waiting: VecDeque<Ticket>,
    /// Workers without work, the last to become so at the end.
    pub(super) idle: Vec<usize>,
    pub(super) workers: BTreeMap<usize, Worker>,
    pub(super) next_worker: usize,
    pub(super) in_flight: usize,
    pub(super) limiter: Limiter,
    /// How many workers there should be: what the settings and the token allow.
    pub(super) cap: usize,
    pub(super) sessions: usize,
    /// Sessions that are being opened now.
    pub(super) opening: usize,
    pub(super) breaker: Breaker,
    pub(super) generation: u64,
    /// The module's epoch in which the keeper logged in.
    pub(super) epoch: u64,
    pub(super) keys: Vec<Weak<SlotKey>>,
    pub(super) pin: Option<Pin>,
    /// The PIN that the token refused.
    pub(super) refused: Option<(Pin, String)>,
    /// Since when the keeper is in a call.
    pub(super) keeper_call: Option<Instant>,
    pub(super) watchdog_sleeps: bool,
    pub(super) errors: BTreeMap<String, u64>,
    pub(super) operations: u64,
    pub(super) check_failures: u64,
    pub(super) latencies: Latencies,
}

/// A thread of the pool, as the others see it.
#[derive(Debug)]
pub(super) struct Worker {
    /// Wakes it.
    pub(super) wake: Arc<Condvar>,
    /// Work given to it while it was idle.
    pub(super) handed: Option<Ticket>,
    /// What it works on. The ticket leaves early when its deadline passes.
    pub(super) current: Option<Current>,
    /// Since when it is in a call into the module, or waits for its turn to make one.
    pub(super) call: Option<Instant>,
    /// It has been in one call for too long and was given up. It ends when the call returns.
    pub(super) lost: bool,
}

#[derive(Debug)]
pub(super) struct Current {
    pub(super) ticket: Option<Ticket>,
    pub(super) deadline: Instant,
}

impl Phase {
    pub(super) const fn takes_requests(self) -> bool {
        matches!(self, Self::Ready | Self::Recovering)
    }
}

impl State {
    pub(super) fn new(settings: &SlotSettings, token: TokenName) -> Self {
        let sessions = settings.sessions.max(1);
        let start = settings.start_limit.unwrap_or(sessions);
        Self {
            phase: Phase::Recovering,
            token,
            waiting: VecDeque::new(),
            idle: Vec::new(),
            workers: BTreeMap::new(),
            next_worker: 0,
            in_flight: 0,
            limiter: Limiter::new(start, sessions),
            cap: sessions,
            sessions: 0,
            opening: 0,
            breaker: Breaker::default(),
            generation: 0,
            epoch: 0,
            keys: Vec::new(),
            pin: None,
            refused: None,
            keeper_call: None,
            watchdog_sleeps: false,
            errors: BTreeMap::new(),
            operations: 0,
            check_failures: 0,
            latencies: Latencies::default(),
        }
    }

    /// The next request that is still wanted, if one may start.
    pub(super) fn take_waiting(&mut self, partings: &mut Vec<Parting>) -> Option<Ticket> {
        if self.phase != Phase::Ready || self.in_flight >= self.limiter.limit() {
            return None;
        }
        let now = Instant::now();
        while let Some(ticket) = self.waiting.pop_front() {
            if ticket.job.deadline() > now {
                self.in_flight += 1;
                return Some(ticket);
            }
            partings.push(Parting::Answer(ticket, TokenFailure::Deadline));
        }
        None
    }

    /// Gives what waits to idle workers, the last to become idle first.
    pub(super) fn pump(&mut self) {
        let free = self.limiter.limit().saturating_sub(self.in_flight);
        if self.phase != Phase::Ready {
            return;
        }
        for _ in 0..free.min(self.waiting.len()) {
            let Some(id) = self.idle.pop() else { return };
            let ticket = self.waiting.pop_front();
            if let Some(worker) = self.workers.get_mut(&id) {
                worker.handed = ticket;
                worker.wake.notify_one();
                self.in_flight += 1;
            } else if let Some(ticket) = ticket {
                self.waiting.push_front(ticket);
            }
        }
    }

    /// Makes a request the current one of a worker.
    pub(super) fn assign(
        &mut self,
        id: usize,
        ticket: Ticket,
        partings: &mut Vec<Parting>,
    ) -> Option<Assignment> {
        let now = Instant::now();
        let Some(route) = ticket.routes.at(ticket.at) else {
            self.in_flight -= 1;
            partings.push(Parting::Answer(ticket, TokenFailure::Unavailable));
            return None;
        };
        let assignment = Assignment {
            key: Arc::clone(&route.key),
            parts: Arc::clone(&ticket.routes.parts),
            operation: ticket.job.operation(),
            input: Zeroizing::new(ticket.job.input().to_vec()),
            deadline: ticket.job.deadline(),
            generation: self.generation,
            retried: ticket.retried,
            begun: now,
        };
        let worker = self.workers.get_mut(&id)?;
        worker.current = Some(Current {
            deadline: assignment.deadline,
            ticket: Some(ticket),
        });
        worker.call = Some(now);
        Some(assignment)
    }

    pub(super) fn succeeded(&mut self, latency: Duration, in_flight: usize, waited: bool) {
        self.operations += 1;
        self.latencies.add(latency);
        self.limiter.completed(latency, in_flight, waited);
    }

    /// Puts a request back to the front, if the slot still takes any.
    pub(super) fn again(&mut self, ticket: Ticket, partings: &mut Vec<Parting>) {
        if self.phase.takes_requests() {
            self.waiting.push_front(ticket);
        } else {
            partings.push(Parting::Elsewhere(ticket));
        }
    }

    /// Has the keeper log in again; requests wait meanwhile.
    pub(super) fn recover(&mut self, keeper: &Sender<Command>, command: Command) {
        let current = match command {
            Command::Recover(generation) => generation == self.generation,
            Command::Initialize(epoch) => epoch == self.epoch,
            _ => false,
        };
        if self.phase == Phase::Ready && current {
            self.phase = Phase::Recovering;
            // Without a keeper the slot is stopping.
            let _ = keeper.send(command);
        }
    }

    /// Counts a failure of the slot, and shuts it when that was one too many.
    pub(super) fn slot_failed(&mut self, partings: &mut Vec<Parting>) {
        if self.breaker.failed(Instant::now()) {
            self.shut(Phase::Down, partings);
        }
    }

    /// Stops giving out work, and sends away what waits.
    pub(super) fn shut(&mut self, phase: Phase, partings: &mut Vec<Parting>) {
        if self.phase != Phase::Stopped {
            self.phase = phase;
        }
        partings.extend(self.waiting.drain(..).map(Parting::Elsewhere));
    }

    pub(super) fn refuse_waiting(&mut self, partings: &mut Vec<Parting>) {
        let refuse = |ticket| Parting::Answer(ticket, TokenFailure::Unavailable);
        partings.extend(self.waiting.drain(..).map(refuse));
    }

    pub(super) fn note(&mut self, name: &str) {
        *self.errors.entry(name.to_owned()).or_default() += 1;
    }

    /// Workers that are not lost.
    pub(super) fn working(&self) -> usize {
        self.workers.values().filter(|worker| !worker.lost).count()
    }

    /// Threads that are in a call which should have returned.
    pub(super) fn stuck(&self, call_timeout: Duration) -> usize {
        let lost = self.workers.values().filter(|worker| worker.lost).count();
        let keeper = self
            .keeper_call
            .is_some_and(|since| since.elapsed() > call_timeout);
        lost + usize::from(keeper)
    }

    /// Whether so many wait that each has been waiting for several operations.
    pub(super) fn is_crowded(&self) -> bool {
        self.waiting.len() >= CROWD.saturating_mul(self.limiter.limit())
    }

    /// How busy the slot is, in thousandths of its limit.
    pub(super) fn load(&self) -> usize {
        (self.waiting.len() + self.in_flight) * 1000 / self.limiter.limit().max(1)
    }
}
