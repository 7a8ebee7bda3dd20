//! The commands that stop and resume, and the record of who gave them.

use keyless_protocol::Ski;
use keyless_protocol::info::{ski_from_hex, ski_to_hex};
use nix::sys::socket::UnixCredentials;
use serde::{Deserialize, Serialize};

use super::protocol::{ControlReply, StopReport};
use crate::ending::Now;
use crate::policy::Right;
use crate::snapshot::Snapshot;
use crate::state::ServerState;
use crate::stops::{Stop, Stops, Subject};

/// Characters of a reason.
const REASON_CHARS_MAX: usize = 500;

/// One change of what is stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopRequest {
    /// What is meant.
    pub target: Target,
    /// True: stop it; false: let it go on.
    pub stop: bool,
    /// Why, for the record.
    pub reason: String,
}

/// A revocation of ticket keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokeRequest {
    /// A key, or all.
    pub target: Target,
    /// The generation that shall be reached at least, as the status shows it, so that servers with one master can be made to
    /// agree; 0: the next one.
    #[serde(default)]
    pub least: u32,
    /// Why, for the record.
    pub reason: String,
}

/// What a command names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// A key, by label or SKI.
    Key(String),
    /// A client, by its name in the configuration.
    Client(String),
    /// Everything.
    All,
}

/// One thing that is stopped, in a status. Fields are added, never renamed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopEntry {
    /// `key`, `client` or `all`.
    pub kind: String,
    /// SKI or client name; empty for `all`.
    pub name: String,
    /// Label of a key that is loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Who, when, why.
    #[serde(flatten)]
    pub stop: StopRecord,
}

/// Who stopped something, when and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopRecord {
    /// Seconds since 1970.
    pub since: u64,
    /// User id.
    pub uid: u32,
    /// What the user said.
    pub reason: String,
}

/// Everything that is stopped, sorted.
#[must_use]
pub fn entries(stops: &Stops, snapshot: &Snapshot) -> Vec<StopEntry> {
    let mut entries: Vec<_> = stops
        .iter()
        .map(|(subject, stop)| entry(subject, stop, snapshot))
        .collect();
    entries.sort_by(|one, other| (&one.kind, &one.name).cmp(&(&other.kind, &other.name)));
    entries
}

fn entry(subject: &Subject, stop: &Stop, snapshot: &Snapshot) -> StopEntry {
    let (kind, name, label) = match subject {
        Subject::Key(ski) => {
            let loaded = snapshot.keys.by_ski(ski);
            let label = loaded.and_then(|(index, _)| snapshot.key_at(index.0));
            (
                "key",
                ski_to_hex(ski),
                label.map(|(_, label)| label.to_owned()),
            )
        }
        Subject::Client(name) => ("client", name.clone(), None),
        Subject::All => ("all", String::new(), None),
    };
    StopEntry {
        kind: kind.to_owned(),
        name,
        label,
        stop: StopRecord {
            since: stop.since,
            uid: stop.uid,
            reason: stop.reason.clone(),
        },
    }
}

/// Carries out a change for a peer, and records it.
pub(super) fn execute(
    request: &StopRequest,
    peer: &UnixCredentials,
    state: &ServerState,
) -> ControlReply {
    let report = match change(request, peer.uid(), state) {
        Ok(report) => report,
        Err(message) => {
            tracing::warn!(
                target: "keyserver::audit",
                uid = peer.uid(),
                pid = peer.pid(),
                request = ?request.target,
                stop = request.stop,
                reason = %request.reason.escape_debug(),
                "not carried out: {}", message.escape_debug()
            );
            return ControlReply::error(message);
        }
    };
    tracing::warn!(
        target: "keyserver::audit",
        uid = peer.uid(),
        pid = peer.pid(),
        request = ?request.target,
        stop = request.stop,
        changed = report.changed,
        unloaded = report.unloaded,
        reason = %request.reason,
        "{}", if request.stop { "stopped by command" } else { "resumed by command" }
    );
    ControlReply::stopped(report)
}

/// A reason as it goes into the log.
pub(super) fn check_reason(reason: &str) -> Result<&str, String> {
    let reason = reason.trim();
    let length = reason.chars().count();
    if !(1..=REASON_CHARS_MAX).contains(&length) || reason.chars().any(char::is_control) {
        return Err(format!(
            "a reason is one line of 1 to {REASON_CHARS_MAX} characters; it goes into the log"
        ));
    }
    Ok(reason)
}

fn change(request: &StopRequest, uid: u32, state: &ServerState) -> Result<StopReport, String> {
    let reason = check_reason(&request.reason)?;
    let stops = state.stops.current();
    let subject = subject(&request.target, request.stop, state, &stops)?;
    drop(stops);
    let unloaded = match &subject {
        Subject::Key(ski) => !is_loaded(ski, &state.snapshot.load()),
        Subject::Client(_) | Subject::All => false,
    };
    let done = if request.stop {
        let tickets = tickets_of(&subject, state);
        (state.stops).stop(subject, uid, reason.to_owned(), &tickets)
    } else {
        state.stops.resume(&subject)
    };
    done.map(|changed| StopReport { changed, unloaded })
        .map_err(|error| error.to_string())
}

/// Whose ticket keys are revoked when something is stopped: everything that it could have handed on. Of a client that is
/// what it may ask for, and what it was given before a reload took that from it.
fn tickets_of(subject: &Subject, state: &ServerState) -> Vec<Subject> {
    let Subject::Client(name) = subject else {
        return vec![subject.clone()];
    };
    let mut keys = state.ticket_ends.held_by(name, Now::read());
    let snapshot = state.snapshot.load();
    let policy = &snapshot.policy;
    if let Some(client) = policy.client_named(name) {
        let granted = (snapshot.keys.iter())
            .filter(|(index, _)| policy.was_granted(client, Right::Tickets, index.0));
        keys.extend(granted.map(|(_, entry)| entry.key.ski()));
    }
    keys.into_iter().map(Subject::Key).collect()
}

/// Revokes ticket keys for a peer, and records it.
pub(super) fn revoke(
    request: &RevokeRequest,
    peer: &UnixCredentials,
    state: &ServerState,
) -> ControlReply {
    let reason = request.reason.trim();
    let done = check_reason(reason).and_then(|_| {
        let stops = state.stops.current();
        let subject = match subject(&request.target, true, state, &stops)? {
            Subject::Client(_) => return Err("name a key, or all: tickets are of keys".to_owned()),
            subject => subject,
        };
        drop(stops);
        let revoked = state.stops.revoke_tickets(&subject, request.least);
        revoked.map_err(|error| error.to_string())
    });
    let (uid, pid) = (peer.uid(), peer.pid());
    match done {
        Ok(generation) => {
            tracing::warn!(
                target: "keyserver::audit",
                uid, pid, request = ?request.target, generation, reason,
                "ticket keys revoked by command"
            );
            ControlReply::revoked(generation)
        }
        Err(message) => {
            tracing::warn!(
                target: "keyserver::audit",
                uid, pid, request = ?request.target, reason = %reason.escape_debug(),
                "ticket keys not revoked: {}", message.escape_debug()
            );
            ControlReply::error(message)
        }
    }
}

/// What a command means. A key that is not loaded can be stopped by its SKI: it may come back. A client that is no longer
/// configured can be while it has ticket keys.
fn subject(
    target: &Target,
    stop: bool,
    state: &ServerState,
    stops: &Stops,
) -> Result<Subject, String> {
    let snapshot = state.snapshot.load();
    match target {
        Target::All => Ok(Subject::All),
        Target::Client(name) => {
            let subject = Subject::Client(name.clone());
            let configured = snapshot
                .config
                .clients
                .iter()
                .any(|client| client.name == *name);
            let is_known = || !state.ticket_ends.held_by(name, Now::read()).is_empty();
            if configured || (!stop && stops.stops(&subject)) || (stop && is_known()) {
                return Ok(subject);
            }
            Err(format!(
                "there is no client \"{}\"; `name` in [[clients]] is meant",
                name.escape_debug()
            ))
        }
        Target::Key(name) => key_named(name, &snapshot).map(Subject::Key),
    }
}

/// The key that a label or SKI means, labels first: a file may be named by 40 hexadecimal digits. An SKI need not be that of
/// a loaded key.
pub(super) fn key_named(name: &str, snapshot: &Snapshot) -> Result<Ski, String> {
    let fitting: Vec<_> = snapshot
        .keys
        .iter()
        .filter(|(_, entry)| entry.label == *name)
        .map(|(_, entry)| entry.key.ski())
        .collect();
    let as_ski = ski_from_hex(&name.replace(':', ""));
    match (&fitting[..], as_ski) {
        ([labelled], Some(ski)) if ski != *labelled && is_loaded(&ski, snapshot) => Err(format!(
            "\"{name}\" is the label of one key and the SKI of another: for the first say {}, for the second {}",
            ski_to_hex(labelled),
            with_colons(&ski)
        )),
        ([labelled], _) => Ok(*labelled),
        ([], Some(ski)) => Ok(ski),
        ([], None) => Err(format!(
            "no loaded key has the label \"{}\"; give a label, or an SKI of 40 hexadecimal digits",
            name.escape_debug()
        )),
        (many, _) => Err(format!(
            "{} keys have the label \"{}\"; name one by its SKI",
            many.len(),
            name.escape_debug()
        )),
    }
}

fn is_loaded(ski: &Ski, snapshot: &Snapshot) -> bool {
    snapshot.keys.by_ski(ski).is_some()
}

/// An SKI as openssl prints it, which no label of a file looks like by accident.
fn with_colons(ski: &Ski) -> String {
    let bytes: Vec<_> = ski.iter().map(|byte| format!("{byte:02X}")).collect();
    bytes.join(":")
}
