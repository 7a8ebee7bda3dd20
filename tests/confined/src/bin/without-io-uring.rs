//! `without-io-uring COMMAND [ARGUMENT]...`: runs a command that may not create an io_uring, as in
//! a container whose seccomp profile forbids it.
//!
//! `io_uring_setup` fails with `EPERM`; everything else is as before.

use std::collections::BTreeMap;
use std::env::{ArgsOs, consts};
use std::process::ExitCode;

use confined::Fault;
use nix::libc;
use seccompiler::{SeccompAction, SeccompFilter};

fn main() -> ExitCode {
    confined::become_command("without-io-uring", filter)
}

fn filter(_: &mut ArgsOs) -> Result<SeccompFilter, Fault> {
    Ok(SeccompFilter::new(
        BTreeMap::from([(libc::SYS_io_uring_setup, vec![])]),
        SeccompAction::Allow,
        SeccompAction::Errno(u32::try_from(libc::EPERM)?),
        consts::ARCH.try_into()?,
    )?)
}
