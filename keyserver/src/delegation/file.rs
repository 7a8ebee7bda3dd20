//! The file of live credentials, see [`crate::statefile`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use keyless_protocol::info::{ski_from_hex, ski_to_hex};
use serde::{Deserialize, Serialize};

use super::outstanding::{Account, Ends};
use crate::ending::{End, Now};
use crate::limits::CREDENTIAL_LIFETIME_MAX;
use crate::statefile::{self, StateError};

/// The file's name in the state directory.
const NAME: &str = "credentials";

const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    v: u32,
    credentials: Vec<Record>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    client: String,
    /// SKI in hexadecimal.
    key: String,
    /// Seconds since 1970.
    ends: Vec<u64>,
}

/// The file of a state directory.
pub(super) fn path(directory: &Path) -> PathBuf {
    directory.join(NAME)
}

/// Reads the file; without one no credential is about. How long each has to last is told by the clock of this moment.
pub(super) fn read(path: &Path, now: Now) -> Result<Ends, StateError> {
    let unusable = |why: String| StateError {
        what: format!(
            "{}: {why}; it says which delegated credentials are about, so the server does not start without it: restore \
             it from a backup, or, if the clients may begin their quota anew, remove it",
            path.display()
        ),
    };
    let Some(json) = statefile::read(path).map_err(unusable)? else {
        return Ok(Ends::new());
    };
    let document: Document = serde_json::from_str(&json)
        .map_err(|error| unusable(format!("it is not understood: {error}")))?;
    if document.v != VERSION {
        return Err(unusable(format!("it is of version {}", document.v)));
    }
    let account = |Record { client, key, ends }| {
        let ski = ski_from_hex(&key)?;
        let end = |wall: u64| End::within(wall, CREDENTIAL_LIFETIME_MAX, now);
        let ends = ends.into_iter().map(end).collect();
        Some((Arc::new(Account { client, ski }), Arc::new(ends)))
    };
    (document.credentials.into_iter())
        .map(account)
        .collect::<Option<_>>()
        .ok_or_else(|| unusable("it is damaged".to_owned()))
}

/// Puts what is about on disk.
pub(super) fn write(path: &Path, ends: &Ends) -> Result<(), StateError> {
    let record = |(account, ends): (&Arc<Account>, &Arc<Vec<End>>)| Record {
        client: account.client.clone(),
        key: ski_to_hex(&account.ski),
        ends: ends.iter().map(|end| end.wall).collect(),
    };
    let document = Document {
        v: VERSION,
        credentials: ends.iter().map(record).collect(),
    };
    statefile::write(path, &document).map_err(|error| StateError {
        what: format!("{}: {error}", path.display()),
    })
}
