//! What a client sends to have an RSA key exchange of TLS 1.2 opened.
//!
//! Two payloads, both additions to version 1. All integers are big endian.
//!
//! ```text
//! 0x42, master secret:     client_version[2] prf[1] kind[1] seed[..] ciphertext[k]
//! 0x01 with tag 0x32,
//! premaster secret:        client_version[2] ciphertext[k]
//!
//! prf   04 SHA-256, 05 SHA-384 (HashAlgorithm of RFC 5246, section 7.4.1.4.1): the cipher suite's
//! kind  00 seed = ClientHello.random || ServerHello.random, 64 bytes (RFC 5246, section 8.1)
//!       01 seed = session hash, as long as the PRF's hash: extended master secret (RFC 7627)
//! k     length of the modulus; the EncryptedPreMasterSecret without its two bytes of length
//! ```
//!
//! `client_version` is what the ClientHello said: it becomes the first two bytes of the premaster secret.

use std::fmt;

/// Bytes of the two randoms of a handshake.
const RANDOMS_LEN: usize = 64;

/// The hash function of a cipher suite's PRF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PrfHash {
    /// SHA-256: every TLS 1.2 suite that does not name another.
    Sha256 = 4,
    /// SHA-384: suites whose names end in it.
    Sha384 = 5,
}

impl PrfHash {
    /// Bytes of its values.
    #[must_use]
    pub const fn output_len(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
        }
    }
}

/// What a master secret is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MasterSeed<'a> {
    /// `ClientHello.random || ServerHello.random`.
    Randoms(&'a [u8; RANDOMS_LEN]),
    /// The hash of the handshake up to and with ClientKeyExchange, for the extended master secret.
    SessionHash(&'a [u8]),
}

/// The payload of [`Opcode::Tls12Master`](crate::Opcode::Tls12Master).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MasterRequest<'a> {
    /// `ClientHello.client_version`.
    pub client_version: [u8; 2],
    /// The cipher suite's PRF.
    pub prf: PrfHash,
    /// What the master secret is bound to.
    pub seed: MasterSeed<'a>,
    /// The encrypted premaster secret, as long as the modulus.
    pub ciphertext: &'a [u8],
}

/// The payload that asks [`Opcode::RsaDecrypt`](crate::Opcode::RsaDecrypt) for a premaster secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PremasterRequest<'a> {
    /// `ClientHello.client_version`.
    pub client_version: [u8; 2],
    /// The encrypted premaster secret, as long as the modulus.
    pub ciphertext: &'a [u8],
}

/// A payload that is none of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAKeyExchange;

impl fmt::Display for NotAKeyExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "not the payload of a key exchange: too short, or an unknown PRF or kind of seed",
        )
    }
}

impl std::error::Error for NotAKeyExchange {}

impl<'a> MasterRequest<'a> {
    /// Reads a payload. The ciphertext is what is left; its length is not looked at.
    ///
    /// # Errors
    ///
    /// [`NotAKeyExchange`].
    pub fn decode(payload: &'a [u8]) -> Result<Self, NotAKeyExchange> {
        let (head, rest) = payload.split_first_chunk::<4>().ok_or(NotAKeyExchange)?;
        let [major, minor, prf, kind] = *head;
        let prf = match prf {
            4 => PrfHash::Sha256,
            5 => PrfHash::Sha384,
            _ => return Err(NotAKeyExchange),
        };
        let (seed, ciphertext) = match kind {
            0 => {
                let (randoms, rest) = rest.split_first_chunk().ok_or(NotAKeyExchange)?;
                (MasterSeed::Randoms(randoms), rest)
            }
            1 => {
                let (hash, rest) = rest
                    .split_at_checked(prf.output_len())
                    .ok_or(NotAKeyExchange)?;
                (MasterSeed::SessionHash(hash), rest)
            }
            _ => return Err(NotAKeyExchange),
        };
        Ok(Self {
            client_version: [major, minor],
            prf,
            seed,
            ciphertext,
        })
    }

    /// Appends the payload to `out`. A session hash of another length than the PRF's is the caller's
    /// mistake, and the server will refuse it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.client_version);
        out.push(self.prf as u8);
        match self.seed {
            MasterSeed::Randoms(randoms) => {
                out.push(0);
                out.extend_from_slice(randoms);
            }
            MasterSeed::SessionHash(hash) => {
                out.push(1);
                out.extend_from_slice(hash);
            }
        }
        out.extend_from_slice(self.ciphertext);
    }
}

impl<'a> PremasterRequest<'a> {
    /// Reads a payload.
    ///
    /// # Errors
    ///
    /// [`NotAKeyExchange`] for fewer than two bytes.
    pub fn decode(payload: &'a [u8]) -> Result<Self, NotAKeyExchange> {
        let (version, ciphertext) = payload.split_first_chunk().ok_or(NotAKeyExchange)?;
        Ok(Self {
            client_version: *version,
            ciphertext,
        })
    }

    /// Appends the payload to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.client_version);
        out.extend_from_slice(self.ciphertext);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_says_what_it_was_made_of() {
        let randoms = [7; 64];
        let (short, long) = ([8; 32], [9; 48]);
        for (prf, seed, length) in [
            (PrfHash::Sha256, MasterSeed::Randoms(&randoms), 64),
            (PrfHash::Sha384, MasterSeed::Randoms(&randoms), 64),
            (PrfHash::Sha256, MasterSeed::SessionHash(&short), 32),
            (PrfHash::Sha384, MasterSeed::SessionHash(&long), 48),
        ] {
            let request = MasterRequest {
                client_version: [3, 3],
                prf,
                seed,
                ciphertext: &[1; 256],
            };
            let mut payload = Vec::new();
            request.encode(&mut payload);
            assert_eq!(payload.len(), 4 + length + 256);
            assert_eq!(MasterRequest::decode(&payload), Ok(request));
            for cut in 0..4 + length {
                let error = MasterRequest::decode(&payload[..cut]);
                assert_eq!(error, Err(NotAKeyExchange), "{cut}");
            }
        }
        let request = PremasterRequest {
            client_version: [3, 3],
            ciphertext: &[1; 256],
        };
        let mut payload = Vec::new();
        request.encode(&mut payload);
        assert_eq!(PremasterRequest::decode(&payload), Ok(request));
        assert_eq!(PremasterRequest::decode(&[3]), Err(NotAKeyExchange));
    }

    #[test]
    fn every_other_prf_and_kind_is_refused() {
        for byte in 0..=u8::MAX {
            let mut payload = vec![0; 400];
            payload[2] = byte;
            assert_eq!(
                MasterRequest::decode(&payload).is_ok(),
                matches!(byte, 4 | 5)
            );
            payload[2] = 4;
            payload[3] = byte;
            assert_eq!(MasterRequest::decode(&payload).is_ok(), byte < 2);
        }
    }
}
