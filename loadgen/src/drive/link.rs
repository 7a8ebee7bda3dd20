//! One connection of the load: a non-blocking socket, the TLS and framing of the client library, and its slots.
//!
//! Everything gathered in a turn of the loop leaves in one write, and one read takes up to 64 KiB: a system call and a
//! record per request would cost more than the request.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;

use keyless_protocol::{Opcode, Reply, Request};
use keyserver_client::{Connection, TlsIdentity};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::slots::{Pending, Slots};

/// The id of the ping that shows that the server has accepted us. Slots are numbered from 0 and never reach it.
const PROBE_ID: u32 = u32::MAX;

/// Where a connection goes.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// As given on the command line, for messages.
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    /// The name its certificate must have.
    pub(crate) server_name: String,
}

#[derive(Debug)]
enum Stage {
    /// Not connected; to be tried again at this time.
    Down { retry_at_ns: u64 },
    /// The socket connects, TLS shakes hands, and a ping is on its way to show that we are let in.
    Opening { opened_at_ns: u64 },
    /// Ready for requests.
    Up,
}

/// What a read gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// Everything there was; the socket will report when there is more.
    Drained,
    /// A full buffer: there may be more.
    More,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Link {
    endpoint: Endpoint,
    token: Token,
    stage: Stage,
    io: Option<(TcpStream, Connection)>,
    pub(crate) slots: Slots,
    /// Sealed bytes of which the socket has taken the first `written`.
    out: Vec<u8>,
    written: usize,
    failures_in_a_row: u32,
    /// The last reason it went down.
    pub(crate) trouble: Option<String>,
}

impl Link {
    pub(crate) fn new(endpoint: Endpoint, token: Token, in_flight_max: u16) -> Self {
        Self {
            endpoint,
            token,
            stage: Stage::Down { retry_at_ns: 0 },
            io: None,
            slots: Slots::new(in_flight_max),
            out: Vec::new(),
            written: 0,
            failures_in_a_row: 0,
            trouble: None,
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        matches!(self.stage, Stage::Up)
    }

    pub(crate) fn is_opening(&self) -> bool {
        matches!(self.stage, Stage::Opening { .. })
    }

    /// Whether it has been opening since before this time.
    pub(crate) fn is_opening_since(&self, before_ns: u64) -> bool {
        matches!(self.stage, Stage::Opening { opened_at_ns } if opened_at_ns < before_ns)
    }

    pub(crate) fn wants_to_connect(&self, now_ns: u64) -> bool {
        matches!(self.stage, Stage::Down { retry_at_ns } if retry_at_ns <= now_ns)
    }

    pub(crate) fn has_room(&self) -> bool {
        self.is_up() && self.slots.has_room()
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(crate) fn tls_version(&self) -> Option<&'static str> {
        self.io
            .as_ref()
            .and_then(|(_, connection)| connection.tls_version())
    }

    pub(crate) fn key_exchange(&self) -> Option<&'static str> {
        self.io
            .as_ref()
            .and_then(|(_, connection)| connection.key_exchange())
    }

    /// Starts to connect. The first request is a ping of our own: with TLS 1.3 a server judges our certificate only
    /// after the handshake has ended on our side.
    pub(crate) fn open(
        &mut self,
        registry: &Registry,
        identity: &TlsIdentity,
        now_ns: u64,
    ) -> Result<(), String> {
        let connection = Connection::new(identity, &self.endpoint.server_name)
            .map_err(|error| error.to_string())?;
        let mut socket =
            TcpStream::connect(self.endpoint.address).map_err(|error| error.to_string())?;
        // Our writes are whole batches already; waiting for more would only add delay.
        socket
            .set_nodelay(true)
            .map_err(|error| error.to_string())?;
        registry
            .register(
                &mut socket,
                self.token,
                Interest::READABLE | Interest::WRITABLE,
            )
            .map_err(|error| error.to_string())?;
        self.io = Some((socket, connection));
        self.stage = Stage::Opening {
            opened_at_ns: now_ns,
        };
        self.submit(&Request::new(PROBE_ID, Opcode::Ping))
    }

    /// Gathers a request for the next [`Self::flush`].
    pub(crate) fn submit(&mut self, request: &Request<'_>) -> Result<(), String> {
        match &mut self.io {
            Some((_, connection)) => connection
                .submit(request)
                .map_err(|error| error.to_string()),
            None => Err("not connected".to_owned()),
        }
    }

    /// Whether [`Self::flush`] has something to do.
    pub(crate) fn wants_flush(&self) -> bool {
        self.io
            .as_ref()
            .is_some_and(|(_, connection)| connection.wants_transmit())
    }

    /// Seals what was gathered and writes what the socket takes. What it does not take waits, and requests gather
    /// behind it.
    pub(crate) fn flush(&mut self) -> Result<(), String> {
        let Some((socket, connection)) = &mut self.io else {
            return Ok(());
        };
        loop {
            if self.written == self.out.len() {
                self.out.clear();
                self.written = 0;
                if connection
                    .transmit(&mut self.out)
                    .map_err(|error| error.to_string())?
                    == 0
                {
                    return Ok(());
                }
            }
            match socket.write(self.out.get(self.written..).unwrap_or_default()) {
                Ok(written) => self.written += written,
                Err(error) if is_not_ready(&error) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(broken("writing", &error)),
            }
        }
    }

    /// Reads once and passes each reply with its request to `each`, with the time the read returned.
    pub(crate) fn read(
        &mut self,
        now_ns: impl FnOnce() -> u64,
        mut each: impl FnMut(Pending, &Reply<'_>, u64),
    ) -> Result<Read, String> {
        let Some((socket, connection)) = &mut self.io else {
            return Ok(Read::Drained);
        };
        let space = connection.read_space();
        let offered = space.len();
        let length = match socket.read(space) {
            Ok(0) => return Err(closed(connection)),
            Ok(length) => length,
            Err(error) if is_not_ready(&error) => return Ok(Read::Drained),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Read::More),
            Err(error) => return Err(broken("reading", &error)),
        };
        let now_ns = now_ns();
        let fed = connection
            .received(length)
            .map_err(|error| error.to_string());
        while let Some(reply) = connection.next_reply() {
            if reply.id == PROBE_ID {
                if let Err(code) = reply.outcome {
                    return Err(format!("it answered a ping with {code}"));
                }
                self.stage = Stage::Up;
                self.failures_in_a_row = 0;
            } else if let Some(pending) = self.slots.release(reply.id) {
                each(pending, &reply, now_ns);
            }
        }
        fed?;
        if let Some(error) = connection.failure() {
            return Err(error.to_string());
        }
        Ok(if length == offered {
            Read::More
        } else {
            Read::Drained
        })
    }

    /// Drops the connection and plans the next try: at once the first time, then 0.1 s to 3.2 s later.
    pub(crate) fn close(&mut self, registry: &Registry, now_ns: u64, trouble: Option<String>) {
        if let Some((mut socket, mut connection)) = self.io.take() {
            // A last word (an alert, or the close alert) if it fits; the socket is dropped either way.
            connection.close_notify();
            self.out.clear();
            if connection.transmit(&mut self.out).is_ok() {
                let _ = socket.write(&self.out);
            }
            let _ = registry.deregister(&mut socket);
        }
        self.out.clear();
        self.written = 0;
        let wait_ns = match self.failures_in_a_row {
            0 => 0,
            tries => 100_000_000 << (tries - 1).min(5),
        };
        self.failures_in_a_row += 1;
        self.stage = Stage::Down {
            retry_at_ns: now_ns.saturating_add(wait_ns),
        };
        self.trouble = trouble.or_else(|| self.trouble.take());
    }
}

/// A socket that is not connected yet says so when it is read or written; the loop is told when it is.
fn is_not_ready(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected
    )
}

fn broken(doing: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused: nothing listens there".to_owned(),
        _ => format!("{doing} failed: {error}"),
    }
}

fn closed(connection: &Connection) -> String {
    let why = if connection.is_handshaking() {
        "the server closed the connection during the TLS handshake: does it know the authority of --cert?"
    } else if connection.peer_has_closed() {
        "the server closed the connection"
    } else {
        "the connection ended without a close alert"
    };
    why.to_owned()
}
