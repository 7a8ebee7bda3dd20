//! News of a result that failed its check, for whoever runs the engine.
//!
//! A failed check means that this machine computed wrongly. The engine withholds the result and does
//! the operation again, so no client notices, and that is why somebody else has to be told. This
//! crate does not log: it keeps the latest events, few of them, until they are taken with
//! [`crate::Engine::take_alarms`].

use std::fmt;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::class::Class;
use crate::job::{Job, Operation};

/// Events kept until they are taken. A machine that fails, fails often: the first few say what there
/// is to know, and the others are counted.
pub const MAX_ALARMS: usize = 16;

/// One result that failed its check. It holds nothing secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// Name of the backend that computed the wrong result.
    pub backend: &'static str,
    /// The key's class.
    pub class: Class,
    /// What was done with the key.
    pub operation: Operation,
    /// The key's subject key identifier.
    pub ski: [u8; 20],
    /// The check that failed.
    pub check: Check,
    /// Whether doing it again on the reference backend gave a result that verifies. If not, the
    /// client got an error.
    pub redone: bool,
}

/// Which check found a wrong result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// The backend's own, in the batch: an RSA result raised to the public exponent is not the input, a
    /// blinding pair does not fit together, or a nonce's point is not on its curve.
    Backend,
    /// The result was verified with the public key, as every result that is done again is, and others
    /// at [`crate::EngineConfig::verify_ecdsa`].
    Verification,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Backend => "the backend's own",
            Self::Verification => "verification with the public key",
        })
    }
}

/// What has happened since alarms were last taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alarms {
    /// The first [`MAX_ALARMS`] events, oldest first.
    pub events: Vec<Alarm>,
    /// How many came after them.
    pub more: u64,
}

/// Where events wait. All memory is taken at the start.
#[derive(Debug)]
pub(crate) struct AlarmQueue(Mutex<Alarms>);

impl AlarmQueue {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Alarms {
            events: Vec::with_capacity(MAX_ALARMS),
            more: 0,
        }))
    }

    /// Keeps an event, or counts it.
    pub(crate) fn raise(&self, backend: &'static str, job: &Job<'_>, check: Check, redone: bool) {
        let mut alarms = self.lock();
        if alarms.events.len() < MAX_ALARMS {
            alarms.events.push(Alarm {
                backend,
                class: job.key.class(),
                operation: job.operation,
                ski: job.key.ski(),
                check,
                redone,
            });
        } else {
            alarms.more = alarms.more.saturating_add(1);
        }
    }

    /// Hands out what is kept.
    pub(crate) fn take(&self) -> Alarms {
        let mut alarms = self.lock();
        Alarms {
            events: alarms.events.drain(..).collect(),
            more: mem::take(&mut alarms.more),
        }
    }

    /// The data is whole after every statement, so a panic elsewhere leaves nothing broken.
    fn lock(&self) -> MutexGuard<'_, Alarms> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
