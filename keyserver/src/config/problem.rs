//! What is wrong with a configuration, said so that it can be put right.

use std::fmt;
use std::path::{Path, PathBuf};

/// One thing that is wrong, where it stands, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// Line number, from 1, and the text of that line.
    pub line: Option<(usize, String)>,
    /// What is wrong, and what was meant.
    pub what: String,
    /// The next step.
    pub fix: String,
}

/// A configuration that cannot be used: everything that is wrong with it, in file order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

impl ConfigError {
    /// The problems; at least one.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// A configuration with these problems; nothing if there are none.
    pub(super) fn from_problems(mut problems: Vec<Problem>) -> Result<(), Self> {
        if problems.is_empty() {
            return Ok(());
        }
        let line = |problem: &Problem| problem.line.as_ref().map(|(number, _)| *number);
        problems.sort_by(|a, b| (&a.file, line(a)).cmp(&(&b.file, line(b))));
        Err(Self { problems })
    }

    /// A file that cannot be read at all.
    pub(super) fn unreadable(file: &Path, error: &std::io::Error, fix: &str) -> Self {
        let what = format!("cannot be read: {error}");
        let problem = Problem {
            file: file.to_owned(),
            line: None,
            what,
            fix: fix.to_owned(),
        };
        Self {
            problems: vec![problem],
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        match &self.line {
            Some((number, text)) => {
                write!(f, ":{number}: {}\n  {number} | {}", self.what, text.trim())?;
            }
            None => write!(f, ": {}", self.what)?,
        }
        write!(f, "\n  fix: {}", self.fix)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, problem) in self.problems.iter().enumerate() {
            if position > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
