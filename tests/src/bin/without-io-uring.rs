//! `without-io-uring COMMAND [ARGUMENT]...`: runs a command that may not create an io_uring, as in
//! a container whose seccomp profile forbids it.
//!
//! `io_uring_setup` fails with `EPERM`; everything else is as before. The filter and the
//! no-new-privileges flag it needs survive the `exec`.

use std::collections::BTreeMap;
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
    eprintln!("without-io-uring: {error}");
    ExitCode::FAILURE
}

/// Becomes the command; returns only when that fails.
fn run() -> Result<std::convert::Infallible, Box<dyn Error>> {
    let mut arguments = env::args_os().skip(1);
    let program = arguments.next().ok_or("name the command to run")?;
    let eperm = u32::try_from(libc::EPERM)?;
    let filter = SeccompFilter::new(
        BTreeMap::from([(libc::SYS_io_uring_setup, vec![])]),
        SeccompAction::Allow,
        SeccompAction::Errno(eperm),
        env::consts::ARCH.try_into()?,
    )?;
    let program_text: BpfProgram = filter.try_into()?;
    apply_filter(&program_text)?;
    Err(Command::new(program).args(arguments).exec().into())
}
