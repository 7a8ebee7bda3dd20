//! The Keyless wire protocol, version 1: bytes to typed requests and replies, and back.
//!
//! A terminating proxy asks a key server for the one step of a TLS handshake that needs the private
//! key. This crate is the whole of what they say to each other, and nothing else: no sockets, no
//! clock, no cryptography, no policy. It reads and writes byte slices, never panics whatever the
//! bytes are, and allocates nothing while it decodes a request or a reply.
//!
//! | module | what it knows |
//! |---|---|
//! | [`header`] | the 8-byte header, and where one frame ends and the next begins |
//! | [`item`] | tag-length-value items, and the padding rule |
//! | [`tag`] | the item tags |
//! | [`opcode`] | the operations |
//! | [`error`] | the error codes a server may answer with |
//! | [`request`] | what a client sends |
//! | [`reply`] | what a server sends |
//! | [`scheme`] | the signature schemes of the operations that check what they sign |
//! | [`key_exchange`] | what opens an RSA key exchange |
//! | [`delegation`] | delegated credentials and the requests for them |
//! | [`tickets`] | keys of session tickets |
//! | [`info`] | the JSON documents of the two self-description operations |
//!
//! A client's half of one exchange:
//!
//! ```
//! use keyless_protocol::{Opcode, Reply, Request, split_frame};
//!
//! // Ask for a signature over a SHA-256 hash with the key of this SKI.
//! let request = Request {
//!     ski: Some([0xA5; 20]),
//!     payload: &[0x11; 32],
//!     ..Request::new(7, Opcode::EcdsaSignSha256)
//! };
//! let mut wire = Vec::new();
//! request.encode(&mut wire)?;
//! assert_eq!(wire.len(), 1024, "short frames are padded");
//!
//! // The server cuts the frame out of what it received, and parses it without copying.
//! let (frame, length) = split_frame(&wire).ok_or("need more bytes")?;
//! assert_eq!(length, wire.len());
//! assert_eq!(Request::decode(frame)?, request);
//!
//! // Its answer echoes the id.
//! let mut answer = Vec::new();
//! Reply::success(7, b"a signature").encode(&mut answer)?;
//! let (frame, _) = split_frame(&answer).ok_or("need more bytes")?;
//! assert_eq!(Reply::decode(frame)?.outcome, Ok(&b"a signature"[..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

pub mod delegation;
pub mod error;
pub mod header;
pub mod info;
pub mod item;
pub mod key_exchange;
pub mod opcode;
pub mod reply;
pub mod request;
pub mod scheme;
pub mod tag;
pub mod tickets;

pub use error::{EncodeError, ErrorCode};
pub use header::{
    DEFAULT_PORT, Frame, HEADER_LEN, Header, MAJOR_VERSION, MAX_BODY, MAX_FRAME, MAX_PAYLOAD,
    MIN_FRAME, MINOR_VERSION, split_frame,
};
pub use info::{InfoError, InfoLimits, KeyEntry, KeyList, KeyListRequest, ServerInfo};
pub use opcode::Opcode;
pub use reply::{Reply, ReplyError, ReplyFault};
pub use request::{Request, RequestError, RequestFault, Ski};
pub use scheme::SignatureScheme;
pub use tag::Tag;
