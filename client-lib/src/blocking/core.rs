//! Everything a blocking client knows, behind one lock: calls, servers, sockets.
//!
//! Nothing in here waits. One thread at a time leads: it waits for the sockets, see
//! [`super::seat`], and lets this core take what came.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Registry, Waker};
use zeroize::Zeroize;

use crate::discovery::{self, Found, Known, Roster, Source};
use crate::error::Error;
use crate::fleet::{Attempts, Fleet, Place, ServerId, Step};
use crate::operation::Operation;
use crate::servers::Servers;

use super::line::{Line, News, Setting};
use super::resolving::{Answer, Resolving};
use super::waiter::Waiter;
use super::{CallId, Callback};

/// Sockets that were looked at this recently are not looked at again before something repeatable is sent: it
/// goes out once more should the server have hung up since.
const LOOKED_LATELY: Duration = Duration::from_millis(2);

/// How long the leader sleeps when nothing at all is planned.
const NOTHING_PLANNED: Duration = Duration::from_secs(60);

/// See the module's own text.
pub(super) struct Core {
    pub(super) setting: Setting,
    fleet: Fleet,
    lines: Vec<Line>,
    calls: HashMap<CallId, Call>,
    next_call: u64,
    /// Most calls at once.
    queue: usize,
    timers: BTreeSet<(Instant, CallId)>,
    resolving: Resolving,
    watches: Vec<Watch>,
    name_servers: Vec<SocketAddr>,
    registry: Registry,
    waker: Arc<Waker>,
    finished: Vec<(Completion, Result<Vec<u8>, Error>)>,
    /// Some thread leads, or has been told to.
    pub(super) led: bool,
    /// Until when the leader sleeps unless a socket wakes it.
    pub(super) sleeping_until: Option<Instant>,
    /// When the sockets were last looked at.
    looked_at: Option<Instant>,
    /// The client's own thread, if it has one: it leads whenever no caller does.
    pub(super) service: Option<Arc<Waiter>>,
    pub(super) closed: bool,
    news: Vec<News>,
}

struct Call {
    operation: Operation,
    attempts: Attempts,
    completion: Completion,
    timer: Instant,
}

/// A name behind which there are servers.
struct Watch {
    source: Source,
    /// When to look it up; `None` while that is under way.
    due: Option<Instant>,
    known: Known,
}

/// Where found servers join and leave.
struct Members<'c> {
    fleet: &'c mut Fleet,
    lines: &'c mut Vec<Line>,
    now: Instant,
}

impl Roster for Members<'_> {
    fn join(&mut self, address: &str, place: Place) -> ServerId {
        let id = self.fleet.join(address, place, self.now);
        self.lines.push(Line::new(id, address.to_owned(), self.now));
        id
    }

    fn moved(&mut self, id: ServerId, place: Place) {
        self.fleet.moved(id, place);
    }

    fn leave(&mut self, id: ServerId) {
        self.fleet.leave(id);
        let left = self.lines.iter_mut().filter(|line| line.id == id);
        left.for_each(|line| line.leaves = true);
    }
}

/// Who is told of the outcome.
pub(super) enum Completion {
    Waiter(Arc<Waiter>),
    Callback(Callback),
}

impl Completion {
    pub(super) fn finish(self, outcome: Result<Vec<u8>, Error>) {
        match self {
            Self::Waiter(waiter) => waiter.finish(outcome),
            Self::Callback(callback) => callback(outcome),
        }
    }
}

impl Core {
    pub(super) fn new(
        setting: Setting,
        mut fleet: Fleet,
        servers: &Servers,
        queue: usize,
        registry: Registry,
        waker: Arc<Waker>,
        now: Instant,
    ) -> Self {
        let lines = servers
            .list()
            .iter()
            .map(|(address, place)| {
                let id = fleet.join(address, *place, now);
                Line::new(id, address.clone(), now)
            })
            .collect();
        let watches = servers.sources().iter().map(|source| Watch {
            source: source.clone(),
            due: Some(now),
            known: Known::default(),
        });
        Self {
            setting,
            fleet,
            lines,
            watches: watches.collect(),
            name_servers: servers.name_servers().to_vec(),
            calls: HashMap::new(),
            next_call: 0,
            queue,
            timers: BTreeSet::new(),
            resolving: Resolving::default(),
            registry,
            waker,
            finished: Vec::new(),
            led: false,
            sleeping_until: None,
            looked_at: None,
            service: None,
            closed: false,
            news: Vec::new(),
        }
    }

    /// Takes a call. Its outcome comes through `completion`, never from within this function.
    pub(super) fn submit(
        &mut self,
        operation: Operation,
        limit: Duration,
        completion: Completion,
        now: Instant,
    ) -> Result<(), Error> {
        if self.closed {
            return Err(Error::Closed);
        }
        if self.calls.len() >= self.queue {
            return Err(Error::Overloaded);
        }
        let id = CallId(self.next_call);
        self.next_call += 1;
        if !operation.is_repeatable() {
            self.look_at_sockets(now);
        }
        let mut attempts = Attempts::new(operation.is_repeatable(), limit, now);
        let step = attempts.begin(&mut self.fleet, now);
        let timer = attempts.wake_at();
        self.timers.insert((timer, id));
        let call = Call {
            operation,
            attempts,
            completion,
            timer,
        };
        self.calls.insert(id, call);
        self.follow(id, step, now);
        self.flush(now);
        let sooner = self.next_due() < self.sleeping_until;
        if self.sleeping_until.is_some() && (sooner || !self.finished.is_empty()) {
            self.wake();
        }
        Ok(())
    }

    /// Calls on their way or waiting.
    pub(super) fn in_flight(&self) -> usize {
        self.calls.len()
    }

    /// Does what one step of a call demands, and the steps that follow from it.
    fn follow(&mut self, id: CallId, mut step: Step, now: Instant) {
        loop {
            let Some(call) = self.calls.get_mut(&id) else {
                return;
            };
            match step {
                Step::Send(server) => {
                    let left = call.attempts.deadline().saturating_duration_since(now);
                    let line = self.lines.iter_mut().find(|line| line.id == server);
                    let sent = line.and_then(|line| line.submit(id, &call.operation, left));
                    let failure = match sent {
                        Some(Ok(())) => break,
                        Some(Err(error)) => error,
                        None => Error::lost("sending requests", "the connection has just ended")
                            .before_sending(),
                    };
                    step = call
                        .attempts
                        .answered(&mut self.fleet, server, Err(failure), now);
                }
                Step::Wait => break,
                Step::Done(outcome) => {
                    if let Some(call) = self.calls.remove(&id) {
                        self.timers.remove(&(call.timer, id));
                        self.finished.push((call.completion, outcome));
                    }
                    return;
                }
            }
        }
        if let Some(call) = self.calls.get_mut(&id) {
            let timer = call.attempts.wake_at();
            if timer != call.timer {
                self.timers.remove(&(call.timer, id));
                self.timers.insert((timer, id));
                call.timer = timer;
            }
        }
    }

    /// Takes what the sockets have, whoever leads. What must not be repeated is not written to a connection that was
    /// cut, even if the leader has not come to see that yet.
    fn look_at_sockets(&mut self, now: Instant) {
        for index in 0..self.lines.len() {
            self.on_line(index, now, |line, setting, registry, news| {
                line.drive(setting, registry, now, news)
            });
        }
    }

    /// Takes what the sockets of these servers have.
    pub(super) fn ready(&mut self, tokens: &[usize], now: Instant) {
        self.looked_at = Some(now);
        for index in 0..self.lines.len() {
            let ready = self
                .lines
                .get(index)
                .is_some_and(|line| tokens.contains(&line.id.index()));
            if ready {
                self.on_line(index, now, |line, setting, registry, news| {
                    line.drive(setting, registry, now, news)
                });
            }
        }
    }

    /// Somebody leads again after nobody did: questions that were left open start anew. Returns
    /// whether the sockets were looked at so lately that a server has hardly hung up meanwhile.
    pub(super) fn resume(&mut self, now: Instant) -> bool {
        let setting = &self.setting;
        let lines = self.lines.iter_mut();
        lines.for_each(|line| line.resume(setting, now));
        self.looked_at
            .is_some_and(|at| now.saturating_duration_since(at) < LOOKED_LATELY)
    }

    /// Does what time demands.
    pub(super) fn advance(&mut self, now: Instant) {
        if self.closed {
            return;
        }
        for answer in self.resolving.answers() {
            match answer {
                Answer::Addresses(id, addresses) => self.opened(id, addresses, now),
                Answer::Servers(number, found) => self.found(number, found, now),
            }
        }
        self.look(now);
        self.lines.retain_mut(|line| {
            if line.is_over() {
                line.close();
            }
            !line.is_over()
        });
        for index in 0..self.lines.len() {
            let Some(line) = self.lines.get_mut(index) else {
                break;
            };
            if line.begins(&self.setting, now) {
                let (id, address) = (line.id, line.address.clone());
                if let Some(addresses) = self.resolving.start(id, &address, &self.waker) {
                    self.opened(id, addresses, now);
                }
            }
            self.on_line(index, now, |line, setting, registry, news| {
                line.tick(setting, registry, now, news)
            });
        }
        while let Some(&(at, id)) = self.timers.first() {
            if at > now {
                break;
            }
            let fleet = &mut self.fleet;
            let step = self
                .calls
                .get_mut(&id)
                .map(|call| call.attempts.woken(fleet, now));
            match step {
                Some(step) => self.follow(id, step, now),
                None => {
                    self.timers.remove(&(at, id));
                }
            }
        }
        self.flush(now);
    }

    fn opened(&mut self, id: ServerId, addresses: io::Result<Vec<SocketAddr>>, now: Instant) {
        if let Some(index) = self.lines.iter().position(|line| line.id == id) {
            self.on_line(index, now, |line, setting, registry, _| {
                line.open(addresses, setting, registry, now)
            });
        }
    }

    /// Begins to look up what is due.
    fn look(&mut self, now: Instant) {
        for number in 0..self.watches.len() {
            let Some(watch) = self.watches.get_mut(number) else {
                return;
            };
            if watch.due.take_if(|due| *due <= now).is_some() {
                let (source, name_servers) = (watch.source.clone(), self.name_servers.clone());
                if let Err(error) = self
                    .resolving
                    .find(number, source, name_servers, &self.waker)
                {
                    self.found(number, Err(error), now);
                }
            }
        }
    }

    /// Lets servers join and leave. While they cannot be looked up, they stay as they are.
    fn found(&mut self, number: usize, found: io::Result<Found>, now: Instant) {
        let Some(watch) = self.watches.get_mut(number) else {
            return;
        };
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                watch.due = Some(now + discovery::RETRY);
                let error = Error::network("looking up servers", error);
                self.fleet.not_found(error, now);
                return self.unpark(now);
            }
        };
        watch.due = Some(now + found.good_for);
        let mut members = Members {
            fleet: &mut self.fleet,
            lines: &mut self.lines,
            now,
        };
        watch.known.update(found, &mut members);
    }

    /// Sends what has been gathered on every line.
    fn flush(&mut self, now: Instant) {
        for index in 0..self.lines.len() {
            self.on_line(index, now, |line, _, _, _| line.flush());
        }
    }

    /// Does something with a line and tells everybody concerned what came of it.
    fn on_line(
        &mut self,
        index: usize,
        now: Instant,
        act: impl FnOnce(&mut Line, &Setting, &Registry, &mut Vec<News>) -> Result<(), Error>,
    ) {
        let Some(line) = self.lines.get_mut(index) else {
            return;
        };
        let id = line.id;
        let mut news = std::mem::take(&mut self.news);
        let acted = act(line, &self.setting, &self.registry, &mut news);
        let mut changed = false;
        for item in news.drain(..) {
            match item {
                News::Up { draining } => {
                    self.fleet.connected(id, draining, now);
                    changed = true;
                }
                News::Draining => self.fleet.drains(id),
                News::Mute => self.fleet.unanswered(id, now),
                News::Answer(call, result) => self.answered(call, id, result, now),
            }
        }
        self.news = news;
        if let Err(error) = acted {
            let lost = self.lines.get_mut(index).map(|line| line.lose(now));
            self.fleet.lost(id, &error, now);
            for call in lost.into_iter().flatten() {
                self.answered(call, id, Err(error.clone()), now);
            }
            changed = true;
        }
        if changed {
            self.unpark(now);
        }
    }

    fn answered(
        &mut self,
        call: CallId,
        server: ServerId,
        result: Result<Vec<u8>, Error>,
        now: Instant,
    ) {
        let Some(asker) = self.calls.get_mut(&call) else {
            if let Ok(mut output) = result {
                output.zeroize(); // Nobody takes it, and it may be a secret.
            }
            return;
        };
        let step = asker
            .attempts
            .answered(&mut self.fleet, server, result, now);
        self.follow(call, step, now);
    }

    /// Lets calls that wait for a server look again.
    fn unpark(&mut self, now: Instant) {
        let parked = self
            .calls
            .iter()
            .filter(|(_, call)| call.attempts.is_parked());
        let parked: Vec<CallId> = parked.map(|(id, _)| *id).collect();
        for id in parked {
            let fleet = &mut self.fleet;
            let step = self
                .calls
                .get_mut(&id)
                .map(|call| call.attempts.woken(fleet, now));
            if let Some(step) = step {
                self.follow(id, step, now);
            }
        }
    }

    /// When [`Core::advance`] has something to do.
    fn next_due(&self) -> Option<Instant> {
        let lines = self.lines.iter().map(|line| line.due(&self.setting));
        let calls = self.timers.first().map(|(at, _)| *at);
        let watches = self.watches.iter().filter_map(|watch| watch.due);
        lines.chain(calls).chain(watches).min()
    }

    /// For how long the leader may sleep from now on.
    pub(super) fn sleep(&mut self, most: Option<Duration>, now: Instant) -> Duration {
        if !self.finished.is_empty() || self.closed {
            return Duration::ZERO;
        }
        let due = self.next_due();
        let planned = due.map_or(NOTHING_PLANNED, |due| due.saturating_duration_since(now));
        let sleep = most.map_or(planned, |most| most.min(planned));
        self.sleeping_until = Some(now + sleep);
        sleep
    }

    /// Outcomes to be told of, without the lock.
    pub(super) fn take_finished(&mut self) -> Vec<(Completion, Result<Vec<u8>, Error>)> {
        std::mem::take(&mut self.finished)
    }

    /// Passes the lead on: to the client's own thread, or to a thread that waits for its call.
    pub(super) fn hand_over(&mut self) {
        let waiting = self.calls.values().find_map(|call| match &call.completion {
            Completion::Waiter(waiter) => Some(waiter),
            Completion::Callback(_) => None,
        });
        match self.service.as_ref().or(waiting) {
            Some(next) => next.lead(),
            None => self.led = false,
        }
    }

    /// Interrupts the leader's sleep.
    pub(super) fn wake(&self) {
        // A full counter means that it is awake already.
        let _ = self.waker.wake();
    }

    /// Ends all calls and says goodbye to all servers.
    pub(super) fn close(&mut self) {
        self.closed = true;
        let calls = self.calls.drain();
        self.finished
            .extend(calls.map(|(_, call)| (call.completion, Err(Error::Closed))));
        self.timers.clear();
        self.lines.iter_mut().for_each(Line::close);
        self.lines.clear();
        self.wake();
    }

    /// Drops all sockets without a word, in a process that only inherited them.
    pub(super) fn abandon(&mut self) {
        self.closed = true;
        self.lines.clear();
    }

    /// Threads that still look up a name.
    pub(super) fn resolvers(&mut self) -> Vec<std::thread::JoinHandle<()>> {
        self.resolving.take_threads()
    }
}
