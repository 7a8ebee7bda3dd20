//! What the operating system is asked for directly: where a thread runs and how urgently.
//!
//! The one file of the daemon with `unsafe`: neither the standard library nor nix offers
//! `setpriority`.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::{Pid, gettid};

/// How nice a crypto thread is to the I/O threads that share its CPU: a reply that is ready goes
/// out before the next operation starts.
const CRYPTO_NICE: i32 = 5;

/// The CPUs that this process may use, in order.
pub(crate) fn allowed_cpus() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(Pid::from_raw(0)) else {
        return Vec::new();
    };
    (0..CpuSet::count())
        .filter(|cpu| set.is_set(*cpu).unwrap_or(false))
        .collect()
}

/// Pins the calling thread to `cpu`, if one is given, and lowers its priority. Both are wishes: a
/// sandbox that refuses them costs some latency and nothing else.
pub(crate) fn settle_crypto_thread(cpu: Option<usize>) {
    if let Some(cpu) = cpu {
        let mut set = CpuSet::new();
        let pinned = set
            .set(cpu)
            .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
        if let Err(error) = pinned {
            tracing::debug!(cpu, %error, "crypto thread is not pinned");
        }
    }
    if let Err(error) = set_thread_nice(CRYPTO_NICE) {
        tracing::debug!(%error, "crypto thread keeps its priority");
    }
}

#[expect(unsafe_code, reason = "no safe binding of setpriority exists")]
fn set_thread_nice(nice: i32) -> std::io::Result<()> {
    let thread = u32::try_from(gettid().as_raw()).map_err(std::io::Error::other)?;
    // SAFETY: setpriority takes three integers and touches no memory of ours. On Linux,
    // PRIO_PROCESS with a thread id changes that thread alone; ours exists, since it is calling.
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, thread, nice) };
    if result == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}
