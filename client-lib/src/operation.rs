//! What is to be asked of a key server, independent of which one will be asked.

use std::fmt;

use keyless_protocol::key_exchange::{MasterRequest, PremasterRequest};
use keyless_protocol::{ErrorCode, Opcode, Request, SignatureScheme, Ski};
use zeroize::Zeroizing;

use crate::algorithm::SignatureAlgorithm;
use crate::capabilities::Capabilities;
use crate::error::Error;
use crate::key::KeyId;

/// One operation, whole: it owns its input, so that it can be asked of a second server when the
/// first one fails, and outlive the caller that submitted it.
///
/// ```
/// use keyserver_client::{KeyId, Operation, SignatureAlgorithm};
///
/// let key: KeyId = "0f1e2d3c4b5a69788796a5b4c3d2e1f000112233".parse()?;
/// let sign = Operation::sign(&key, SignatureAlgorithm::EcdsaSha256, &[0x11; 32])?;
/// assert!(sign.is_repeatable());
/// assert!(!Operation::decrypt(&key, &[0x22; 256]).is_repeatable());
/// assert!(Operation::sign(&key, SignatureAlgorithm::EcdsaSha256, b"no hash").is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Operation {
    ski: Option<Ski>,
    preferred: Form,
    /// What to ask a server that does not know the opcode of `preferred`.
    fallback: Option<Form>,
    repeatable: bool,
}

/// One way to put an operation.
#[derive(Clone)]
struct Form {
    opcode: Opcode,
    payload: Zeroizing<Vec<u8>>,
    scheme: Option<u16>,
    /// Means something else to a stock server: never sent to one.
    ours: bool,
}

impl Form {
    fn new(opcode: Opcode, payload: &[u8]) -> Self {
        let payload = Zeroizing::new(payload.to_vec());
        Self {
            opcode,
            payload,
            scheme: None,
            ours: false,
        }
    }
}

/// Shows what is asked, never the input: it may be a ciphertext, and decides what is signed.
impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operation")
            .field("opcode", &self.preferred.opcode)
            .field("key", &self.ski.map(KeyId::from_ski))
            .field("payload_bytes", &self.preferred.payload.len())
            .finish_non_exhaustive()
    }
}

impl Operation {
    fn new(key: Option<&KeyId>, preferred: Form, repeatable: bool) -> Self {
        Self {
            ski: key.map(KeyId::ski),
            preferred,
            fallback: None,
            repeatable,
        }
    }

    /// Sign a hash (with [`SignatureAlgorithm::Ed25519`] a message).
    ///
    /// # Errors
    ///
    /// [`Error::Input`] for a hash of the wrong length.
    pub fn sign(
        key: &KeyId,
        algorithm: SignatureAlgorithm,
        hash_or_message: &[u8],
    ) -> Result<Self, Error> {
        algorithm.check(hash_or_message)?;
        let form = Form::new(algorithm.opcode(), hash_or_message);
        Ok(Self::new(Some(key), form, true))
    }

    /// Sign the string of a TLS 1.3 `CertificateVerify` (opcode 0x40): 64 spaces, the context, a
    /// zero, the transcript hash (RFC 8446, section 4.4.3). The server checks that it is one. A
    /// server that does not offer the opcode is asked to sign the string's hash instead.
    #[must_use]
    pub fn sign_tls13(key: &KeyId, scheme: SignatureScheme, string: &[u8]) -> Self {
        Self::sign_checked(Opcode::SignTls13, key, scheme, string)
    }

    /// Sign the string of a TLS 1.2 `ServerKeyExchange` (opcode 0x41): both randoms and the ECDHE
    /// parameters (RFC 8422, section 5.4). Otherwise as [`Operation::sign_tls13`].
    #[must_use]
    pub fn sign_tls12(key: &KeyId, scheme: SignatureScheme, string: &[u8]) -> Self {
        Self::sign_checked(Opcode::SignTls12, key, scheme, string)
    }

    fn sign_checked(opcode: Opcode, key: &KeyId, scheme: SignatureScheme, string: &[u8]) -> Self {
        let mut form = Form::new(opcode, string);
        form.scheme = Some(scheme.as_u16());
        let instead = SignatureAlgorithm::instead_of(scheme, string);
        Self {
            fallback: instead.map(|(algorithm, input)| Form::new(algorithm.opcode(), &input)),
            ..Self::new(Some(key), form, true)
        }
    }

    /// RSA-decrypt and keep the padding on (opcode 0x01). Never repeated, never hedged.
    #[must_use]
    pub fn decrypt(key: &KeyId, ciphertext: &[u8]) -> Self {
        Self::new(Some(key), Form::new(Opcode::RsaDecrypt, ciphertext), false)
    }

    /// The RSA private-key operation (opcode 0x08). Never repeated, never hedged.
    #[must_use]
    pub fn decrypt_raw(key: &KeyId, ciphertext: &[u8]) -> Self {
        let form = Form::new(Opcode::RsaDecryptRaw, ciphertext);
        Self::new(Some(key), form, false)
    }

    /// Turn an encrypted premaster secret into the master secret of one handshake (opcode 0x42). Never repeated, never hedged.
    #[must_use]
    pub fn tls12_master(key: &KeyId, request: &MasterRequest<'_>) -> Self {
        let mut payload = Zeroizing::new(Vec::new());
        request.encode(&mut payload);
        Self::new(Some(key), Form::new(Opcode::Tls12Master, &payload), false)
    }

    /// Turn an encrypted premaster secret into the premaster secret (opcode 0x01 in our form). Never repeated, never hedged, and
    /// never asked of a stock server.
    #[must_use]
    pub fn decrypt_premaster(key: &KeyId, client_version: [u8; 2], ciphertext: &[u8]) -> Self {
        let mut payload = Zeroizing::new(Vec::new());
        PremasterRequest {
            client_version,
            ciphertext,
        }
        .encode(&mut payload);
        let mut form = Form::new(Opcode::RsaDecrypt, &payload);
        form.ours = true;
        Self::new(Some(key), form, false)
    }

    /// The keys of session tickets that edges share (opcode 0x46).
    #[must_use]
    pub fn ticket_keys(key: &KeyId) -> Self {
        Self::new(Some(key), Form::new(Opcode::TicketKeys, &[]), true)
    }

    /// Seal a session on the server (opcode 0x21): 1 to 16,384 bytes.
    #[must_use]
    pub fn seal(key: &KeyId, session: &[u8]) -> Self {
        Self::new(Some(key), Form::new(Opcode::Seal, session), true)
    }

    /// Open what [`Operation::seal`] made (opcode 0x22).
    #[must_use]
    pub fn unseal(key: &KeyId, sealed: &[u8]) -> Self {
        Self::new(Some(key), Form::new(Opcode::Unseal, sealed), true)
    }

    /// Send bytes and get them back.
    #[must_use]
    pub fn ping(payload: &[u8]) -> Self {
        Self::new(None, Form::new(Opcode::Ping, payload), true)
    }

    /// What the server says about itself.
    pub(crate) fn server_info() -> Self {
        Self::new(None, Form::new(Opcode::ServerInfo, &[]), true)
    }

    /// One page of the key list, from this entry on.
    pub(crate) fn key_list(first: u32) -> Self {
        let index = first.to_be_bytes();
        let payload: &[u8] = if first == 0 { &[] } else { &index };
        Self::new(None, Form::new(Opcode::KeyList, payload), true)
    }

    /// Whether asking for it twice is harmless. Signatures, pings and questions are; decryptions are
    /// not.
    #[must_use]
    pub fn is_repeatable(&self) -> bool {
        self.repeatable
    }

    /// The request to send to a server that can do this much.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] for a stock server that would take it for something else: it is answered as if it had been asked.
    pub(crate) fn request(&self, capabilities: &Capabilities) -> Result<Request<'_>, Error> {
        let form = match &self.fallback {
            Some(fallback) if !capabilities.offers(self.preferred.opcode) => fallback,
            _ => &self.preferred,
        };
        if form.ours && !capabilities.extended {
            return Err(Error::Refused(ErrorCode::BadOpcode));
        }
        Ok(Request {
            ski: self.ski,
            payload: &form.payload,
            signature_scheme: form.scheme,
            ..Request::new(0, form.opcode)
        })
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::digest::{SHA256, digest};

    use super::*;

    #[test]
    fn a_server_without_the_opcode_is_sent_the_digest() {
        let key = KeyId::from_ski([7; 20]);
        let scheme = SignatureScheme::from_u16(0x0403).unwrap();
        let operation = Operation::sign_tls13(&key, scheme, b"tbs");
        let stock = operation.request(&Capabilities::stock()).unwrap();
        assert_eq!(stock.opcode, Opcode::EcdsaSignSha256);
        assert_eq!(stock.payload, digest(&SHA256, b"tbs").as_ref());
        assert_eq!(stock.signature_scheme, None);
        let ours = operation
            .request(&Capabilities::offering(&[Opcode::SignTls13]))
            .unwrap();
        assert_eq!(ours.opcode, Opcode::SignTls13);
        assert_eq!(
            (ours.payload, ours.signature_scheme),
            (&b"tbs"[..], Some(0x0403))
        );
    }

    #[test]
    fn a_stock_server_is_not_asked_for_what_it_takes_for_something_else() {
        let key = KeyId::from_ski([7; 20]);
        let operation = Operation::decrypt_premaster(&key, [3, 3], &[9; 256]);
        let refusal = operation.request(&Capabilities::stock()).unwrap_err();
        assert!(
            matches!(refusal, Error::Refused(ErrorCode::BadOpcode)),
            "{refusal}"
        );
        let ours = operation.request(&Capabilities::offering(&[])).unwrap();
        assert_eq!((ours.opcode, ours.payload.len()), (Opcode::RsaDecrypt, 258));
        assert!(!operation.is_repeatable());
    }

    #[test]
    fn debug_shows_no_input() {
        let key = KeyId::from_ski([7; 20]);
        let text = format!("{:?}", Operation::decrypt(&key, &[0x5c; 256]));
        assert!(
            text.contains("256") && !text.contains("92") && !text.contains("5c"),
            "{text}"
        );
    }
}
