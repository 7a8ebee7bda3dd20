//! `keyserver tickets`: the secret that session tickets come from.

use std::path::PathBuf;

use super::{Failure, output};
use crate::tickets;

/// The commands of `keyserver tickets`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Make a new master, in a file that is not there yet; give all servers that share sessions the same one
    NewMaster {
        /// The file; only its owner will be able to read it
        file: PathBuf,
    },
}

pub(super) fn run(command: &Command) -> Result<(), Failure> {
    let Command::NewMaster { file } = command;
    tickets::create(file).map_err(Failure::start)?;
    output::line(&format!(
        "Wrote {}. Copy it to every server that shall share sessions, and name it in [tickets] `master`.",
        file.display()
    ));
    Ok(())
}
