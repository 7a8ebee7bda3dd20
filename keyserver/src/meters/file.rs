//! The file of the meters, see [`crate::statefile`].

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::MeterId;
use crate::policy::meter::Reserved;
use crate::statefile::{self, StateError};

/// The file's name in the state directory.
const NAME: &str = "meters";

const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    v: u32,
    /// By [`MeterId`] in hexadecimal.
    meters: BTreeMap<String, Reserved>,
}

/// The file of a state directory.
pub(super) fn path(directory: &Path) -> PathBuf {
    directory.join(NAME)
}

/// Reads the file; without one nothing was used.
pub(super) fn read(path: &Path) -> Result<HashMap<MeterId, Reserved>, StateError> {
    let unusable = |why: String| StateError {
        what: format!(
            "{}: {why}; it says how often grants with `daily` were used today, so the server does not start without it: \
             restore it from a backup, or, if the clients may begin the day anew, remove it",
            path.display()
        ),
    };
    let Some(json) = statefile::read(path).map_err(unusable)? else {
        return Ok(HashMap::new());
    };
    let document: Document = serde_json::from_str(&json)
        .map_err(|error| unusable(format!("it is not understood: {error}")))?;
    if document.v != VERSION {
        return Err(unusable(format!("it is of version {}", document.v)));
    }
    let record = |(id, reserved): (String, _)| Some((from_hex(&id)?, reserved));
    (document
        .meters
        .into_iter()
        .map(record)
        .collect::<Option<_>>())
    .ok_or_else(|| unusable("it is damaged".to_owned()))
}

/// Puts what was used on disk.
pub(super) fn write(path: &Path, records: &HashMap<MeterId, Reserved>) -> Result<(), StateError> {
    let meters = records.iter().map(|(id, reserved)| (to_hex(id), *reserved));
    let document = Document {
        v: VERSION,
        meters: meters.collect(),
    };
    statefile::write(path, &document).map_err(|error| StateError {
        what: format!("{}: {error}", path.display()),
    })
}

fn to_hex(id: &MeterId) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<MeterId> {
    let pairs = text.as_bytes().chunks_exact(2);
    let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Vec<u8> = pairs.map(byte).collect::<Option<_>>()?;
    (text.len() == 64).then(|| bytes.try_into().ok())?
}
