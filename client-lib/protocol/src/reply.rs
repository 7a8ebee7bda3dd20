//! What a server sends.

use std::{error, fmt};

use crate::error::{EncodeError, ErrorCode};
use crate::header::{Frame, MAJOR_VERSION};
use crate::item::{Items, Layout, item_len, optional_len, put, put_optional};
use crate::opcode::Opcode;
use crate::tag::{Tag, TagSet};

/// One reply, borrowing its payload.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Reply<'a> {
    /// The id of the request this answers.
    pub id: u32,
    /// The operation's output, or the refusal.
    pub outcome: Result<&'a [u8], ErrorCode>,
    /// Milliseconds after which asking again makes sense. Extended clients only.
    pub retry_after_ms: Option<u32>,
    /// Proof that the operation was recorded. Extended clients only.
    pub audit_receipt: Option<&'a [u8]>,
    /// Whether this is (or shall be) [`Opcode::Pong`] rather than [`Opcode::Reply`]. Without
    /// meaning beside an error.
    pub pong: bool,
}

impl<'a> Reply<'a> {
    /// The output of an operation.
    #[must_use]
    pub const fn success(id: u32, output: &'a [u8]) -> Self {
        Self {
            id,
            outcome: Ok(output),
            retry_after_ms: None,
            audit_receipt: None,
            pong: false,
        }
    }

    /// A refusal. Mind [`ErrorCode::for_stock`].
    #[must_use]
    pub const fn failure(id: u32, code: ErrorCode) -> Self {
        Self {
            id,
            outcome: Err(code),
            retry_after_ms: None,
            audit_receipt: None,
            pong: false,
        }
    }

    /// The answer to a ping.
    #[must_use]
    pub const fn pong(id: u32, payload: &'a [u8]) -> Self {
        Self {
            id,
            outcome: Ok(payload),
            retry_after_ms: None,
            audit_receipt: None,
            pong: true,
        }
    }

    /// What of this reply a stock client may see: codes 1 to 11, and no items but the opcode and
    /// the payload.
    #[must_use]
    pub fn for_stock(self) -> Self {
        Self {
            outcome: self.outcome.map_err(ErrorCode::for_stock),
            retry_after_ms: None,
            audit_receipt: None,
            ..self
        }
    }

    /// Appends the reply to `out` as one frame, padded to [`MIN_FRAME`](crate::MIN_FRAME).
    ///
    /// # Errors
    ///
    /// When the items do not fit one frame; `out` is then as it was. A payload of
    /// [`MAX_PAYLOAD`](crate::MAX_PAYLOAD) bytes fits when there are no added items.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let code;
        let (opcode, payload): (_, &[u8]) = match self.outcome {
            Ok(payload) if self.pong => (Opcode::Pong, payload),
            Ok(payload) => (Opcode::Reply, payload),
            Err(error) => {
                code = [error.as_byte()];
                (Opcode::Error, &code)
            }
        };
        let payload = (!payload.is_empty()).then_some(payload);
        let retry_after = self.retry_after_ms.map(u32::to_be_bytes);
        let retry_after = retry_after.as_ref().map(|v| &v[..]);
        let opcode = [opcode.as_byte()];
        let items = item_len(&opcode)
            .saturating_add(optional_len(payload))
            .saturating_add(optional_len(retry_after))
            .saturating_add(optional_len(self.audit_receipt));
        let layout = Layout::new(items)?;
        layout.begin(self.id, out);
        put(Tag::Opcode, &opcode, out);
        put_optional(Tag::Payload, payload, out);
        put_optional(Tag::RetryAfter, retry_after, out);
        put_optional(Tag::AuditReceipt, self.audit_receipt, out);
        layout.finish(out);
        Ok(())
    }

    /// Parses a frame from a server. Allocates nothing.
    ///
    /// # Errors
    ///
    /// When the frame is not a reply this crate understands. The error keeps the id, so that the
    /// one request concerned can be failed; see [`ReplyFault::is_fatal`] for the rest.
    pub fn decode(frame: Frame<'a>) -> Result<Self, ReplyError> {
        let id = frame.header.id;
        Self::decode_items(frame).map_err(|fault| ReplyError { id, fault })
    }

    fn decode_items(frame: Frame<'a>) -> Result<Self, ReplyFault> {
        if frame.header.major != MAJOR_VERSION {
            return Err(ReplyFault::Version(frame.header.major));
        }
        let mut opcode = None;
        let mut payload: &[u8] = &[];
        let mut retry_after_ms = None;
        let mut audit_receipt = None;
        let mut seen = TagSet::default();
        for item in Items::new(frame.body) {
            let item = item.map_err(|_| ReplyFault::PastEnd)?;
            let Some(tag) = Tag::from_byte(item.tag) else {
                continue;
            };
            if !seen.insert(tag) {
                return Err(ReplyFault::Repeated(tag));
            }
            match tag {
                Tag::Opcode => opcode = Some(fixed::<1>(tag, item.value)?[0]),
                Tag::Payload => payload = item.value,
                Tag::RetryAfter => {
                    retry_after_ms = Some(u32::from_be_bytes(fixed(tag, item.value)?));
                }
                Tag::AuditReceipt => audit_receipt = Some(item.value),
                // Items of requests and padding mean nothing here.
                _ => {}
            }
        }
        let byte = opcode.ok_or(ReplyFault::NoOpcode)?;
        let (outcome, pong) = match Opcode::from_byte(byte) {
            Some(Opcode::Reply) => (Ok(payload), false),
            Some(Opcode::Pong) => (Ok(payload), true),
            Some(Opcode::Error) => (Err(error_code(payload)?), false),
            _ => return Err(ReplyFault::NotAReply(byte)),
        };
        Ok(Self {
            id: frame.header.id,
            outcome,
            retry_after_ms,
            audit_receipt,
            pong,
        })
    }
}

/// Shows the sizes of payload and receipt only: a payload may be a decrypted secret.
impl fmt::Debug for Reply<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("id", &self.id)
            .field(
                "outcome",
                &self
                    .outcome
                    .map(|payload| format!("{} bytes", payload.len())),
            )
            .field("retry_after_ms", &self.retry_after_ms)
            .field("audit_receipt_bytes", &self.audit_receipt.map(<[u8]>::len))
            .field("pong", &self.pong)
            .finish()
    }
}

/// A value that must have exactly `N` bytes.
fn fixed<const N: usize>(tag: Tag, value: &[u8]) -> Result<[u8; N], ReplyFault> {
    value.try_into().map_err(|_| ReplyFault::Length {
        tag,
        expected: N,
        found: value.len(),
    })
}

/// The code in the payload of an error reply.
fn error_code(payload: &[u8]) -> Result<ErrorCode, ReplyFault> {
    let [byte] = fixed::<1>(Tag::Payload, payload)?;
    ErrorCode::from_byte(byte).ok_or(ReplyFault::UnknownError(byte))
}

/// A frame from a server that cannot be used as a reply.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ReplyError {
    /// The id of the request it would have answered.
    pub id: u32,
    /// What was wrong.
    pub fault: ReplyFault,
}

impl fmt::Display for ReplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "reply to request {}: {}", self.id, self.fault)
    }
}

impl error::Error for ReplyError {}

/// Why a frame from a server cannot be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ReplyFault {
    /// The major version is not 1.
    Version(u8),
    /// An item claims more bytes than the body has left.
    PastEnd,
    /// A known tag occurs twice.
    Repeated(Tag),
    /// An item's value does not have the length its tag demands.
    Length {
        /// Which item.
        tag: Tag,
        /// Bytes demanded.
        expected: usize,
        /// Bytes sent.
        found: usize,
    },
    /// There is no opcode item.
    NoOpcode,
    /// The opcode is none that a server sends.
    NotAReply(u8),
    /// A refusal with a code this crate does not know.
    UnknownError(u8),
}

impl ReplyFault {
    /// Whether the connection is of no further use. Only [`Self::UnknownError`] is not fatal: the
    /// frame is sound, and its request has been refused for a reason we have no name for.
    #[must_use]
    pub const fn is_fatal(self) -> bool {
        !matches!(self, Self::UnknownError(_))
    }
}

impl fmt::Display for ReplyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(major) => {
                write!(
                    f,
                    "the server speaks version {major}, this client speaks version 1"
                )
            }
            Self::PastEnd => f.write_str("an item reaches past the end of the body"),
            Self::Repeated(tag) => write!(f, "the item {tag} occurs twice"),
            Self::Length {
                tag,
                expected,
                found,
            } => {
                write!(
                    f,
                    "the item {tag} has {found} bytes and must have {expected}"
                )
            }
            Self::NoOpcode => f.write_str("there is no opcode item"),
            Self::NotAReply(byte) => write!(f, "opcode 0x{byte:02x} is none that a server sends"),
            Self::UnknownError(byte) => write!(f, "the server refused with unknown error {byte}"),
        }
    }
}
