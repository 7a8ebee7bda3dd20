//! Where something stands in the configuration, so that an answer can name the line that decided.

use std::fmt;
use std::path::PathBuf;

/// A table of the configuration, and the settings in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    file: PathBuf,
    line: usize,
    settings: Vec<(&'static str, usize)>,
}

impl Place {
    /// The table at `line` of `file`, with the lines of its settings.
    #[must_use]
    pub const fn new(file: PathBuf, line: usize, settings: Vec<(&'static str, usize)>) -> Self {
        Self {
            file,
            line,
            settings,
        }
    }

    /// `FILE:LINE` of a setting; of the table, where it does not say it.
    #[must_use]
    pub fn of(&self, setting: &str) -> String {
        let found = self.settings.iter().find(|(name, _)| *name == setting);
        let line = found.map_or(self.line, |(_, line)| *line);
        format!("{}:{line}", self.file.display())
    }
}

impl fmt::Display for Place {
    /// `FILE:LINE` of the table.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}
