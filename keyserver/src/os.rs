//! What the operating system is asked for directly: where a thread runs and how urgently, that nobody
//! may look into the process, and that connections wait with it until they say something.
//!
//! The one file of the daemon with `unsafe`: neither the standard library nor nix nor socket2 offers `getpriority`,
//! `setpriority`, `sched_setattr`, `TCP_DEFER_ACCEPT` and `SO_RCVLOWAT`.

use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::{Pid, gettid};

/// How nice a crypto thread is to the I/O threads that share its CPU: a reply that is ready goes
/// out before the next operation starts.
const CRYPTO_NICE: i32 = 5;

/// How nice a thread is that does what nobody waits for, on CPUs that serve: a tenth of what a crypto thread gets.
const BACKGROUND_NICE: i32 = 15;

/// The time slice of an I/O thread. Its turns take some 10 to 100 us and what it brings is waited
/// for. The scheduler runs a task that wakes up at once when its slice is shorter than that of the
/// running one, which otherwise keeps the CPU for 3 ms or so.
const IO_SLICE: Duration = Duration::from_micros(100);

/// From here on the kernel makes no core dump of this process, and lets nobody but root trace it or read its
/// memory. A limit on the size of core dumps is no such promise: where `core_pattern` is a pipe, it does not count.
pub(crate) fn forbid_dumps() {
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        tracing::warn!(%error, "the system may dump the memory of this process, which holds keys");
    }
}

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
    pin_thread(cpu);
    if let Err(error) = set_thread_nice(CRYPTO_NICE) {
        tracing::debug!(%error, "crypto thread keeps its priority");
    }
}

/// Lowers the priority of the calling thread below that of all that serve. A wish, too.
pub(crate) fn settle_background_thread() {
    if let Err(error) = set_thread_nice(BACKGROUND_NICE) {
        tracing::debug!(%error, "a thread in the background keeps its priority");
    }
}

/// Pins the calling thread to `cpu`, if one is given, and asks for short slices. Wishes, too: kernels
/// before 6.12 take the second call and change nothing.
pub(crate) fn settle_io_thread(cpu: Option<usize>) {
    pin_thread(cpu);
    if let Err(error) = set_thread_slice(IO_SLICE) {
        tracing::debug!(%error, "I/O thread keeps its time slice");
    }
}

fn pin_thread(cpu: Option<usize>) {
    let Some(cpu) = cpu else { return };
    let mut set = CpuSet::new();
    let pinned = set
        .set(cpu)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
    if let Err(error) = pinned {
        tracing::debug!(cpu, %error, "the thread is not pinned");
    }
}

#[expect(
    unsafe_code,
    reason = "no safe bindings of getpriority and sched_setattr exist"
)]
fn set_thread_slice(slice: Duration) -> std::io::Result<()> {
    let size = u32::try_from(size_of::<libc::sched_attr>()).map_err(std::io::Error::other)?;
    // SAFETY: getpriority takes two integers and touches no memory of ours. 0 is the calling
    // thread, so it cannot fail, and whatever it returns is what the thread keeps.
    let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    let attributes = libc::sched_attr {
        size,
        sched_policy: libc::SCHED_OTHER.unsigned_abs(),
        sched_flags: 0,
        sched_nice: nice,
        sched_priority: 0,
        // For an ordinary thread, the length of its slice in nanoseconds.
        sched_runtime: u64::try_from(slice.as_nanos()).map_err(std::io::Error::other)?,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: sched_setattr reads `size` bytes at the pointer, which is a structure of that size
    // that lives until the call returns, and keeps nothing of it. 0 is the calling thread, and the
    // last 0 says that there are no flags.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

/// Leaves the connections of a listening TCP socket with the kernel until their first byte is there, or until about
/// so long has passed: it counts in repeats of its own greeting, after 1, 3, 7, 15 seconds and so on (tcp(7)).
///
/// # Errors
///
/// It is no TCP socket.
pub(crate) fn defer_accept(listener: &impl AsRawFd, time: Duration) -> std::io::Result<()> {
    let seconds = libc::c_int::try_from(time.as_secs()).unwrap_or(libc::c_int::MAX);
    set_option(listener, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, seconds)
}

/// A connected TCP socket counts as readable once so many bytes are there, or nothing more will come. What is there is
/// read all the same by a read that does not wait.
///
/// # Errors
///
/// The descriptor is not that of a socket.
pub(crate) fn set_low_water(socket: &impl AsRawFd, bytes: usize) -> std::io::Result<()> {
    let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    set_option(socket, libc::SOL_SOCKET, libc::SO_RCVLOWAT, bytes)
}

#[expect(
    unsafe_code,
    reason = "no safe binding of TCP_DEFER_ACCEPT and SO_RCVLOWAT exists"
)]
fn set_option(
    socket: &impl AsRawFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> std::io::Result<()> {
    let size = libc::socklen_t::try_from(size_of_val(&value)).map_err(std::io::Error::other)?;
    // SAFETY: setsockopt reads `size` bytes at the pointer, which is an integer of that size that lives until the call
    // returns, and keeps nothing of it. Of a descriptor that is none it says so.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
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

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;

    use super::*;

    /// What a connection has to say that may be kept back: nothing for a while.
    async fn says(socket: &TcpStream) -> Option<usize> {
        let wait = Duration::from_millis(50);
        timeout(wait, socket.readable()).await.ok()?.expect("ready");
        let count = socket.try_read(&mut [0; 8]).expect("bytes");
        // Until it has said that there is no more, readiness is not asked for again.
        let more = socket.try_read(&mut [0; 8]);
        assert!(!matches!(more, Ok(1..)), "{more:?}");
        Some(count)
    }

    #[tokio::test]
    async fn less_than_the_low_water_mark_is_left_with_the_kernel() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let address = listener.local_addr().expect("bound");
        let mut peer = std::net::TcpStream::connect(address).expect("connects");
        peer.set_nodelay(true).expect("set");
        let (socket, _) = listener.accept().await.expect("accepts");
        // A new one counts as ready until it has said that it is not.
        (socket.try_read(&mut [0; 8])).expect_err("nothing is there");

        set_low_water(&socket, 5).expect("set");
        peer.write_all(b"four").expect("sent");
        assert_eq!(says(&socket).await, None);
        peer.write_all(b"5").expect("sent");
        assert_eq!(says(&socket).await, Some(5));
        // What the kernel kept back is there at once when it is wanted.
        peer.write_all(b"four").expect("sent");
        assert_eq!(says(&socket).await, None);
        set_low_water(&socket, 1).expect("set");
        assert_eq!(says(&socket).await, Some(4));
        // And when nothing more will come.
        set_low_water(&socket, 5).expect("set");
        peer.write_all(b"end").expect("sent");
        assert_eq!(says(&socket).await, None);
        drop(peer);
        assert_eq!(says(&socket).await, Some(3));
        assert_eq!(says(&socket).await, Some(0));
    }
}
