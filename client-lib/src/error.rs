//! What can go wrong, and whose fault it is.
//!
//! Every operation returns [`Error`]. Its variants are sorted by who has to act: the person who
//! configured the client, whoever runs the network or the server, or the code that made the call.
//! [`Error::fault`] says it in one word and [`Error::is_retryable`] says whether the same call may
//! succeed later without anybody changing anything.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use keyless_protocol::ErrorCode;

/// Why an operation failed.
///
/// Errors are cheap to clone, because one lost connection fails every call that was in flight on it.
#[derive(Clone, Debug)]
#[non_exhaustive]
#[expect(
    clippy::error_impl_error,
    reason = "the one error of the crate, as in std::io"
)]
pub enum Error {
    /// The client was set up wrong: a certificate, key, name or address cannot be used.
    Configuration(ConfigError),
    /// The server could not be reached, or the connection to it was lost.
    Network(NetworkError),
    /// The TLS handshake or a TLS record failed: the two sides do not accept each other.
    Tls(TlsError),
    /// The server sent something that the Keyless protocol does not allow.
    Protocol(ProtocolError),
    /// The server answered with an error. Asking again will not help.
    Refused(ErrorCode),
    /// The server is overloaded and says so. Ask again, after this time if it named one.
    Busy {
        /// How long the server asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// No answer came within the deadline of the call.
    Deadline {
        /// The deadline that the call had.
        limit: Duration,
    },
    /// The call itself is wrong: a digest of the wrong length, a payload that no frame can hold.
    Input(InputError),
    /// This client has as many calls waiting as it was configured to hold.
    Overloaded,
    /// The client was closed while the call was waiting.
    Closed,
}

/// Who has to act on an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The code that made the call.
    Caller,
    /// Whoever configured this client.
    Configuration,
    /// Whoever runs the network between client and server, or the server's host.
    Network,
    /// Whoever runs the server, or grants rights on it.
    Server,
    /// Nobody in particular: more load than the parts can carry within the time allowed.
    Load,
}

impl Error {
    /// Who has to act.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Configuration(_) => Fault::Configuration,
            Self::Network(_) => Fault::Network,
            Self::Tls(error) => error.fault,
            Self::Protocol(_) => Fault::Server,
            Self::Refused(code) => match code {
                // The request could not be read, or its input does not fit the key.
                ErrorCode::CryptoFailure | ErrorCode::Format | ErrorCode::UnexpectedOpcode => {
                    Fault::Caller
                }
                ErrorCode::DeadlineExceeded => Fault::Load,
                _ => Fault::Server,
            },
            Self::Busy { .. } | Self::Deadline { .. } | Self::Overloaded => Fault::Load,
            Self::Input(_) | Self::Closed => Fault::Caller,
        }
    }

    /// Whether the same call may succeed later without anybody changing anything.
    ///
    /// It says nothing about whether repeating is harmless: a signature may be asked for twice,
    /// a decrypt may already have happened.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Network(_) | Self::Busy { .. } | Self::Overloaded
        )
    }

    pub(crate) fn network(during: &'static str, error: io::Error) -> Self {
        Self::Network(NetworkError {
            during,
            source: Arc::new(error),
            unsent: false,
        })
    }

    /// The same for a call of which no byte has left.
    pub(crate) fn before_sending(self) -> Self {
        match self {
            Self::Network(error) => Self::Network(NetworkError {
                unsent: true,
                ..error
            }),
            other => other,
        }
    }

    /// Whether the call may be made anew even if it must not be repeated.
    pub(crate) fn is_unsent(&self) -> bool {
        matches!(self, Self::Network(error) if error.unsent)
    }

    pub(crate) fn lost(during: &'static str, why: &'static str) -> Self {
        Self::network(
            during,
            io::Error::new(io::ErrorKind::ConnectionAborted, why),
        )
    }

    pub(crate) fn protocol(what: impl fmt::Display) -> Self {
        Self::Protocol(ProtocolError {
            what: what.to_string().into(),
        })
    }

    pub(crate) fn input(what: impl fmt::Display) -> Self {
        Self::Input(InputError {
            what: what.to_string().into(),
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configuration(error) => error.fmt(f),
            Self::Network(error) => error.fmt(f),
            Self::Tls(error) => error.fmt(f),
            Self::Protocol(error) => error.fmt(f),
            Self::Refused(code) => {
                let byte = code.as_byte();
                write!(
                    f,
                    "the server refused with error {byte} ({code:?}){}",
                    advice(*code)
                )
            }
            Self::Busy {
                retry_after: Some(wait),
            } => {
                write!(
                    f,
                    "the server is busy and asks for another try in {} ms",
                    wait.as_millis()
                )
            }
            Self::Busy { retry_after: None } => f.write_str("the server is busy; try again later"),
            Self::Deadline { limit } => write!(
                f,
                "no answer within {} ms; the server or the network is too slow for this deadline",
                limit.as_millis()
            ),
            Self::Input(error) => error.fmt(f),
            Self::Overloaded => f.write_str(
                "this client already has as many calls waiting as its queue holds; slow down, \
                 raise `queue`, or use more servers",
            ),
            Self::Closed => f.write_str("the client was closed before the call was answered"),
        }
    }
}

/// What to do about a refusal, where the code tells more than its name.
fn advice(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::CryptoFailure => {
            ": the input does not fit the key, or the key does not fit the operation"
        }
        ErrorCode::KeyNotFound => {
            ": it does not hold the key, or does not grant this client the operation; its audit \
             log has the reason"
        }
        ErrorCode::Denied => {
            ": it does not hold the key, does not grant this client the operation, or what is to \
             be signed is not what the operation signs; its audit log has the reason"
        }
        ErrorCode::BadOpcode => ": it does not offer this operation",
        _ => "",
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Network(error) => Some(error.source.as_ref()),
            Self::Tls(error) => Some(&error.source),
            _ => None,
        }
    }
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        Self::Configuration(error)
    }
}

/// A setting that cannot be used: what it is, and what to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    what: Arc<str>,
}

impl ConfigError {
    pub(crate) fn new(what: impl fmt::Display) -> Self {
        Self {
            what: what.to_string().into(),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for ConfigError {}

/// The network's part of a failure: what was being done, and what the system said.
#[derive(Clone, Debug)]
pub struct NetworkError {
    during: &'static str,
    source: Arc<io::Error>,
    /// Nothing of the call has left.
    unsent: bool,
}

impl NetworkError {
    /// The kind of the system's error.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "network failure while {}: {}", self.during, self.source)
    }
}

/// A failed handshake or record, with a hint at whose certificate or setting is to blame.
#[derive(Clone, Debug)]
pub struct TlsError {
    pub(crate) source: rustls::Error,
    pub(crate) hint: &'static str,
    pub(crate) fault: Fault,
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TLS failure: {}{}", self.source, self.hint)
    }
}

/// A message of the server that breaks the Keyless protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtocolError {
    what: Arc<str>,
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server broke the protocol: {}", self.what)
    }
}

/// A call that no server could answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputError {
    what: Arc<str>,
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the call cannot be made: {}", self.what)
    }
}
