//! A PIN: where it is read from, and the one place it is kept.

use std::env;
use std::error::Error;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use zeroize::Zeroizing;

/// Permission bits of the group and of everybody else.
const OTHERS: u32 = 0o077;
/// Longest PIN in bytes. The longest that a known device takes is 255.
const MAX_PIN_LEN: u64 = 255;
/// Where the service manager puts credentials.
const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// Where a PIN is read from. Never the PIN itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PinSource {
    /// `credential:NAME`: the file NAME in `$CREDENTIALS_DIRECTORY`, see systemd.exec(5).
    Credential(String),
    /// `file:/PATH`: a file, by its absolute path. Nobody but its owner may have any right to it.
    File(PathBuf),
    /// `env:NAME`: an environment variable. Others of the same user can read it; prefer a credential.
    Environment(String),
}

/// The text is none of the three forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinSourceError;

impl fmt::Display for PinSourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a PIN source is `credential:NAME`, `file:/PATH` or `env:NAME`")
    }
}

impl Error for PinSourceError {}

impl FromStr for PinSource {
    type Err = PinSourceError;

    fn from_str(text: &str) -> Result<Self, PinSourceError> {
        let (kind, rest) = text.split_once(':').ok_or(PinSourceError)?;
        match kind {
            "credential" if is_name(rest) => Ok(Self::Credential(rest.to_owned())),
            "file" if Path::new(rest).is_absolute() => Ok(Self::File(PathBuf::from(rest))),
            "env" if is_name(rest) => Ok(Self::Environment(rest.to_owned())),
            _ => Err(PinSourceError),
        }
    }
}

/// A name without a path in it.
fn is_name(text: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !text.is_empty() && text.bytes().all(good) && text != "." && text != ".."
}

impl fmt::Display for PinSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Credential(name) => write!(f, "credential:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Environment(name) => write!(f, "env:{name}"),
        }
    }
}

/// Why there is no PIN.
#[derive(Debug)]
#[non_exhaustive]
pub enum PinError {
    /// `$CREDENTIALS_DIRECTORY` is not set: the service manager passed no credentials.
    NoCredentials,
    /// The file cannot be read.
    Read(PathBuf, io::Error),
    /// Others than its owner may read or change the file; these are its permission bits.
    Permissions(PathBuf, u32),
    /// The environment has no such variable, or its value is not UTF-8.
    Unset(String),
    /// The source holds nothing.
    Empty(PinSource),
    /// The source holds more than a PIN.
    TooLong(PinSource),
}

impl fmt::Display for PinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCredentials => f.write_str(
                "no PIN: the service manager passed no credentials; add `LoadCredential=NAME:/PATH` \
                 or `LoadCredentialEncrypted=` to the unit",
            ),
            Self::Read(path, error) => {
                write!(f, "no PIN: {} cannot be read: {error}", path.display())
            }
            Self::Permissions(path, mode) => write!(
                f,
                "no PIN: {} is open to others (mode {mode:03o}); give it to the user that the server runs as \
                 and `chmod 600` it",
                path.display()
            ),
            Self::Unset(name) => write!(f, "no PIN: the environment has no variable {name}"),
            Self::Empty(source) => write!(f, "no PIN: {source} is empty"),
            Self::TooLong(source) => write!(
                f,
                "no PIN: {source} holds more than {MAX_PIN_LEN} bytes; is it the right one?"
            ),
        }
    }
}

impl Error for PinError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Read(_, error) => Some(error),
            Self::NoCredentials
            | Self::Permissions(..)
            | Self::Unset(_)
            | Self::Empty(_)
            | Self::TooLong(_) => None,
        }
    }
}

impl PinSource {
    /// Reads the PIN. One line end after it is dropped, as editors leave one.
    ///
    /// # Errors
    ///
    /// [`PinError`] says which source has no PIN and what to do; it never shows what was read.
    pub fn read(&self) -> Result<Pin, PinError> {
        let mut bytes = match self {
            Self::Credential(name) => {
                let directory =
                    env::var_os(CREDENTIALS_DIRECTORY).ok_or(PinError::NoCredentials)?;
                // The service manager guards them in its own way: an access list shows as rights of the group.
                read_file(&Path::new(&directory).join(name), 0)?
            }
            Self::File(path) => read_file(path, OTHERS)?,
            Self::Environment(name) => {
                let value = env::var(name).map_err(|_| PinError::Unset(name.clone()))?;
                Zeroizing::new(value.into_bytes())
            }
        };
        if bytes.ends_with(b"\n") {
            bytes.pop();
        }
        if bytes.ends_with(b"\r") {
            bytes.pop();
        }
        if bytes.is_empty() {
            return Err(PinError::Empty(self.clone()));
        }
        if u64::try_from(bytes.len()).is_ok_and(|length| length > MAX_PIN_LEN) {
            return Err(PinError::TooLong(self.clone()));
        }
        Ok(Pin(bytes))
    }
}

/// Reads a file that has none of the permission bits `refused`.
fn read_file(path: &Path, refused: u32) -> Result<Zeroizing<Vec<u8>>, PinError> {
    let failed = |error| PinError::Read(path.to_owned(), error);
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o777;
    if mode & refused != 0 {
        return Err(PinError::Permissions(path.to_owned(), mode));
    }
    // Room for the PIN, a line end and one byte more: growing would leave an unwiped copy behind.
    let room = MAX_PIN_LEN + 3;
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(room).unwrap_or(0)));
    file.take(room).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// A PIN in memory: wiped on drop, never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Pin(Zeroizing<Vec<u8>>);

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pin(..)")
    }
}

#[cfg(test)]
impl From<&[u8]> for Pin {
    fn from(bytes: &[u8]) -> Self {
        Self(Zeroizing::new(bytes.to_vec()))
    }
}

impl Pin {
    /// The bytes, for the call that logs in.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_of(content: &[u8]) -> (tempfile::TempDir, PinSource) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pin");
        std::fs::write(&path, content).unwrap();
        set_mode(&path, 0o600);
        (folder, PinSource::File(path))
    }

    fn set_mode(path: &Path, mode: u32) {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_file_that_others_can_read_or_change_is_refused() {
        let (folder, source) = file_of(b"90125476");
        let path = folder.path().join("pin");
        for mode in [0o640, 0o604, 0o660, 0o602, 0o644, 0o700 | 0o010] {
            set_mode(&path, mode);
            let error = source.read().unwrap_err();
            assert!(
                matches!(&error, PinError::Permissions(at, seen) if *at == path && *seen == mode),
                "{error:?}"
            );
            assert!(!error.to_string().contains("90125476"), "{error}");
        }
        for mode in [0o600, 0o400] {
            set_mode(&path, mode);
            assert!(source.read().is_ok(), "{mode:o}");
        }
    }

    #[test]
    fn a_line_end_is_not_part_of_the_pin() {
        for content in [&b"1234"[..], b"1234\n", b"1234\r\n"] {
            let (_folder, source) = file_of(content);
            assert_eq!(source.read().unwrap().bytes(), b"1234");
        }
        let (_folder, source) = file_of(b"12 34\n\n");
        assert_eq!(source.read().unwrap().bytes(), b"12 34\n");
    }

    #[test]
    fn no_pin_is_said_without_showing_it() {
        let (_folder, empty) = file_of(b"\n");
        assert!(matches!(empty.read(), Err(PinError::Empty(_))));
        let (_folder, long) = file_of(&[b'7'; 256]);
        let error = long.read().unwrap_err();
        assert!(matches!(error, PinError::TooLong(_)) && !error.to_string().contains("777"));
        let missing = PinSource::File("/nowhere/at/all".into());
        assert!(matches!(missing.read(), Err(PinError::Read(..))));
        let unset = PinSource::Environment("KEYSERVER_NO_SUCH_PIN".into());
        assert!(matches!(unset.read(), Err(PinError::Unset(_))));
        let (_folder, good) = file_of(b"1234");
        assert_eq!(format!("{:?}", good.read().unwrap()), "Pin(..)");
    }

    #[test]
    fn sources_are_named_by_their_kind() {
        for text in ["credential:hsm-pin", "file:/run/pin", "env:HSM_PIN"] {
            assert_eq!(text.parse::<PinSource>().unwrap().to_string(), text);
        }
        for text in [
            "1234",
            "credential:",
            "credential:../x",
            "credential:..",
            "file:pin",
            "env:",
            "x:y",
        ] {
            assert_eq!(text.parse::<PinSource>(), Err(PinSourceError), "{text}");
        }
    }
}
