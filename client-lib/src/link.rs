//! Making a connection: TCP, the TLS handshake, and the first question.
//!
//! The first question is for the server information (0x47). Its answer tells two things at once.
//! With TLS 1.3 a server judges the client's certificate after the handshake is over for the
//! client, so only an answer proves that it was let in. And a stock server answers error 5: then
//! nothing beyond version 1 of the protocol is sent to it.

use std::io;
use std::time::Duration;

use keyless_protocol::{ErrorCode, Opcode, Request, ServerInfo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::calls::OWN_ID;
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
}

/// A connection that has proven to work.
#[derive(Debug)]
pub(crate) struct Established {
    pub(crate) stream: TcpStream,
    pub(crate) connection: Connection,
    /// The server understands our additions to the protocol.
    pub(crate) extended: bool,
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
        if let Some(extended) = answer(&mut connection) {
            return Ok(Established {
                stream,
                connection,
                extended,
            });
        }
        if let Some(error) = connection.failure() {
            return Err(error.clone());
        }
    }
}

/// Whether the first question has been answered, and by which kind of server.
fn answer(connection: &mut Connection) -> Option<bool> {
    let reply = connection.next_reply()?;
    Some(match reply.outcome {
        Ok(document) => ServerInfo::decode(document).is_ok(),
        Err(ErrorCode::BadOpcode) => false,
        // Busy, draining, broken: nothing is known, and nothing extra will be sent.
        Err(_) => false,
    })
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
