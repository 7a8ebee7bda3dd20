//! Errors as C sees them: a number, and the words for whoever reads a log.

use std::cell::RefCell;

use client::Error;

use crate::types::KeyserverStatus;

thread_local! {
    /// Why the last call of this thread failed.
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
}

/// A failed call.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: KeyserverStatus,
    why: String,
}

impl Failure {
    pub(crate) fn new(status: KeyserverStatus, why: impl Into<String>) -> Self {
        let why = why.into();
        Self { status, why }
    }

    pub(crate) fn argument(why: impl Into<String>) -> Self {
        Self::new(KeyserverStatus::Argument, why)
    }

    /// Keeps the words for [`last`].
    pub(crate) fn remember(&self) {
        // A thread that ends has nobody left to ask.
        let _ = LAST.try_with(|last| last.borrow_mut().clone_from(&self.why));
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(status(&error), error.to_string())
    }
}

impl From<client::ConfigError> for Failure {
    fn from(error: client::ConfigError) -> Self {
        Self::new(KeyserverStatus::Configuration, error.to_string())
    }
}

/// The words of this thread's last failure; empty before the first.
pub(crate) fn last() -> String {
    LAST.try_with(|last| last.borrow().clone())
        .unwrap_or_default()
}

/// The number of an error.
pub(crate) fn status(error: &Error) -> KeyserverStatus {
    match error {
        Error::Configuration(_) => KeyserverStatus::Configuration,
        Error::Network(_) => KeyserverStatus::Network,
        Error::Tls(_) => KeyserverStatus::Tls,
        Error::Protocol(_) => KeyserverStatus::Protocol,
        Error::Refused(_) => KeyserverStatus::Refused,
        Error::Busy { .. } => KeyserverStatus::Busy,
        Error::Deadline { .. } => KeyserverStatus::Deadline,
        Error::Input(_) => KeyserverStatus::Argument,
        Error::Overloaded => KeyserverStatus::Overloaded,
        Error::Closed => KeyserverStatus::Closed,
        _ => KeyserverStatus::Internal,
    }
}
