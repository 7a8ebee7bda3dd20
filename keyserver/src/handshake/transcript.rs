//! A TLS 1.3 handshake up to the server's certificate, from which the string to be signed is made
//! here instead of being taken on trust.
//!
//! ```text
//! ClientHello [HelloRetryRequest ClientHello] ServerHello
//! EncryptedExtensions [CertificateRequest] Certificate
//! ```
//!
//! Handshake messages with their four-byte heads (RFC 8446, section 4), one after the other, and
//! nothing else. After a retry the hash covers, in place of the first `ClientHello`, a message of
//! type 254 that holds its hash (section 4.4.1).

use super::Fault;
use super::certificate::leaf_public_key;
use super::certificate_verify::TranscriptHash;
use super::client_hello::ClientHello;
use super::extensions::{ALPN, Extensions, protocols};
use super::reader::Reader;
use super::server_hello::ServerHello;

/// Handshake types.
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const ENCRYPTED_EXTENSIONS: u8 = 8;
const CERTIFICATE: u8 = 11;
const CERTIFICATE_REQUEST: u8 = 13;
const MESSAGE_HASH: u8 = 254;

/// `X25519MLKEM768` (draft-ietf-tls-ecdhe-mlkem): a key exchange that also a quantum computer does not
/// undo.
pub const X25519_MLKEM768: u16 = 0x11ec;

/// The first byte of a transcript; a string to be signed begins with a space.
pub const FIRST_BYTE: u8 = CLIENT_HELLO;

/// What a handshake says, after every message was held against the others.
#[derive(Debug, Clone, Copy)]
pub struct Transcript<'a> {
    client: ClientHello<'a>,
    group: u16,
    alpn: Option<&'a [u8]>,
    public_key: &'a [u8],
    shape: TranscriptShape,
}

/// How the hash of a transcript is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TranscriptShape {
    /// With this function.
    pub hash: TranscriptHash,
    /// After a retry: the length of the first message, which goes in as [`message_hash_head`] and
    /// its own hash.
    pub replaced: Option<usize>,
}

/// The head of the message that stands for the first `ClientHello` after a retry.
#[must_use]
pub const fn message_hash_head(hash: TranscriptHash) -> [u8; 4] {
    let length = match hash {
        TranscriptHash::Sha256 => 32,
        TranscriptHash::Sha384 => 48,
    };
    [MESSAGE_HASH, 0, 0, length]
}

impl<'a> Transcript<'a> {
    /// Reads a handshake and checks that the server's messages answer the client's: TLS 1.3 with a
    /// suite, group and protocol that were offered, no sign of a downgrade, no pre-shared key.
    ///
    /// # Errors
    ///
    /// [`Fault`] with the first thing that is wrong.
    pub fn read(handshake: &'a [u8]) -> Result<Self, Fault> {
        let mut messages = Reader::new(handshake);
        let mut client = ClientHello::read(message(&mut messages, CLIENT_HELLO)?)?;
        let first_length = handshake.len() - messages.rest().len();
        let mut server = ServerHello::read(message(&mut messages, SERVER_HELLO)?, &client)?;
        let mut replaced = None;
        if server.is_retry {
            let again = ClientHello::read(message(&mut messages, CLIENT_HELLO)?)?;
            let settled = ServerHello::read(message(&mut messages, SERVER_HELLO)?, &again)?;
            if !again.repeats(&client) || !settled.agrees_with(&server) {
                return Err(Fault("what follows a HelloRetryRequest does not fit it"));
            }
            (client, server, replaced) = (again, settled, Some(first_length));
        }
        let alpn = selected_protocol(message(&mut messages, ENCRYPTED_EXTENSIONS)?)?;
        if alpn.is_some_and(|name| !client.offers_protocol(name)) {
            return Err(Fault(
                "the server selects an application protocol that was not offered",
            ));
        }
        if messages.rest().first() == Some(&CERTIFICATE_REQUEST) {
            check_certificate_request(message(&mut messages, CERTIFICATE_REQUEST)?)?;
        }
        let public_key = leaf_public_key(message(&mut messages, CERTIFICATE)?)?;
        messages.end()?;
        Ok(Self {
            client,
            group: server
                .group
                .ok_or(Fault("the ServerHello has no key share"))?,
            alpn,
            public_key,
            shape: TranscriptShape {
                hash: server.hash()?,
                replaced,
            },
        })
    }

    /// Whether the client offered to verify this signature scheme.
    #[must_use]
    pub fn offers_scheme(&self, scheme: u16) -> bool {
        self.client.offers_scheme(scheme)
    }

    /// The host name that the client asked for, as it was sent.
    #[must_use]
    pub const fn server_name(&self) -> Option<&'a [u8]> {
        self.client.server_name
    }

    /// The application protocol that the server selected.
    #[must_use]
    pub const fn protocol(&self) -> Option<&'a [u8]> {
        self.alpn
    }

    /// The DER `SubjectPublicKeyInfo` of the certificate that the server sent.
    #[must_use]
    pub const fn public_key(&self) -> &'a [u8] {
        self.public_key
    }

    /// Whether the client offered a post-quantum key exchange and the server took another one.
    #[must_use]
    pub fn passes_over_post_quantum(&self) -> bool {
        self.client.offers_group(X25519_MLKEM768) && self.group != X25519_MLKEM768
    }

    /// How to compute its hash.
    #[must_use]
    pub const fn shape(&self) -> TranscriptShape {
        self.shape
    }
}

/// The body of the next message, which must be of this type.
fn message<'a>(messages: &mut Reader<'a>, wanted: u8) -> Result<&'a [u8], Fault> {
    if messages.u8()? != wanted {
        return Err(Fault(
            "the handshake messages are not those up to a server's Certificate",
        ));
    }
    messages.vector24()
}

fn selected_protocol(body: &[u8]) -> Result<Option<&[u8]>, Fault> {
    let mut reader = Reader::new(body);
    let extensions = Extensions::read(&mut reader)?;
    reader.end()?;
    let Some(data) = extensions.find(ALPN) else {
        return Ok(None);
    };
    let mut names = protocols(data)?;
    let name = names.vector8()?;
    names.end()?;
    Ok(Some(name))
}

fn check_certificate_request(body: &[u8]) -> Result<(), Fault> {
    let mut reader = Reader::new(body);
    let context = reader.vector8()?;
    Extensions::read(&mut reader)?;
    reader.end()?;
    if context.is_empty() {
        Ok(())
    } else {
        Err(Fault(
            "a CertificateRequest of a handshake has no request context",
        ))
    }
}
