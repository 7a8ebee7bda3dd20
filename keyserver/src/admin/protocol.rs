//! What `ksctl` and the server say to each other: one JSON document a line, each way.
//!
//! ```text
//! -> {"v":1,"command":"status"}
//! <- {"v":1,"status":{"state":"serving", ...}}
//! -> {"v":1,"command":"reload"}
//! <- {"v":1,"reload":{"generation":2,"keys":7,"added":1, ...}}
//! -> {"v":1,"command":{"stop":{"target":{"key":"shop"},"stop":true,"reason":"..."}}}
//! <- {"v":1,"stopped":{"changed":true}}
//! -> {"v":1,"command":{"revoke-tickets":{"target":{"key":"shop"},"least":0,"reason":"..."}}}
//! <- {"v":1,"revoked":{"generation":1}}
//! -> {"v":1,"command":{"ledger-drop":{"key":"9f86...","reason":"..."}}}
//! <- {"v":1,"dropped":true}
//! -> {"v":1,"command":{"release":{"class":"rsa2048","reason":"..."}}}
//! <- {"v":1,"released":true}
//! <- {"v":1,"error":{"message":"..."}}
//! ```
//!
//! The server answers every line, and closes after a line it cannot read. Members are added, never
//! renamed; readers ignore those they do not know. A change that breaks this raises `v`.

use serde::{Deserialize, Serialize};

use super::acl::{Explanation, Question};
use super::engine::ReleaseRequest;
use super::ledger::DropRequest;
use super::status::Status;
use super::stopping::{RevokeRequest, StopRequest};
use crate::state::ReloadReport;

/// The version of this protocol.
pub const VERSION: u32 = 1;

/// Bytes of one request line.
pub const REQUEST_BYTES_MAX: usize = 4096;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlRequest {
    /// [`VERSION`]
    pub v: u32,
    /// What to do.
    pub command: Command,
}

/// What the server can be asked to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Command {
    /// Say how it is.
    Status,
    /// Read the configuration, keys and certificates again. The answer comes when it is done.
    Reload,
    /// Stop a key, a client or everything, or let it go on. The answer comes when it is on disk.
    Stop(StopRequest),
    /// Say whether a client may do something, and which line of the configuration decides.
    Explain(Question),
    /// Make new ticket keys for a key, or for all. The answer comes when it is on disk.
    RevokeTickets(RevokeRequest),
    /// Drop what a key has opened from the ledger. The answer comes when that is on disk.
    LedgerDrop(DropRequest),
    /// Prove the engine and use it again for a class in quarantine. The answer comes when it is proved.
    Release(ReleaseRequest),
}

/// What is answered: exactly one of the optional members is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlReply {
    /// [`VERSION`]
    pub v: u32,
    /// Answer to [`Command::Status`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Box<Status>>,
    /// Answer to [`Command::Reload`] that took effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reload: Option<ReloadReport>,
    /// Answer to [`Command::Stop`] that took effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<StopReport>,
    /// Answer to [`Command::Explain`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explained: Option<Explanation>,
    /// Answer to [`Command::RevokeTickets`] that took effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<RevokeReport>,
    /// Answer to [`Command::LedgerDrop`] that took effect.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dropped: bool,
    /// Answer to [`Command::Release`] that took effect.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub released: bool,
    /// The command was not carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ControlError>,
}

/// What a [`Command::Stop`] changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopReport {
    /// False: it was so already.
    pub changed: bool,
    /// No key with this SKI is loaded: it counts when one is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unloaded: bool,
}

/// What a [`Command::RevokeTickets`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokeReport {
    /// The generation that counts now.
    pub generation: u32,
}

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlError {
    /// For the operator.
    pub message: String,
}

impl ControlRequest {
    /// A request of this version.
    #[must_use]
    pub const fn new(command: Command) -> Self {
        Self {
            v: VERSION,
            command,
        }
    }
}

impl ControlReply {
    const EMPTY: Self = Self {
        v: VERSION,
        status: None,
        reload: None,
        stopped: None,
        explained: None,
        revoked: None,
        dropped: false,
        released: false,
        error: None,
    };

    /// The status.
    #[must_use]
    pub fn status(status: Status) -> Self {
        Self {
            status: Some(Box::new(status)),
            ..Self::EMPTY
        }
    }

    /// A reload that took effect.
    #[must_use]
    pub fn reload(report: ReloadReport) -> Self {
        Self {
            reload: Some(report),
            ..Self::EMPTY
        }
    }

    /// A stop, or its end, that is on disk.
    #[must_use]
    pub fn stopped(report: StopReport) -> Self {
        Self {
            stopped: Some(report),
            ..Self::EMPTY
        }
    }

    /// Why a client may, or may not.
    #[must_use]
    pub fn explained(explanation: Explanation) -> Self {
        Self {
            explained: Some(explanation),
            ..Self::EMPTY
        }
    }

    /// A revocation of ticket keys that is on disk.
    #[must_use]
    pub fn revoked(generation: u32) -> Self {
        Self {
            revoked: Some(RevokeReport { generation }),
            ..Self::EMPTY
        }
    }

    /// A key was dropped from the ledger.
    #[must_use]
    pub const fn dropped() -> Self {
        Self {
            dropped: true,
            ..Self::EMPTY
        }
    }

    /// A class is out of quarantine.
    #[must_use]
    pub const fn released() -> Self {
        Self {
            released: true,
            ..Self::EMPTY
        }
    }

    /// A refusal or failure.
    #[must_use]
    pub fn error(message: impl Into<String>) -> Self {
        Self {
            error: Some(ControlError {
                message: message.into(),
            }),
            ..Self::EMPTY
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_look_as_documented() {
        let request = serde_json::to_string(&ControlRequest::new(Command::Reload)).unwrap();
        assert_eq!(request, r#"{"v":1,"command":"reload"}"#);
        let reply = serde_json::to_string(&ControlReply::error("no")).unwrap();
        assert_eq!(reply, r#"{"v":1,"error":{"message":"no"}}"#);
        serde_json::from_str::<ControlRequest>(r#"{"v":1,"command":"seal"}"#).unwrap_err();
    }

    #[test]
    fn a_reply_of_a_newer_server_is_still_read() {
        let newer = r#"{"v":1,"reload":{"generation":2,"keys":1,"added":0,"removed":0,"clients":3,
            "needs_restart":["io"],"warnings":[],"changed":4},"more":true}"#;
        let reply: ControlReply = serde_json::from_str(newer).unwrap();
        assert_eq!(reply.reload.unwrap().needs_restart, ["io"]);
    }
}
