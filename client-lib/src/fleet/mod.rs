//! The servers of one client, and every decision about them: without I/O and without a clock.
//!
//! ```text
//!   Attempts (one call) -- pick, started, answered, failed --> Fleet
//!   driver (tokio, blocking) -- connected, lost, drains ----->   |- Member: Load, Health
//!                                                                |- RetryBudget
//!                                                                '- HedgeDelay
//! ```
//!
//! A driver owns sockets and timers. It asks an [`Attempts`] what to do, does it, and reports what
//! became of it. So the two drivers behave alike, and the tests run on a clock of their own.

mod attempts;
mod balance;
mod health;
mod hedge;
mod place;
mod retry;
#[cfg(test)]
mod simulation;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) use attempts::{Attempts, Step, is_worth_another_try};
use balance::{Load, Random};
use health::{Health, Standing};
use hedge::HedgeDelay;
pub(crate) use place::Place;
use retry::RetryBudget;

use crate::error::Error;
use crate::observe::{Contained, Event, Observer};

/// Names a server within one fleet. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(test, derive(Default))]
pub(crate) struct ServerId(u64);

impl ServerId {
    /// The same as a small number, for tables and tokens.
    pub(crate) fn index(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX - 1)
    }
}

/// One server.
struct Member {
    id: ServerId,
    name: Arc<str>,
    place: Place,
    load: Load,
    health: Health,
}

/// See the module's own text.
pub(crate) struct Fleet {
    members: Vec<Member>,
    next_id: u64,
    budget: RetryBudget,
    hedge: HedgeDelay,
    hedging: bool,
    random: Random,
    observer: Contained,
    /// Why a connection was last lost or not made.
    last_loss: Option<Error>,
    /// When servers could last not be looked up.
    not_found_at: Option<Instant>,
    /// Room for the choice among members, kept from call to call.
    candidates: Vec<usize>,
}

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.members.iter().map(|member| &member.name).collect();
        f.debug_struct("Fleet")
            .field("servers", &names)
            .finish_non_exhaustive()
    }
}

/// How many times cheaper a server must be to get a call that weight would send elsewhere.
const CLEARLY: f64 = 4.0;

/// Where a call can go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pick {
    Server(ServerId),
    /// All that are up ask to be left alone until then.
    BusyUntil(Instant),
    /// No server is connected.
    NoneUp,
}

impl Fleet {
    /// No servers yet. `hedging` allows asking a second server when the first is slow to answer.
    pub(crate) fn new(hedging: bool, observer: Arc<dyn Observer>, now: Instant) -> Self {
        // The keyed hash of the standard library is random enough to keep clients apart; forked
        // processes share its key and differ in their number.
        let seed = RandomState::new().hash_one(std::process::id());
        Self::seeded(seed, hedging, observer, now)
    }

    fn seeded(seed: u64, hedging: bool, observer: Arc<dyn Observer>, now: Instant) -> Self {
        Self {
            members: Vec::new(),
            next_id: 0,
            budget: RetryBudget::new(now),
            hedge: HedgeDelay::new(),
            hedging,
            random: Random::new(seed),
            observer: Contained(observer),
            last_loss: None,
            not_found_at: None,
            candidates: Vec::new(),
        }
    }

    /// Adds a server, which gets calls once it is [`Fleet::connected`].
    pub(crate) fn join(&mut self, name: &str, place: Place, now: Instant) -> ServerId {
        let id = ServerId(self.next_id);
        self.next_id += 1;
        self.members.push(Member {
            id,
            name: name.into(),
            place,
            load: Load::new(now),
            health: Health::default(),
        });
        id
    }

    /// The server stands elsewhere among the others from now on.
    pub(crate) fn moved(&mut self, id: ServerId, place: Place) {
        self.with(id, |member, _| member.place = place);
    }

    /// Takes a server out: it gets no more calls. Those on their way to it may still report.
    pub(crate) fn leave(&mut self, id: ServerId) {
        self.members.retain(|member| member.id != id);
    }

    /// Servers could not be looked up. Calls that would wait for one fail when none is known.
    pub(crate) fn not_found(&mut self, error: Error, now: Instant) {
        self.last_loss = Some(error);
        self.not_found_at = Some(now);
    }

    /// A connection to the server works.
    pub(crate) fn connected(&mut self, id: ServerId, draining: bool, now: Instant) {
        self.with(id, |member, observer| {
            member.health.connected(draining);
            member.load.reset();
            member.load.restart(now);
            let server = &member.name;
            observer.observe(Event::Connected { server });
            if draining {
                observer.observe(Event::Draining { server });
            }
        });
    }

    /// The connection to the server was lost, or could not be made. Calls on their way over it
    /// report for themselves, after this.
    pub(crate) fn lost(&mut self, id: ServerId, error: &Error, now: Instant) {
        self.last_loss = Some(error.clone());
        self.with(id, |member, observer| {
            member.health.lost(now);
            let server = &member.name;
            observer.observe(Event::Lost { server, error });
        });
    }

    /// The server said that it drains.
    pub(crate) fn drains(&mut self, id: ServerId) {
        self.with(id, |member, observer| {
            if member.health.drains() {
                let server = &member.name;
                observer.observe(Event::Draining { server });
            }
        });
    }

    /// The server did not answer a question about its health.
    pub(crate) fn unanswered(&mut self, id: ServerId, now: Instant) {
        self.with(id, |member, observer| {
            if let Some(duration) = member.health.unanswered(now) {
                let server = &member.name;
                observer.observe(Event::Ejected { server, duration });
            }
        });
    }

    fn last_loss(&self) -> Option<Error> {
        self.last_loss.clone()
    }

    /// Whether every server has failed to connect, or lost its connection, after `since`; or
    /// could not even be looked up.
    fn all_lost_since(&self, since: Instant) -> bool {
        if self.members.is_empty() {
            return self.not_found_at.is_some_and(|at| at >= since);
        }
        // Later than that: a call whose own connection was lost begins to wait at the same instant.
        let lost = |member: &Member| member.health.lost_at().is_some_and(|at| at > since);
        self.members.iter().all(lost)
    }

    /// Chooses a server for a call that `tried` some already.
    fn pick(&mut self, tried: &[ServerId], now: Instant) -> Pick {
        for member in &mut self.members {
            if member.health.returns(now) {
                member.load.restart(now);
            }
        }
        let untried = self.pick_among(|id| !tried.contains(&id), now);
        match untried {
            Pick::Server(_) => untried,
            _ => match self.pick_among(|_| true, now) {
                Pick::NoneUp => untried,
                again => again,
            },
        }
    }

    fn pick_among(&mut self, allowed: impl Fn(ServerId) -> bool, now: Instant) -> Pick {
        let standing = |member: &Member| (member.health.standing(now), member.place.tier);
        let allowed = |member: &&Member| allowed(member.id);
        let best = self.members.iter().filter(allowed).map(standing).min();
        match best {
            None | Some((Standing::Down, _)) => return Pick::NoneUp,
            Some((Standing::Busy(until), _)) => return Pick::BusyUntil(until),
            Some(_) => {}
        }
        self.candidates.clear();
        for (index, member) in self.members.iter().enumerate() {
            if allowed(&member) && Some(standing(member)) == best {
                self.candidates.push(index);
            }
        }
        self.draw(now)
    }

    /// Of two candidates drawn at random, the cheaper one.
    fn draw(&mut self, now: Instant) -> Pick {
        let members = &self.members;
        let weight = |index: &usize| members.get(*index).map_or(0, |one| one.place.weight);
        let mut weights = self.candidates.iter().map(weight);
        let first = weights.next();
        if weights.any(|weight| Some(weight) != first) {
            return self.draw_by_weight(now);
        }
        let (one, two) = self.random.two_below(self.candidates.len());
        let drawn = [one, two].map(|drawn| {
            let index = self.candidates.get(drawn).copied().unwrap_or(0);
            self.members.get(index)
        });
        let cost = |member: &&Member| member.load.cost(now);
        let chosen = drawn.into_iter().flatten();
        chosen
            .min_by(|one, two| cost(one).total_cmp(&cost(two)))
            .map_or(Pick::NoneUp, |member| Pick::Server(member.id))
    }

    /// Weights decide how often each candidate is drawn first. The second is taken only if it is clearly cheaper, in
    /// calls in flight for its size or by a latency that is unusual. So calls are shared by weight while servers do
    /// well, and one that does not loses its share all the same.
    fn draw_by_weight(&mut self, now: Instant) -> Pick {
        let members = &self.members;
        let weight = |index: &usize| members.get(*index).map_or(0, |one| one.place.weight);
        let weights = self.candidates.iter().map(weight);
        let (one, two) = self.random.two_by_weight(weights.clone());
        let count = u32::try_from(self.candidates.len()).unwrap_or(u32::MAX);
        let mean = weights.map(f64::from).sum::<f64>() / f64::from(count);
        let usual = self.hedge.delay();
        let [one, two] = [one, two].map(|drawn| {
            let member = members.get(*self.candidates.get(drawn)?)?;
            let share = f64::from(member.place.weight) / mean;
            Some((member.id, member.load.weighed_cost(share, usual, now)))
        });
        match (one, two) {
            (Some((_, one)), Some((id, two))) if two * CLEARLY < one => Pick::Server(id),
            (Some((id, _)), _) => Pick::Server(id),
            (None, _) => Pick::NoneUp,
        }
    }

    /// An untried server in good standing for a second request beside the first, if there is one.
    fn pick_second(&mut self, tried: &[ServerId], now: Instant) -> Option<ServerId> {
        let ready = |member: &Member| member.health.standing(now) == Standing::Ready;
        let any = self
            .members
            .iter()
            .any(|member| !tried.contains(&member.id) && ready(member));
        match any.then(|| self.pick_among(|id| !tried.contains(&id), now)) {
            Some(Pick::Server(id)) => Some(id),
            _ => None,
        }
    }

    fn started(&mut self, id: ServerId, now: Instant) {
        self.with(id, |member, _| member.load.started(now));
    }

    /// An answer: a result, or a refusal that is final.
    fn answered(&mut self, id: ServerId, latency: Duration, now: Instant) {
        self.hedge.answered(latency);
        self.with(id, |member, observer| {
            member.load.answered(latency, now);
            member.health.succeeded();
            observer.observe(Event::Answered {
                server: &member.name,
                latency,
                in_flight: member.load.in_flight(),
            });
        });
    }

    /// The server did not do what was asked, and another one might.
    fn failed(&mut self, id: ServerId, error: &Error, waited: Duration, now: Instant) {
        self.with(id, |member, observer| {
            let mut ejected = None;
            match error {
                Error::Busy { retry_after } => {
                    member.load.answered(waited, now);
                    member.health.busy(*retry_after, now);
                }
                _ => {
                    member.load.abandoned(waited, now);
                    ejected = member.health.failed(now);
                }
            }
            let server = &member.name;
            let in_flight = member.load.in_flight();
            observer.observe(Event::Failed {
                server,
                error,
                in_flight,
            });
            if let Some(duration) = ejected {
                observer.observe(Event::Ejected { server, duration });
            }
        });
    }

    /// Nobody waits any longer for this answer.
    fn abandoned(&mut self, id: ServerId, waited: Duration, now: Instant) {
        self.with(id, |member, _| member.load.abandoned(waited, now));
    }

    fn tell(&self, event: impl Fn(&str) -> Event<'_>, id: ServerId) {
        if let Some(member) = self.members.iter().find(|member| member.id == id) {
            self.observer.observe(event(&member.name));
        }
    }

    fn with(&mut self, id: ServerId, change: impl FnOnce(&mut Member, &dyn Observer)) {
        if let Some(member) = self.members.iter_mut().find(|member| member.id == id) {
            change(member, &self.observer);
        }
    }
}
