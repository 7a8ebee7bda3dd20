//! The file of the stops, see [`crate::statefile`].

use std::path::{Path, PathBuf};

use keyless_protocol::info::{ski_from_hex, ski_to_hex};
use serde::{Deserialize, Serialize};

use super::{Stop, Stops, Subject};
use crate::statefile::{self, StateError};

/// The file's name in the state directory.
const NAME: &str = "stops";

/// Members are added, never renamed. One that this version does not know may be a stop it would
/// forget: the file is refused then.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    v: u32,
    sealed: Option<Stop>,
    keys: Vec<(String, Stop)>,
    clients: Vec<(String, Stop)>,
    /// By SKI; the empty name is that of all keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ticket_generations: Vec<(String, u32)>,
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
    let damaged = || unusable("it is damaged".to_owned());
    let Some(json) = statefile::read(path).map_err(unusable)? else {
        return Ok(Stops::default());
    };
    let document: Document = serde_json::from_str(&json)
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
    for (name, generation) in document.ticket_generations {
        let subject = match name.as_str() {
            "" => Subject::All,
            ski => Subject::Key(ski_from_hex(ski)?),
        };
        stops.generations.insert(subject, generation);
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
    statefile::write(path, &document(stops)).map_err(|error| StateError {
        what: format!(
            "{}: {error}; the change is not on disk, and a stop is forgotten when the server ends",
            path.display()
        ),
    })
}

fn document(stops: &Stops) -> Document {
    let mut document = Document {
        v: VERSION,
        sealed: None,
        keys: Vec::new(),
        clients: Vec::new(),
        ticket_generations: Vec::new(),
    };
    for (subject, stop) in stops.iter() {
        match subject {
            Subject::All => document.sealed = Some(stop.clone()),
            Subject::Key(ski) => document.keys.push((ski_to_hex(ski), stop.clone())),
            Subject::Client(name) => document.clients.push((name.clone(), stop.clone())),
        }
    }
    for (subject, generation) in &stops.generations {
        let name = match subject {
            Subject::Key(ski) => ski_to_hex(ski),
            Subject::All => String::new(),
            // Clients have no ticket keys of their own.
            Subject::Client(_) => continue,
        };
        document.ticket_generations.push((name, *generation));
    }
    document
}

#[cfg(test)]
mod tests {
    use std::fs;

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
        stops.generations.insert(Subject::Key([7; 20]), 3);
        stops.generations.insert(Subject::All, 1);
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
