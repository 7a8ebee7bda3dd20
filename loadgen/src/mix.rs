//! What to ask for: classes of operations and their shares, `rsa2048=65,p256=30,ping=5`.

use std::fmt;
use std::str::FromStr;

use keyless_protocol::{Opcode, SignatureScheme};

use crate::random::Random;

/// The type of a key, as far as the cost of using it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// Ed25519 (RFC 8032).
    Ed25519,
    /// NIST P-256.
    P256,
    /// NIST P-384.
    P384,
    /// NIST P-521.
    P521,
    /// RSA with a 2048-bit modulus.
    Rsa2048,
    /// RSA with a 3072-bit modulus.
    Rsa3072,
    /// RSA with a 4096-bit modulus.
    Rsa4096,
}

impl KeyKind {
    /// Every kind there is a class for.
    pub const ALL: [Self; 7] = [
        Self::Rsa2048,
        Self::Rsa3072,
        Self::Rsa4096,
        Self::P256,
        Self::P384,
        Self::P521,
        Self::Ed25519,
    ];

    /// The name used in `--mix` and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::P256 => "p256",
            Self::P384 => "p384",
            Self::P521 => "p521",
            Self::Rsa2048 => "rsa2048",
            Self::Rsa3072 => "rsa3072",
            Self::Rsa4096 => "rsa4096",
        }
    }

    /// Whether it is RSA, which can decrypt as well as sign.
    #[must_use]
    pub fn is_rsa(self) -> bool {
        matches!(self, Self::Rsa2048 | Self::Rsa3072 | Self::Rsa4096)
    }
}

/// How RSA signatures are padded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Pad {
    /// RSASSA-PSS, what TLS 1.3 asks for.
    Pss,
    /// RSASSA-PKCS1-v1_5, what most TLS 1.2 handshakes ask for.
    Pkcs1,
}

impl fmt::Display for Pad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pss => "pss",
            Self::Pkcs1 => "pkcs1",
        })
    }
}

/// A kind of operation, reported on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// A raw RSA decryption (opcode 0x01).
    Decrypt(KeyKind),
    /// A ping: everything but the cryptography.
    Ping,
    /// A signature over a hash of the size that fits the key, or over a message for Ed25519.
    Sign(KeyKind),
    /// A signature over the string of a TLS 1.2 key exchange (opcode 0x41).
    Tls12(KeyKind),
    /// A signature over the string of a TLS 1.3 `CertificateVerify` (opcode 0x40).
    Tls13(KeyKind),
}

impl Class {
    /// The key kind it needs; none for a ping.
    #[must_use]
    pub fn key_kind(self) -> Option<KeyKind> {
        match self {
            Self::Decrypt(kind) | Self::Sign(kind) | Self::Tls12(kind) | Self::Tls13(kind) => {
                Some(kind)
            }
            Self::Ping => None,
        }
    }

    /// The opcode it is asked with. RSA and P-256 keys sign SHA-256 hashes, P-384 SHA-384 and P-521 SHA-512.
    #[must_use]
    pub fn opcode(self, pad: Pad) -> Opcode {
        match self {
            Self::Decrypt(_) => Opcode::RsaDecrypt,
            Self::Ping => Opcode::Ping,
            Self::Tls12(_) => Opcode::SignTls12,
            Self::Tls13(_) => Opcode::SignTls13,
            Self::Sign(KeyKind::Ed25519) => Opcode::Ed25519Sign,
            Self::Sign(KeyKind::P256) => Opcode::EcdsaSignSha256,
            Self::Sign(KeyKind::P384) => Opcode::EcdsaSignSha384,
            Self::Sign(KeyKind::P521) => Opcode::EcdsaSignSha512,
            Self::Sign(KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096) => match pad {
                Pad::Pss => Opcode::RsaPssSignSha256,
                Pad::Pkcs1 => Opcode::RsaSignSha256,
            },
        }
    }

    /// The signature scheme it names, where the opcode does not say it. TLS 1.3 has done away with PKCS#1 v1.5.
    #[must_use]
    pub fn scheme(self, pad: Pad) -> Option<SignatureScheme> {
        let (kind, pad) = match self {
            Self::Tls12(kind) => (kind, pad),
            Self::Tls13(kind) => (kind, Pad::Pss),
            Self::Decrypt(_) | Self::Ping | Self::Sign(_) => return None,
        };
        Some(match kind {
            KeyKind::Ed25519 => SignatureScheme::Ed25519,
            KeyKind::P256 => SignatureScheme::EcdsaP256Sha256,
            KeyKind::P384 => SignatureScheme::EcdsaP384Sha384,
            // TLS has no scheme of its own for it that servers offer.
            KeyKind::P521 => return None,
            KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096 => match pad {
                Pad::Pss => SignatureScheme::RsaPssSha256,
                Pad::Pkcs1 => SignatureScheme::RsaPkcs1Sha256,
            },
        })
    }

    /// Every class, in the order help texts show them.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let signs = KeyKind::ALL.into_iter().map(Self::Sign);
        let decrypts = KeyKind::ALL
            .into_iter()
            .filter(|kind| kind.is_rsa())
            .map(Self::Decrypt);
        let tls13 = KeyKind::ALL.into_iter().map(Self::Tls13);
        let tls12 = KeyKind::ALL
            .into_iter()
            .filter(|kind| *kind != KeyKind::Ed25519)
            .map(Self::Tls12);
        let tls = tls13
            .chain(tls12)
            .filter(|class| class.scheme(Pad::Pss).is_some());
        signs
            .chain(decrypts)
            .chain(tls)
            .chain([Self::Ping])
            .collect()
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Decrypt(kind) => write!(f, "{}-decrypt", kind.name()),
            Self::Ping => f.write_str("ping"),
            Self::Sign(kind) => f.write_str(kind.name()),
            Self::Tls12(kind) => write!(f, "tls12-{}", kind.name()),
            Self::Tls13(kind) => write!(f, "tls13-{}", kind.name()),
        }
    }
}

impl FromStr for Class {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::all()
            .into_iter()
            .find(|class| class.to_string() == text)
            .ok_or_else(|| {
                let names: Vec<String> = Self::all().iter().map(ToString::to_string).collect();
                format!(
                    "`{text}` is not a class of operations; there are {}",
                    names.join(", ")
                )
            })
    }
}

/// Classes with their weights, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mix {
    parts: Vec<(Class, u32)>,
}

impl Mix {
    /// The classes and their weights. Weights are relative; they need not add up to 100.
    #[must_use]
    pub fn parts(&self) -> &[(Class, u32)] {
        &self.parts
    }

    /// The sum of the weights.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.parts
            .iter()
            .map(|(_, weight)| u64::from(*weight))
            .sum()
    }

    /// Draws the index of a part by weight.
    pub fn draw(&self, random: &mut Random) -> usize {
        if self.parts.len() == 1 {
            return 0;
        }
        let mut left = random.below(self.total());
        for (index, (_, weight)) in self.parts.iter().enumerate() {
            match left.checked_sub(u64::from(*weight)) {
                None => return index,
                Some(rest) => left = rest,
            }
        }
        0
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts: Vec<(Class, u32)> = Vec::new();
        for part in text.split(',') {
            let (name, weight) = part.split_once('=').unwrap_or((part, "1"));
            let class: Class = name.trim().parse()?;
            let weight: u32 = weight
                .trim()
                .parse()
                .ok()
                .filter(|weight| (1..=1_000_000).contains(weight))
                .ok_or_else(|| {
                    format!("the weight of `{class}` must be a whole number from 1 to 1000000, not `{weight}`")
                })?;
            if parts.iter().any(|(other, _)| *other == class) {
                return Err(format!("`{class}` is in the mix twice"));
            }
            parts.push((class, weight));
        }
        Ok(Self { parts })
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (class, weight)) in self.parts.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{class}={weight}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::float;

    #[test]
    fn mixes_parse_and_print() {
        let text = "rsa2048=65,p256=30,rsa4096-decrypt=4,ping=1";
        let mix: Mix = text.parse().unwrap();
        assert_eq!(mix.to_string(), text);
        assert_eq!(mix.parts()[2].0, Class::Decrypt(KeyKind::Rsa4096));
        assert_eq!("ping".parse::<Mix>().unwrap().to_string(), "ping=1");
        for class in Class::all() {
            assert_eq!(class.to_string().parse::<Class>().unwrap(), class);
        }
    }

    #[test]
    fn bad_mixes_say_what_there_is() {
        for bad in [
            "",
            "rsa1024=1",
            "p256=0",
            "p256=-1",
            "p256=x",
            "p256=1,p256=2",
            "p256-decrypt=1",
            "p256=1,",
        ] {
            assert!(bad.parse::<Mix>().is_err(), "{bad} was accepted");
        }
        let error = "dsa=1".parse::<Mix>().unwrap_err();
        assert!(
            error.contains("rsa2048-decrypt") && error.contains("ping"),
            "{error}"
        );
    }

    #[test]
    fn draws_keep_the_proportions() {
        let mix: Mix = "rsa2048=65,p256=30,ping=5".parse().unwrap();
        let mut random = Random::new(42, 0);
        let mut counts = [0_u64; 3];
        for _ in 0..100_000 {
            counts[mix.draw(&mut random)] += 1;
        }
        for (count, (_, weight)) in counts.iter().zip(mix.parts()) {
            let share = f64::from(*weight) / 100.0;
            let deviation = (share * (1.0 - share) / 100_000.0).sqrt();
            let observed = float(*count) / 100_000.0;
            assert!(
                (observed - share).abs() < 4.0 * deviation,
                "{observed} of {share}"
            );
        }
    }
}
