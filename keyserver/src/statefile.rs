//! A file of the state directory: two lines, the SHA-256 of the second in hexadecimal and JSON.
//!
//! A new file is written beside the old one, flushed, and put in its place; then the directory is
//! flushed. Whatever happens in between, one of the two is there in full. The hash tells a file that was
//! damaged later from one that says less than it did.

use std::fmt::{self, Write as _};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::tls;

/// More than a million entries.
const BYTES_MAX: u64 = 256 * 1024 * 1024;

/// What the server has to remember cannot be read or written.
#[derive(Debug)]
pub struct StateError {
    pub(crate) what: String,
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for StateError {}

/// The JSON of the file, or nothing where there is none.
///
/// # Errors
///
/// What is wrong with it, to be completed with what that means.
pub(crate) fn read(path: &Path) -> Result<Option<String>, String> {
    let mut text = String::new();
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("it cannot be opened: {error}")),
        Ok(file) => file
            .take(BYTES_MAX)
            .read_to_string(&mut text)
            .map_err(|error| format!("it cannot be read: {error}"))?,
    };
    let (sum, json) = text.split_once('\n').unwrap_or_default();
    if checksum(json.as_bytes()).as_deref() != Some(sum) {
        return Err("it is damaged".to_owned());
    }
    Ok(Some(json.to_owned()))
}

/// Puts a document on disk, so that it is there after a crash at any moment.
///
/// # Errors
///
/// What the system said. The old file is still there, or the new one is.
pub(crate) fn write(path: &Path, document: &impl serde::Serialize) -> io::Result<()> {
    let json = serde_json::to_string(document)? + "\n";
    let sum = checksum(json.as_bytes()).ok_or_else(|| io::Error::other("SHA-256 is missing"))?;
    let new = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(sum.as_bytes())?;
    file.write_all(b"\n")?;
    file.write_all(json.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    let directory = path.parent().unwrap_or_else(|| Path::new("."));
    File::open(directory)?.sync_all()
}

fn checksum(bytes: &[u8]) -> Option<String> {
    let mut text = String::with_capacity(64);
    for byte in tls::sha256(bytes)? {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    Some(text)
}
