//! What can go wrong with a token, told to the people who run it.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;

use super::failure::Failure;
use super::pin::PinError;
use super::uri::TokenUri;
use crate::error::{JobError, KeyError};

/// Why a request to a token has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenFailure {
    /// The operation itself failed; a retry would not help.
    Job(JobError),
    /// The device was busy until the request's deadline.
    Busy,
    /// The deadline passed: in the queue, or while the device did not answer.
    Deadline,
    /// No slot that holds this key can be used now.
    Unavailable,
}

impl fmt::Display for TokenFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Job(error) => error.fmt(f),
            Self::Busy => f.write_str("the token was busy until the deadline"),
            Self::Deadline => f.write_str("the token did not answer before the deadline"),
            Self::Unavailable => f.write_str("no slot that holds the key can be used now"),
        }
    }
}

impl Error for TokenFailure {}

/// Why a key of a token cannot be used, or a module cannot be listed.
#[derive(Debug)]
#[non_exhaustive]
pub enum TokenError {
    /// The key has no URI.
    NoUri,
    /// No module is named, neither in the URI nor elsewhere.
    NoModule(Box<TokenUri>),
    /// The module cannot be loaded or listed.
    Module {
        /// The module.
        path: PathBuf,
        /// The loader's words, or a return code by its standard name.
        reason: String,
    },
    /// The module does not start now, or is in use. What it said follows.
    ModuleDown {
        /// The module.
        path: PathBuf,
        /// A return code by its standard name, or a word of ours.
        reason: String,
    },
    /// The module did not answer in time.
    Hung {
        /// The module.
        path: PathBuf,
    },
    /// No slot holds a token that fits the URI.
    NoToken(Box<TokenUri>),
    /// More than one token fits the URI.
    SeveralTokens {
        /// The URI.
        uri: Box<TokenUri>,
        /// How many do.
        count: usize,
    },
    /// There is no PIN to log in with.
    Pin(PinError),
    /// The token refused the PIN, or has locked it. It is not tried again until it is changed.
    PinRefused {
        /// The token's label.
        token: String,
        /// The token's answer, by its standard name.
        reason: String,
    },
    /// No private key on the token fits the URI.
    NoKey {
        /// The URI.
        uri: Box<TokenUri>,
        /// Whether somebody was logged in; without a login private keys are not seen.
        logged_in: bool,
    },
    /// More than one private key fits the URI.
    SeveralKeys {
        /// The URI.
        uri: Box<TokenUri>,
        /// How many do.
        count: usize,
    },
    /// The token does not tell the public key of a private key, and no certificate was given.
    NoPublicKey(Box<TokenUri>),
    /// The key is of a kind that this crate does not work with.
    Key(Box<TokenUri>, KeyError),
    /// The key in the token is not the one of the certificate, or of the first slot.
    Mismatch(Box<TokenUri>),
    /// The token cannot be used now. What it said follows.
    Token {
        /// The URI.
        uri: Box<TokenUri>,
        /// A return code by its standard name.
        reason: String,
    },
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoUri => f.write_str("a key in a token needs at least one `pkcs11:` URI"),
            Self::NoModule(uri) => write!(
                f,
                "{uri}: no module is named; add `?module-path=/PATH/TO/MODULE.so`"
            ),
            Self::Module { path, reason } => write!(
                f,
                "module {}: {reason}; is it the right file, and is its own configuration in place?",
                path.display()
            ),
            Self::ModuleDown { path, reason } => write!(
                f,
                "module {}: {reason}; look at its device, and at its own configuration",
                path.display()
            ),
            Self::Hung { path } => write!(
                f,
                "module {}: it does not answer; look at the device and the way to it",
                path.display()
            ),
            Self::NoToken(uri) => write!(
                f,
                "{uri}: no slot holds such a token; list what there is with `keyserver hsm list`"
            ),
            Self::SeveralTokens { uri, count } => {
                write!(
                    f,
                    "{uri}: {count} tokens fit; add `serial=` to tell them apart"
                )
            }
            Self::Pin(error) => error.fmt(f),
            Self::PinRefused { token, reason } => write!(
                f,
                "token {token:?} refused the PIN ({reason}); it will not be tried again, because tokens \
                 lock after a few attempts; correct the PIN where it is kept, then reload"
            ),
            Self::NoKey { uri, logged_in } => write!(
                f,
                "{uri}: no such private key{}; list what there is with `keyserver hsm list`",
                if *logged_in {
                    ""
                } else {
                    " is to be seen without a login; give a `pin-source`"
                }
            ),
            Self::SeveralKeys { uri, count } => {
                write!(
                    f,
                    "{uri}: {count} private keys fit; add `id=` to tell them apart"
                )
            }
            Self::NoPublicKey(uri) => write!(
                f,
                "{uri}: the token does not tell its public key; put the public key or the certificate \
                 beside it under the same id, or name the certificate in the configuration"
            ),
            Self::Key(uri, error) => write!(f, "{uri}: {error}"),
            Self::Mismatch(uri) => write!(
                f,
                "{uri}: its public key is not the one of the certificate or of the other slots; \
                 name the matching key"
            ),
            Self::Token { uri, reason } => {
                write!(f, "{uri}: the token cannot be used now: {reason}")
            }
        }
    }
}

impl Error for TokenError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Pin(error) => Some(error),
            Self::Key(_, error) => Some(error),
            _ => None,
        }
    }
}

impl From<PinError> for TokenError {
    fn from(error: PinError) -> Self {
        Self::Pin(error)
    }
}

impl TokenError {
    pub(super) fn token(uri: &TokenUri, failure: &Failure) -> Self {
        Self::Token {
            uri: Box::new(uri.clone()),
            reason: failure.to_string(),
        }
    }

    /// Whether time may heal it: the device was not in order, rather than the configuration.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::ModuleDown { .. } | Self::Hung { .. } | Self::NoToken(_) | Self::Token { .. }
        )
    }
}
