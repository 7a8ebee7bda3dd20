//! Which ledger it is, so that one that was lost is missed.
//!
//! A new ledger knows nothing, and would answer every recorded handshake once more. So a ledger has an id, made of its key,
//! and the id stands in three places: in the store, beside the key, and with `[admin] state`, which as a rule outlives the
//! directory. Who is started with an id that is known in one place and missing in the store does not serve.
//!
//! ```text
//!  DIRECTORY/key      the ledger's key; the id is made of it
//!  DIRECTORY/id       40 hexadecimal digits and a line feed
//!  DIRECTORY/store    has the id among its keys
//!  STATE/ledger-id    as any file of the state directory
//! ```
//!
//! The id is written in this order: store, then the other two. A crash in between leaves a ledger that has answered nothing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use keyless_protocol::info::{ski_from_hex, ski_to_hex};
use serde::{Deserialize, Serialize};

use super::tag;
use crate::statefile;

/// An id. As long as an SKI, and written like one; the last four bytes are zero.
pub(super) type LedgerId = [u8; 20];

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    v: u32,
    id: String,
}

const VERSION: u32 = 1;

/// Where the id stands outside of the store.
#[derive(Debug)]
pub(super) struct Places {
    beside_key: PathBuf,
    state: Option<PathBuf>,
}

impl Places {
    /// Those of a ledger, and of a server's state directory if it has one.
    pub(super) fn new(directory: &Path, state: Option<&Path>) -> Self {
        Self {
            beside_key: directory.join("id"),
            state: state.map(|state| state.join("ledger-id")),
        }
    }

    /// The ids that are known, each with the file that says so.
    ///
    /// # Errors
    ///
    /// What is wrong with a file.
    pub(super) fn known(&self) -> Result<Vec<(&Path, LedgerId)>, String> {
        let mut known = Vec::new();
        let damaged = |path: &Path| format!("{}: it is damaged", path.display());
        match fs::read_to_string(&self.beside_key) {
            Ok(text) => {
                let id = ski_from_hex(text.trim_end()).ok_or_else(|| damaged(&self.beside_key))?;
                known.push((&*self.beside_key, id));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("{}: {error}", self.beside_key.display())),
        }
        if let Some(path) = &self.state {
            let json = statefile::read(path).map_err(|why| format!("{}: {why}", path.display()))?;
            if let Some(json) = json {
                let document: Document = serde_json::from_str(&json).map_err(|_| damaged(path))?;
                let id = ski_from_hex(&document.id).filter(|_| document.v == VERSION);
                known.push((path, id.ok_or_else(|| damaged(path))?));
            }
        }
        Ok(known)
    }

    /// Puts the id where it is not known yet, durably.
    ///
    /// # Errors
    ///
    /// Which file could not be written, and why.
    pub(super) fn note(&self, id: &LedgerId) -> Result<(), String> {
        let known: Vec<_> = self.known()?.into_iter().map(|(path, _)| path).collect();
        let failed = |path: &Path, error: &io::Error| format!("{}: {error}", path.display());
        if !known.contains(&&*self.beside_key) {
            let text = ski_to_hex(id) + "\n";
            tag::create(&self.beside_key, text.as_bytes())
                .map_err(|error| failed(&self.beside_key, &error))?;
        }
        if let Some(path) = self.state.as_deref().filter(|path| !known.contains(path)) {
            let document = Document {
                v: VERSION,
                id: ski_to_hex(id),
            };
            statefile::write(path, &document).map_err(|error| failed(path, &error))?;
        }
        Ok(())
    }
}
