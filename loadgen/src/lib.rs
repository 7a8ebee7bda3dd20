#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod arrival;
pub mod assess;
pub mod bootstrap;
pub mod cli;
pub mod clock;
pub mod collect;
mod drive;
pub mod error;
pub mod host;
pub mod keys;
pub mod mix;
pub mod progress;
pub mod random;
pub mod record;
pub mod report;
pub mod run;
pub mod slo;
mod survey;
pub mod units;
pub mod verify;
pub mod workload;

use std::ffi::OsString;
use std::io::{self, Write as _};

use clap::Parser as _;

use cli::{Cli, Command, Format, RunArgs};
use error::{EXIT_MET, EXIT_USAGE, RunError};
use host::Host;

/// The program: parses the arguments, runs the command, writes the result. Returns the exit status.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let Cli {
        command: Command::Run(args),
    } = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way, too, and are no mistakes. A closed pipe is nobody to tell.
            let _ = error.print();
            return if error.use_stderr() {
                EXIT_USAGE
            } else {
                EXIT_MET
            };
        }
    };
    match run_command(&args) {
        Ok(status) => status,
        Err(error) => {
            let _ = writeln!(io::stderr(), "loadgen: {error}");
            error.exit_status()
        }
    }
}

fn run_command(args: &RunArgs) -> Result<u8, RunError> {
    args.check().map_err(RunError::Usage)?;
    if let Some(directory) = &args.out {
        report::check_directory(directory).map_err(RunError::Usage)?;
    }
    let outcome = run::run(args)?;
    let host = Host::read();
    let assessment = assess::assess(args, &outcome, &host.clocksource);
    let page = report::page(args, &outcome, &assessment);
    let document = report::Document::new(args, &outcome, &assessment, host);
    if let Some(directory) = &args.out {
        report::write_files(directory, args, &outcome, &document, &page)
            .map_err(RunError::System)?;
    }
    let text = match args.format {
        Format::Json => {
            serde_json::to_string_pretty(&document)
                .map_err(|error| RunError::System(error.to_string()))?
                + "\n"
        }
        Format::Text => page,
    };
    io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| RunError::System(format!("cannot write the result: {error}")))?;
    Ok(assessment.exit_status)
}
