//! `allow-only NUMBER,NUMBER,... COMMAND [ARGUMENT]...`: runs a command that may make these system
//! calls and no others, as under `SystemCallFilter=` of a systemd unit.
//!
//! Every other call fails with `EPERM`.

use std::env::{ArgsOs, consts};
use std::process::ExitCode;

use confined::Fault;
use nix::libc;
use seccompiler::{SeccompAction, SeccompFilter};

fn main() -> ExitCode {
    confined::become_command("allow-only", filter)
}

fn filter(arguments: &mut ArgsOs) -> Result<SeccompFilter, Fault> {
    let numbers = arguments.next().ok_or("name the system calls to allow")?;
    let numbers = numbers
        .into_string()
        .map_err(|_| "the numbers are not text")?;
    let allowed = numbers
        .split(',')
        .map(|number| Ok((number.parse()?, vec![])))
        .collect::<Result<_, Fault>>()?;
    Ok(SeccompFilter::new(
        allowed,
        SeccompAction::Errno(u32::try_from(libc::EPERM)?),
        SeccompAction::Allow,
        consts::ARCH.try_into()?,
    )?)
}
