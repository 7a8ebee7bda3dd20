//! The daemon's entry point. Everything is in the library, so that tests can start it.

use std::process::ExitCode;

fn main() -> ExitCode {
    keyserver::commands::main()
}
