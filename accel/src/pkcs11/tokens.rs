//! All tokens of a process: slots are opened with the first key in them and shared by all its keys.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use super::error::TokenError;
use super::failure::Failure;
use super::keeper::{self, Command};
use super::look::Looks;
use super::module::{Module, lock};
use super::pin::Pin;
use super::settings::{SlotSettings, SlotStatus, TokenKeySpec};
use super::slot::{Slot, SlotKey, TokenName};
use super::state::Phase;
use super::token_key::{MAX_SLOTS, Route, TokenKey};
use super::uri::TokenUri;
use super::watchdog;
use crate::key::Key;

/// How long a device may take to log in and find a key, beside what a call may take.
const LOAD_WAIT: Duration = Duration::from_secs(20);
/// How long [`Tokens::stop`] waits for the threads.
const STOP_WAIT: Duration = Duration::from_secs(5);

/// The slots in use. Cheap to clone; all clones share them. Meant to live as long as the process, through
/// all reloads: a slot that no key uses any more is closed by itself.
#[derive(Clone)]
pub struct Tokens {
    shared: Arc<Shared>,
}

struct Shared {
    settings: SlotSettings,
    slots: Mutex<Vec<Arc<Slot>>>,
    looks: Looks,
}

impl Shared {
    fn stop(&self) {
        let slots = std::mem::take(&mut *lock(&self.slots));
        for slot in &slots {
            slot.stop();
        }
        let end = Instant::now() + STOP_WAIT;
        let runs = |slot: &Arc<Slot>| Arc::strong_count(&slot.threads) > 1;
        while slots.iter().any(runs) && Instant::now() < end {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A program that ends while threads are inside a module may be brought down by the module's own ending.
impl Drop for Shared {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens")
            .field("settings", &self.shared.settings)
            .field("slots", &lock(&self.shared.slots).len())
            .finish()
    }
}

impl Tokens {
    /// No slots yet.
    #[must_use]
    pub fn new(settings: SlotSettings) -> Self {
        Self {
            shared: Arc::new(Shared {
                settings,
                slots: Mutex::default(),
                looks: Looks::default(),
            }),
        }
    }

    /// Finds a key in each of its slots, logging in where that has not been done, and compares the public
    /// halves. Waits for the devices, but not for ever; not to be called where waiting does harm.
    ///
    /// One slot that works is enough, and none is needed where `expected_spki` tells the public key: the
    /// slots are then tried again in the background, and the key is [not available](TokenKey::is_available)
    /// until one works.
    ///
    /// # Errors
    ///
    /// [`TokenError`] for what time will not heal: a PIN that was refused, a key that is not there or not the
    /// right one. The PIN is tried once; it is tried again only when it has changed.
    pub fn load_key(&self, spec: &TokenKeySpec) -> Result<Key, TokenError> {
        self.load_key_noting(spec, &mut |_| {})
    }

    /// The same, and tells of each URI that could not be used now.
    ///
    /// # Errors
    ///
    /// As those of [`load_key`](Self::load_key).
    pub fn load_key_noting(
        &self,
        spec: &TokenKeySpec,
        note: &mut dyn FnMut(&UnusablePlace<'_>),
    ) -> Result<Key, TokenError> {
        let mut spki: Option<Arc<[u8]>> = spec.expected_spki.as_deref().map(Arc::from);
        let mut routes: Vec<Route> = Vec::new();
        let mut down = None;
        for uri in spec.uris.iter().take(MAX_SLOTS) {
            let source = uri.pin_source().or(spec.pin.as_ref());
            let pin = source.map(|source| source.read()).transpose()?;
            let key = Arc::new(SlotKey::new(uri.clone(), spki.clone()));
            let slot = match self.slot_of(uri, &key) {
                Ok(slot) => slot,
                Err(error) if error.may_pass() => {
                    note(&UnusablePlace {
                        uri,
                        error: &error,
                        joins_by_itself: false,
                    });
                    down = Some(error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            match add(&slot, &key, pin) {
                Ok(found) => {
                    let found: Arc<[u8]> = found.into();
                    *lock(&key.spki) = Some(Arc::clone(&found));
                    spki.get_or_insert(found);
                }
                Err(error) if error.may_pass() => {
                    note(&UnusablePlace {
                        uri,
                        error: &error,
                        joins_by_itself: true,
                    });
                    down = Some(error);
                }
                Err(error) => return Err(error),
            }
            routes.push(Route { slot, key });
        }
        let (Some(spki), false) = (spki, routes.is_empty()) else {
            return Err(down.unwrap_or(TokenError::NoUri));
        };
        for route in &routes {
            // Those that were down learn from the others what to expect.
            lock(&route.key.spki).get_or_insert_with(|| Arc::clone(&spki));
        }
        let first = spec.uris.first().cloned().unwrap_or_default();
        let bad = |error| TokenError::Key(Box::new(first), error);
        let token = TokenKey::new(&spec.label, &spki, routes, spec.choice);
        token
            .and_then(|token| Key::from_token(&spki, token))
            .map_err(bad)
    }

    /// What each slot looks like now.
    #[must_use]
    pub fn slots(&self) -> Vec<SlotStatus> {
        let slots = lock(&self.shared.slots);
        slots
            .iter()
            .filter(|slot| slot.lock().phase != Phase::Stopped)
            .map(|slot| slot.status())
            .collect()
    }

    /// Refuses what waits, lets running operations end, closes the sessions. Threads that are stuck in a
    /// call are left behind after a few seconds. Dropping the last clone does the same.
    pub fn stop(&self) {
        self.shared.stop();
    }

    /// The slot whose token fits the URI, opened at first use, and held for the key.
    fn slot_of(&self, uri: &TokenUri, key: &Arc<SlotKey>) -> Result<Arc<Slot>, TokenError> {
        let path = uri
            .module_path()
            .ok_or_else(|| TokenError::NoModule(Box::new(uri.clone())))?;
        let found = {
            let (path, uri) = (path.to_owned(), uri.clone());
            let looks = &self.shared.looks;
            looks.within(&path.clone(), LOAD_WAIT, move || token_of(&path, &uri))??
        };
        let (module, token) = found;
        let mut slots = lock(&self.shared.slots);
        // One that is closed stays for what its token has refused.
        slots.retain(|slot| {
            let state = slot.lock();
            state.phase != Phase::Stopped || state.pins.has_refused()
        });
        let same = |slot: &&Arc<Slot>| {
            let name = &slot.lock().token;
            Arc::ptr_eq(&slot.module, &module)
                && name.label == token.label
                && name.serial == token.serial
                // Tokens of one name may be told apart by their slots alone.
                && uri.slot_id().is_none_or(|wanted| wanted == name.slot_id)
        };
        let mut fitting = slots.iter().filter(same);
        if let Some(known) = fitting.find(|slot| slot.hold_for(key)) {
            return Ok(Arc::clone(known));
        }
        let closed = slots.iter().find(same).cloned();
        let slot = start(module, self.shared.settings, token)?;
        if let Some(closed) = closed {
            let refused = closed.lock().pins.take_refused();
            slot.lock().pins = refused;
        }
        slot.hold_for(key);
        slots.push(Arc::clone(&slot));
        Ok(slot)
    }
}

/// A place of a key that could not be used when the key was loaded.
#[derive(Debug)]
pub struct UnusablePlace<'a> {
    /// The place.
    pub uri: &'a TokenUri,
    /// Why not.
    pub error: &'a TokenError,
    /// Its slot is known, and serves the key once it is up. Otherwise it is not known where the token is, and the key
    /// has to be loaded again.
    pub joins_by_itself: bool,
}

/// Makes a slot with its keeper and its watchdog.
fn start(
    module: Arc<Module>,
    settings: SlotSettings,
    token: TokenName,
) -> Result<Arc<Slot>, TokenError> {
    let path = module.path().to_owned();
    let (commands, orders) = mpsc::channel();
    let slot = Arc::new(Slot::new(module, settings, token, commands));
    slot.module.used_by(&slot);
    let failed = |error: std::io::Error| TokenError::Module {
        path,
        reason: format!("no thread can be started: {error}"),
    };
    let (kept, watched) = (Arc::clone(&slot), Arc::clone(&slot));
    let (keeping, watching) = (Arc::clone(&slot.threads), Arc::clone(&slot.threads));
    thread::Builder::new()
        .name("hsm-keeper".into())
        .spawn(move || {
            keeper::run(kept, &orders);
            drop(keeping);
        })
        .and_then(|_| {
            thread::Builder::new()
                .name("hsm-watchdog".into())
                .spawn(move || {
                    watchdog::run(&watched);
                    drop(watching);
                })
        })
        .map_err(|error| {
            slot.stop();
            failed(error)
        })?;
    Ok(slot)
}

/// Has the keeper find a key; waits for it.
fn add(slot: &Arc<Slot>, key: &Arc<SlotKey>, pin: Option<Pin>) -> Result<Vec<u8>, TokenError> {
    let (reply, answer) = mpsc::channel();
    let command = Command::Add {
        key: Arc::clone(key),
        pin,
        reply,
    };
    let hung = || TokenError::Hung {
        path: slot.module.path().to_owned(),
    };
    slot.keeper.send(command).map_err(|_| hung())?;
    let wait = LOAD_WAIT + slot.settings.call_timeout;
    answer.recv_timeout(wait).map_err(|_| hung())?
}

/// Loads the module and finds the one token that fits.
fn token_of(path: &Path, uri: &TokenUri) -> Result<(Arc<Module>, TokenName), TokenError> {
    let failed = |failure: Failure| TokenError::ModuleDown {
        path: path.to_owned(),
        reason: failure.to_string(),
    };
    let module = Module::load(path).map_err(|failure| TokenError::Module {
        path: path.to_owned(),
        reason: failure.to_string(),
    })?;
    let mut fitting = Vec::new();
    {
        let _inside = module.enter().map_err(failed)?;
        let context = module.context();
        let ids = context.get_slots_with_token();
        for id in ids.map_err(|error| failed(error.into()))? {
            if uri.slot_id().is_some_and(|wanted| wanted != id.id()) {
                continue;
            }
            // A slot that does not answer does not fit.
            let Ok(token) = context.get_token_info(id) else {
                continue;
            };
            let fits = |wanted: Option<&str>, is: &str| wanted.is_none_or(|wanted| wanted == is);
            if token.token_initialized()
                && fits(uri.token(), token.label())
                && fits(uri.manufacturer(), token.manufacturer_id())
                && fits(uri.model(), token.model())
                && fits(uri.serial(), token.serial_number())
            {
                fitting.push(TokenName {
                    slot_id: id.id(),
                    label: token.label().to_owned(),
                    serial: token.serial_number().to_owned(),
                    is_bound: uri.slot_id().is_some(),
                });
            }
        }
    }
    let uri = Box::new(uri.clone());
    match fitting.len() {
        0 => Err(TokenError::NoToken(uri)),
        1 => fitting
            .pop()
            .map(|token| (module, token))
            .ok_or(TokenError::NoToken(uri)),
        count => Err(TokenError::SeveralTokens { uri, count }),
    }
}
