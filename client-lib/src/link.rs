//! Making a connection: TCP, the TLS handshake, and the first question.
//! See [`crate::capabilities`] for what the question is.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use keyless_protocol::{Opcode, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::calls::OWN_ID;
use crate::capabilities::Capabilities;
use crate::conn::Connection;
use crate::error::Error;
use crate::tls::TlsIdentity;

/// Where to connect, as whom, and how long to try.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) address: String,
    pub(crate) server_name: String,
    pub(crate) identity: TlsIdentity,
    pub(crate) connect_limit: Duration,
    pub(crate) silence: Duration,
    /// The longest wait between two attempts.
    pub(crate) wait_longest: Duration,
}

/// A connection that has proven to work.
#[derive(Debug)]
pub(crate) struct Established {
    pub(crate) stream: TcpStream,
    pub(crate) connection: Connection,
    pub(crate) capabilities: Capabilities,
}

/// Connects within the target's limit.
pub(crate) async fn establish(target: &Target) -> Result<Established, Error> {
    match tokio::time::timeout(target.connect_limit, attempt(target)).await {
        Ok(result) => result,
        Err(_) => Err(Error::network(
            "connecting",
            io::Error::new(
                io::ErrorKind::TimedOut,
                format!(
                    "{} did not complete a connection within {} ms",
                    target.address,
                    target.connect_limit.as_millis()
                ),
            ),
        )),
    }
}

/// Connects to the first address of the target's name that takes it.
async fn connect(target: &Target) -> io::Result<TcpStream> {
    let until = Instant::now() + target.connect_limit;
    let addresses: Vec<_> = tokio::net::lookup_host(&target.address).await?.collect();
    connect_to(&addresses, until).await
}

/// An address that swallows packets costs its share of the time only.
async fn connect_to(addresses: &[SocketAddr], until: Instant) -> io::Result<TcpStream> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for (tried, address) in addresses.iter().enumerate() {
        let share = share_of(until, Instant::now(), addresses.len() - tried);
        failure = match tokio::time::timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => error,
            Err(_) => io::Error::new(io::ErrorKind::TimedOut, format!("{address} is silent")),
        };
    }
    Err(failure)
}

/// The part of the time until then that the first of so many addresses may use.
pub(crate) fn share_of(until: Instant, now: Instant, addresses: usize) -> Duration {
    let left = until.saturating_duration_since(now);
    left / u32::try_from(addresses.max(1)).unwrap_or(u32::MAX)
}

async fn attempt(target: &Target) -> Result<Established, Error> {
    let mut connection = Connection::new(&target.identity, &target.server_name)?;
    let mut stream = connect(target).await.map_err(|error| {
        let kind = error.kind();
        Error::network(
            "connecting",
            io::Error::new(kind, format!("{}: {error}", target.address)),
        )
    })?;
    stream
        .set_nodelay(true)
        .map_err(|error| Error::network("setting up the socket", error))?;
    connection.submit(&Request::new(OWN_ID, Opcode::ServerInfo))?;
    let mut out = Vec::new();
    loop {
        send(&mut stream, &mut connection, &mut out).await?;
        let read = stream.read(connection.read_space()).await;
        let read = read.map_err(|error| Error::network("shaking hands", error))?;
        if read == 0 || connection.peer_has_closed() {
            return Err(Error::lost(
                "shaking hands",
                "the server closed the connection",
            ));
        }
        if let Err(error) = connection.received(read) {
            // Tell the server why; whether it still listens does not matter.
            let _ = send(&mut stream, &mut connection, &mut out).await;
            return Err(error);
        }
        let capabilities = connection.next_reply().as_ref().map(Capabilities::of);
        if let Some(capabilities) = capabilities {
            return Ok(Established {
                stream,
                connection,
                capabilities,
            });
        }
        if let Some(error) = connection.failure() {
            return Err(error.clone());
        }
    }
}

async fn send(
    stream: &mut TcpStream,
    connection: &mut Connection,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    out.clear();
    if connection.transmit(out)? == 0 {
        return Ok(());
    }
    stream
        .write_all(out)
        .await
        .map_err(|error| Error::network("shaking hands", error))
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
        let stream = connect_to(&addresses, begun + Duration::from_secs(4)).await;
        assert_eq!(
            stream.expect("connects").peer_addr().expect("peer"),
            addresses[1]
        );
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(1900), "{took:?}: not silent");
        assert!(took < Duration::from_secs(4), "{took:?}");
        let error = connect_to(&addresses[..1], Instant::now() + Duration::from_millis(100)).await;
        assert_eq!(error.expect_err("silent").kind(), io::ErrorKind::TimedOut);
    }
}
