//! What a TLS 1.3 server signs (RFC 8446, section 4.4.3).
//!
//! ```text
//! 64 x 0x20 || "TLS 1.3, server CertificateVerify" || 0x00 || transcript hash (32 or 48 bytes)
//! ```
//!
//! 130 or 146 bytes, and nothing else is one: no string of a client, no delegated credential.

use super::Fault;

/// Bytes before the transcript hash: 64 spaces, the context, one zero.
const PREFIX: [u8; 98] = prefix();

const CONTEXT: &[u8; 33] = b"TLS 1.3, server CertificateVerify";

const fn prefix() -> [u8; 98] {
    let mut bytes = [b' '; 98];
    let mut at = 0;
    while at < CONTEXT.len() {
        bytes[64 + at] = CONTEXT[at];
        at += 1;
    }
    bytes[97] = 0;
    bytes
}

/// The hash function of a TLS 1.3 cipher suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TranscriptHash {
    /// 32 bytes: every suite but one.
    Sha256,
    /// 48 bytes: `TLS_AES_256_GCM_SHA384`.
    Sha384,
}

impl TranscriptHash {
    /// Length of a hash value in bytes.
    #[must_use]
    pub const fn value_len(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
        }
    }
}

/// A string that a TLS 1.3 server signs, whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CertificateVerify {
    bytes: [u8; 146],
    hash: TranscriptHash,
}

impl CertificateVerify {
    /// Reads a string to be signed and says which hash stands at its end.
    ///
    /// # Errors
    ///
    /// The string is not one that a TLS 1.3 server signs.
    pub fn check(string: &[u8]) -> Result<TranscriptHash, Fault> {
        let hash = match string.len() {
            130 => TranscriptHash::Sha256,
            146 => TranscriptHash::Sha384,
            _ => return Err(Fault("a CertificateVerify string is 130 or 146 bytes long")),
        };
        if string.starts_with(&PREFIX) {
            Ok(hash)
        } else {
            Err(Fault(
                "the string does not begin as that of a server's CertificateVerify",
            ))
        }
    }

    /// The string for a transcript with this hash value; nothing for one of another length.
    #[must_use]
    pub fn of(transcript_hash: &[u8]) -> Option<Self> {
        let hash = match transcript_hash.len() {
            32 => TranscriptHash::Sha256,
            48 => TranscriptHash::Sha384,
            _ => return None,
        };
        let mut bytes = [0; 146];
        let (prefix, value) = bytes.split_at_mut(PREFIX.len());
        prefix.copy_from_slice(&PREFIX);
        value
            .get_mut(..hash.value_len())?
            .copy_from_slice(transcript_hash);
        Some(Self { bytes, hash })
    }
}

impl AsRef<[u8]> for CertificateVerify {
    fn as_ref(&self) -> &[u8] {
        self.bytes
            .get(..PREFIX.len() + self.hash.value_len())
            .unwrap_or(&self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn good(hash: TranscriptHash) -> Vec<u8> {
        let value = vec![0xa5; hash.value_len()];
        CertificateVerify::of(&value).unwrap().as_ref().to_vec()
    }

    /// The example of RFC 8446, section 4.4.3: a transcript hash of 32 bytes of 0x01.
    #[test]
    fn the_example_of_the_rfc() {
        let hex = "2020202020202020202020202020202020202020202020202020202020202020\
                   2020202020202020202020202020202020202020202020202020202020202020\
                   544c5320312e332c207365727665722043657274696669636174655665726966\
                   79000101010101010101010101010101010101010101010101010101010101010101";
        let string: Vec<u8> = hex
            .as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect();
        assert_eq!(
            CertificateVerify::check(&string),
            Ok(TranscriptHash::Sha256)
        );
        assert_eq!(CertificateVerify::of(&[1; 32]).unwrap().as_ref(), string);
    }

    #[test]
    fn every_cut_and_every_extension_is_refused() {
        for hash in [TranscriptHash::Sha256, TranscriptHash::Sha384] {
            let string = good(hash);
            assert_eq!(CertificateVerify::check(&string), Ok(hash));
            for length in 0..string.len() {
                let cut = CertificateVerify::check(&string[..length]);
                // The longer form, cut to the length of the shorter, is the shorter.
                assert_eq!(cut.is_ok(), length == 130, "{length}");
            }
            for more in 1..64 {
                let long = [&string[..], &vec![0; more]].concat();
                let becomes_the_longer = long.len() == 146;
                assert_eq!(CertificateVerify::check(&long).is_ok(), becomes_the_longer);
            }
        }
    }

    #[test]
    fn every_changed_byte_of_the_prefix_is_refused() {
        let string = good(TranscriptHash::Sha256);
        for at in 0..PREFIX.len() {
            for value in 0..=255 {
                let mut other = string.clone();
                other[at] = value;
                let same = value == string[at];
                assert_eq!(
                    CertificateVerify::check(&other).is_ok(),
                    same,
                    "{at} {value}"
                );
            }
        }
    }

    #[test]
    fn the_string_of_a_client_is_refused() {
        let mut string = good(TranscriptHash::Sha256);
        string[73..79].copy_from_slice(b"client");
        CertificateVerify::check(&string).unwrap_err();
    }

    proptest! {
        #[test]
        fn what_is_built_is_accepted_and_what_is_accepted_was_built(value in prop_oneof![
            proptest::collection::vec(any::<u8>(), 32),
            proptest::collection::vec(any::<u8>(), 48),
        ]) {
            let string = CertificateVerify::of(&value).unwrap();
            let hash = CertificateVerify::check(string.as_ref()).unwrap();
            prop_assert_eq!(hash.value_len(), value.len());
            prop_assert!(string.as_ref().ends_with(&value));
        }

        #[test]
        fn any_bytes_are_accepted_only_if_they_are_what_would_be_built(
            bytes in proptest::collection::vec(any::<u8>(), 0..200)
        ) {
            if CertificateVerify::check(&bytes).is_ok() {
                let again = CertificateVerify::of(&bytes[98..]).unwrap();
                prop_assert_eq!(again.as_ref(), &bytes[..]);
            }
        }
    }
}
