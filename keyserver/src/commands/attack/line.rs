//! One connection to the server under attack. Every item of a request is under the caller's control, and
//! nothing is sent that was not asked for: neither a retry nor an item more.

use std::fmt;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

use keyless_protocol::{ErrorCode, KeyEntry, KeyList, Opcode, Request};
use keyserver_client::{Connection, TlsIdentity};

use crate::clock;

/// How long an answer may take. A server that is asked slowly has nothing else to do.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often to come back to a server that says it is busy: for as long as another may have its CPUs.
const BUSY_TRIES: usize = 1000;

/// Who attacks, and whom.
#[derive(Debug, Clone)]
pub(super) struct Door {
    /// `host:port`.
    pub(super) address: String,
    /// The name in the server's certificate.
    pub(super) server_name: String,
    /// The client's certificate and key.
    pub(super) identity: TlsIdentity,
}

impl Door {
    /// Reads the identity of a client.
    pub(super) fn new(
        address: &str,
        server_name: &str,
        [authority, certificate, key]: [&Path; 3],
    ) -> Result<Self, Trouble> {
        let identity =
            TlsIdentity::from_files(authority, certificate, key).map_err(Trouble::new)?;
        Ok(Self {
            address: address.to_owned(),
            server_name: server_name.to_owned(),
            identity,
        })
    }
}

/// Why an attack could not be carried out: neither the server's success nor its failure.
#[derive(Debug)]
pub(super) enum Trouble {
    /// There is no talking to the server: nothing else can be tried either.
    Ended(String),
    /// This request, an honest one, is not answered. That attacks are refused as well proves nothing then.
    Unanswered(String),
}

impl Trouble {
    pub(super) fn new(what: impl fmt::Display) -> Self {
        Self::Ended(what.to_string())
    }

    pub(super) fn unanswered(what: impl fmt::Display) -> Self {
        Self::Unanswered(what.to_string())
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(what) => f.write_str(what),
            Self::Unanswered(what) => write!(
                f,
                "this cannot be judged, because an honest request is refused: {what}; if the `daily` limit of the grant is \
                 used up, try another day or a higher one, and otherwise see what else the grant asks for"
            ),
        }
    }
}

/// What a server answers: all that it lets an asker see, but for the time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// The output of the operation.
    Given(Vec<u8>),
    /// An error.
    Refused(ErrorCode),
}

impl Answer {
    /// The output, if there is one.
    pub(super) fn given(&self) -> Option<&[u8]> {
        match self {
            Self::Given(output) => Some(output),
            Self::Refused(_) => None,
        }
    }

    /// Whether the operation was done.
    pub(super) fn is_given(&self) -> bool {
        self.given().is_some()
    }

    /// In few words, without the bytes.
    pub(super) fn shape(&self) -> String {
        match self {
            Self::Given(output) => format!("{} bytes", output.len()),
            Self::Refused(code) => format!("error {:#04x}", code.as_byte()),
        }
    }
}

/// A connection, on which one request is under way at a time.
#[derive(Debug)]
pub(super) struct Line {
    connection: Connection,
    stream: TcpStream,
    last_id: u32,
    out: Vec<u8>,
}

impl Line {
    /// Connects. Whether the server accepts the client shows with the first answer.
    pub(super) fn open(door: &Door) -> Result<Self, Trouble> {
        let trouble =
            |error: std::io::Error| Trouble::new(format_args!("{}: {error}", door.address));
        let stream = TcpStream::connect(&door.address).map_err(trouble)?;
        stream.set_nodelay(true).map_err(trouble)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(trouble)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(trouble)?;
        Ok(Self {
            connection: Connection::new(&door.identity, &door.server_name).map_err(Trouble::new)?,
            stream,
            last_id: 0,
            out: Vec::new(),
        })
    }

    /// Asks, and comes back when the server is busy.
    pub(super) fn ask(&mut self, request: &Request<'_>) -> Result<Answer, Trouble> {
        for _ in 0..BUSY_TRIES {
            let (answer, retry_after) = self.once(request)?;
            if answer != Answer::Refused(ErrorCode::Busy) {
                return Ok(answer);
            }
            thread::sleep(retry_after.unwrap_or(Duration::from_millis(20)));
        }
        Err(Trouble::new(
            "the server is busy all the time; attack it when it is not",
        ))
    }

    /// Asks, and says how long the answer took; nothing when the server was busy.
    pub(super) fn time(
        &mut self,
        request: &Request<'_>,
    ) -> Result<Option<(Answer, Duration)>, Trouble> {
        let begun = clock::now();
        let (answer, retry_after) = self.once(request)?;
        let took = clock::now().saturating_duration_since(begun);
        if answer == Answer::Refused(ErrorCode::Busy) {
            thread::sleep(retry_after.unwrap_or(Duration::from_millis(20)));
            return Ok(None);
        }
        Ok(Some((answer, took)))
    }

    /// The keys that the client may use.
    pub(super) fn keys(&mut self) -> Result<Vec<KeyEntry>, Trouble> {
        let mut keys = Vec::new();
        let mut first = 0_u32;
        loop {
            let index = first.to_be_bytes();
            let request = Request {
                payload: if first == 0 { &[] } else { &index },
                extended: true,
                ..Request::new(0, Opcode::KeyList)
            };
            let page = match self.ask(&request)? {
                Answer::Given(page) => KeyList::decode(&page).map_err(Trouble::new)?,
                Answer::Refused(code) => {
                    return Err(Trouble::new(format_args!(
                        "the server does not tell which keys this client may use: error {}",
                        code.as_byte()
                    )));
                }
            };
            keys.extend(page.keys);
            match page.next {
                Some(next) if next > first => first = next,
                _ => return Ok(keys),
            }
        }
    }

    fn once(&mut self, request: &Request<'_>) -> Result<(Answer, Option<Duration>), Trouble> {
        self.last_id = self.last_id.wrapping_add(1);
        let request = Request {
            id: self.last_id,
            ..*request
        };
        self.connection.submit(&request).map_err(Trouble::new)?;
        loop {
            self.send()?;
            let read = self.stream.read(self.connection.read_space());
            let read = read.map_err(Trouble::new)?;
            if read == 0 {
                return Err(Trouble::new("the server closed the connection"));
            }
            if let Err(error) = self.connection.received(read) {
                // The alert that says why; whether the server still listens does not matter.
                let _ = self.send();
                return Err(Trouble::new(error));
            }
            if let Some(reply) = self.connection.next_reply() {
                let retry_after = reply.retry_after_ms.map(u64::from);
                let answer = match reply.outcome {
                    Ok(output) => Answer::Given(output.to_vec()),
                    Err(code) => Answer::Refused(code),
                };
                return Ok((answer, retry_after.map(Duration::from_millis)));
            }
            if let Some(error) = self.connection.failure() {
                return Err(Trouble::new(error));
            }
        }
    }

    fn send(&mut self) -> Result<(), Trouble> {
        self.out.clear();
        self.connection
            .transmit(&mut self.out)
            .map_err(Trouble::new)?;
        self.stream.write_all(&self.out).map_err(Trouble::new)
    }
}
