//! The JSON documents of the two operations by which a server describes itself:
//! [`Opcode::ServerInfo`](crate::Opcode::ServerInfo) and
//! [`Opcode::KeyList`](crate::Opcode::KeyList).
//!
//! A stock server answers both with error 5. Readers ignore members they do not know, so that a
//! newer server may say more.

use std::{error, fmt};

use serde::{Deserialize, Serialize, de};

use crate::header::MAX_PAYLOAD;
use crate::request::Ski;

/// The value of [`ServerInfo::state`] while the server takes requests.
pub const STATE_SERVING: &str = "serving";

/// The value of [`ServerInfo::state`] while the server finishes what it has and takes nothing new.
pub const STATE_DRAINING: &str = "draining";

/// The value of [`ServerInfo::state`] while an operator has stopped the use of all keys.
pub const STATE_SEALED: &str = "sealed";

/// What a server is and can do. The request has no payload.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct ServerInfo {
    /// The product: `keyserver`.
    pub server: String,
    /// The product's version.
    pub version: String,
    /// The protocol's version: `1.0`.
    pub protocol: String,
    /// What it does beyond version 1, by name.
    pub capabilities: Vec<String>,
    /// The opcodes it serves, by rising byte.
    pub opcodes: Vec<u8>,
    /// What a client should keep to.
    pub limits: InfoLimits,
    /// [`STATE_SERVING`], [`STATE_DRAINING`] or [`STATE_SEALED`].
    pub state: String,
    /// Who the client is to this server; absent for one that it does not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<ClientInfo>,
}

/// What a server knows the asking client as, and lets it do.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct ClientInfo {
    /// Its name in the server's configuration.
    pub name: String,
    /// Its share of the server while others wait, relative to theirs.
    pub weight: u32,
    /// The rights it has on any key.
    pub operations: Vec<String>,
    /// Its grants that are bound to anything, the first [`TERMS_MAX`] of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub terms: Vec<Terms>,
}

/// The most [`ClientInfo::terms`].
pub const TERMS_MAX: usize = 32;

/// What a grant is bound to. What it does not name does not bind it.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Terms {
    /// The rights it gives.
    pub operations: Vec<String>,
    /// Its last day, in UTC: `2027-06-30`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// Networks it may be used from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source: Vec<String>,
    /// Days of the week on which it counts: `mon`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub days: Vec<String>,
    /// Hours at which it counts, in UTC: `08:00-18:00`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hours: Vec<String>,
    /// Signature schemes it is for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub schemes: Vec<String>,
    /// What else it demands of a handshake, by name: `sni`, `transcript` ...
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<String>,
    /// How often it may be used: `500/s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<String>,
    /// How often at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// How often in a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daily: Option<u64>,
    /// How much of that is left today.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daily_left: Option<u64>,
    /// Longest life of a delegated credential, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential_seconds: Option<u64>,
}

/// Limits a client should keep to.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct InfoLimits {
    /// Requests in flight on one connection; with more, the server stops reading until some are
    /// answered.
    pub in_flight_per_connection: u32,
    /// Bytes in a frame's body.
    pub body_bytes: u32,
}

/// One page of the keys a client may use.
///
/// ```
/// use keyless_protocol::KeyList;
///
/// let page = KeyList::decode(br#"{"keys": [], "next": 40}"#)?;
/// assert_eq!(page.next, Some(40), "the first entry of the next page");
/// assert_eq!(KeyList::decode(&page.encode()?)?, page);
/// # Ok::<(), keyless_protocol::InfoError>(())
/// ```
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct KeyList {
    /// The keys of this page.
    pub keys: Vec<KeyEntry>,
    /// The index to ask for next; absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u32>,
}

/// One key a client may use.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct KeyEntry {
    /// The subject key identifier, 40 lower-case hexadecimal digits.
    pub ski: String,
    /// The type: `rsa-2048`, `p-256`, `p-384`, `p-521`, `ed25519`, `ml-dsa-44` ...
    pub key_type: String,
    /// The DER `SubjectPublicKeyInfo` in standard base64.
    pub spki: String,
    /// The rights this client has on it: `sign-digest`, `decrypt-raw` ...
    pub operations: Vec<String>,
    /// The name its owner gave it.
    pub label: String,
    /// What it is for, `sign` or `key-exchange`; empty from a server that does not say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub purpose: String,
    /// The last day, in UTC, on which it serves the other purpose too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dual_use_until: Option<String>,
    /// The TLS signature schemes that this client may have it sign with: `ed25519` ...
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub schemes: Vec<String>,
    /// The client's grants on it that are bound to anything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub terms: Vec<Terms>,
}

/// The payload of a key-list request: empty for the first page, or the index of the first entry
/// wanted as a big-endian `u32`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct KeyListRequest {
    /// The index of the first entry wanted.
    pub first: u32,
}

impl ServerInfo {
    /// The document as a reply's payload.
    ///
    /// # Errors
    ///
    /// [`InfoError::TooLong`] when it does not fit one frame.
    pub fn encode(&self) -> Result<Vec<u8>, InfoError> {
        fits(to_json(self)?)
    }

    /// Reads a reply's payload.
    ///
    /// # Errors
    ///
    /// [`InfoError::Json`] when it is not such a document.
    pub fn decode(payload: &[u8]) -> Result<Self, InfoError> {
        from_json(payload)
    }
}

impl KeyList {
    /// The document as a reply's payload.
    ///
    /// # Errors
    ///
    /// [`InfoError::TooLong`] when it does not fit one frame.
    pub fn encode(&self) -> Result<Vec<u8>, InfoError> {
        fits(to_json(self)?)
    }

    /// Reads a reply's payload.
    ///
    /// # Errors
    ///
    /// [`InfoError::Json`] when it is not such a document.
    pub fn decode(payload: &[u8]) -> Result<Self, InfoError> {
        from_json(payload)
    }
}

impl KeyEntry {
    /// The subject key identifier as bytes; `None` when it is not 40 hexadecimal digits.
    #[must_use]
    pub fn ski_bytes(&self) -> Option<Ski> {
        ski_from_hex(&self.ski)
    }
}

impl KeyListRequest {
    /// The payload; empty for the first page.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        if self.first == 0 {
            Vec::new()
        } else {
            self.first.to_be_bytes().to_vec()
        }
    }

    /// Reads a payload.
    ///
    /// # Errors
    ///
    /// [`InfoError::PageIndex`] when it is neither empty nor 4 bytes long.
    pub fn decode(payload: &[u8]) -> Result<Self, InfoError> {
        if payload.is_empty() {
            return Ok(Self::default());
        }
        let bytes = payload.try_into().map_err(|_| InfoError::PageIndex {
            found: payload.len(),
        })?;
        Ok(Self {
            first: u32::from_be_bytes(bytes),
        })
    }
}

/// A subject key identifier as 40 lower-case hexadecimal digits.
///
/// ```
/// use keyless_protocol::info::{ski_from_hex, ski_to_hex};
///
/// let text = ski_to_hex(&[0xA5; 20]);
/// assert_eq!(text, "a5".repeat(20));
/// assert_eq!(ski_from_hex(&text), Some([0xA5; 20]));
/// ```
#[must_use]
pub fn ski_to_hex(ski: &Ski) -> String {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
    ];
    ski.iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|n| DIGITS[usize::from(n)])
        .collect()
}

/// Reads 40 hexadecimal digits of either case.
#[must_use]
pub fn ski_from_hex(text: &str) -> Option<Ski> {
    let digits: &[u8; 40] = text.as_bytes().try_into().ok()?;
    let mut ski = [0; 20];
    for (byte, pair) in ski.iter_mut().zip(digits.chunks_exact(2)) {
        for digit in pair {
            let value = char::from(*digit).to_digit(16)?;
            *byte = (*byte << 4) | u8::try_from(value).ok()?;
        }
    }
    Some(ski)
}

fn to_json<T: Serialize>(document: &T) -> Result<Vec<u8>, InfoError> {
    serde_json::to_vec(document).map_err(|cause| InfoError::Json {
        cause: cause.to_string(),
    })
}

fn from_json<T: de::DeserializeOwned>(payload: &[u8]) -> Result<T, InfoError> {
    serde_json::from_slice(payload).map_err(|cause| InfoError::Json {
        cause: cause.to_string(),
    })
}

fn fits(document: Vec<u8>) -> Result<Vec<u8>, InfoError> {
    if document.len() > MAX_PAYLOAD {
        return Err(InfoError::TooLong {
            bytes: document.len(),
        });
    }
    Ok(document)
}

/// Why a self-description cannot be read or written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum InfoError {
    /// The payload is not the JSON document expected.
    Json {
        /// What the parser said.
        cause: String,
    },
    /// The payload of a key-list request is neither empty nor 4 bytes long.
    PageIndex {
        /// Bytes found.
        found: usize,
    },
    /// The document does not fit one frame.
    TooLong {
        /// Bytes it takes.
        bytes: usize,
    },
}

impl fmt::Display for InfoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json { cause } => {
                write!(
                    f,
                    "the server's description of itself is not readable: {cause}"
                )
            }
            Self::PageIndex { found } => write!(
                f,
                "a key-list request has no payload or a 4-byte index, this one has {found} bytes"
            ),
            Self::TooLong { bytes } => {
                write!(
                    f,
                    "a document of {bytes} bytes does not fit a payload of {MAX_PAYLOAD}"
                )
            }
        }
    }
}

impl error::Error for InfoError {}
