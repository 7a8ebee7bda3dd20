//! The tokens of this process, as the rest of the server sees them: keys to load, slots to watch.
//!
//! A build without the feature `pkcs11` has the same functions and no tokens, so that nobody else has
//! to ask which build it is.

use std::collections::BTreeMap;
use std::fmt;
#[cfg(feature = "pkcs11")]
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use accel::Key;
#[cfg(feature = "pkcs11")]
use accel::LoadedKey;
#[cfg(feature = "pkcs11")]
use accel::pkcs11::{BreakerState, SlotStatus, TokenError, TokenKeySpec, UnusablePlace};
use serde::{Deserialize, Serialize};

use crate::config;
#[cfg(feature = "pkcs11")]
use crate::config::{KeySource, TokenKeySource};
use crate::policy::KeyUse;
#[cfg(feature = "pkcs11")]
use crate::snapshot::{LoadError, Snapshot};
#[cfg(feature = "pkcs11")]
use crate::tls::certs;

/// All modules, slots and sessions of the process. They outlive every reload. Clones share them.
#[derive(Debug, Clone)]
pub struct Tokens {
    /// `None`: keys in tokens are known by name only, and no module is loaded.
    #[cfg(feature = "pkcs11")]
    pools: Option<accel::pkcs11::Tokens>,
}

/// A key that is configured and not served, because its token could not be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AbsentKey {
    /// Its label.
    pub label: String,
    /// Why it is not served; empty when nobody tried.
    pub reason: String,
    /// What it is for.
    pub usage: Arc<KeyUse>,
}

/// One slot, for `ksctl status` and `/readyz`. Fields are added, never renamed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotReport {
    /// Path of the module.
    pub module: String,
    /// The slot's number in the module.
    pub slot: u64,
    /// Label of the token.
    pub token: String,
    /// Serial number of the token.
    pub serial: String,
    /// `up`; `recovering`: it logs in again, requests wait; `down`: requests are refused; `probing`: it is
    /// being tried; `locked`: the PIN was refused and is not tried again.
    pub state: String,
    /// Counts new logins and new starts of the module.
    pub generation: u64,
    /// Sessions that are open.
    pub sessions: usize,
    /// Sessions that are used at one time, as the pool has found to be best.
    pub limit: usize,
    /// Requests that the device works on.
    pub in_flight: usize,
    /// Requests that wait for a session.
    pub queued: usize,
    /// Threads that are in a call that does not return.
    pub stuck_threads: usize,
    /// Operations that succeeded.
    pub operations: u64,
    /// Results that did not verify and were withheld: above 0, the device or the way to it is failing.
    pub check_failures: u64,
    /// Errors by the name of their code.
    pub errors: BTreeMap<String, u64>,
    /// Half of the last operations took at most this long, in microseconds.
    pub p50_us: u64,
    /// 99 of 100 of the last operations took at most this long, in microseconds.
    pub p99_us: u64,
}

impl SlotReport {
    /// Whether requests are taken for the slot.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self.state.as_str(), "up" | "recovering")
    }

    /// Whether it refused its PIN.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.state == "locked"
    }

    /// `slot 7 (token "bank", /usr/lib/libx.so)`.
    #[must_use]
    pub fn name(&self) -> String {
        format!(
            "slot {} (token \"{}\", {})",
            self.slot,
            self.token.escape_debug(),
            self.module
        )
    }
}

impl fmt::Display for SlotReport {
    /// One line for a terminal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.is_up() {
            self.state.clone()
        } else {
            self.state.to_uppercase()
        };
        write!(
            f,
            "{} token \"{}\" ({}): {state}, {} in flight of {} at a time, {} waiting, {} done, p99 {:.1} ms",
            self.slot,
            self.token.escape_debug(),
            self.module,
            self.in_flight,
            self.limit,
            self.queued,
            self.operations,
            Duration::from_micros(self.p99_us).as_secs_f64() * 1000.0,
        )?;
        if self.stuck_threads > 0 {
            write!(f, ", {} threads STUCK", self.stuck_threads)?;
        }
        if self.check_failures > 0 {
            write!(f, ", {} results WRONG and withheld", self.check_failures)?;
        }
        for (code, count) in &self.errors {
            write!(f, ", {count} {code}")?;
        }
        Ok(())
    }
}

impl Tokens {
    /// No slot yet: the first key of a slot opens it.
    #[must_use]
    pub fn new(settings: &config::Pkcs11) -> Self {
        #[cfg(not(feature = "pkcs11"))]
        let _ = settings;
        Self {
            #[cfg(feature = "pkcs11")]
            pools: Some(accel::pkcs11::Tokens::new(settings.slot_settings())),
        }
    }

    /// Leaves every token alone, as `keyserver check` does: keys in them count as absent.
    #[must_use]
    pub fn untouched() -> Self {
        Self {
            #[cfg(feature = "pkcs11")]
            pools: None,
        }
    }

    /// Whether requests for `key` can be served now: always, unless every slot that holds it is down.
    #[must_use]
    pub fn can_serve(key: &Key) -> bool {
        #[cfg(feature = "pkcs11")]
        return key.token().is_none_or(|token| token.is_available());
        #[cfg(not(feature = "pkcs11"))]
        {
            let _always = key;
            true
        }
    }

    /// Whether `key` is in a token.
    #[must_use]
    pub fn holds(key: &Key) -> bool {
        #[cfg(feature = "pkcs11")]
        return key.token().is_some();
        #[cfg(not(feature = "pkcs11"))]
        {
            let _never = key;
            false
        }
    }

    /// How every slot is that was ever opened.
    #[must_use]
    pub fn slots(&self) -> Vec<SlotReport> {
        #[cfg(feature = "pkcs11")]
        return self
            .pools
            .iter()
            .flat_map(accel::pkcs11::Tokens::slots)
            .map(report)
            .collect();
        #[cfg(not(feature = "pkcs11"))]
        Vec::new()
    }

    /// Ends the pools: what waits is refused, sessions are closed. Does not wait for calls that hang.
    pub fn stop(&self) {
        #[cfg(feature = "pkcs11")]
        if let Some(pools) = &self.pools {
            pools.stop();
        }
    }
}

/// What became of a configured key.
#[cfg(feature = "pkcs11")]
pub(crate) enum Found {
    /// It can be served.
    Key(LoadedKey),
    /// It cannot now, and need not.
    Absent(AbsentKey),
}

#[cfg(feature = "pkcs11")]
impl Tokens {
    /// Finds the key that `source` names and compares it with its certificate.
    ///
    /// A key that `old` serves under the same description keeps being served when its slot is down:
    /// a reload must be possible on the device's worst day.
    ///
    /// # Errors
    ///
    /// The token cannot be used, the key is not there, or it is not the one of the certificate.
    pub(crate) fn find(
        &self,
        source: &KeySource,
        token: &TokenKeySource,
        old: Option<&Snapshot>,
    ) -> Result<Found, LoadError> {
        let label = source.label.clone().unwrap_or_default();
        let Some(pools) = &self.pools else {
            let reason = String::new();
            return Ok(Found::Absent(AbsentKey {
                label,
                reason,
                usage: Arc::clone(&source.usage),
            }));
        };
        let found = |key| {
            let place = token.uris.first().map(ToString::to_string);
            Ok(Found::Key(LoadedKey {
                label: label.clone(),
                path: PathBuf::from(place.unwrap_or_default()),
                key,
            }))
        };
        let before = old.and_then(|old| held(old, source));
        // Nobody waits for a device that is known to be down; but a slot that refused its PIN is only
        // opened again by being given another, and one that was away is only found by looking.
        let locked = self.slots().iter().any(SlotReport::is_locked);
        let whole = |key: &Key| key.token().is_some_and(|it| it.slots() >= token.uris.len());
        if let Some(key) = before.filter(|key| !locked && whole(key) && !Self::can_serve(key)) {
            tracing::warn!(label, "its slot is down: the key is kept as it was");
            return found(Arc::clone(key));
        }
        let expected = source.certificate.as_deref().map(certs::read_spki);
        let spec = TokenKeySpec {
            label: label.clone(),
            uris: token.uris.clone(),
            choice: token.choice,
            pin: token.pin.clone(),
            expected_spki: expected.transpose().map_err(LoadError::Certificate)?,
        };
        let mut warn = |place: &UnusablePlace<'_>| {
            let then = if place.joins_by_itself {
                "once its slot is up it is used"
            } else {
                "reload when it is back: it is not used before"
            };
            tracing::warn!(label, uri = %place.uri, "not usable now: {}; {then}", place.error);
        };
        match pools.load_key_noting(&spec, &mut warn) {
            Ok(key) => match before {
                // The same key in the same places: one object of it is enough.
                Some(old) if has_every_slot(old, &key) => found(Arc::clone(old)),
                // A slot more, that was away before.
                Some(old) if old.ski() == key.ski() => found(Arc::new(key)),
                _ if token.required && !Self::can_serve(&key) => {
                    Err(LoadError::TokenDown { label })
                }
                _ => found(Arc::new(key)),
            },
            Err(error) => match before {
                Some(key) if error.may_pass() || matches!(error, TokenError::PinRefused { .. }) => {
                    tracing::warn!(label, "the key is kept as it was: {error}");
                    found(Arc::clone(key))
                }
                None if error.may_pass() && !token.required => {
                    let reason = error.to_string();
                    Ok(Found::Absent(AbsentKey {
                        label,
                        reason,
                        usage: Arc::clone(&source.usage),
                    }))
                }
                _ => Err(LoadError::Token { label, error }),
            },
        }
    }
}

/// Whether `old` is the same key, in all the slots of `new`.
#[cfg(feature = "pkcs11")]
fn has_every_slot(old: &Key, new: &Key) -> bool {
    let slots = old.token().zip(new.token());
    old.ski() == new.ski() && slots.is_some_and(|(old, new)| old.has_every_slot_of(new))
}

/// The key that `old` serves for the same description.
#[cfg(feature = "pkcs11")]
fn held<'a>(old: &'a Snapshot, source: &KeySource) -> Option<&'a Arc<Key>> {
    let same = |(was, _): &&(KeySource, Arc<Key>)| {
        was.location == source.location && was.certificate == source.certificate
    };
    old.in_tokens.iter().find(same).map(|(_, key)| key)
}

#[cfg(feature = "pkcs11")]
fn report(slot: SlotStatus) -> SlotReport {
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let state = match slot.breaker {
        BreakerState::Closed if slot.ready => "up",
        // The breaker has not opened: it logs in again, and requests wait for it.
        BreakerState::Closed => "recovering",
        BreakerState::HalfOpen => "probing",
        BreakerState::Open { .. } => "down",
        BreakerState::Terminal => "locked",
    };
    SlotReport {
        module: slot.module.display().to_string(),
        slot: slot.slot_id,
        token: slot.token_label,
        serial: slot.serial,
        state: state.to_owned(),
        generation: slot.generation,
        sessions: slot.sessions,
        limit: slot.limit,
        in_flight: slot.in_flight,
        queued: slot.queued,
        stuck_threads: slot.stuck_threads,
        operations: slot.operations,
        check_failures: slot.check_failures,
        errors: slot.errors.into_iter().collect(),
        p50_us: micros(slot.p50),
        p99_us: micros(slot.p99),
    }
}
