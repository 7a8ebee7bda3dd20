//! The file with the [latest day](LatestDay), see [`crate::statefile`]. It is not part of the meters' file: whoever has to
//! remove it, because a clock was far ahead, shall not give back what was used today.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::Date;
use crate::policy::LatestDay;
use crate::statefile::{self, StateError};

/// The file's name in the state directory.
const NAME: &str = "calendar";

const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    v: u32,
    /// Days since 1970.
    latest_day: u64,
    /// The same, for who reads the file.
    date: String,
}

/// The file of a state directory.
pub(super) fn path(directory: &Path) -> PathBuf {
    directory.join(NAME)
}

/// Reads the file; without one no day was seen.
pub(super) fn read(path: &Path) -> Result<LatestDay, StateError> {
    let unusable = |why: String| StateError {
        what: format!(
            "{}: {why}; it says which rights had ended by their date, whatever the clock says now, so the server does not \
             start without it: restore it from a backup, or, if the clock is right, remove it",
            path.display()
        ),
    };
    let Some(json) = statefile::read(path).map_err(unusable)? else {
        return Ok(LatestDay::default());
    };
    let document: Document = serde_json::from_str(&json)
        .map_err(|error| unusable(format!("it is not understood: {error}")))?;
    if document.v != VERSION {
        return Err(unusable(format!("it is of version {}", document.v)));
    }
    Ok(LatestDay::from(document.latest_day))
}

/// Puts the day on disk.
pub(super) fn write(path: &Path, day: u64) -> Result<(), StateError> {
    let document = Document {
        v: VERSION,
        latest_day: day,
        date: Date::from_days(day).to_string(),
    };
    statefile::write(path, &document).map_err(|error| StateError {
        what: format!("{}: {error}", path.display()),
    })
}
