//! The thread that keeps a slot usable: holds the login, finds keys, probes a slot that is shut, and uses
//! its session now and then so that the device does not take it away.
//!
//! Its session does nothing else. Closing the last session of a token logs out, so as long as this one is
//! open, workers may close and open theirs as they need.

mod finding;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::MechanismType;
use cryptoki::session::{SessionState, UserType};
use cryptoki::slot::{Limit, Slot as SlotId, TokenInfo};
use cryptoki::types::RawAuthPin;

use super::error::TokenError;
use super::failure::{Class, Failure};
use super::module::Inside;
use super::object::NotFound;
use super::pin::Pin;
use super::probe;
use super::session::Held;
use super::slot::{Slot, SlotKey};
use super::state::Phase;
use super::ticket::part;

/// After this long, a slot that was refused sessions asks for one more.
const REGROW: Duration = Duration::from_secs(60);

/// How long the keeper waits for workers to return a session that it needs itself.
const MAKING_ROOM: Duration = Duration::from_secs(1);
const ROOM_PAUSE: Duration = Duration::from_millis(5);

/// What the keeper is asked to do.
#[derive(Debug)]
pub(super) enum Command {
    /// Find a key, with this PIN if it is a new one; tell its `SubjectPublicKeyInfo`.
    Add {
        key: Arc<SlotKey>,
        pin: Option<Pin>,
        reply: Sender<Result<Vec<u8>, TokenError>>,
    },
    /// Log in and find the keys again, unless that has been done since this generation.
    Recover(u64),
    /// Initialize the module again, unless that has been done since this epoch.
    Initialize(u64),
    /// The slot was shut by somebody else: look when it has to be probed. What the keeper waited for was due later.
    Look,
    /// Close the session and end.
    Stop,
}

/// The main function of the thread.
pub(super) fn run(slot: Arc<Slot>, commands: &Receiver<Command>) {
    let mut keeper = Keeper {
        slot,
        session: None,
        mechanisms: Vec::new(),
        logged_in: false,
        grown: Instant::now(),
    };
    loop {
        match commands.recv_timeout(keeper.pause()) {
            Ok(Command::Add { key, pin, reply }) => {
                let result = keeper.add(&key, pin);
                // Whoever asked may have stopped waiting.
                let _ = reply.send(result);
            }
            // Whoever asked for one of these saw the slot ready, and had its requests wait. A slot that has been shut since,
            // by a try of the keeper's own, is not tried again before its time.
            Ok(Command::Recover(_) | Command::Initialize(_)) if !keeper.is_recovering() => {}
            Ok(Command::Recover(generation)) => {
                if keeper.slot.lock().generation == generation {
                    keeper.recover();
                } else {
                    keeper.go_on();
                }
            }
            Ok(Command::Initialize(epoch)) => keeper.initialize_and_recover(epoch),
            // The next turn waits as long as the breaker says.
            Ok(Command::Look) => {}
            Err(RecvTimeoutError::Timeout) => {
                if keeper.tick() {
                    break;
                }
            }
            Ok(Command::Stop) | Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    keeper.close();
}

struct Keeper {
    slot: Arc<Slot>,
    session: Option<Held>,
    mechanisms: Vec<MechanismType>,
    logged_in: bool,
    /// When the number of sessions was last looked at.
    grown: Instant,
}

impl Keeper {
    /// How long to wait for a command before there is something to do anyway.
    fn pause(&self) -> Duration {
        let state = self.slot.lock();
        let keepalive = self.slot.settings.keepalive;
        match (state.phase, state.breaker.until()) {
            (Phase::Down, Some(until)) => until.saturating_duration_since(Instant::now()),
            _ => keepalive,
        }
    }

    fn add(&mut self, key: &Arc<SlotKey>, pin: Option<Pin>) -> Result<Vec<u8>, TokenError> {
        let phase = {
            let mut state = self.slot.lock();
            if let Some(pin) = pin {
                state.pins.offer(pin);
            }
            state.phase
        };
        if phase == Phase::Down || phase == Phase::Probing {
            let failure = Failure::slot("its breaker is open");
            return Err(TokenError::token(&key.uri, &failure));
        }
        if phase != Phase::Ready || self.session.is_none() || !self.is_logged_in_as_wanted() {
            self.recover_with(Self::bring_up)
                .map_err(|failure| self.refusal(key, &failure))?;
        }
        match self.find_one(key) {
            Err(NotFound::Failure(failure)) if failure.class != Class::Caller => {
                self.slot.note(&failure);
                self.recover_with(Self::bring_up)
                    .map_err(|failure| self.refusal(key, &failure))?;
                self.find_one(key)
            }
            result => result,
        }
        .map_err(|problem| problem.into_error(&key.uri))
    }

    /// A login is wanted when there is a PIN.
    fn is_logged_in_as_wanted(&self) -> bool {
        self.logged_in || self.slot.lock().pins.are_none()
    }

    fn refusal(&self, key: &SlotKey, failure: &Failure) -> TokenError {
        if failure.class == Class::Terminal {
            TokenError::PinRefused {
                token: self.slot.lock().token.label.clone(),
                reason: failure.to_string(),
            }
        } else {
            TokenError::token(&key.uri, failure)
        }
    }

    /// Runs `attempt` until the slot is ready, shut, or refused for good, and sets its phase accordingly.
    fn recover_with(
        &mut self,
        attempt: impl Fn(&mut Self) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut result = attempt(self);
        if let Err(failure) = &result {
            match failure.class {
                Class::Session | Class::Login => {
                    self.slot.note(failure);
                    self.drop_session_after(failure);
                    result = attempt(self);
                }
                Class::Library => {
                    self.slot.note(failure);
                    let epoch = self.slot.lock().epoch;
                    result = self.initialize(epoch).and_then(|()| attempt(self));
                }
                Class::Caller | Class::Busy | Class::Slot | Class::Terminal => {}
            }
        }
        if let Err(failure) = &result {
            self.fail(failure);
            if !matches!(failure.class, Class::Caller | Class::Busy | Class::Terminal) {
                // Whatever state the session is in, the next probe begins in a better one.
                self.drop_session_after(failure);
            }
            return result;
        }
        self.ready().inspect_err(|failure| self.fail(failure))
    }

    fn fail(&self, failure: &Failure) {
        self.slot.note(failure);
        self.shut(failure);
    }

    fn recover(&mut self) {
        // What came of it stands in the phase.
        let _ = self.recover_with(Self::bring_up);
    }

    /// What was asked for has been done since: opens the slot.
    fn go_on(&self) {
        if let Err(failure) = self.ready() {
            self.fail(&failure);
        }
    }

    fn is_recovering(&self) -> bool {
        self.slot.lock().phase == Phase::Recovering
    }

    /// Opens the slot for requests, if there is anybody to work on them.
    fn ready(&self) -> Result<(), Failure> {
        let mut state = self.slot.lock();
        if state.phase == Phase::Stopped {
            return Ok(());
        }
        if state.is_exhausted(&self.slot.settings) {
            return Err(Failure::slot("every thread is stuck"));
        }
        state.breaker.close();
        state.phase = Phase::Ready;
        drop(state);
        self.slot.staff();
        self.slot.lock().pump();
        Ok(())
    }

    fn shut(&self, failure: &Failure) {
        let mut partings = Vec::new();
        let mut state = self.slot.lock();
        let phase = if failure.class == Class::Terminal {
            state.pins.refuse_good(&failure.name);
            Phase::Terminal
        } else {
            state.breaker.open(Instant::now());
            Phase::Down
        };
        state.shut(phase, &mut partings);
        drop(state);
        part(partings);
    }

    /// Logs in if need be, and finds every key: a new generation.
    fn bring_up(&mut self) -> Result<(), Failure> {
        self.calling(true);
        let result = self.log_in().and_then(|()| self.find_all());
        self.calling(false);
        result
    }

    /// Tells the watchdog that this thread is in a call.
    /// Told again before each, so that a device that is slow but answers is not taken for one that hangs.
    fn calling(&self, begins: bool) {
        let mut state = self.slot.lock();
        state.keeper_call = begins.then(Instant::now);
        if begins && state.watchdog_sleeps {
            state.watchdog_sleeps = false;
            self.slot.watch.notify_one();
        }
    }

    fn log_in(&mut self) -> Result<(), Failure> {
        let slot = Arc::clone(&self.slot);
        let inside = slot.module.enter()?;
        // Whatever becomes of this attempt: what it meets is a fault of this epoch, and may ask for the next.
        slot.lock().epoch = inside.epoch;
        let usable = |held: &Held| held.session(&slot.module, &inside).is_ok();
        if !self.session.as_ref().is_some_and(usable) {
            self.forget();
            self.open(&inside)?;
        }
        let held = self.session.as_ref().ok_or_else(no_session)?;
        let session = held.session(&slot.module, &inside)?;
        self.calling(true);
        let state = session.get_session_info()?.session_state();
        self.logged_in = matches!(state, SessionState::RoUser | SessionState::RwUser);
        if self.logged_in {
            return Ok(());
        }
        let pin = slot.lock().pins.to_try();
        let pin = pin.map_err(|name| Failure {
            class: Class::Terminal,
            ..Failure::slot(&name)
        })?;
        let Some(pin) = pin else { return Ok(()) };
        let secret = RawAuthPin::new(Box::new(pin.bytes().to_vec()));
        self.calling(true);
        match session.login_with_raw(UserType::User, &secret) {
            Ok(()) => {
                self.logged_in = true;
                slot.lock().pins.logged_in(&pin);
                Ok(())
            }
            // Which says nothing about this PIN.
            Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {
                self.logged_in = true;
                Ok(())
            }
            Err(error) => Err(self.login_failed(&pin, error)),
        }
    }

    /// What a login that failed asks for. A PIN that was refused is remembered. While there is another, the breaker
    /// says when that is tried: one attempt each time the slot tries to recover.
    fn login_failed(&self, pin: &Pin, error: Error) -> Failure {
        // A vendor may say in its own words that the PIN is wrong.
        let is_clear = !matches!(
            error,
            Error::Pkcs11(RvError::VendorDefined(_) | RvError::UnknownErrorCode(_), _)
        );
        let failure = Failure::from(error);
        if is_clear && failure.class != Class::Terminal {
            return failure;
        }
        let class = if self.slot.lock().pins.refused(pin, &failure.name) {
            Class::Slot
        } else {
            Class::Terminal
        };
        Failure { class, ..failure }
    }

    /// Opens the session that holds the login, in the slot where the token is now.
    fn open(&mut self, inside: &Inside<'_>) -> Result<(), Failure> {
        let context = self.slot.module.context();
        let (id, token) = self.whereabouts()?;
        self.calling(true);
        self.mechanisms = context.get_mechanism_list(id)?;
        self.session = Some(self.open_in(inside, id)?);
        let mut state = self.slot.lock();
        state.token.slot_id = id.id();
        if let Limit::Max(most) = token.max_session_count() {
            // One is the keeper's.
            let most = usize::try_from(most.saturating_sub(1)).unwrap_or(usize::MAX);
            state.cap = state.cap.min(most.max(1));
            let cap = state.cap;
            state.limiter.set_cap(cap);
        }
        Ok(())
    }

    /// The slot where the token is now. Where it was is looked at first, and no other if it is still there: the token
    /// of another may hang.
    fn whereabouts(&self) -> Result<(SlotId, TokenInfo), Failure> {
        let context = self.slot.module.context();
        let wanted = self.slot.lock().token.clone();
        let mut ids = context.get_slots_with_token()?;
        ids.sort_by_key(|id| id.id() != wanted.slot_id);
        ids.retain(|id| !wanted.is_bound || id.id() == wanted.slot_id);
        let holds_it = |id: SlotId| {
            self.calling(true);
            // A slot that does not answer is not the one.
            let token = context.get_token_info(id).ok()?;
            let same = token.label() == wanted.label && token.serial_number() == wanted.serial;
            same.then_some((id, token))
        };
        ids.into_iter()
            .find_map(holds_it)
            .ok_or_else(|| Failure::slot("CKR_TOKEN_NOT_PRESENT"))
    }

    /// Opens a session. If the token has no more to give, the workers return some of theirs.
    fn open_in(&self, inside: &Inside<'_>, id: SlotId) -> Result<Held, Failure> {
        let end = Instant::now() + MAKING_ROOM;
        loop {
            self.calling(true);
            match Held::open(&self.slot.module, inside, id) {
                Err(failure) if failure.name == "CKR_SESSION_COUNT" && Instant::now() < end => {
                    self.slot.make_room();
                    thread::sleep(ROOM_PAUSE);
                }
                result => return result,
            }
        }
    }

    /// Initializes the module again, unless a thread is stuck in it, and has its other slots recover.
    fn initialize(&mut self, epoch: u64) -> Result<(), Failure> {
        let slots = self.slot.module.slots();
        if slots
            .iter()
            .any(|slot| slot.lock().stuck(slot.settings.call_timeout) > 0)
        {
            return Err(Failure::slot("not initialized again: threads are stuck"));
        }
        self.calling(true);
        let result = self.slot.module.initialize_again(epoch);
        self.calling(false);
        result?;
        for other in slots.iter().filter(|other| !Arc::ptr_eq(other, &self.slot)) {
            let mut state = other.lock();
            let generation = state.generation;
            state.recover(&other.keeper, Command::Recover(generation));
        }
        Ok(())
    }

    fn initialize_and_recover(&mut self, epoch: u64) {
        if self.slot.lock().epoch == epoch
            && let Err(failure) = self.initialize(epoch)
        {
            self.fail(&failure);
            return;
        }
        self.recover();
    }

    /// What is due when nothing was asked for. True when the slot has no more keys and ends.
    fn tick(&mut self) -> bool {
        let phase = self.slot.lock().phase;
        match phase {
            Phase::Down => self.probe(),
            Phase::Ready => {
                if self.slot.stop_if_unused() {
                    return true;
                }
                self.keep_alive();
                if self.slot.lock().phase == Phase::Ready {
                    self.find_missing();
                }
                self.regrow();
            }
            Phase::Recovering | Phase::Probing | Phase::Terminal | Phase::Stopped => {}
        }
        false
    }

    /// Tries a slot that is shut: a session query, the keys, and one real signature.
    fn probe(&mut self) {
        let open_since = {
            let mut state = self.slot.lock();
            state.go_on(Phase::Probing);
            state.breaker.open_since()
        };
        if open_since.is_some_and(|since| since.elapsed() > self.slot.settings.initialize_after)
            && !self.has_healthy_neighbour()
        {
            let epoch = self.slot.lock().epoch;
            if let Err(failure) = self.initialize(epoch) {
                self.slot.note(&failure);
            }
        }
        // What came of it stands in the phase.
        let _ = self.recover_with(|keeper| keeper.bring_up().and_then(|()| keeper.sign()));
    }

    /// Whether another slot of the module works: then the module is in order, and is left alone.
    fn has_healthy_neighbour(&self) -> bool {
        self.slot
            .module
            .slots()
            .iter()
            .any(|other| !Arc::ptr_eq(other, &self.slot) && other.lock().phase == Phase::Ready)
    }

    /// Signs once with the first key that is there.
    fn sign(&self) -> Result<(), Failure> {
        self.calling(true);
        let held = self.session.as_ref().ok_or_else(no_session);
        let result = held.and_then(|held| probe::sign(&self.slot, held));
        self.calling(false);
        result
    }

    /// Uses the session, and sees whether the login still holds.
    fn keep_alive(&mut self) {
        self.calling(true);
        let result = self.session_state();
        self.calling(false);
        match result {
            Ok(SessionState::RoUser | SessionState::RwUser) => {}
            Ok(_) if !self.logged_in => {}
            Ok(_) => self.begin_recovery(),
            Err(failure) => {
                self.slot.note(&failure);
                self.begin_recovery();
            }
        }
    }

    fn session_state(&self) -> Result<SessionState, Failure> {
        let inside = self.slot.module.enter()?;
        let held = self.session.as_ref().ok_or_else(no_session)?;
        let session = held.session(&self.slot.module, &inside)?;
        Ok(session.get_session_info()?.session_state())
    }

    fn begin_recovery(&mut self) {
        self.slot.lock().go_on(Phase::Recovering);
        self.recover();
    }

    /// Asks for a session more, if some were refused a while ago.
    fn regrow(&mut self) {
        if self.grown.elapsed() < REGROW {
            return;
        }
        self.grown = Instant::now();
        let mut state = self.slot.lock();
        if state.cap < self.slot.settings.sessions {
            state.cap += 1;
            let cap = state.cap;
            state.limiter.set_cap(cap);
            drop(state);
            self.slot.staff();
        }
    }

    fn drop_session_after(&mut self, failure: &Failure) {
        if failure.says_session_is_gone() {
            self.forget();
        } else {
            self.close();
        }
    }

    /// Closes the session, which logs out when it is the last.
    fn close(&mut self) {
        if let Some(held) = self.session.take() {
            self.calling(true);
            held.close(&self.slot.module);
            self.calling(false);
        }
    }

    /// Gives up a session that is gone.
    fn forget(&mut self) {
        if let Some(held) = self.session.take() {
            held.forget(&self.slot.module);
        }
    }
}

fn no_session() -> Failure {
    Failure::slot("no session")
}
