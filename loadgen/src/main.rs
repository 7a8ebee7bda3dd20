//! The `loadgen` program; everything is in the library, so that tests can use it.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(loadgen::main(std::env::args_os()))
}
