//! A request that may be carried out.

use std::fmt;
use std::sync::Arc;

use accel::{Key, KeyIndex};
use keyless_protocol::{ErrorCode, Opcode, Request};

use super::rights::Right;
use super::rules::ClientId;
use crate::snapshot::Snapshot;

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
    /// No grant in force gives the right.
    NoRight(Right),
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
            Self::NoRight(_) => "acl",
        }
    }

    const fn refusal(self) -> Refusal {
        let code = match self {
            Self::NotServed => ErrorCode::BadOpcode,
            Self::UnknownClient | Self::NoKeyNamed | Self::UnknownKey | Self::NoRight(_) => {
                ErrorCode::KeyNotFound
            }
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
            Self::NoRight(right) => write!(f, "no grant in force gives {right} on this key"),
        }
    }
}

/// Decides about one key operation.
///
/// The key is looked up by SKI; the certificate digest counts where no SKI was sent. Ping, server
/// information and the key list need no decision: they are open to every authenticated client.
///
/// # Errors
///
/// [`Refusal`] with [`ErrorCode::BadOpcode`] for an operation that is not served, and with
/// [`ErrorCode::KeyNotFound`] for everything else.
pub fn admit(
    snapshot: &Arc<Snapshot>,
    client: Option<ClientId>,
    request: &Request<'_>,
) -> Result<Admitted, Refusal> {
    let Some(right) = Right::required_by(request.opcode) else {
        return Err(RefusalReason::NotServed.refusal());
    };
    let (key_index, key) = match (request.ski, request.digest) {
        (Some(ski), _) => snapshot.keys.by_ski(&ski),
        (None, Some(digest)) => snapshot.keys.by_digest(&digest),
        (None, None) => return Err(RefusalReason::NoKeyNamed.refusal()),
    }
    .ok_or(RefusalReason::UnknownKey.refusal())?;
    let client = client.ok_or(RefusalReason::UnknownClient.refusal())?;
    if !snapshot.policy.allows(client, key_index.0, right) {
        return Err(RefusalReason::NoRight(right).refusal());
    }
    Ok(Admitted {
        snapshot: Arc::clone(snapshot),
        key: Arc::clone(key),
        key_index,
        client,
        opcode: request.opcode,
        right,
    })
}
