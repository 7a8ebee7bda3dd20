//! The completion backend: tokio-uring, with the rules that its faults taught.
//!
//! - No accept here: a cancelled `accept()` swallows the next clients. Sockets come from a plain
//!   tokio listener on the control thread.
//! - A stream is dropped only when no read is in flight: `shutdown(Both)`, await the read, drop.
//! - No task on this thread may be ready for ever: submissions happen when the thread parks.
//! - `DEFER_TASKRUN` hangs it; `COOP_TASKRUN`, `TASKRUN_FLAG` and `SINGLE_ISSUER` are always set.
//! - `tokio_uring::start` panics when the kernel refuses the ring; `Runtime::new` returns the error.

use std::io;
use std::net::Shutdown;

use tokio_uring::net::TcpStream;

use super::stream::Stream;
use crate::os;

/// Entries of the submission queue: reads and writes that may be queued between two parks. When it
/// is full the library submits, so this bounds a batch and not the number of connections.
const SUBMISSION_ENTRIES: u32 = 1024;

/// Entries of the completion queue. One read and one write a connection may complete at once; the
/// kernel keeps what overflows, at a cost.
const COMPLETION_ENTRIES: u32 = 8192;

/// Makes the ring of this thread.
///
/// # Errors
///
/// The kernel's answer when it refuses one: `EPERM` under a seccomp filter or the
/// `kernel.io_uring_disabled` sysctl, `ENOSYS` without support, `EINVAL` on a kernel too old for
/// the flags (before 6.0), `ENOMEM` when locked memory is short.
pub(crate) fn runtime() -> io::Result<tokio_uring::Runtime> {
    let mut ring = tokio_uring::uring_builder();
    ring.setup_coop_taskrun()
        .setup_taskrun_flag()
        .setup_single_issuer()
        .setup_cqsize(COMPLETION_ENTRIES);
    tokio_uring::Runtime::new(
        tokio_uring::builder()
            .entries(SUBMISSION_ENTRIES)
            .uring_builder(&ring),
    )
}

impl Stream for TcpStream {
    fn from_std(socket: std::net::TcpStream) -> io::Result<Self> {
        // io_uring waits in the kernel by itself; on a non-blocking socket it would answer EAGAIN.
        socket.set_nonblocking(false)?;
        Ok(Self::from_std(socket))
    }

    async fn read(&self, mut buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        buffer.clear();
        self.read(buffer).await
    }

    fn wait_for(&self, bytes: usize) {
        // Fails only where the socket is of no use any more, which the next read will tell.
        let _ = os::set_low_water(self, bytes);
    }

    async fn write_all(&self, buffer: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        self.write_all(buffer).await
    }

    fn shutdown(&self, how: Shutdown) {
        // Fails only when the peer has gone already, which is what the caller wants.
        let _ = self.shutdown(how);
    }
}
