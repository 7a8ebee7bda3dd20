//! Names of ciphertexts in the ledger.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use aws_lc_rs::{hmac, rand};
use zeroize::Zeroizing;

use super::identity::LedgerId;
use super::rule::Binding;
use crate::secret_file;

/// Bytes of a [`Tag`].
pub const TAG_LEN: usize = 16;
/// Bytes of the ledger's key.
const KEY_LEN: usize = 32;

/// `HMAC-SHA-256(ledger key, "ciphertext" || len(SPKI) || SPKI || ciphertext)`, its first 16 bytes.
///
/// Keyed, so that nobody can make two ciphertexts that share a tag, and so that a stolen ledger does not tell
/// which recorded handshakes were served.
pub type Tag = [u8; TAG_LEN];

/// Makes tags and bindings.
pub struct Tagger(hmac::Key);

impl fmt::Debug for Tagger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tagger")
    }
}

impl Tagger {
    /// Reads the ledger's key from `path`, or makes one where there is none and `may_create`.
    ///
    /// # Errors
    ///
    /// The file cannot be read or written, has another length, or may be read by others than its owner; not
    /// found, when it must be there.
    pub(crate) fn open(path: &Path, may_create: bool) -> io::Result<Self> {
        let mut key = Zeroizing::new([0; KEY_LEN]);
        match File::open(path) {
            Ok(mut file) => {
                if let Some(problem) = secret_file::open_to_others(&file, path)? {
                    return Err(io::Error::other(format!("{problem}: chmod 600 it")));
                }
                file.read_exact(&mut *key)?;
                if file.read(&mut [0])? != 0 {
                    return Err(io::Error::other("longer than a ledger key"));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && may_create => {
                rand::fill(&mut *key).map_err(|_| io::Error::other("no randomness"))?;
                create(path, &*key)?;
            }
            Err(error) => return Err(error),
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &*key)))
    }

    /// The name of a ciphertext under a key, given by its SubjectPublicKeyInfo.
    pub(crate) fn tag(&self, spki: &[u8], ciphertext: &[u8]) -> Tag {
        self.mac(b"ciphertext", spki, ciphertext)
    }

    /// The id of the ledger that has this key.
    pub(super) fn ledger_id(&self) -> LedgerId {
        let mut id = LedgerId::default();
        for (out, byte) in id.iter_mut().zip(self.mac(b"ledger", b"", b"")) {
            *out = byte;
        }
        id
    }

    /// Who asks, by the name of the client, and for which handshake.
    pub(crate) fn binding(&self, client: &str, handshake: &[u8]) -> Binding {
        let [binding @ .., _, _, _, _, _, _, _, _] =
            self.mac(b"asker", client.as_bytes(), handshake);
        Binding(binding)
    }

    /// The first half of the code of a label and two texts, the first with its length.
    fn mac(&self, label: &[u8], first: &[u8], second: &[u8]) -> [u8; TAG_LEN] {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(label);
        context.update(&(first.len() as u64).to_be_bytes());
        context.update(first);
        context.update(second);
        let code = context.sign();
        let mut out = [0; TAG_LEN];
        for (out, byte) in out.iter_mut().zip(code.as_ref()) {
            *out = *byte;
        }
        out
    }
}

/// Writes a new file that only its owner may read, durably: whole or not at all.
pub(super) fn create(path: &Path, content: &[u8]) -> io::Result<()> {
    let partial = path.with_extension("partial");
    // Left over from a crash in these lines.
    let _ = fs::remove_file(&partial);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&partial)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&partial, path)?;
    let directory = path.parent().unwrap_or_else(|| Path::new("."));
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_key_is_made_once_and_kept() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("key");
        assert!(Tagger::open(&path, false).is_err(), "not made unasked");
        let first = Tagger::open(&path, true).expect("made");
        let again = Tagger::open(&path, false).expect("kept");
        assert_eq!(first.tag(b"spki", b"c"), again.tag(b"spki", b"c"));
        let elsewhere = Tagger::open(&directory.path().join("other"), true).expect("made");
        assert_ne!(first.tag(b"spki", b"c"), elsewhere.tag(b"spki", b"c"));
    }

    #[test]
    fn a_key_of_another_length_is_refused() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("key");
        for length in [0, 31, 33] {
            let _ = fs::remove_file(&path);
            create(&path, &vec![7; length]).expect("written");
            assert!(Tagger::open(&path, true).is_err(), "{length}");
        }
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("key");
        Tagger::open(&path, true).expect("made");
        let mode = fs::Permissions::from_mode(0o640);
        fs::set_permissions(&path, mode).expect("changed");
        let error = Tagger::open(&path, true).expect_err("refused").to_string();
        assert!(error.contains("mode 0640 lets others"), "{error}");
    }

    #[test]
    fn every_part_counts_and_no_two_parts_run_together() {
        let directory = tempfile::tempdir().expect("directory");
        let tagger = Tagger::open(&directory.path().join("key"), true).expect("made");
        let tag = tagger.tag(b"spki", b"c");
        assert_ne!(tag, tagger.tag(b"spkic", b""));
        assert_ne!(tag, tagger.tag(b"spki", b"d"));
        assert_ne!(tag[..8], tagger.binding("spki", b"c").0);
        assert_ne!(tagger.binding("a", b"bc"), tagger.binding("ab", b"c"));
    }
}
