//! One question over a connection of its own, made and closed for it: for what is bound to the connection.
//!
//! The multiplexed connections drive rustls through its unbuffered interface, which gives no exporter; this one does not.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use keyless_protocol::delegation::{EXPORTER_LABEL, EXPORTER_LEN};
use keyless_protocol::{HEADER_LEN, Header};
use rustls::{ClientConnection, ProtocolVersion, StreamOwned};

use super::identity::{TlsIdentity, tls_error};
use crate::error::Error;
use crate::link::share_of;
use crate::settings::LONGEST;

/// Makes the frame of a question from the connection's exporter.
pub(crate) type Ask<'a> = &'a dyn Fn(&[u8; EXPORTER_LEN]) -> Result<Vec<u8>, Error>;

/// Connects to `address`, asks, and gives the first frame that comes back.
pub(crate) fn once(
    identity: &TlsIdentity,
    server_name: &str,
    address: &str,
    limit: Duration,
    ask: Ask<'_>,
) -> Result<Vec<u8>, Error> {
    let deadline = Instant::now() + limit.min(LONGEST);
    let name = TlsIdentity::server_name(server_name)?;
    let socket = connect(address, deadline)?;
    let tls = ClientConnection::new(identity.config(), name).map_err(tls_error)?;
    let mut stream = StreamOwned::new(tls, socket);
    while stream.conn.is_handshaking() {
        let during = "shaking hands";
        patience(&stream.sock, during, deadline)?;
        (stream.conn.complete_io(&mut stream.sock)).map_err(|error| failed(during, error))?;
    }
    if stream.conn.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
        return Err(Error::Refused(keyless_protocol::ErrorCode::BadOpcode));
    }
    let exporter = (stream.conn)
        .export_keying_material([0; EXPORTER_LEN], EXPORTER_LABEL, None)
        .map_err(tls_error)?;
    let question = ask(&exporter)?;
    stream
        .write_all(&question)
        .map_err(|error| failed("sending requests", error))?;
    let mut frame = vec![0; HEADER_LEN];
    read(&mut stream, &mut frame, deadline)?;
    if let Some(head) = frame.first_chunk() {
        let length = usize::from(Header::decode(head).body_len);
        frame.resize(HEADER_LEN + length, 0);
    }
    read(
        &mut stream,
        frame.get_mut(HEADER_LEN..).unwrap_or_default(),
        deadline,
    )?;
    stream.conn.send_close_notify();
    // Nobody waits for the outcome: the answer is here.
    let _: io::Result<_> = stream.conn.complete_io(&mut stream.sock);
    Ok(frame)
}

fn connect(address: &str, deadline: Instant) -> Result<TcpStream, Error> {
    let failed = |error: io::Error| {
        let text = format!("{address}: {error}");
        Error::network("connecting", io::Error::new(error.kind(), text))
    };
    let found: Vec<_> = address.to_socket_addrs().map_err(failed)?.collect();
    connect_to(&found, deadline).map_err(failed)
}

/// An address that swallows packets costs its share of the time only.
fn connect_to(addresses: &[SocketAddr], deadline: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for (tried, address) in addresses.iter().enumerate() {
        let share = share_of(deadline, Instant::now(), addresses.len() - tried);
        match TcpStream::connect_timeout(address, share.max(Duration::from_millis(1))) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// What is left of the time, for the next call into the socket.
fn patience(socket: &TcpStream, during: &'static str, deadline: Instant) -> Result<(), Error> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(Error::network(during, too_late()));
    }
    let left = Some(left);
    (socket.set_read_timeout(left))
        .and_then(|()| socket.set_write_timeout(left))
        .map_err(|error| Error::network("setting up the socket", error))
}

fn read(
    stream: &mut StreamOwned<ClientConnection, TcpStream>,
    mut into: &mut [u8],
    deadline: Instant,
) -> Result<(), Error> {
    let during = "waiting for answers";
    while !into.is_empty() {
        patience(&stream.sock, during, deadline)?;
        match stream.read(into) {
            Ok(0) => return Err(Error::lost(during, "the server closed the connection")),
            Ok(count) => into = into.get_mut(count..).unwrap_or_default(),
            Err(error) => return Err(failed(during, error)),
        }
    }
    Ok(())
}

fn too_late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer in time")
}

/// An error of the stream: of TLS where that is inside, and of time where the socket had nothing.
fn failed(during: &'static str, error: io::Error) -> Error {
    let of_tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match of_tls {
        Some(tls) => tls_error(tls.clone()),
        None if error.kind() == io::ErrorKind::WouldBlock => Error::network(during, too_late()),
        None => Error::network(during, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_swallows_packets_costs_its_share_of_the_time() {
        let (silent, _full) = crate::silent::address().await;
        let good = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
        let addresses = [silent, good.local_addr().expect("bound")];
        let begun = Instant::now();
        let stream = connect_to(&addresses, begun + Duration::from_secs(4)).expect("connects");
        assert_eq!(stream.peer_addr().expect("peer"), addresses[1]);
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(1900), "{took:?}: not silent");
        assert!(took < Duration::from_secs(4), "{took:?}");
    }
}
