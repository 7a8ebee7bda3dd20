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
use super::pins::Pins;
use super::settings::SlotSettings;
use super::slot::{Assignment, SlotKey, TokenName, Unchecked};
use super::ticket::{Parting, Ticket};

/// A slot is crowded when so many wait for each place; where an operation takes [`HAND_OVER_FROM`] or longer, with
/// half of them.
const CROWD: usize = 4;
/// Results of a device that takes so long are checked by workers without work: the device waits for the next
/// request meanwhile. Where an operation is quicker, waking another thread costs a good part of what that saves.
const HAND_OVER_FROM: Duration = Duration::from_millis(2);
/// However much waits, an answer is not kept for longer: by then eight of a module as fast as a processor leave together.
const PATIENCE_MAX: Duration = Duration::from_millis(5);
/// The mean latency follows the last operations, this many.
const MEAN_OF: u32 = 64;
/// And a latency counts as at most this multiple of it.
const OUTLIER: u32 = 8;
/// Requests that may wait for each session, unless configured.
const QUEUE_PER_SESSION: usize = 4;
/// With few sessions, as many may wait as are done in this time, up to so many: a quick device is asked by as
/// many clients as a slow one, and to refuse them costs more than to let them wait.
const QUEUE_TIME: Duration = Duration::from_millis(50);
const QUEUE_OF_FEW: usize = 64;

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
    /// How often the slot was shut. What a session of before is worth then, nobody knows.
    pub(super) shut_times: u64,
    /// The module's epoch in which the keeper logged in, or tried to.
    pub(super) epoch: u64,
    pub(super) keys: Vec<Weak<SlotKey>>,
    pub(super) pins: Pins,
    /// Since when the keeper is in a call.
    pub(super) keeper_call: Option<Instant>,
    pub(super) watchdog_sleeps: bool,
    pub(super) errors: BTreeMap<String, u64>,
    pub(super) operations: u64,
    pub(super) check_failures: u64,
    pub(super) latencies: Latencies,
    /// Mean latency of the last operations; zero before the first.
    mean: Duration,
}

/// What an idle worker is given.
#[derive(Debug)]
pub(super) enum Task {
    Run(Ticket),
    Check(Box<Unchecked>),
}

/// A thread of the pool, as the others see it.
#[derive(Debug)]
pub(super) struct Worker {
    /// Wakes it.
    pub(super) wake: Arc<Condvar>,
    /// Work given to it while it was idle.
    pub(super) handed: Option<Task>,
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
    /// It counts as in flight. Not so a result that is being checked by another than who got it.
    pub(super) in_flight: bool,
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
            shut_times: 0,
            epoch: 0,
            keys: Vec::new(),
            pins: Pins::default(),
            keeper_call: None,
            watchdog_sleeps: false,
            errors: BTreeMap::new(),
            operations: 0,
            check_failures: 0,
            latencies: Latencies::default(),
            mean: Duration::ZERO,
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
        self.pump_all_but(0);
    }

    /// The same, but keeps so many places for workers that are about to look for work themselves: nobody has to
    /// be woken up for those.
    pub(super) fn pump_all_but(&mut self, kept: usize) {
        let free = self.limiter.limit().saturating_sub(self.in_flight + kept);
        if self.phase != Phase::Ready {
            return;
        }
        for _ in 0..free.min(self.waiting.len()) {
            let Some(id) = self.idle.pop() else { return };
            let ticket = self.waiting.pop_front();
            if let Some(worker) = self.workers.get_mut(&id) {
                worker.handed = ticket.map(Task::Run);
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
            shut_times: self.shut_times,
            retried: ticket.retried,
            begun: now,
        };
        let worker = self.workers.get_mut(&id)?;
        worker.current = Some(Current {
            deadline: assignment.deadline,
            ticket: Some(ticket),
            in_flight: true,
        });
        worker.call = Some(now);
        Some(assignment)
    }

    /// The device has given a result, and its place is free.
    pub(super) fn gave(&mut self, latency: Duration, in_flight: usize, waited: bool) {
        self.mean = if self.mean.is_zero() {
            latency
        } else {
            // One that took very long, as when everything stood still, must not decide.
            let latency = latency.min(self.mean * OUTLIER);
            self.mean - self.mean / MEAN_OF + latency / MEAN_OF
        };
        self.latencies.add(latency);
        self.limiter.completed(latency, in_flight, waited);
    }

    /// Gives a result of the worker `id` to an idle one to check, and the next request to this one. `Err` with
    /// the result when it is better checked where it is: nobody is idle, nothing waits, or the device is quick.
    /// `Ok(None)` when there is nothing to run after all.
    pub(super) fn hand_over(
        &mut self,
        id: usize,
        unchecked: Box<Unchecked>,
        partings: &mut Vec<Parting>,
    ) -> Result<Option<Assignment>, Box<Unchecked>> {
        let works = self.workers.get(&id).is_some_and(|worker| !worker.lost);
        if !works || self.idle.is_empty() || self.mean < HAND_OVER_FROM {
            return Err(unchecked);
        }
        let in_flight = self.in_flight;
        self.in_flight -= 1;
        let Some(next) = self.take_waiting(partings) else {
            self.in_flight += 1;
            return Err(unchecked);
        };
        self.gave(unchecked.latency, in_flight, true);
        let current = self
            .workers
            .get_mut(&id)
            .and_then(|worker| worker.current.take());
        if let Some(checker) = self.idle.pop().and_then(|idle| self.workers.get_mut(&idle)) {
            checker.handed = Some(Task::Check(unchecked));
            checker.current = current.map(|current| Current {
                in_flight: false,
                ..current
            });
            checker.wake.notify_one();
        }
        Ok(self.assign(id, next, partings))
    }

    /// Most requests that may wait.
    pub(super) fn queue_len(&self, settings: &SlotSettings) -> usize {
        if let Some(queue) = settings.queue {
            return queue.max(1);
        }
        let each = settings.sessions.max(1).saturating_mul(QUEUE_PER_SESSION);
        if self.mean.is_zero() {
            return each;
        }
        let turns = QUEUE_TIME.as_nanos() / self.mean.as_nanos().max(1);
        let turns = usize::try_from(turns).unwrap_or(usize::MAX);
        let soon = turns.saturating_mul(self.limiter.limit());
        each.max(soon.min(QUEUE_OF_FEW))
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

    /// Counts a failure of the slot, and shuts it when that was one too many. True then: the keeper has to
    /// [`look`](Command::Look) when to probe it.
    pub(super) fn slot_failed(&mut self, partings: &mut Vec<Parting>) -> bool {
        let opens = self.breaker.failed(Instant::now());
        if opens {
            self.shut(Phase::Down, partings);
        }
        opens
    }

    /// Shuts the slot at once, however few its failures. True unless it was shut already; see
    /// [`slot_failed`](Self::slot_failed).
    pub(super) fn shut_down(&mut self, partings: &mut Vec<Parting>) -> bool {
        let opens = self.phase.takes_requests();
        if opens {
            self.breaker.open(Instant::now());
            self.shut(Phase::Down, partings);
        }
        opens
    }

    /// Goes on in another phase, unless the slot is stopped: that is for good.
    pub(super) fn go_on(&mut self, phase: Phase) {
        if self.phase != Phase::Stopped {
            self.phase = phase;
        }
    }

    /// Stops giving out work, and sends away what waits.
    pub(super) fn shut(&mut self, phase: Phase, partings: &mut Vec<Parting>) {
        self.go_on(phase);
        self.shut_times += 1;
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

    /// Whether nobody works and nobody more may be started: every thread is stuck.
    pub(super) fn is_exhausted(&self, settings: &SlotSettings) -> bool {
        self.working() == 0 && self.workers.len() >= settings.most_threads()
    }

    /// Threads that are in a call which should have returned.
    pub(super) fn stuck(&self, call_timeout: Duration) -> usize {
        let lost = self.workers.values().filter(|worker| worker.lost).count();
        let keeper = self
            .keeper_call
            .is_some_and(|since| since.elapsed() > call_timeout);
        lost + usize::from(keeper)
    }

    /// How long an answer may be kept for those that follow, where so many wait that each has been waiting for several
    /// operations: a quarter of the time that they wait.
    pub(super) fn patience(&self) -> Duration {
        patience(self.mean, self.waiting.len() / self.limiter.limit().max(1))
    }

    /// How busy the slot is, in thousandths of its limit.
    pub(super) fn load(&self) -> usize {
        (self.waiting.len() + self.in_flight) * 1000 / self.limiter.limit().max(1)
    }
}

/// See [`State::patience`], where so many wait for each place.
fn patience(mean: Duration, waiting: usize) -> Duration {
    let crowd = if mean >= HAND_OVER_FROM {
        CROWD / 2
    } else {
        CROWD
    };
    if waiting < crowd {
        return Duration::ZERO;
    }
    let waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
    (mean.saturating_mul(waiting) / 4).min(PATIENCE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(settings: &SlotSettings) -> State {
        State::new(settings, TokenName::default())
    }

    #[test]
    fn a_slot_that_is_stopped_stays_so() {
        let mut state = state(&SlotSettings::default());
        for phase in [Phase::Ready, Phase::Down, Phase::Stopped] {
            state.go_on(phase);
            assert_eq!(state.phase, phase);
        }
        for phase in [Phase::Recovering, Phase::Probing, Phase::Ready] {
            state.go_on(phase);
            assert_eq!(state.phase, Phase::Stopped);
        }
    }

    /// Few sessions of a quick device have a queue for what is done soon; of a slow one, four turns.
    #[test]
    fn a_queue_is_as_long_as_is_done_soon() {
        let length = |sessions, millis, queue| {
            let settings = SlotSettings {
                sessions,
                queue,
                ..SlotSettings::default()
            };
            let mut state = state(&settings);
            assert_eq!(state.queue_len(&settings), queue.unwrap_or(4 * sessions));
            state.gave(Duration::from_millis(millis), 1, true);
            state.queue_len(&settings)
        };
        assert_eq!(length(4, 1, None), 64);
        assert_eq!(length(4, 5, None), 40);
        assert_eq!(length(1, 100, None), 4);
        assert_eq!(length(32, 1, None), 128);
        assert_eq!(length(4, 1, Some(7)), 7);
    }

    #[test]
    fn a_standstill_does_not_make_a_quick_device_a_slow_one() {
        let mut state = state(&SlotSettings::default());
        for latency in [600, 1_350_000, 600] {
            state.gave(Duration::from_micros(latency), 1, true);
        }
        assert!(state.mean < HAND_OVER_FROM, "{:?}", state.mean);
    }

    #[test]
    fn an_answer_is_kept_for_a_quarter_of_the_wait_at_most() {
        let (quick, slow) = (Duration::from_micros(600), Duration::from_millis(50));
        assert_eq!(patience(quick, 3), Duration::ZERO);
        assert_eq!(patience(quick, 8), quick * 2);
        assert_eq!(patience(quick, 100), PATIENCE_MAX);
        assert_eq!(patience(slow, 1), Duration::ZERO);
        assert_eq!(patience(slow, 2), PATIENCE_MAX);
    }
}
