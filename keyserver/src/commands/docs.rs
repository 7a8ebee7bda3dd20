//! Completions, manual pages and the version: what the binary says about itself.

use std::fs;
use std::path::Path;

use super::{Failure, output};

/// The completion script of `command` for `shell`.
#[must_use]
pub fn completions(shell: clap_complete::Shell, command: &mut clap::Command) -> String {
    let mut script = Vec::new();
    let name = command.get_name().to_owned();
    clap_complete::generate(shell, command, name, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Prints the manual page of `command`, or writes those of all its commands to `directory`.
///
/// # Errors
///
/// The directory cannot be written to.
pub fn man(command: &clap::Command, directory: Option<&Path>) -> Result<(), Failure> {
    let Some(directory) = directory else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command.clone())
            .render(&mut page)
            .map_err(Failure::run)?;
        output::print(&String::from_utf8_lossy(&page));
        return Ok(());
    };
    fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(command.clone(), directory))
        .map_err(|error| {
            Failure::run(format!(
                "manual pages cannot be written to {}: {error}",
                directory.display()
            ))
        })
}

/// A few lines about this build.
pub(crate) fn version() -> String {
    let io = if cfg!(feature = "uring") {
        "io_uring, epoll"
    } else {
        "epoll"
    };
    let trial = if cfg!(feature = "trial") { "yes" } else { "no" };
    format!(
        "keyserver {}\nprotocol   1.0\nio         {io}\ntrial      {trial} (demo, init)\ntarget     {}-{}\n",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::ARCH,
        std::env::consts::OS,
    )
}
