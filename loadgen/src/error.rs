//! Why a run ends without a result, and the exit status of every end.

use std::fmt;

/// Exit status: done, every objective met.
pub const EXIT_MET: u8 = 0;
/// Exit status: an objective was missed.
pub const EXIT_SLO_MISSED: u8 = 1;
/// Exit status: a mistake in the command line or in the files it names.
pub const EXIT_USAGE: u8 = 2;
/// Exit status: the measurement is not valid.
pub const EXIT_NOT_VALID: u8 = 3;
/// Exit status: the target refused us, answered wrongly, or answered too often with errors.
pub const EXIT_TARGET: u8 = 4;
/// Exit status: interrupted by a signal.
pub const EXIT_INTERRUPTED: u8 = 130;

/// Why there is no result.
#[derive(Debug)]
pub enum RunError {
    /// Interrupted before anything was measured, or twice.
    Interrupted,
    /// This machine refused something: a thread, a socket, a timer.
    System(String),
    /// The target could not be reached or did not let us in.
    Target(String),
    /// The command line, or a file it names, is wrong.
    Usage(String),
}

impl RunError {
    /// The exit status that tells it.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Interrupted => EXIT_INTERRUPTED,
            // The machine's limits are settings, and the message says which.
            Self::System(_) | Self::Usage(_) => EXIT_USAGE,
            Self::Target(_) => EXIT_TARGET,
        }
    }
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interrupted => f.write_str("interrupted"),
            Self::System(what) | Self::Usage(what) => f.write_str(what),
            Self::Target(what) => write!(f, "target {what}"),
        }
    }
}

impl std::error::Error for RunError {}
