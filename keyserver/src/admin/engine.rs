//! The quarantine of the engine as an operator sees it, and the command that ends it.

use accel::{Class, Trust};
use nix::sys::socket::UnixCredentials;
use serde::{Deserialize, Serialize};

use super::protocol::ControlReply;
use super::stopping::check_reason;
use crate::state::ServerState;
use crate::tokens::Tokens;

/// A command to use the lanes, or the class, again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseRequest {
    /// The class, as it is named in the status: `rsa2048`.
    pub class: String,
    /// Why, for the record.
    pub reason: String,
}

/// A class that is not fully believed. Fields are added, never renamed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineEntry {
    /// Its name.
    pub class: String,
    /// `single`: lanes erred, so operations run one by one and all are verified. `refused`: those erred too.
    pub trust: String,
}

/// The classes in quarantine.
#[must_use]
pub fn quarantined(state: &ServerState) -> Vec<QuarantineEntry> {
    Class::ALL
        .into_iter()
        .map(|class| (class, state.engine().trust(class)))
        .filter(|(_, trust)| *trust != Trust::Trusted)
        .map(|(class, trust)| QuarantineEntry {
            class: class.name().to_owned(),
            trust: trust.name().to_owned(),
        })
        .collect()
}

/// Whether there are keys, and every one is of a class that is refused.
pub(super) fn refuses_all(state: &ServerState) -> bool {
    let refused = |class| state.engine().trust(class) == Trust::Refused;
    if !Class::ALL.into_iter().any(refused) {
        return false;
    }
    let snapshot = state.snapshot.load();
    let mut keys = snapshot.keys.iter().map(|(_, entry)| &entry.key);
    !snapshot.keys.is_empty() && keys.all(|key| !Tokens::holds(key) && refused(key.class()))
}

/// Proves the engine and ends the quarantine, for a peer, and records it.
pub(super) fn execute(
    request: &ReleaseRequest,
    peer: &UnixCredentials,
    state: &ServerState,
) -> ControlReply {
    let outcome = release(request, state);
    tracing::warn!(
        target: "keyserver::audit",
        uid = peer.uid(),
        pid = peer.pid(),
        class = %request.class.escape_debug(),
        reason = %request.reason.escape_debug(),
        "{}",
        outcome.as_ref().map_or_else(
            |message| format!("the engine stays in quarantine: {}", message.escape_debug()),
            |()| "the engine proved itself and was released by command".to_owned(),
        )
    );
    outcome.map_or_else(ControlReply::error, |()| ControlReply::released())
}

fn release(request: &ReleaseRequest, state: &ServerState) -> Result<(), String> {
    check_reason(&request.reason)?;
    let class = Class::ALL
        .into_iter()
        .find(|class| class.name() == request.class)
        .ok_or_else(|| {
            let names = Class::ALL.map(Class::name).join(", ");
            format!("there is no such class; there are {names}")
        })?;
    state
        .engine()
        .release(class)
        .map_err(|error| error.to_string())
}
