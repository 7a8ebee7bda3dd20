//! What a server chose (RFC 8446, sections 4.1.3 and 4.1.4).

use super::Fault;
use super::certificate_verify::TranscriptHash;
use super::client_hello::{ClientHello, TLS_1_2, TLS_1_3};
use super::extensions::{COOKIE, Extensions, KEY_SHARE, SUPPORTED_VERSIONS};
use super::reader::Reader;
use super::server_key_exchange::{DOWNGRADE_TO_TLS11, DOWNGRADE_TO_TLS12};

/// The `random` that makes a `ServerHello` a `HelloRetryRequest`: SHA-256 of that word.
const RETRY: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91,
    0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

/// A `ServerHello` or `HelloRetryRequest` that agrees to TLS 1.3.
#[derive(Debug, Clone, Copy)]
pub(super) struct ServerHello {
    /// The server asks for another `ClientHello`.
    pub(super) is_retry: bool,
    suite: u16,
    /// The group of the key exchange; a retry may leave it open.
    pub(super) group: Option<u16>,
}

impl ServerHello {
    /// Reads the body of a `ServerHello` and holds it against the client's offer.
    pub(super) fn read(body: &[u8], client: &ClientHello<'_>) -> Result<Self, Fault> {
        let mut reader = Reader::new(body);
        let version = reader.u16()?;
        let random = reader.array::<32>()?;
        let session_id = reader.vector8()?;
        let suite = reader.u16()?;
        let compression = reader.u8()?;
        let extensions = Extensions::read(&mut reader)?;
        reader.end()?;
        if version != TLS_1_2 || compression != 0 || session_id != client.session_id {
            return Err(Fault(
                "the ServerHello is not the answer of TLS 1.3 to this ClientHello",
            ));
        }
        if extensions.find(SUPPORTED_VERSIONS) != Some(&TLS_1_3.to_be_bytes()) {
            return Err(Fault("the ServerHello does not select TLS 1.3"));
        }
        if random.ends_with(&DOWNGRADE_TO_TLS12) || random.ends_with(&DOWNGRADE_TO_TLS11) {
            return Err(Fault("the ServerHello says that it was downgraded"));
        }
        if !client.offers_suite(suite) {
            return Err(Fault(
                "the server selects a cipher suite that the client did not offer",
            ));
        }
        let is_retry = *random == RETRY;
        check_kinds(extensions, is_retry)?;
        let hello = Self {
            is_retry,
            suite,
            group: group(extensions, is_retry)?,
        };
        hello.hash()?;
        match hello.group {
            Some(group) if !client.offers_group(group) => Err(Fault(
                "the server selects a group that the client did not offer",
            )),
            // A key share answers one of the client's; a retry asks for one that is missing.
            Some(group) if client.shares(group) == is_retry => Err(Fault(
                "the server's key share does not fit those of the client",
            )),
            None if !is_retry => Err(Fault("the ServerHello has no key share")),
            _ => Ok(hello),
        }
    }

    /// The hash function of the cipher suite (RFC 8446, section B.4).
    pub(super) fn hash(&self) -> Result<TranscriptHash, Fault> {
        match self.suite {
            0x1301 | 0x1303..=0x1305 => Ok(TranscriptHash::Sha256),
            0x1302 => Ok(TranscriptHash::Sha384),
            _ => Err(Fault(
                "the server selects a cipher suite that is not of TLS 1.3",
            )),
        }
    }

    /// Whether `self` may follow the retry `first`: what a retry has settled stays.
    pub(super) fn agrees_with(&self, first: &Self) -> bool {
        !self.is_retry
            && self.suite == first.suite
            && (first.group.is_none() || self.group == first.group)
    }
}

/// Refuses what has no place here. A pre-shared key is one: after it there is no certificate, and
/// nothing to sign.
fn check_kinds(extensions: Extensions<'_>, is_retry: bool) -> Result<(), Fault> {
    let known =
        |kind: u16| kind == SUPPORTED_VERSIONS || kind == KEY_SHARE || (is_retry && kind == COOKIE);
    if extensions.iter().all(|(kind, _)| known(kind)) {
        Ok(())
    } else {
        Err(Fault(
            "the ServerHello has an extension that has no place there",
        ))
    }
}

fn group(extensions: Extensions<'_>, is_retry: bool) -> Result<Option<u16>, Fault> {
    let Some(data) = extensions.find(KEY_SHARE) else {
        return Ok(None);
    };
    let mut reader = Reader::new(data);
    let group = reader.u16()?;
    if !is_retry {
        reader.vector16()?;
    }
    reader.end()?;
    Ok(Some(group))
}
