//! The file of the stops: two lines, the SHA-256 of the second in hexadecimal and JSON.
//!
//! A new file is written beside the old one, flushed, and put in its place; then the directory is
//! flushed. Whatever happens in between, one of the two is there in full. The hash tells a file that was
//! damaged later from one that says less than it did.

use std::fmt::{self, Write as _};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use keyless_protocol::info::{ski_from_hex, ski_to_hex};
use serde::{Deserialize, Serialize};

use super::{Stop, Stops, Subject};
use crate::tls;

/// The file's name in the state directory.
const NAME: &str = "stops";

/// More than a million stops.
const BYTES_MAX: u64 = 256 * 1024 * 1024;

/// The stops cannot be read or written.
#[derive(Debug)]
pub struct StateError {
    what: String,
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for StateError {}

/// Members are added, never renamed. One that this version does not know may be a stop it would
/// forget: the file is refused then.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    v: u32,
    sealed: Option<Stop>,
    keys: Vec<(String, Stop)>,
    clients: Vec<(String, Stop)>,
}

const VERSION: u32 = 1;

/// The file of a state directory.
pub(super) fn path(directory: &Path) -> PathBuf {
    directory.join(NAME)
}

/// Reads the file; without one nothing is stopped.
pub(super) fn read(path: &Path) -> Result<Stops, StateError> {
    let unusable = |why: String| StateError {
        what: format!(
            "{}: {why}; it says which keys and clients are stopped, so the server does not start \
             without it: restore it from a backup, or, if nothing is to be stopped, remove it",
            path.display()
        ),
    };
    let mut text = String::new();
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Stops::default()),
        Err(error) => return Err(unusable(format!("it cannot be opened: {error}"))),
        Ok(file) => file
            .take(BYTES_MAX)
            .read_to_string(&mut text)
            .map_err(|error| unusable(format!("it cannot be read: {error}")))?,
    };
    let damaged = || unusable("it is damaged".to_owned());
    let (sum, json) = text.split_once('\n').ok_or_else(damaged)?;
    if checksum(json.as_bytes()).as_deref() != Some(sum) {
        return Err(damaged());
    }
    let document: Document = serde_json::from_str(json)
        .map_err(|error| unusable(format!("it is not understood: {error}")))?;
    if document.v != VERSION {
        return Err(unusable(format!("it is of version {}", document.v)));
    }
    stops(document).ok_or_else(damaged)
}

fn stops(document: Document) -> Option<Stops> {
    let mut stops = Stops::default();
    if let Some(stop) = document.sealed {
        stops.by_subject.insert(Subject::All, stop);
    }
    for (ski, stop) in document.keys {
        stops
            .by_subject
            .insert(Subject::Key(ski_from_hex(&ski)?), stop);
    }
    for (name, stop) in document.clients {
        stops.by_subject.insert(Subject::Client(name), stop);
    }
    Some(stops)
}

/// Puts `stops` on disk, so that they are there after a crash at any moment.
pub(super) fn write(path: Option<&Path>, stops: &Stops) -> Result<(), StateError> {
    let Some(path) = path else {
        let what = "it is stopped until the server ends, and no longer: [admin] state names no \
                    directory in which it could be remembered";
        return Err(StateError {
            what: what.to_owned(),
        });
    };
    replace(path, stops).map_err(|error| StateError {
        what: format!(
            "{}: {error}; the change is not on disk, and a stop is forgotten when the server ends",
            path.display()
        ),
    })
}

fn replace(path: &Path, stops: &Stops) -> io::Result<()> {
    let json = serde_json::to_string(&document(stops))? + "\n";
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

fn document(stops: &Stops) -> Document {
    let mut document = Document {
        v: VERSION,
        sealed: None,
        keys: Vec::new(),
        clients: Vec::new(),
    };
    for (subject, stop) in stops.iter() {
        match subject {
            Subject::All => document.sealed = Some(stop.clone()),
            Subject::Key(ski) => document.keys.push((ski_to_hex(ski), stop.clone())),
            Subject::Client(name) => document.clients.push((name.clone(), stop.clone())),
        }
    }
    document
}

fn checksum(bytes: &[u8]) -> Option<String> {
    let mut text = String::with_capacity(64);
    for byte in tls::sha256(bytes)? {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever a crash, a disk or a hand makes of the file: it is read as it was, or refused.
    #[test]
    fn a_damaged_file_is_refused_at_every_byte() {
        let directory = tempfile::tempdir().unwrap();
        let path = path(directory.path());
        let stop = Stop {
            since: 1,
            uid: 0,
            reason: "x".to_owned(),
        };
        let mut stops = Stops::default();
        stops.by_subject.insert(Subject::Key([7; 20]), stop.clone());
        stops
            .by_subject
            .insert(Subject::Client("edge".to_owned()), stop);
        write(Some(&path), &stops).unwrap();
        assert_eq!(read(&path).unwrap(), stops);
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, &bad).unwrap();
            assert!(read(&path).is_err(), "byte {at}");
            fs::write(&path, &good[..at]).unwrap();
            assert!(read(&path).is_err(), "cut at {at}");
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(read(&path).unwrap(), Stops::default());
    }
}
