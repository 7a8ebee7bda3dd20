//! One call, from its first request to its outcome: where it goes, when it goes elsewhere, when a
//! second server is asked as well.
//!
//! ```text
//!   begin --> Send(server) --answered: result--> Done
//!               |    |  '--- failed, budget ----> Send(another)
//!               |    '------ slow, budget ------> Send(second), first answer wins
//!               '--> Wait: for a server to be up, or no longer busy; the deadline ends it
//! ```

use std::time::{Duration, Instant};

use keyless_protocol::ErrorCode;

use super::{Fleet, Pick, ServerId};
use crate::error::Error;
use crate::observe::{Event, Observer};
use crate::settings::LONGEST;

/// Requests made for one call at most, hedges included.
const SENDS_MAX: u32 = 4;

/// The state of one call. The driver follows each [`Step`] and reports back.
#[derive(Debug)]
pub(crate) struct Attempts {
    repeatable: bool,
    limit: Duration,
    deadline: Instant,
    running: Vec<(ServerId, Instant)>,
    tried: Vec<ServerId>,
    sends: u32,
    hedge_at: Option<Instant>,
    resume_at: Option<Instant>,
    /// Since when no server was up.
    parked_since: Option<Instant>,
    last: Option<Error>,
}

/// What the driver has to do.
#[derive(Debug)]
pub(crate) enum Step {
    /// Send the request to this server; report with [`Attempts::answered`].
    Send(ServerId),
    /// Nothing, until an answer, [`Attempts::wake_at`], or a change of what is connected.
    Wait,
    /// The call is over. Answers still on their way are of no interest.
    Done(Result<Vec<u8>, Error>),
}

impl Attempts {
    pub(crate) fn new(repeatable: bool, limit: Duration, now: Instant) -> Self {
        let limit = limit.min(LONGEST);
        Self {
            repeatable,
            limit,
            deadline: now + limit,
            running: Vec::with_capacity(2),
            tried: Vec::with_capacity(2),
            sends: 0,
            hedge_at: None,
            resume_at: None,
            parked_since: None,
            last: None,
        }
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// When [`Attempts::woken`] has to be called at the latest.
    pub(crate) fn wake_at(&self) -> Instant {
        let timers = [self.hedge_at, self.resume_at];
        timers
            .into_iter()
            .flatten()
            .fold(self.deadline, Instant::min)
    }

    /// Whether the call waits for a server to be connected.
    pub(crate) fn is_parked(&self) -> bool {
        self.parked_since.is_some()
    }

    /// The first step.
    pub(crate) fn begin(&mut self, fleet: &mut Fleet, now: Instant) -> Step {
        fleet.budget.earn();
        self.place(fleet, now)
    }

    /// Time has passed, or what is connected has changed.
    pub(crate) fn woken(&mut self, fleet: &mut Fleet, now: Instant) -> Step {
        if now >= self.deadline {
            return self.too_late(fleet, now);
        }
        if self.parked_since.is_some() || self.resume_at.is_some_and(|at| at <= now) {
            self.resume_at = None;
            return self.place(fleet, now);
        }
        if self.hedge_at.is_some_and(|at| at <= now) {
            self.hedge_at = None;
            return self.hedge(fleet, now);
        }
        Step::Wait
    }

    /// A server answered, or its connection failed.
    pub(crate) fn answered(
        &mut self,
        fleet: &mut Fleet,
        server: ServerId,
        result: Result<Vec<u8>, Error>,
        now: Instant,
    ) -> Step {
        let Some(index) = self.running.iter().position(|(id, _)| *id == server) else {
            return Step::Wait;
        };
        let (_, since) = self.running.swap_remove(index);
        let latency = now.saturating_duration_since(since);
        match result {
            Err(error) if is_worth_another_try(&error) => {
                fleet.failed(server, &error, latency, now);
                self.again(fleet, error, now)
            }
            result => {
                fleet.answered(server, latency, now);
                self.give_up(fleet, now);
                Step::Done(result)
            }
        }
    }

    /// Ends the call: nobody waits for it any longer.
    pub(crate) fn give_up(&mut self, fleet: &mut Fleet, now: Instant) {
        for (server, since) in self.running.drain(..) {
            fleet.abandoned(server, now.saturating_duration_since(since), now);
        }
    }

    /// Sends to the best server, if one can take it.
    fn place(&mut self, fleet: &mut Fleet, now: Instant) -> Step {
        match fleet.pick(&self.tried, now) {
            Pick::Server(server) => {
                self.parked_since = None;
                self.hedge_at =
                    (self.repeatable && fleet.hedging).then(|| now + fleet.hedge.delay());
                self.send(fleet, server, now)
            }
            Pick::BusyUntil(at) if at < self.deadline => {
                self.parked_since = None;
                self.resume_at = Some(at);
                Step::Wait
            }
            Pick::BusyUntil(at) => Step::Done(Err(self.last.take().unwrap_or(Error::Busy {
                retry_after: Some(at.saturating_duration_since(now)),
            }))),
            Pick::NoneUp => {
                let since = *self.parked_since.get_or_insert(now);
                if fleet.all_lost_since(since)
                    && let Some(error) = fleet.last_loss()
                {
                    return Step::Done(Err(error));
                }
                Step::Wait
            }
        }
    }

    fn send(&mut self, fleet: &mut Fleet, server: ServerId, now: Instant) -> Step {
        self.sends += 1;
        self.tried.push(server);
        self.running.push((server, now));
        fleet.started(server, now);
        Step::Send(server)
    }

    /// After a failure that another server might not have.
    fn again(&mut self, fleet: &mut Fleet, error: Error, now: Instant) -> Step {
        if !self.running.is_empty() {
            self.last = Some(error);
            return Step::Wait;
        }
        self.hedge_at = None;
        // What never left does no harm elsewhere, and costs nobody anything.
        let unsent = error.is_unsent();
        if !(self.repeatable || unsent) || self.sends >= SENDS_MAX || now >= self.deadline {
            return Step::Done(Err(error));
        }
        if !unsent && !fleet.budget.spend(now) {
            fleet.observer.observe(Event::BudgetSpent);
            return Step::Done(Err(error));
        }
        self.last = Some(error);
        let step = self.place(fleet, now);
        if let Step::Send(server) = step {
            fleet.tell(|server| Event::Retried { server }, server);
        }
        step
    }

    fn hedge(&mut self, fleet: &mut Fleet, now: Instant) -> Step {
        if self.sends >= SENDS_MAX || self.running.len() != 1 {
            return Step::Wait;
        }
        // Should it not be possible now, it may be a little later.
        self.hedge_at = Some(now + fleet.hedge.delay());
        let Some(second) = fleet.pick_second(&self.tried, now) else {
            return Step::Wait;
        };
        if !fleet.budget.spend(now) {
            fleet.observer.observe(Event::BudgetSpent);
            return Step::Wait;
        }
        self.hedge_at = None;
        fleet.tell(|server| Event::Hedged { server }, second);
        self.send(fleet, second, now)
    }

    fn too_late(&mut self, fleet: &mut Fleet, now: Instant) -> Step {
        let error = Error::Deadline { limit: self.limit };
        for (server, since) in self.running.drain(..) {
            fleet.failed(server, &error, now.saturating_duration_since(since), now);
        }
        // What went wrong before tells more than that time has run out.
        let told = if self.parked_since.is_some() {
            self.last.take().or_else(|| fleet.last_loss())
        } else {
            self.last.take()
        };
        Step::Done(Err(told.unwrap_or(error)))
    }
}

/// Whether another server might answer what this one did not. Refusals are final: `denied`,
/// `disabled`, `sealed` and their kind are decisions, and the same on every server.
pub(crate) fn is_worth_another_try(error: &Error) -> bool {
    match error {
        Error::Network(_) | Error::Tls(_) | Error::Protocol(_) | Error::Busy { .. } => true,
        // A stock server says so when it is overloaded or broken.
        Error::Refused(code) => *code == ErrorCode::Internal,
        _ => false,
    }
}
