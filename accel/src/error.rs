//! What can go wrong, whose fault it is, and what to do about it.
//!
//! No error carries a byte of a key or of a result.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why a job has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JobError {
    /// The caller's fault: an input of the wrong length, or an RSA number outside 2..=n-2.
    Input,
    /// The caller's fault: the operation does not fit the type of the key.
    WrongKey,
    /// Our fault: the engine could not compute, for instance because memory ran out.
    Failed,
    /// Our fault: the result did not verify with the public key, and neither did a second attempt.
    /// It was not released. Suspect the memory or the processor of this machine.
    CheckFailed,
    /// Our fault: results of this class failed their check before, and nothing of it is computed until the engine has
    /// been proved again, see [`crate::Engine::release`].
    Quarantined,
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Input => "the input does not fit the operation",
            Self::WrongKey => "the operation does not fit the key",
            Self::Failed => "the operation could not be computed",
            Self::CheckFailed => "the result did not verify and was withheld",
            Self::Quarantined => "results of this kind did not verify before, so none is computed",
        })
    }
}

impl Error for JobError {}

/// Why bytes are not a key this crate works with.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyError {
    /// No bytes at all.
    Empty,
    /// Neither PEM text nor a DER structure that holds a private key, or one cut short.
    Malformed,
    /// PEM text without a private key in it.
    NoPrivateKey,
    /// PEM text with more than one private key in it.
    SeveralKeys {
        /// How many there are.
        count: usize,
    },
    /// The key is protected by a pass phrase.
    Encrypted,
    /// An algorithm or curve this crate does not work with.
    UnsupportedAlgorithm,
    /// An RSA modulus below 2048 bits.
    ModulusTooShort {
        /// Its length.
        bits: usize,
    },
    /// An RSA modulus above 8192 bits.
    ModulusTooLong {
        /// Its length.
        bits: usize,
    },
    /// A public exponent other than 65537, without permission for this key.
    Exponent {
        /// The exponent.
        e: u64,
    },
    /// A public exponent that is even, 1, or longer than 33 bits.
    ExponentUnusable,
    /// Both RSA primes are the same number.
    EqualPrimes,
    /// The RSA primes are so close that the modulus can be factored.
    ClosePrimes,
    /// The numbers of the key do not belong together: n is not p times q, d does not invert e, or an
    /// elliptic-curve scalar is zero or not below the order.
    Inconsistent,
    /// The file also holds a public key, and it is not the one of the private key.
    PublicKeyMismatch,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("it is empty; write the private key to it again"),
            Self::Malformed => f.write_str(
                "it is neither PEM text nor DER that holds a private key (PKCS#8, PKCS#1 or SEC 1), \
                 or it was cut short; copy it again from where it came",
            ),
            Self::NoPrivateKey => f.write_str(
                "it holds no `PRIVATE KEY` block; a certificate or public key alone is not enough",
            ),
            Self::SeveralKeys { count } => {
                write!(f, "it holds {count} private keys; put each into a file of its own")
            }
            Self::Encrypted => f.write_str(
                "it is protected by a pass phrase; decrypt it with `openssl pkey -in FILE -out NEW` \
                 and protect the new file by its permissions",
            ),
            Self::UnsupportedAlgorithm => f.write_str(
                "its algorithm is not supported; use RSA, ECDSA on P-256, P-384 or P-521, Ed25519, \
                 or ML-DSA-44, -65 or -87",
            ),
            Self::ModulusTooShort { bits } => write!(
                f,
                "RSA with {bits} bits is too weak, at least 2048 are needed; make a new key"
            ),
            Self::ModulusTooLong { bits } => write!(
                f,
                "RSA with {bits} bits is not supported, at most 8192 are; make a shorter key"
            ),
            Self::Exponent { e } => write!(
                f,
                "its public exponent is {e} instead of 65537; make a new key, or allow the exponent \
                 for this key by name"
            ),
            Self::ExponentUnusable => f.write_str(
                "its public exponent is even, 1, or longer than 33 bits; make a new key",
            ),
            Self::EqualPrimes => f.write_str(
                "both primes are the same number, so anybody can factor the modulus; \
                 revoke the certificate and make a new key",
            ),
            Self::ClosePrimes => f.write_str(
                "its primes are so close that anybody can factor the modulus; \
                 revoke the certificate and make a new key",
            ),
            Self::Inconsistent => f.write_str(
                "its numbers do not belong together; the file is damaged or was put together from \
                 several keys, copy it again from where it came",
            ),
            Self::PublicKeyMismatch => f.write_str(
                "the public key stored in it is not the one of its private key; the file is damaged \
                 or was put together from several keys, copy it again from where it came",
            ),
        }
    }
}

impl Error for KeyError {}

/// A key file that was not loaded, and why.
#[derive(Debug)]
pub struct KeyFileError {
    /// The file or directory at fault.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: KeyFileProblem,
}

/// What is wrong with a key file.
#[derive(Debug)]
#[non_exhaustive]
pub enum KeyFileProblem {
    /// The operating system refused; its own words follow.
    Read(io::Error),
    /// Neither a file nor a link to one.
    NotAFile,
    /// Longer than any key.
    TooLarge {
        /// Its length in bytes.
        bytes: u64,
        /// The longest that is read.
        limit: u64,
    },
    /// Others than the owner have rights to the file.
    Permissions {
        /// The permission bits.
        mode: u32,
    },
    /// The name has no stem that can serve as a label: it must be UTF-8.
    Label,
    /// The content is not a good key.
    Key(KeyError),
    /// The certificate beside the key, or in its file, cannot be read.
    CertificateUnreadable {
        /// The file that holds the certificate.
        certificate: PathBuf,
    },
    /// The certificate beside the key, or in its file, is for another key.
    CertificateMismatch {
        /// The file that holds the certificate.
        certificate: PathBuf,
    },
    /// Another file holds the same key.
    Duplicate {
        /// The file that was first.
        first: PathBuf,
    },
    /// More keys than the table can index, 2^32 - 1.
    TooMany,
}

impl fmt::Display for KeyFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.problem {
            KeyFileProblem::Read(error) => write!(f, "key file {path}: cannot be read: {error}"),
            KeyFileProblem::NotAFile => {
                write!(
                    f,
                    "key file {path}: this is not a regular file; name the file itself"
                )
            }
            KeyFileProblem::TooLarge { bytes, limit } => write!(
                f,
                "key file {path}: {bytes} bytes are too many for a private key, the limit is {limit}; \
                 is this the right file?"
            ),
            KeyFileProblem::Permissions { mode } => write!(
                f,
                "key file {path}: mode {mode:04o} lets others than its owner at it; run \
                 `chmod 600 {path}`, or allow weak permissions for this key by name"
            ),
            KeyFileProblem::Label => write!(
                f,
                "key file {path}: the name cannot serve as a label, because it is not UTF-8; rename it"
            ),
            KeyFileProblem::Key(error) => write!(f, "key file {path}: {error}"),
            KeyFileProblem::CertificateUnreadable { certificate } => write!(
                f,
                "key file {path}: the certificate in {} cannot be read; repair or remove it",
                certificate.display()
            ),
            KeyFileProblem::CertificateMismatch { certificate } => write!(
                f,
                "key file {path}: the certificate in {} is for another key; put the matching one \
                 there, or remove it",
                certificate.display()
            ),
            KeyFileProblem::Duplicate { first } => write!(
                f,
                "key file {path}: {} holds the same key; remove one of the two",
                first.display()
            ),
            KeyFileProblem::TooMany => write!(f, "key file {path}: too many keys"),
        }
    }
}

impl Error for KeyFileError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.problem {
            KeyFileProblem::Read(error) => Some(error),
            KeyFileProblem::Key(error) => Some(error),
            KeyFileProblem::NotAFile
            | KeyFileProblem::TooLarge { .. }
            | KeyFileProblem::Permissions { .. }
            | KeyFileProblem::Label
            | KeyFileProblem::CertificateUnreadable { .. }
            | KeyFileProblem::CertificateMismatch { .. }
            | KeyFileProblem::Duplicate { .. }
            | KeyFileProblem::TooMany => None,
        }
    }
}

/// Why an engine could not be made.
#[derive(Debug)]
#[non_exhaustive]
pub enum EngineError {
    /// The lane engine was demanded, and this processor lacks AVX-512 IFMA.
    LanesUnavailable,
    /// One of the engine's own calibration keys did not work: the build is broken, or the machine is.
    Calibration(JobError),
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LanesUnavailable => f.write_str(
                "the lane engine was asked for, but this processor has no AVX-512 IFMA (Intel Ice \
                 Lake, AMD Zen 4 and later have it); set `accel.engine` to \"auto\" or \"single\"",
            ),
            Self::Calibration(error) => write!(
                f,
                "the engine failed its first operations, with a key of its own: {error}; suspect \
                 the build or the machine"
            ),
        }
    }
}

impl Error for EngineError {}
