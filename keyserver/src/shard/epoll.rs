//! The readiness backend: plain tokio. It runs everywhere, containers included.

use std::io;
use std::net::Shutdown;

use tokio::net::TcpStream;

use super::stream::Stream;
use crate::os;

impl Stream for TcpStream {
    fn from_std(socket: std::net::TcpStream) -> io::Result<Self> {
        Self::from_std(socket)
    }

    async fn read(&self, mut buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        buffer.clear();
        loop {
            if let Err(error) = self.readable().await {
                return (Err(error), buffer);
            }
            match self.try_read_buf(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return (result, buffer),
            }
        }
    }

    fn wait_for(&self, bytes: usize) {
        // Fails only where the socket is of no use any more, which the next read will tell.
        let _ = os::set_low_water(self, bytes);
    }

    async fn write_all(&self, buffer: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        let mut rest = buffer.as_slice();
        while !rest.is_empty() {
            // The socket has room nearly always: try before asking.
            match self.try_write(rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if let Err(error) = self.writable().await {
                        return (Err(error), buffer);
                    }
                }
                Err(error) => return (Err(error), buffer),
            }
        }
        (Ok(()), buffer)
    }

    fn shutdown(&self, how: Shutdown) {
        // Fails only when the peer has gone already, which is what the caller wants.
        let _ = socket2::SockRef::from(self).shutdown(how);
    }
}
