//! Issuing a delegated credential (RFC 9345): what a client sends, and what it gets.
//!
//! An addition to version 1. All integers are big endian.
//!
//! ```text
//! 0x44, in:   lifetime[4] algorithm[2] length[3] SPKI[..] length[2] proof[..]
//!       out:  valid_time[4] algorithm[2] length[3] SPKI[..] scheme[2] length[2] signature[..]
//!
//! lifetime    seconds from now; 0 leaves it to the server
//! algorithm   the scheme that the credential's key will sign handshakes with
//! SPKI        the credential's public key, DER SubjectPublicKeyInfo
//! proof       a signature by the credential's key, over what `Request::proven` gives
//! valid_time  seconds after notBefore of the certificate at which the credential ends
//! scheme      what the certificate's key signed with: item 0x31 of the request
//! ```
//!
//! The answer is the `DelegatedCredential` of RFC 9345, section 4, as a TLS server sends it.

use std::fmt;

use crate::request::Ski;

/// The label of the exporter (RFC 8446, section 7.5; RFC 5705) that ties a proof to the connection it is sent
/// over. The context is empty, and [`EXPORTER_LEN`] bytes are taken.
pub const EXPORTER_LABEL: &[u8] = b"EXPERIMENTAL keyserver delegated credential";

/// Bytes of the exporter's output.
pub const EXPORTER_LEN: usize = 32;

/// What stands between 64 spaces and a zero byte in front of what a proof signs. TLS has no such context, so a
/// proof is never a signature of a handshake, nor the reverse.
const PROOF_CONTEXT: &[u8] = b"keyserver, proof of possession of a delegated credential";

/// The payload of [`Opcode::DelegateCredential`](crate::Opcode::DelegateCredential).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// Seconds from now that the credential shall be good for; 0 leaves it to the server.
    pub lifetime: u32,
    /// The scheme that the credential's key will sign with, `dc_cert_verify_algorithm`.
    pub algorithm: u16,
    /// The credential's public key, DER `SubjectPublicKeyInfo`.
    pub spki: &'a [u8],
    /// The signature of [`Self::proven`] by the credential's key.
    pub proof: &'a [u8],
}

/// A delegated credential (RFC 9345, section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credential<'a> {
    /// Seconds after the certificate's notBefore at which it ends.
    pub valid_time: u32,
    /// The scheme that its key signs with.
    pub algorithm: u16,
    /// Its public key, DER `SubjectPublicKeyInfo`.
    pub spki: &'a [u8],
    /// The scheme that the certificate's key signed it with.
    pub scheme: u16,
    /// That signature.
    pub signature: &'a [u8],
}

/// Bytes that are neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotADelegation;

impl fmt::Display for NotADelegation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a length does not fit, or bytes follow: this is no delegated credential, nor a request for one")
    }
}

impl std::error::Error for NotADelegation {}

impl<'a> Request<'a> {
    /// Reads a payload, all of it.
    ///
    /// # Errors
    ///
    /// [`NotADelegation`].
    pub fn decode(payload: &'a [u8]) -> Result<Self, NotADelegation> {
        let (lifetime, rest) = payload.split_first_chunk().ok_or(NotADelegation)?;
        let (algorithm, spki, rest) = key(rest)?;
        let proof = last(rest)?;
        Ok(Self {
            lifetime: u32::from_be_bytes(*lifetime),
            algorithm,
            spki,
            proof,
        })
    }

    /// Appends the payload to `out`. A key or a proof that is longer than its length can say is cut, and the
    /// server will refuse it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.lifetime.to_be_bytes());
        put_key(self.algorithm, self.spki, out);
        put_last(self.proof, out);
    }

    /// What the credential's key signs to show that the client has it:
    ///
    /// ```text
    /// 64 x 0x20 || "keyserver, proof of possession of a delegated credential" || 0x00
    ///           || exporter[32] || SKI[20] || lifetime[4] algorithm[2] length[3] SPKI[..]
    /// ```
    ///
    /// `exporter` is that of the connection, with [`EXPORTER_LABEL`]; `ski` names the key that shall sign the
    /// credential. So a proof serves for one connection, one key and one request.
    #[must_use]
    pub fn proven(&self, exporter: &[u8; EXPORTER_LEN], ski: &Ski) -> Vec<u8> {
        let mut string = vec![b' '; 64];
        string.extend_from_slice(PROOF_CONTEXT);
        string.push(0);
        string.extend_from_slice(exporter);
        string.extend_from_slice(ski);
        string.extend_from_slice(&self.lifetime.to_be_bytes());
        put_key(self.algorithm, self.spki, &mut string);
        string
    }
}

impl<'a> Credential<'a> {
    /// Reads a credential, all of it.
    ///
    /// # Errors
    ///
    /// [`NotADelegation`].
    pub fn decode(bytes: &'a [u8]) -> Result<Self, NotADelegation> {
        let (valid_time, rest) = bytes.split_first_chunk().ok_or(NotADelegation)?;
        let (algorithm, spki, rest) = key(rest)?;
        let (scheme, rest) = rest.split_first_chunk().ok_or(NotADelegation)?;
        let signature = last(rest)?;
        Ok(Self {
            valid_time: u32::from_be_bytes(*valid_time),
            algorithm,
            spki,
            scheme: u16::from_be_bytes(*scheme),
            signature,
        })
    }

    /// Appends the credential to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.encode_signed(out);
        put_last(self.signature, out);
    }

    /// Appends everything in front of the signature, which is also what stands last in the string that is signed.
    pub fn encode_signed(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.valid_time.to_be_bytes());
        put_key(self.algorithm, self.spki, out);
        out.extend_from_slice(&self.scheme.to_be_bytes());
    }
}

/// Algorithm and public key, and what follows them.
fn key(bytes: &[u8]) -> Result<(u16, &[u8], &[u8]), NotADelegation> {
    let (&[a, b, high, middle, low], rest) = bytes.split_first_chunk().ok_or(NotADelegation)?;
    let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
    let (spki, rest) = rest.split_at_checked(length).ok_or(NotADelegation)?;
    Ok((u16::from_be_bytes([a, b]), spki, rest))
}

/// A vector with a length of two bytes that ends the message.
fn last(bytes: &[u8]) -> Result<&[u8], NotADelegation> {
    let (length, rest) = bytes.split_first_chunk().ok_or(NotADelegation)?;
    if rest.len() == usize::from(u16::from_be_bytes(*length)) {
        Ok(rest)
    } else {
        Err(NotADelegation)
    }
}

fn put_key(algorithm: u16, spki: &[u8], out: &mut Vec<u8>) {
    const LENGTH_MAX: usize = 0x00ff_ffff;
    let spki = spki.get(..LENGTH_MAX).unwrap_or(spki);
    let length = u32::try_from(spki.len()).unwrap_or_default().to_be_bytes();
    out.extend_from_slice(&algorithm.to_be_bytes());
    out.extend(length.iter().skip(1));
    out.extend_from_slice(spki);
}

fn put_last(bytes: &[u8], out: &mut Vec<u8>) {
    let bytes = bytes.get(..usize::from(u16::MAX)).unwrap_or(bytes);
    let length = u16::try_from(bytes.len()).unwrap_or_default();
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_what_it_was_made_of_and_no_cut_of_it_does() {
        let request = Request {
            lifetime: 3600,
            algorithm: 0x0403,
            spki: &[7; 300],
            proof: &[8; 70],
        };
        let mut payload = Vec::new();
        request.encode(&mut payload);
        assert_eq!(payload.len(), 4 + 2 + 3 + 300 + 2 + 70);
        assert_eq!(payload[..9], [0, 0, 0x0e, 0x10, 4, 3, 0, 1, 0x2c]);
        assert_eq!(Request::decode(&payload), Ok(request));
        for cut in 0..payload.len() {
            assert_eq!(
                Request::decode(&payload[..cut]),
                Err(NotADelegation),
                "{cut}"
            );
        }
        payload.push(0);
        assert_eq!(Request::decode(&payload), Err(NotADelegation));
    }

    #[test]
    fn a_credential_is_what_rfc_9345_says() {
        let credential = Credential {
            valid_time: 0x0102_0304,
            algorithm: 0x0807,
            spki: &[5; 44],
            scheme: 0x0804,
            signature: &[6; 256],
        };
        let mut bytes = Vec::new();
        credential.encode(&mut bytes);
        let mut expected = vec![1, 2, 3, 4, 8, 7, 0, 0, 44];
        expected.extend([5; 44]);
        expected.extend([8, 4, 1, 0]);
        expected.extend([6; 256]);
        assert_eq!(bytes, expected);
        assert_eq!(Credential::decode(&bytes), Ok(credential));
        for cut in 0..bytes.len() {
            assert_eq!(
                Credential::decode(&bytes[..cut]),
                Err(NotADelegation),
                "{cut}"
            );
        }
    }

    #[test]
    fn a_proof_is_for_one_connection_one_key_and_one_request() {
        let request = Request {
            lifetime: 1,
            algorithm: 0x0403,
            spki: b"key",
            proof: b"",
        };
        let string = request.proven(&[1; 32], &[2; 20]);
        assert!(string.starts_with(&[b' '; 64]));
        assert_eq!(string.len(), 64 + PROOF_CONTEXT.len() + 1 + 32 + 20 + 9 + 3);
        assert_ne!(string, request.proven(&[9; 32], &[2; 20]));
        assert_ne!(string, request.proven(&[1; 32], &[9; 20]));
        let longer = Request {
            lifetime: 2,
            ..request
        };
        assert_ne!(string, longer.proven(&[1; 32], &[2; 20]));
    }
}
