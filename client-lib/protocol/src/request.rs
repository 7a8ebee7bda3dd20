//! What a client sends.

use std::net::IpAddr;
use std::{error, fmt};

use crate::error::{EncodeError, ErrorCode};
use crate::header::{Frame, MAJOR_VERSION};
use crate::item::{Items, Layout, item_len, optional_len, put, put_optional};
use crate::opcode::Opcode;
use crate::tag::{Tag, TagSet};

/// A subject key identifier: SHA-1 of the subjectPublicKey bits (RFC 5280, section 4.2.1.2,
/// method 1). It names the key to use.
pub type Ski = [u8; 20];

/// One request, borrowing from the frame it was decoded from.
///
/// Items whose value has the wrong length decode as follows. Lookup keys ([`ski`](Self::ski),
/// [`digest`](Self::digest)) and what only serves logs ([`client_ip`](Self::client_ip),
/// [`server_ip`](Self::server_ip), [`region`](Self::region)) become `None`, as stock clients are
/// used to. The additions ([`deadline_us`](Self::deadline_us),
/// [`signature_scheme`](Self::signature_scheme), [`extended`](Self::extended)) promise something to
/// the client, so a malformed one is refused rather than dropped.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Request<'a> {
    /// Chosen by the client, echoed in the reply.
    pub id: u32,
    /// What to do.
    pub opcode: Opcode,
    /// The operation's input; empty when the item is left out.
    pub payload: &'a [u8],
    /// The key to use. `None` when missing, of the wrong length or all zeros.
    pub ski: Option<Ski>,
    /// The key to use, the old way: see [`Tag::CertificateDigest`].
    pub digest: Option<[u8; 32]>,
    /// The server name the visitor asked for. Text by convention, not checked.
    pub sni: Option<&'a [u8]>,
    /// The visitor's address.
    pub client_ip: Option<IpAddr>,
    /// The address the visitor connected to.
    pub server_ip: Option<IpAddr>,
    /// Names a certificate in a private store.
    pub certificate_id: Option<&'a [u8]>,
    /// The function meant by [`Opcode::Custom`].
    pub custom_function: Option<&'a [u8]>,
    /// Bytes with a meaning private to the peers.
    pub extra: Option<&'a [u8]>,
    /// A tracing span. Not checked.
    pub trace: Option<&'a [u8]>,
    /// JSON by convention, not checked.
    pub request_context: Option<&'a [u8]>,
    /// A compliance region.
    pub region: Option<u8>,
    /// Microseconds for which the client will still wait, counted from sending.
    pub deadline_us: Option<u32>,
    /// A TLS `SignatureScheme`.
    pub signature_scheme: Option<u16>,
    /// Whether the client understands the added error codes and reply items.
    pub extended: bool,
}

impl<'a> Request<'a> {
    /// A request with nothing but an id and an opcode.
    #[must_use]
    pub const fn new(id: u32, opcode: Opcode) -> Self {
        Self {
            id,
            opcode,
            payload: &[],
            ski: None,
            digest: None,
            sni: None,
            client_ip: None,
            server_ip: None,
            certificate_id: None,
            custom_function: None,
            extra: None,
            trace: None,
            request_context: None,
            region: None,
            deadline_us: None,
            signature_scheme: None,
            extended: false,
        }
    }

    /// Parses a frame. Copies only the fixed-size values and allocates nothing.
    ///
    /// Unknown tags are skipped, however often they occur. Items may come in any order, and one or
    /// two bytes after the last item are ignored.
    ///
    /// # Errors
    ///
    /// What to answer, and whether the connection must close after it: see [`RequestFault`].
    pub fn decode(frame: Frame<'a>) -> Result<Self, RequestError> {
        let id = frame.header.id;
        Self::decode_items(frame).map_err(|fault| RequestError::new(id, fault))
    }

    fn decode_items(frame: Frame<'a>) -> Result<Self, RequestFault> {
        if frame.header.major != MAJOR_VERSION {
            return Err(RequestFault::Version(frame.header.major));
        }
        // The opcode is replaced below or the request is refused.
        let mut request = Self::new(frame.header.id, Opcode::Ping);
        let mut opcode = None;
        let mut seen = TagSet::default();
        for item in Items::new(frame.body) {
            let item = item.map_err(|_| RequestFault::PastEnd)?;
            let Some(tag) = Tag::from_byte(item.tag) else {
                continue;
            };
            if !seen.insert(tag) {
                return Err(RequestFault::Repeated(tag));
            }
            let value = item.value;
            if tag == Tag::Opcode {
                opcode = Some(fixed::<1>(tag, value)?[0]);
            } else {
                request.take(tag, value)?;
            }
        }
        request.opcode = check_opcode(opcode)?;
        Ok(request)
    }

    /// Notes the value of one item other than the opcode.
    fn take(&mut self, tag: Tag, value: &'a [u8]) -> Result<(), RequestFault> {
        match tag {
            Tag::Payload => self.payload = value,
            Tag::Ski => self.ski = value.try_into().ok().filter(|ski| *ski != [0; 20]),
            Tag::CertificateDigest => self.digest = value.try_into().ok(),
            Tag::Sni => self.sni = Some(value),
            Tag::ClientIp => self.client_ip = address(value),
            Tag::ServerIp => self.server_ip = address(value),
            Tag::CertificateId => self.certificate_id = Some(value),
            Tag::CustomFunction => self.custom_function = Some(value),
            Tag::Extra => self.extra = Some(value),
            Tag::Trace => self.trace = Some(value),
            Tag::RequestContext => self.request_context = Some(value),
            Tag::Region => self.region = <[u8; 1]>::try_from(value).ok().map(|[region]| region),
            Tag::Deadline => self.deadline_us = Some(u32::from_be_bytes(fixed(tag, value)?)),
            Tag::SignatureScheme => {
                self.signature_scheme = Some(u16::from_be_bytes(fixed(tag, value)?));
            }
            Tag::Extended => self.extended = fixed::<0>(tag, value).map(|_| true)?,
            // Padding is for the onlooker, the rest belongs to replies.
            Tag::Opcode | Tag::Padding | Tag::RetryAfter | Tag::AuditReceipt => {}
        }
        Ok(())
    }

    /// Appends the request to `out` as one frame, padded to [`MIN_FRAME`](crate::MIN_FRAME).
    ///
    /// # Errors
    ///
    /// When the items do not fit one frame; `out` is then as it was.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let client_ip = self.client_ip.map(AddressBytes::new);
        let server_ip = self.server_ip.map(AddressBytes::new);
        let region = self.region.map(|region| [region]);
        let deadline = self.deadline_us.map(u32::to_be_bytes);
        let scheme = self.signature_scheme.map(u16::to_be_bytes);
        let optional: [(Tag, Option<&[u8]>); 15] = [
            (Tag::CertificateDigest, self.digest.as_ref().map(|v| &v[..])),
            (Tag::Sni, self.sni),
            (
                Tag::ClientIp,
                client_ip.as_ref().map(AddressBytes::as_slice),
            ),
            (Tag::Ski, self.ski.as_ref().map(|v| &v[..])),
            (
                Tag::ServerIp,
                server_ip.as_ref().map(AddressBytes::as_slice),
            ),
            (Tag::CertificateId, self.certificate_id),
            (Tag::CustomFunction, self.custom_function),
            (Tag::Extra, self.extra),
            (Tag::Trace, self.trace),
            (Tag::RequestContext, self.request_context),
            (Tag::Region, region.as_ref().map(|v| &v[..])),
            (Tag::Deadline, deadline.as_ref().map(|v| &v[..])),
            (Tag::SignatureScheme, scheme.as_ref().map(|v| &v[..])),
            (Tag::Extended, self.extended.then_some(&[])),
            (
                Tag::Payload,
                (!self.payload.is_empty()).then_some(self.payload),
            ),
        ];
        let opcode = [self.opcode.as_byte()];
        let items = optional
            .iter()
            .map(|(_, value)| optional_len(*value))
            .fold(item_len(&opcode), usize::saturating_add);
        let layout = Layout::new(items)?;
        layout.begin(self.id, out);
        put(Tag::Opcode, &opcode, out);
        for (tag, value) in optional {
            put_optional(tag, value, out);
        }
        layout.finish(out);
        Ok(())
    }
}

/// Shows the payload's and the private items' sizes only: they may hold what nobody should log.
impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("id", &self.id)
            .field("opcode", &self.opcode)
            .field("payload_bytes", &self.payload.len())
            .field("ski", &self.ski)
            .field("digest", &self.digest)
            .field("sni", &self.sni.map(String::from_utf8_lossy))
            .field("client_ip", &self.client_ip)
            .field("server_ip", &self.server_ip)
            .field("deadline_us", &self.deadline_us)
            .field("signature_scheme", &self.signature_scheme)
            .field("extended", &self.extended)
            .finish_non_exhaustive()
    }
}

/// The opcode of a request, or why it cannot be one.
fn check_opcode(byte: Option<u8>) -> Result<Opcode, RequestFault> {
    let byte = byte.ok_or(RequestFault::NoOpcode)?;
    let opcode = Opcode::from_byte(byte).ok_or(RequestFault::UnknownOpcode(byte))?;
    if opcode.is_answer() {
        return Err(RequestFault::AnswerOpcode(opcode));
    }
    Ok(opcode)
}

/// A value that must have exactly `N` bytes.
fn fixed<const N: usize>(tag: Tag, value: &[u8]) -> Result<[u8; N], RequestFault> {
    value.try_into().map_err(|_| RequestFault::Length {
        tag,
        expected: N,
        found: value.len(),
    })
}

/// An address of 4 or 16 bytes.
fn address(value: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(value) {
        return Some(IpAddr::from(v4));
    }
    <[u8; 16]>::try_from(value).ok().map(IpAddr::from)
}

/// An address's octets, kept alive while they are written.
enum AddressBytes {
    V4([u8; 4]),
    V6([u8; 16]),
}

impl AddressBytes {
    const fn new(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::V4(v4.octets()),
            IpAddr::V6(v6) => Self::V6(v6.octets()),
        }
    }

    const fn as_slice(&self) -> &[u8] {
        match self {
            Self::V4(octets) => octets,
            Self::V6(octets) => octets,
        }
    }
}

/// A frame that is not a request to act on, with the answer it deserves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RequestError {
    /// The frame's id, to be echoed in the error reply.
    pub id: u32,
    /// The code to answer with.
    pub code: ErrorCode,
    /// After the error reply: deliver what is in flight, then close the connection.
    pub fatal: bool,
    /// What was wrong, for logs.
    pub fault: RequestFault,
}

impl RequestError {
    const fn new(id: u32, fault: RequestFault) -> Self {
        let code = match fault {
            RequestFault::Version(_) => ErrorCode::VersionMismatch,
            RequestFault::PastEnd | RequestFault::Repeated(_) | RequestFault::Length { .. } => {
                ErrorCode::Format
            }
            RequestFault::NoOpcode | RequestFault::UnknownOpcode(_) => ErrorCode::BadOpcode,
            RequestFault::AnswerOpcode(_) => ErrorCode::UnexpectedOpcode,
        };
        let fatal = matches!(code, ErrorCode::VersionMismatch | ErrorCode::Format);
        Self {
            id,
            code,
            fatal,
            fault,
        }
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "request {}: {}", self.id, self.fault)
    }
}

impl error::Error for RequestError {}

/// Why a frame is not a request to act on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RequestFault {
    /// The major version is not 1. Error 4, fatal.
    Version(u8),
    /// An item claims more bytes than the body has left. Error 7, fatal.
    PastEnd,
    /// A known tag occurs twice. Error 7, fatal.
    Repeated(Tag),
    /// An item's value does not have the length its tag demands. Error 7, fatal.
    Length {
        /// Which item.
        tag: Tag,
        /// Bytes demanded.
        expected: usize,
        /// Bytes sent.
        found: usize,
    },
    /// There is no opcode item. Error 5.
    NoOpcode,
    /// Nobody knows this opcode. Error 5.
    UnknownOpcode(u8),
    /// The opcode is one that only a server sends. Error 6.
    AnswerOpcode(Opcode),
}

impl fmt::Display for RequestFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(major) => {
                write!(
                    f,
                    "the client speaks version {major}, this server speaks version 1"
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
            Self::UnknownOpcode(byte) => write!(f, "opcode 0x{byte:02x} is unknown"),
            Self::AnswerOpcode(opcode) => {
                write!(f, "only a server may send the opcode {opcode}")
            }
        }
    }
}
