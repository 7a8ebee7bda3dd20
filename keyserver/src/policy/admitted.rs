//! A request that may be carried out.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use accel::{Key, KeyIndex};
use keyless_protocol::{ErrorCode, Opcode, Request, SignatureScheme, delegation};

use super::ask::{Ask, Facts, Peer};
use super::meter::Count;
use super::rights::Right;
use super::rules::{ClientId, Policy};
use super::unmet::Unmet;
use crate::handshake::{Claim, Fault, Statement, TranscriptShape};
use crate::snapshot::Snapshot;
use crate::stops::Stopped;

/// Proof that policy allowed one key operation. Only [`admit`] makes it.
///
/// It holds the snapshot it was decided under, so that a job runs with the keys of its decision
/// even while a reload replaces them.
#[derive(Debug, Clone)]
pub struct Admitted {
    snapshot: Arc<Snapshot>,
    key: Arc<Key>,
    key_index: KeyIndex,
    client: ClientId,
    opcode: Opcode,
    right: Right,
    signs: Option<Signs>,
    max_credential_lifetime: Duration,
}

/// What an operation that checks what it signs has found, and is allowed to sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signs {
    /// With this scheme, which fits the key.
    pub scheme: SignatureScheme,
    /// The payload is a handshake of this shape; otherwise it is the string to be signed.
    pub transcript: Option<TranscriptShape>,
}

impl Admitted {
    /// The keys and rules the decision was made under.
    #[must_use]
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// The key to use.
    #[must_use]
    pub fn key(&self) -> &Arc<Key> {
        &self.key
    }

    /// Its place in the key table of [`Self::snapshot`].
    #[must_use]
    pub fn key_index(&self) -> KeyIndex {
        self.key_index
    }

    /// Who asked.
    #[must_use]
    pub fn client(&self) -> ClientId {
        self.client
    }

    /// What was asked.
    #[must_use]
    pub fn opcode(&self) -> Opcode {
        self.opcode
    }

    /// The right that allowed it.
    #[must_use]
    pub fn right(&self) -> Right {
        self.right
    }

    /// The longest time for which a delegated credential of this key may be issued to this client; for
    /// [`Right::Delegate`] only.
    #[must_use]
    pub fn max_credential_lifetime(&self) -> Duration {
        self.max_credential_lifetime
    }

    /// How the payload is signed, where the operation has checked what it is.
    #[must_use]
    pub fn signs(&self) -> Option<Signs> {
        self.signs
    }
}

/// A request that may not be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// What the client is told: the same for every reason that depends on keys and grants, so
    /// that nobody can ask which keys exist.
    pub code: ErrorCode,
    /// What the operator is told.
    pub reason: RefusalReason,
}

/// Why a request was refused. For logs and metrics, never for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalReason {
    /// This version does not serve the operation.
    NotServed,
    /// The certificate fits no `[[clients]]` entry.
    UnknownClient,
    /// The request names no key.
    NoKeyNamed,
    /// No such key is loaded.
    UnknownKey,
    /// No grant covers it. What does not hold of the one that came nearest.
    NoRight(Right, Unmet),
    /// What is to be signed is not what a TLS server signs, or not with this key.
    NotTls(Fault),
    /// A delegated credential that may not be issued.
    Credential(Fault),
    /// An operator has stopped it.
    Stopped(Stopped),
}

impl RefusalReason {
    /// The label of `keyserver_rejected_total`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotServed => "not-served",
            Self::UnknownClient => "unknown-client",
            Self::NoKeyNamed => "no-key-named",
            Self::UnknownKey => "unknown-key",
            Self::NoRight(_, Unmet::Rate { .. }) => "rate",
            Self::NoRight(_, Unmet::Daily) => "daily-ceiling",
            Self::NoRight(_, Unmet::Purpose) => "purpose",
            Self::NoRight(..) => "acl",
            Self::NotTls(_) => "not-tls",
            Self::Credential(_) => "credential",
            Self::Stopped(_) => "stopped",
        }
    }

    /// When to ask again, where that helps: only the rate of a grant passes by itself. Who is told so has the
    /// right, so it tells nobody anything.
    #[must_use]
    pub const fn retry_after(self) -> Option<Duration> {
        match self {
            Self::NoRight(_, Unmet::Rate { retry_after }) => Some(retry_after),
            _ => None,
        }
    }

    /// The refusal for this reason.
    pub(crate) const fn refusal(self) -> Refusal {
        let code = match self {
            Self::NotServed => ErrorCode::BadOpcode,
            Self::NoRight(_, Unmet::Rate { .. }) => ErrorCode::Busy,
            Self::UnknownClient
            | Self::NoKeyNamed
            | Self::UnknownKey
            | Self::NoRight(..)
            | Self::NotTls(_)
            | Self::Credential(_) => ErrorCode::Denied,
            Self::Stopped(stopped) => stopped.code(),
        };
        Refusal { code, reason: self }
    }
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotServed => f.write_str("this version does not serve the operation"),
            Self::UnknownClient => f.write_str("the certificate fits no [[clients]] entry"),
            Self::NoKeyNamed => f.write_str("the request names no key (SKI or digest)"),
            Self::UnknownKey => f.write_str("no such key is loaded"),
            Self::NoRight(right, Unmet::Keys | Unmet::Allow) => {
                write!(f, "no grant gives {right} on this key")
            }
            Self::NoRight(right, unmet) => {
                let setting = unmet.setting();
                write!(f, "no grant of {right} covers it: `{setting}`: {unmet}")
            }
            Self::NotTls(fault) | Self::Credential(fault) => fault.fmt(f),
            Self::Stopped(stopped) => stopped.fmt(f),
        }
    }
}

/// Decides about one key operation.
///
/// The key is looked up by SKI; the certificate digest counts where no SKI was sent. Ping, server
/// information and the key list need no decision: they are open to every authenticated client.
///
/// Every step is taken whatever the ones before it found, so that a refusal costs the same
/// whether the key does not exist, the client has no right to it, or what it wants signed is not
/// what it says.
///
/// What it allows counts against the limits of the grant that allows it.
///
/// # Errors
///
/// [`Refusal`] with [`ErrorCode::BadOpcode`] for an operation that is not served, with
/// [`ErrorCode::Busy`] for what a grant allows less often, and with [`ErrorCode::Denied`], which
/// stock clients read as "key not found", for everything else.
pub fn admit(
    snapshot: &Arc<Snapshot>,
    peer: &Peer,
    request: &Request<'_>,
    now: Instant,
) -> Result<Admitted, Refusal> {
    /// A position that no key has: the grants are gone through for it all the same.
    const NO_KEY: u32 = u32::MAX;
    let Some(right) = Right::required_by(request.opcode) else {
        return Err(RefusalReason::NotServed.refusal());
    };
    let policy = &snapshot.policy;
    let claim = Claim::read(request.opcode, request.signature_scheme, request.payload);
    let found = match (request.ski, request.digest) {
        (Some(ski), _) => snapshot.keys.by_ski(&ski),
        (None, Some(digest)) => snapshot.keys.by_digest(&digest),
        (None, None) => None,
    };
    let read = claim.as_ref().ok().and_then(Option::as_ref);
    let ask = peer.client.map(|client| Ask {
        client,
        key: found.as_ref().map_or(NO_KEY, |(index, _)| index.0),
        right,
        facts: read.map(Facts::from),
        lifetime: lifetime(request),
        address: peer.address,
        now,
        at: None,
    });
    let right = match request.opcode {
        Opcode::RsaDecrypt => {
            let key = found.as_ref().map(|(_, key)| &***key);
            right_to_decrypt(
                request,
                key,
                ask.is_some_and(|ask| holds_only_raw(policy, &ask)),
            )
        }
        _ => right,
    };
    let ask = ask.map(|ask| Ask { right, ..ask });
    let signs = match (&claim, &found) {
        (Ok(Some(claim)), Some((_, key))) => signs(claim, key).map(Some),
        (Ok(_), _) => Ok(None),
        (Err(fault), _) => Err(*fault),
    };
    // What is refused here anyway counts against no limit. What is refused later does: a stop, a queue without
    // room, a replay and a false proof have each taken a use that was allowed.
    let count = if found.is_some() && signs.is_ok() {
        Count::Use
    } else {
        Count::Nothing
    };
    let decision = ask.map(|ask| (ask.client, policy.grant_for(&ask, count)));
    let Some((key_index, key)) = found else {
        let unnamed = request.ski.is_none() && request.digest.is_none();
        return Err(if unnamed {
            RefusalReason::NoKeyNamed.refusal()
        } else {
            RefusalReason::UnknownKey.refusal()
        });
    };
    let (client, decision) = decision.ok_or(RefusalReason::UnknownClient.refusal())?;
    let signs = signs.map_err(|fault| RefusalReason::NotTls(fault).refusal())?;
    let grant = decision.map_err(|unmet| RefusalReason::NoRight(right, unmet).refusal())?;
    Ok(Admitted {
        snapshot: Arc::clone(snapshot),
        key: Arc::clone(key),
        key_index,
        client,
        opcode: request.opcode,
        right,
        signs,
        max_credential_lifetime: match right {
            Right::Delegate => grant.credential_lifetime(),
            _ => Duration::ZERO,
        },
    })
}

/// How long a delegated credential is asked for; nothing where the request leaves that to the server, asks for
/// something else, or cannot be read, which is said later.
fn lifetime(request: &Request<'_>) -> Option<Duration> {
    if request.opcode != Opcode::DelegateCredential {
        return None;
    }
    let seconds = delegation::Request::decode(request.payload).ok()?.lifetime;
    (seconds > 0).then(|| Duration::from_secs(seconds.into()))
}

/// Whether an answer to the stock operation would be a raw one. Both are looked up, so that neither
/// answer is quicker.
fn holds_only_raw(policy: &Policy, ask: &Ask<'_>) -> bool {
    let holds = |right| {
        let ask = Ask { right, ..*ask };
        policy.decide(&ask, Count::Nothing).is_ok()
    };
    holds(Right::DecryptRaw) & !holds(Right::DecryptCompatible)
}

/// Which right the stock operation is used under. A client of ours that sends a version in front of the
/// ciphertext wants a premaster secret; all others get a block, with its true padding only if nothing less is
/// granted.
fn right_to_decrypt(request: &Request<'_>, key: Option<&Key>, only_raw: bool) -> Right {
    let with_version = key.and_then(Key::modulus_len).map(|length| length + 2);
    if request.extended && Some(request.payload.len()) == with_version {
        Right::DecryptPremaster
    } else if only_raw {
        Right::DecryptRaw
    } else {
        Right::DecryptCompatible
    }
}

/// Holds what is to be signed against the key.
fn signs(claim: &Claim<'_>, key: &Key) -> Result<Signs, Fault> {
    let version = claim.statement.version();
    if !version.lets(key.key_type(), claim.scheme) {
        return Err(Fault("the signature scheme does not fit the key"));
    }
    let transcript = match &claim.statement {
        Statement::Transcript(transcript) if transcript.public_key() != key.spki_der() => {
            return Err(Fault("the handshake shows the certificate of another key"));
        }
        Statement::Transcript(transcript) => Some(transcript.shape()),
        Statement::CertificateVerify | Statement::ServerKeyExchange(_) => None,
    };
    Ok(Signs {
        scheme: claim.scheme,
        transcript,
    })
}
