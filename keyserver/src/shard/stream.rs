//! The one thing that the two I/O backends do differently: moving bytes between a socket and a
//! buffer that the operation owns while it runs.
//!
//! Owned buffers are what io_uring needs, since the kernel writes into them after the call has
//! returned; a readiness backend loses nothing by them.

use std::future::Future;
use std::io;
use std::net::Shutdown;

/// A connected socket. Reads and writes may be in flight at the same time, one of each.
pub(crate) trait Stream: Sized + 'static {
    /// Takes over a connected, non-blocking socket. Called on the I/O thread.
    ///
    /// # Errors
    ///
    /// The backend could not register the socket.
    fn from_std(socket: std::net::TcpStream) -> io::Result<Self>;

    /// Reads what is there, up to the capacity of `buffer`, into its beginning. 0 is end of file.
    fn read(&self, buffer: Vec<u8>) -> impl Future<Output = (io::Result<usize>, Vec<u8>)>;

    /// The kernel is to keep what comes, and reads to wait, until so many bytes are there or the peer has ended; 1 from
    /// the start.
    fn wait_for(&self, bytes: usize);

    /// Writes all of `buffer`.
    fn write_all(&self, buffer: Vec<u8>) -> impl Future<Output = (io::Result<()>, Vec<u8>)>;

    /// Closes one or both directions. A read in flight then ends, which is the only safe way to
    /// end one: a stream that is dropped under its own read is never closed by tokio-uring.
    fn shutdown(&self, how: Shutdown);
}
