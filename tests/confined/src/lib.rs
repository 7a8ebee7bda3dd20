//! What the programs of this package have in common: each becomes another program under a filter of system calls.

use std::convert::Infallible;
use std::env::{self, ArgsOs};
use std::error::Error;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use seccompiler::{BpfProgram, SeccompFilter, apply_filter};

/// What keeps a program from running another.
pub type Fault = Box<dyn Error>;

/// Becomes the command that the arguments of `program` name, under the filter that `filter` makes of those before it. The
/// filter and the no-new-privileges flag it needs survive the `exec`. Returns only when that fails, having said why.
#[expect(
    clippy::print_stderr,
    reason = "the only place to say why the command did not start"
)]
pub fn become_command(
    program: &str,
    filter: impl FnOnce(&mut ArgsOs) -> Result<SeccompFilter, Fault>,
) -> ExitCode {
    let Err(error) = confine(filter);
    eprintln!("{program}: {error}");
    ExitCode::FAILURE
}

fn confine(
    filter: impl FnOnce(&mut ArgsOs) -> Result<SeccompFilter, Fault>,
) -> Result<Infallible, Fault> {
    let mut arguments = env::args_os();
    arguments.next();
    let filter: BpfProgram = filter(&mut arguments)?.try_into()?;
    let command = arguments.next().ok_or("name the command to run")?;
    apply_filter(&filter)?;
    Err(Command::new(command).args(arguments).exec().into())
}
