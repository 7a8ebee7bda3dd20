//! The ticket master: 32 random bytes, in a file of its own.
//!
//! ```text
//! keyserver ticket master 1
//! 64 hexadecimal digits
//! ```

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use aws_lc_rs::rand;
use keyless_protocol::Ski;
use keyless_protocol::tickets::{EpochKey, KEY_LEN, NAME_LEN};
use zeroize::Zeroizing;

use crate::secret_file;

/// The first line of the file. Another one is another format.
const HEAD: &str = "keyserver ticket master 1\n";

/// Bytes of the secret.
const MASTER_LEN: usize = 32;

/// Bytes of a whole file: the line, the digits, the last line feed.
const FILE_LEN: usize = HEAD.len() + 2 * MASTER_LEN + 1;

/// What a derived key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Purpose {
    /// An edge seals with it.
    Edge = 1,
    /// This server seals with it.
    Server = 2,
}

/// The secret, ready to derive from. What it was read into has been wiped.
pub struct Master(Prk);

impl fmt::Debug for Master {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Master")
    }
}

/// A file of a master cannot be read or made.
#[derive(Debug)]
pub struct MasterError {
    path: PathBuf,
    problem: String,
    fix: &'static str,
}

impl fmt::Display for MasterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        write!(f, "ticket master {path}: {}; {}", self.problem, self.fix)
    }
}

impl std::error::Error for MasterError {}

/// Length of what one derivation gives.
struct Derived;

impl KeyType for Derived {
    fn len(&self) -> usize {
        NAME_LEN + KEY_LEN
    }
}

impl Master {
    /// Reads a file, under the rules of key files: a plain file, and nobody but its owner may read or write it.
    ///
    /// # Errors
    ///
    /// [`MasterError`] with the way out; nothing of the content is in it.
    pub fn load(path: &Path) -> Result<Self, MasterError> {
        let failed = |problem: String, fix| MasterError {
            path: path.to_owned(),
            problem,
            fix,
        };
        let unread = |error: io::Error| {
            failed(
                format!("it cannot be read: {error}"),
                "the server's user must be able to read it; `keyserver tickets new-master FILE` makes one",
            )
        };
        // Looked at before it is opened, because opening a pipe waits for its other end, and again after.
        let not_a_file = || failed("it is not a file".to_owned(), "name a file");
        if !fs::metadata(path).map_err(unread)?.is_file() {
            return Err(not_a_file());
        }
        let mut file = File::open(path).map_err(unread)?;
        let metadata = file.metadata().map_err(unread)?;
        if !metadata.is_file() {
            return Err(not_a_file());
        }
        if let Some(problem) = secret_file::open_to_others(&file, path).map_err(unread)? {
            return Err(failed(problem, secret_file::FIX));
        }
        let malformed = || {
            failed(
                "it is not a ticket master".to_owned(),
                "restore it, or make a new one with `keyserver tickets new-master FILE` for all servers",
            )
        };
        let mut text = Zeroizing::new([0; FILE_LEN]);
        if metadata.len() != u64::try_from(FILE_LEN).unwrap_or(u64::MAX) {
            return Err(malformed());
        }
        file.read_exact(&mut *text).map_err(unread)?;
        let secret = parse(&*text).ok_or_else(malformed)?;
        Ok(Self::of(&secret))
    }

    fn of(secret: &[u8; MASTER_LEN]) -> Self {
        Self(Salt::new(HKDF_SHA256, b"keyserver session tickets 1").extract(secret))
    }

    /// The key of one epoch, for the certificate whose key has this SKI. `generation` is raised when older keys
    /// shall be worth nothing any more.
    ///
    /// ```text
    /// HKDF-SHA-256: salt "keyserver session tickets 1", info = purpose[1] epoch[8] generation[4] SKI[20]
    /// 48 bytes: name[16] key[32]
    /// ```
    ///
    /// `None` only where the cryptographic library fails.
    #[must_use]
    pub fn derive(
        &self,
        purpose: Purpose,
        epoch: u64,
        generation: u32,
        ski: &Ski,
    ) -> Option<EpochKey> {
        let (epoch_bytes, generation) = (epoch.to_be_bytes(), generation.to_be_bytes());
        let info: [&[u8]; 4] = [&[purpose as u8], &epoch_bytes, &generation, ski];
        let mut derived = Zeroizing::new([0; NAME_LEN + KEY_LEN]);
        self.0
            .expand(&info, Derived)
            .ok()?
            .fill(&mut *derived)
            .ok()?;
        let (name, key) = derived.split_first_chunk()?;
        Some(EpochKey {
            epoch,
            name: *name,
            key: key.try_into().ok()?,
        })
    }
}

/// The secret in a file's text.
fn parse(text: &[u8]) -> Option<Zeroizing<[u8; MASTER_LEN]>> {
    let digits = text.strip_prefix(HEAD.as_bytes())?.strip_suffix(b"\n")?;
    let (pairs, odd) = digits.as_chunks::<2>();
    if pairs.len() != MASTER_LEN || !odd.is_empty() {
        return None;
    }
    let mut secret = Zeroizing::new([0; MASTER_LEN]);
    for (byte, [high, low]) in secret.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(secret)
}

/// The value of a hexadecimal digit.
fn digit(character: u8) -> Option<u8> {
    let value = char::from(character).to_digit(16)?;
    u8::try_from(value).ok()
}

/// Makes a new master in a file that is not there yet, which only its owner can read.
///
/// # Errors
///
/// The file is there, cannot be written, or there is no randomness.
pub fn create(path: &Path) -> Result<(), MasterError> {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    let failed = |problem: String, fix| MasterError {
        path: path.to_owned(),
        problem,
        fix,
    };
    let mut secret = Zeroizing::new([0_u8; MASTER_LEN]);
    rand::fill(&mut *secret).map_err(|_| {
        failed(
            "no randomness".to_owned(),
            "try again; the system is in trouble",
        )
    })?;
    let mut text = Zeroizing::new(Vec::with_capacity(FILE_LEN));
    text.extend_from_slice(HEAD.as_bytes());
    for byte in secret.iter() {
        let digit = |value: u8| DIGITS.get(usize::from(value)).copied().unwrap_or(b'0');
        text.push(digit(byte >> 4));
        text.push(digit(byte & 15));
    }
    text.push(b'\n');
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(&text)?;
        file.sync_all()
    };
    write().map_err(|error| {
        failed(
            format!("it cannot be made: {error}"),
            "name a file that is not there yet, in a directory you may write to",
        )
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_master_is_made_once_and_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("master");
        create(&path).unwrap();
        create(&path).unwrap_err();
        let master = Master::load(&path).unwrap();
        let again = Master::load(&path).unwrap();
        let key = |master: &Master| master.derive(Purpose::Edge, 7, 0, &[1; 20]).unwrap();
        assert_eq!(key(&master), key(&again));
        let other = directory.path().join("other");
        create(&other).unwrap();
        assert_ne!(key(&master), key(&Master::load(&other).unwrap()));
        assert_eq!(format!("{master:?}"), "Master");
    }

    #[test]
    fn every_part_of_the_derivation_counts() {
        let master = Master::of(&[7; 32]);
        let base = master.derive(Purpose::Edge, 7, 0, &[1; 20]).unwrap();
        for other in [
            master.derive(Purpose::Server, 7, 0, &[1; 20]),
            master.derive(Purpose::Edge, 8, 0, &[1; 20]),
            master.derive(Purpose::Edge, 7, 1, &[1; 20]),
            master.derive(Purpose::Edge, 7, 0, &[2; 20]),
        ] {
            let other = other.unwrap();
            assert_ne!((base.name, base.key), (other.name, other.key));
        }
    }

    /// Made with Python's `hmac` from RFC 5869 and the layout above, for the master of 32 bytes 07.
    #[test]
    fn the_derivation_is_the_documented_one() {
        let key = Master::of(&[7; 32])
            .derive(Purpose::Edge, 500_000, 3, &[0xab; 20])
            .unwrap();
        let hex: String = (key.name.iter().chain(&key.key))
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(hex, EXPECTED);
    }

    const EXPECTED: &str = "5632c3679ebc3e24ad8c6c13048815a1aab8804490c4c9467fdac06203307116d7a64abe6c0533a5613a89261211a819";

    #[test]
    fn a_file_that_others_can_read_or_that_is_cut_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("master");
        create(&path).unwrap();
        let good = fs::read(&path).unwrap();
        for mode in [0o640, 0o604, 0o620] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = Master::load(&path).unwrap_err().to_string();
            assert!(error.contains(&format!("{mode:04o}")), "{error}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let cases: [&[u8]; 5] = [
            &good[1..],
            &good[..good.len() - 1],
            b"",
            &[&good[..], b"\n"].concat(),
            {
                &good
                    .iter()
                    .map(|byte| if *byte == b'\n' { b' ' } else { *byte })
                    .collect::<Vec<_>>()
            },
        ];
        for bad in cases {
            fs::write(&path, bad).unwrap();
            let error = Master::load(&path).unwrap_err().to_string();
            assert!(error.contains("not a ticket master"), "{error}");
        }
        Master::load(directory.path()).unwrap_err();
        Master::load(&directory.path().join("none")).unwrap_err();
    }
}
