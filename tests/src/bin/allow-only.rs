//! `allow-only NUMBER,NUMBER,... COMMAND [ARGUMENT]...`: runs a command that may make these system
//! calls and no others, as under `SystemCallFilter=` of a systemd unit.
//!
//! Every other call fails with `EPERM`. The filter and the no-new-privileges flag it needs survive
//! the `exec`.

use std::env;
use std::error::Error;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use nix::libc;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

#[expect(
    clippy::print_stderr,
    reason = "the only place to say why the command did not start"
)]
fn main() -> ExitCode {
    let Err(error) = run();
    eprintln!("allow-only: {error}");
    ExitCode::FAILURE
}

/// Becomes the command; returns only when that fails.
fn run() -> Result<std::convert::Infallible, Box<dyn Error>> {
    let mut arguments = env::args_os().skip(1);
    let numbers = arguments.next().ok_or("name the system calls to allow")?;
    let numbers = numbers
        .into_string()
        .map_err(|_| "the numbers are not text")?;
    let program = arguments.next().ok_or("name the command to run")?;
    let allowed = numbers
        .split(',')
        .map(|number| Ok((number.parse()?, vec![])))
        .collect::<Result<_, Box<dyn Error>>>()?;
    let filter = SeccompFilter::new(
        allowed,
        SeccompAction::Errno(u32::try_from(libc::EPERM)?),
        SeccompAction::Allow,
        env::consts::ARCH.try_into()?,
    )?;
    let program_text: BpfProgram = filter.try_into()?;
    apply_filter(&program_text)?;
    Err(Command::new(program).args(arguments).exec().into())
}
