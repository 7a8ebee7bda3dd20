//! The operations.

use std::fmt;

/// Writes the enum, its conversions and its names from one table, so that they cannot disagree.
macro_rules! opcodes {
    ($($(#[$doc:meta])* $variant:ident = $byte:literal, $name:literal;)*) => {
        /// What a frame asks for or answers with.
        ///
        /// Hashes are in the order MD5-SHA1 (36 bytes), SHA-1 (20), SHA-224 (28), SHA-256 (32),
        /// SHA-384 (48), SHA-512 (64) wherever they occur. `k` is the byte length of the RSA
        /// modulus. Opcodes 0x40 to 0x48 are additions that a stock server answers with
        /// [`ErrorCode::BadOpcode`](crate::ErrorCode::BadOpcode).
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        #[repr(u8)]
        pub enum Opcode {
            $($(#[$doc])* $variant = $byte,)*
        }

        impl Opcode {
            /// Every opcode, by rising byte.
            pub const ALL: [Self; [$($byte),*].len()] = [$(Self::$variant),*];

            /// The opcode of this byte.
            #[must_use]
            pub const fn from_byte(byte: u8) -> Option<Self> {
                match byte {
                    $($byte => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// A short name in lower case, for metrics and logs.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

opcodes! {
    /// Ciphertext to the raw block of `k` bytes, padding kept.
    RsaDecrypt = 0x01, "rsa-decrypt";
    /// PKCS#1 v1.5 signature, `k` bytes, over the hash in the payload. MD5-SHA1 has no `DigestInfo`
    /// (TLS 1.1 and older).
    RsaSignMd5Sha1 = 0x02, "rsa-sign-md5sha1";
    /// PKCS#1 v1.5 signature over a SHA-1 hash.
    RsaSignSha1 = 0x03, "rsa-sign-sha1";
    /// PKCS#1 v1.5 signature over a SHA-224 hash.
    RsaSignSha224 = 0x04, "rsa-sign-sha224";
    /// PKCS#1 v1.5 signature over a SHA-256 hash.
    RsaSignSha256 = 0x05, "rsa-sign-sha256";
    /// PKCS#1 v1.5 signature over a SHA-384 hash.
    RsaSignSha384 = 0x06, "rsa-sign-sha384";
    /// PKCS#1 v1.5 signature over a SHA-512 hash.
    RsaSignSha512 = 0x07, "rsa-sign-sha512";
    /// Ciphertext to the raw block of `k` bytes, by its own name.
    RsaDecryptRaw = 0x08, "rsa-decrypt-raw";
    /// ECDSA signature, DER `ECDSA-Sig-Value`, over the hash in the payload.
    EcdsaSignMd5Sha1 = 0x12, "ecdsa-sign-md5sha1";
    /// ECDSA signature over a SHA-1 hash.
    EcdsaSignSha1 = 0x13, "ecdsa-sign-sha1";
    /// ECDSA signature over a SHA-224 hash.
    EcdsaSignSha224 = 0x14, "ecdsa-sign-sha224";
    /// ECDSA signature over a SHA-256 hash.
    EcdsaSignSha256 = 0x15, "ecdsa-sign-sha256";
    /// ECDSA signature over a SHA-384 hash.
    EcdsaSignSha384 = 0x16, "ecdsa-sign-sha384";
    /// ECDSA signature over a SHA-512 hash.
    EcdsaSignSha512 = 0x17, "ecdsa-sign-sha512";
    /// Ed25519 signature, 64 bytes, over the message (not a hash) in the payload.
    Ed25519Sign = 0x18, "ed25519-sign";
    /// Session ticket to sealed blob.
    Seal = 0x21, "seal";
    /// Sealed blob to session ticket.
    Unseal = 0x22, "unseal";
    /// A remote procedure call between stock peers.
    Rpc = 0x23, "rpc";
    /// A function of the server's own, named by the custom-function item.
    Custom = 0x24, "custom";
    /// RSASSA-PSS signature over a SHA-256 hash; salt as long as the hash, MGF1 with the same hash.
    RsaPssSignSha256 = 0x35, "rsa-pss-sign-sha256";
    /// RSASSA-PSS signature over a SHA-384 hash.
    RsaPssSignSha384 = 0x36, "rsa-pss-sign-sha384";
    /// RSASSA-PSS signature over a SHA-512 hash.
    RsaPssSignSha512 = 0x37, "rsa-pss-sign-sha512";
    /// Sign the TLS 1.3 `CertificateVerify` input, after checking that it is one.
    SignTls13 = 0x40, "sign-tls13";
    /// Sign TLS 1.2 `ServerKeyExchange` parameters, after checking that they are.
    SignTls12 = 0x41, "sign-tls12";
    /// Encrypted premaster secret to the 48-byte TLS 1.2 master secret.
    Tls12Master = 0x42, "tls12-master";
    /// As [`Self::Tls12Master`], with the client's `Finished` as proof of a real handshake.
    Tls12MasterProof = 0x43, "tls12-master-proof";
    /// Issue a delegated credential (RFC 9345).
    DelegateCredential = 0x44, "delegate-credential";
    /// Hand out single-use `server_random` values.
    ServerRandoms = 0x45, "server-randoms";
    /// The ticket keys this edge may use.
    TicketKeys = 0x46, "ticket-keys";
    /// What the server is and can do: [`ServerInfo`](crate::ServerInfo) as JSON.
    ServerInfo = 0x47, "server-info";
    /// The keys this client may use: [`KeyList`](crate::KeyList) as JSON.
    KeyList = 0x48, "key-list";
    /// A successful answer. Servers only.
    Reply = 0xF0, "reply";
    /// Answered by [`Self::Pong`] with the same payload. Open to every client.
    Ping = 0xF1, "ping";
    /// The answer to [`Self::Ping`]. Servers only.
    Pong = 0xF2, "pong";
    /// A refusal; the payload is one [`ErrorCode`](crate::ErrorCode) byte. Servers only.
    Error = 0xFF, "error";
}

/// Position in [`Opcode::ALL`] by byte.
const INDEX: [usize; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < Opcode::ALL.len() {
        table[Opcode::ALL[index] as usize] = index;
        index += 1;
    }
    table
};

impl Opcode {
    /// The byte on the wire.
    #[must_use]
    pub const fn as_byte(self) -> u8 {
        self as u8
    }

    /// The position in [`Self::ALL`], for tables with an entry per opcode.
    #[must_use]
    pub const fn index(self) -> usize {
        INDEX[self as usize]
    }

    /// Whether only a server may send this opcode. As a request it is answered with
    /// [`ErrorCode::UnexpectedOpcode`](crate::ErrorCode::UnexpectedOpcode).
    #[must_use]
    pub const fn is_answer(self) -> bool {
        matches!(self, Self::Reply | Self::Pong | Self::Error)
    }
}

impl fmt::Display for Opcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn bytes_names_and_indices_agree_both_ways() {
        let known: Vec<Opcode> = (0..=u8::MAX).filter_map(Opcode::from_byte).collect();
        assert_eq!(known, Opcode::ALL);
        for (index, opcode) in Opcode::ALL.into_iter().enumerate() {
            assert_eq!(opcode.index(), index);
            assert_eq!(Opcode::from_byte(opcode.as_byte()), Some(opcode));
        }
        let names: BTreeSet<_> = Opcode::ALL.into_iter().map(Opcode::name).collect();
        assert_eq!(
            names.len(),
            Opcode::ALL.len(),
            "every opcode has a name of its own"
        );
    }

    #[test]
    fn exactly_the_three_answers_are_for_servers_only() {
        let answers: Vec<u8> = Opcode::ALL
            .into_iter()
            .filter(|o| o.is_answer())
            .map(Opcode::as_byte)
            .collect();
        assert_eq!(answers, [0xF0, 0xF2, 0xFF]);
    }
}
