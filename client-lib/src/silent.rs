//! For tests: an address where nobody answers.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// A listener whose queue is full: what asks to connect is dropped, as by a firewall. For as long as what comes with the
/// address is kept.
pub(crate) async fn address() -> (SocketAddr, (TcpListener, Vec<TcpStream>)) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket
        .bind(SocketAddr::from(([127, 0, 0, 1], 0)))
        .expect("binds");
    let listener = socket.listen(1).expect("listens");
    let address = listener.local_addr().expect("bound");
    let mut queued = Vec::new();
    while let Ok(stream) =
        tokio::time::timeout(Duration::from_millis(100), TcpStream::connect(address)).await
    {
        queued.push(stream.expect("is queued"));
        assert!(queued.len() < 16, "the queue has no end");
    }
    (address, (listener, queued))
}
