//! A thread of a slot's pool, with one session of its own.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use cryptoki::slot::Slot as SlotId;
use zeroize::{Zeroize, Zeroizing};

use super::breaker::jittered;
use super::error::TokenFailure;
use super::failure::{Class, Failure};
use super::keeper::Command;
use super::mechanism::{self, MAX_RESULT_LEN};
use super::session::Held;
use super::slot::{Assignment, Ending, KEY_GONE, Next, Slot, Unchecked};
use super::state::Phase;
use super::ticket::{Retried, part};
use crate::error::JobError;

/// At most so many sessions are being opened at once: some devices fail when all come together.
const OPENING: usize = 8;
/// First pause before a busy device is asked again; it doubles up to the second.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// The main function of a worker.
pub(super) fn run(slot: &Arc<Slot>, id: usize) {
    let mut worker = Worker {
        slot,
        id,
        session: None,
        shut_times: 0,
        buffer: Zeroizing::new(vec![0; MAX_RESULT_LEN]),
    };
    // A session that cannot be opened now is opened with the first request.
    slot.calling(id);
    let opened = worker.open();
    slot.returned(id);
    if let Err(failure) = opened {
        slot.note(&failure);
    }
    loop {
        match slot.next(id) {
            Next::Run(assignment) => {
                let mut next = Some(assignment);
                while let Some(assignment) = next {
                    next = worker.serve(assignment);
                }
            }
            Next::Check(unchecked) => worker.check(&unchecked),
            Next::KeepAlive => {
                slot.calling(id);
                worker.keep_alive();
                slot.returned(id);
            }
            Next::Exit => break,
        }
    }
    slot.calling(id);
    worker.drop_session();
    let mut state = slot.lock();
    state.workers.remove(&id);
    state.idle.retain(|idle| *idle != id);
    drop(state);
    // A thread that was lost for a while has made room for one that works.
    slot.staff();
}

struct Worker<'a> {
    slot: &'a Arc<Slot>,
    id: usize,
    session: Option<Held>,
    /// How often the slot had been shut when the session was opened.
    shut_times: u64,
    buffer: Zeroizing<Vec<u8>>,
}

/// An operation that failed, and what the class of the failure asks for.
enum Stop {
    Failure(Failure),
    /// The token's result has not even the right length.
    Wrong,
    /// The token has no mechanism for it.
    NoMechanism,
    /// The token does not have the key any more.
    NoKey,
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl Worker<'_> {
    /// Runs one request on this slot: to its end, or until another worker checks its result and this one has
    /// been given the next.
    fn serve(&mut self, assignment: Assignment) -> Option<Assignment> {
        let mut retried = assignment.retried;
        let mut pause = FIRST_PAUSE;
        let mut first = true;
        loop {
            if !first && !self.slot.calling(self.id) {
                // Its deadline has passed and it was answered.
                self.slot.complete(
                    self.id,
                    assignment.begun,
                    Ending::Failed(TokenFailure::Deadline),
                );
                return None;
            }
            first = false;
            let attempt = self.attempt(&assignment);
            let kept = self.slot.returned(self.id);
            let ending = match attempt {
                Ok(result) => {
                    let unchecked = Box::new(Unchecked {
                        latency: assignment.begun.elapsed(),
                        assignment,
                        result,
                    });
                    match self.slot.hand_over(self.id, unchecked) {
                        Ok(next) => return next,
                        Err(unchecked) => self.check(&unchecked),
                    }
                    return None;
                }
                Err(Stop::Wrong) => Ending::Wrong,
                Err(Stop::NoKey) => {
                    self.slot.lock().note(KEY_GONE);
                    Ending::Elsewhere
                }
                Err(Stop::NoMechanism) => Ending::Failed(TokenFailure::Job(JobError::WrongKey)),
                Err(Stop::Failure(failure)) => {
                    self.slot.note(&failure);
                    if !kept {
                        self.slot
                            .complete(self.id, assignment.begun, Ending::SlotFailed);
                        return None;
                    }
                    match self.decide(&failure, &assignment, &mut retried, &mut pause) {
                        Some(ending) => ending,
                        None => continue,
                    }
                }
            };
            self.slot.complete(self.id, assignment.begun, ending);
            return None;
        }
    }

    /// Nothing leaves that the public key does not say is right.
    fn check(&self, unchecked: &Unchecked) {
        let ending = if unchecked.is_right() {
            Ending::Done(&unchecked.result)
        } else {
            Ending::Wrong
        };
        self.slot
            .complete(self.id, unchecked.assignment.begun, ending);
    }

    /// The table of `failure.rs`; `None` to try again at once.
    fn decide(
        &mut self,
        failure: &Failure,
        assignment: &Assignment,
        retried: &mut Retried,
        pause: &mut Duration,
    ) -> Option<Ending<'static>> {
        match failure.class {
            Class::Caller => Some(Ending::Failed(TokenFailure::Job(if failure.input {
                JobError::Input
            } else {
                JobError::Failed
            }))),
            Class::Session if !retried.session => {
                retried.session = true;
                self.drop_session_after(failure);
                None
            }
            Class::Login if !retried.login => {
                retried.login = true;
                // Another worker may take it, whose session has not noticed yet.
                retried.session = false;
                let command = Command::Recover(assignment.generation);
                Some(Ending::Again(*retried, Some(command)))
            }
            Class::Library if !retried.library => {
                retried.library = true;
                retried.session = false;
                // Without a session it was the opening of one that failed.
                let epoch = match &self.session {
                    Some(held) => held.epoch,
                    None => self.slot.lock().epoch,
                };
                Some(Ending::Again(*retried, Some(Command::Initialize(epoch))))
            }
            Class::Busy => {
                // The operation may have been left begun: a session that says so next is replaced, too.
                retried.session = false;
                self.wait_while_busy(assignment.deadline, pause)
            }
            Class::Terminal => {
                self.refuse_for_good(failure);
                Some(Ending::SlotFailed)
            }
            Class::Session | Class::Login | Class::Library | Class::Slot => {
                // Whatever state the session is in, a new one is in a better one.
                self.drop_session_after(failure);
                Some(Ending::SlotFailed)
            }
        }
    }

    /// Asks for less at once, and waits a little; an ending when the deadline is too near for that.
    fn wait_while_busy(
        &mut self,
        deadline: Instant,
        pause: &mut Duration,
    ) -> Option<Ending<'static>> {
        let wait = jittered(*pause);
        *pause = (*pause * 2).min(LONGEST_PAUSE);
        let mut state = self.slot.lock();
        state.limiter.shrink();
        if Instant::now() + wait >= deadline || state.phase == Phase::Stopped {
            return Some(Ending::Failed(TokenFailure::Busy));
        }
        let wake = state
            .workers
            .get(&self.id)
            .map(|worker| Arc::clone(&worker.wake));
        if let Some(wake) = wake {
            // Woken early, by a stop, it finds out on its next turn.
            drop(wake.wait_timeout(state, wait));
        }
        None
    }

    /// One try: a session and two calls. What comes back is not checked yet.
    fn attempt(&mut self, assignment: &Assignment) -> Result<Zeroizing<Vec<u8>>, Stop> {
        let parts = &assignment.parts;
        let place = assignment.key.place().ok_or(Stop::NoKey)?;
        let request = mechanism::request(
            assignment.operation,
            parts.key_type,
            place.abilities,
            &assignment.input,
        )
        .map_err(|_| Stop::NoMechanism)?;
        if self.shut_times != assignment.shut_times {
            // The slot works again, as its keeper found in a session of its own. This one may be of those that did not.
            self.drop_session();
        }
        self.open()?;
        let outcome = {
            let module = &self.slot.module;
            let inside = module.enter()?;
            let held = self.session.as_ref();
            let held = held.ok_or_else(|| Failure::slot("no session"))?;
            held.session(module, &inside).and_then(|session| {
                module.raw().run(
                    request.call,
                    session,
                    &request.mechanism,
                    place.handle,
                    &request.input,
                    &mut self.buffer,
                )
            })
        };
        let length = outcome?;
        let returned = self.buffer.get_mut(..length).ok_or(Stop::Wrong)?;
        let result = mechanism::result(assignment.operation, parts.key_type, returned);
        returned.zeroize();
        result.ok_or(Stop::Wrong)
    }

    /// Makes sure that there is a session of the module's present epoch.
    fn open(&mut self) -> Result<(), Failure> {
        if let Some(held) = &self.session {
            let inside = self.slot.module.enter()?;
            if held.session(&self.slot.module, &inside).is_ok() {
                return Ok(());
            }
        }
        self.forget_session();
        let mut state = self.slot.lock();
        while state.opening >= OPENING {
            state = self
                .slot
                .opened
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.opening += 1;
        self.shut_times = state.shut_times;
        let slot_id = state.token.slot_id;
        drop(state);
        let result = self.open_in(slot_id);
        let mut state = self.slot.lock();
        state.opening -= 1;
        self.slot.opened.notify_one();
        match result {
            Ok(opened) => {
                state.sessions += 1;
                self.session = Some(opened);
                Ok(())
            }
            Err(failure) => {
                if failure.name == "CKR_SESSION_COUNT" {
                    // This is all that the token gives: fewer workers.
                    let cap = state.sessions.max(1);
                    state.cap = cap;
                    state.limiter.set_cap(cap);
                }
                Err(failure)
            }
        }
    }

    fn open_in(&self, slot_id: u64) -> Result<Held, Failure> {
        let inside = self.slot.module.enter()?;
        let slot_id = SlotId::try_from(slot_id).map_err(Failure::from)?;
        Held::open(&self.slot.module, &inside, slot_id)
    }

    /// Gives up the session after a failure. A device that fails may well hang when a session is closed.
    fn drop_session_after(&mut self, failure: &Failure) {
        if failure.says_session_is_gone() {
            self.forget_session();
        } else {
            self.slot.calling(self.id);
            self.drop_session();
            self.slot.returned(self.id);
        }
    }

    /// Closes the session, if it is still ours.
    fn drop_session(&mut self) {
        if let Some(held) = self.session.take() {
            held.close(&self.slot.module);
            self.slot.lock().sessions -= 1;
        }
    }

    /// Gives up a session that is gone.
    fn forget_session(&mut self) {
        if let Some(held) = self.session.take() {
            held.forget(&self.slot.module);
            self.slot.lock().sessions -= 1;
        }
    }

    /// Uses the session, so that the device does not take it away.
    fn keep_alive(&mut self) {
        let module = &self.slot.module;
        let result = {
            let (Ok(inside), Some(held)) = (module.enter(), &self.session) else {
                return;
            };
            held.session(module, &inside)
                .and_then(|session| session.get_session_info().map_err(Failure::from))
        };
        if let Err(failure) = result {
            self.slot.note(&failure);
            self.drop_session_after(&failure);
        }
    }

    fn refuse_for_good(&self, failure: &Failure) {
        let mut partings = Vec::new();
        let mut state = self.slot.lock();
        state.pins.refuse_good(&failure.name);
        state.shut(Phase::Terminal, &mut partings);
        drop(state);
        part(partings);
    }
}
