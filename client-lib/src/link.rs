//! Making a connection: TCP, the TLS handshake, and the first question.
//! See [`crate::capabilities`] for what the question is.

use std::io;
use std::time::Duration;

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

async fn attempt(target: &Target) -> Result<Established, Error> {
    let mut connection = Connection::new(&target.identity, &target.server_name)?;
    let mut stream = TcpStream::connect(&target.address).await.map_err(|error| {
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
