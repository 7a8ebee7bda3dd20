//! Why a grant does not cover a request.

use std::fmt;
use std::time::Duration;

/// The first thing of a grant that does not hold for a request, in the order in which they are looked at: the
/// greatest of several grants is that of the one which came nearest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unmet {
    /// It does not name the key.
    Keys,
    /// It does not give the right.
    Allow,
    /// Its last day is over.
    Expires,
    /// The client is connected from elsewhere.
    Source,
    /// Not on this day of the week.
    Days,
    /// Not at this hour.
    Hours,
    /// Not with this signature scheme.
    Schemes,
    /// The edge did not send the handshake.
    Transcript,
    /// The TLS client asked for another name.
    ServerName,
    /// The TLS server selected another protocol.
    Protocol,
    /// The TLS server passed over X25519MLKEM768.
    PostQuantum,
    /// The TLS 1.2 key exchange lacks the downgrade sentinel.
    DowngradeSentinel,
    /// The delegated credential would be good for longer.
    Lifetime,
    /// It was used as often as a day allows.
    Daily,
    /// It was used too often of late.
    Rate {
        /// When it may be used again.
        retry_after: Duration,
    },
    /// The key is for the other purpose. Not a grant's doing: it holds whatever grants say.
    Purpose,
}

impl Unmet {
    /// What does not hold of the nearer of two grants; of two rates, that of the one that may be used again first.
    pub(super) fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Rate { retry_after: one }, Self::Rate { retry_after: two }) => Self::Rate {
                retry_after: one.min(two),
            },
            _ => self.max(other),
        }
    }

    /// The setting that says so: of a `[[clients.grants]]` entry; for [`Self::Purpose`], of a `[[keys]]` entry.
    #[must_use]
    pub const fn setting(self) -> &'static str {
        match self {
            Self::Keys => "keys",
            Self::Allow => "allow",
            Self::Expires => "expires",
            Self::Source => "source",
            Self::Days => "days",
            Self::Hours => "hours",
            Self::Schemes => "schemes",
            Self::Transcript => "transcript",
            Self::ServerName => "sni",
            Self::Protocol => "alpn",
            Self::PostQuantum => "post_quantum",
            Self::DowngradeSentinel => "downgrade_sentinel",
            Self::Lifetime => "max_credential_lifetime",
            Self::Rate { .. } => "rate",
            Self::Daily => "daily",
            Self::Purpose => "purpose",
        }
    }
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keys => "it does not name the key",
            Self::Allow => "it does not give the right",
            Self::Expires => "its last day is over",
            Self::Source => "the client is connected from elsewhere",
            Self::Days => "it does not count on this day of the week",
            Self::Hours => "it does not count at this hour",
            Self::Schemes => "the signature scheme is another",
            Self::Transcript => "the edge sends no handshake",
            Self::ServerName => "the TLS client asks for none of these names",
            Self::Protocol => "the TLS server selects none of these protocols",
            Self::PostQuantum => "the TLS client offers X25519MLKEM768 and does not get it",
            Self::DowngradeSentinel => "the key exchange lacks the downgrade sentinel",
            Self::Lifetime => "the credential would live longer than the grant allows",
            Self::Rate { .. } => "it was used too often of late",
            Self::Daily => "it was used as often as a day allows",
            Self::Purpose => "the key is for the other purpose",
        })
    }
}
