//! The readiness backend: plain tokio. It runs everywhere, containers included.

use std::cell::Cell;
use std::io;
use std::net::Shutdown;

use tokio::net::TcpStream;

use super::stream::Stream;
use crate::{limits, os};

/// A socket of tokio's that lets others go on.
///
/// While bytes come as fast as they are read, a read of tokio's never waits, and its task would have the thread for as
/// long as that lasts: 64 KiB in records of one byte take half a millisecond to decrypt, and bring less than a request.
pub(crate) struct Polled {
    stream: TcpStream,
    /// Bytes read since others had the thread.
    read: Cell<usize>,
}

impl Stream for Polled {
    fn from_std(socket: std::net::TcpStream) -> io::Result<Self> {
        Ok(Self {
            stream: TcpStream::from_std(socket)?,
            read: Cell::new(0),
        })
    }

    async fn read(&self, mut buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        buffer.clear();
        if self.read.get() >= limits::READ_BYTES {
            self.read.set(0);
            tokio::task::yield_now().await;
        }
        loop {
            if let Err(error) = self.stream.readable().await {
                return (Err(error), buffer);
            }
            match self.stream.try_read_buf(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.read.set(0),
                result => {
                    let read = *result.as_ref().unwrap_or(&0);
                    self.read.set(self.read.get() + read);
                    return (result, buffer);
                }
            }
        }
    }

    fn wait_for(&self, bytes: usize) {
        // Fails only where the socket is of no use any more, which the next read will tell.
        let _ = os::set_low_water(&self.stream, bytes);
    }

    async fn write_all(&self, buffer: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        let mut rest = buffer.as_slice();
        while !rest.is_empty() {
            // The socket has room nearly always: try before asking.
            match self.stream.try_write(rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if let Err(error) = self.stream.writable().await {
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
        let _ = socket2::SockRef::from(&self.stream).shutdown(how);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[tokio::test]
    async fn others_go_on_while_there_is_always_more_to_read() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        accepted.set_nonblocking(true).unwrap();
        peer.set_nonblocking(true).unwrap();
        let mut written = 0;
        let bytes = vec![7; limits::READ_BYTES];
        while let Ok(more) = peer.write(&bytes) {
            written += more;
        }
        assert!(written >= 8 * limits::READ_BYTES, "{written}");

        let stream = Polled::from_std(accepted).unwrap();
        let turns_of_others = Cell::new(0);
        let reads = async {
            let mut buffer = Vec::with_capacity(limits::READ_BYTES);
            let mut rest = 4 * limits::READ_BYTES;
            while rest > 0 {
                let result;
                (result, buffer) = stream.read(buffer).await;
                rest = rest.saturating_sub(result.unwrap());
            }
        };
        let others = async {
            loop {
                turns_of_others.set(turns_of_others.get() + 1);
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            () = reads => {}
            () = others => {}
        }
        assert!(turns_of_others.get() >= 3, "{turns_of_others:?}");
    }
}
