//! The connection to one server, non-blocking, made when it is needed and made again when it is lost.
//!
//! ```text
//!   down --due--> resolving --addresses--> connecting --handshake, first answer--> up
//!    ^------------------------------- any error, with a growing wait ----------------'
//! ```

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use keyless_protocol::{Opcode, Request};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::backoff::Backoff;
use crate::calls::{OWN_ID, outcome};
use crate::capabilities::Capabilities;
use crate::conn::Connection;
use crate::error::Error;
use crate::fleet::ServerId;
use crate::link::share_of;
use crate::operation::Operation;
use crate::tls::TlsIdentity;

use super::CallId;

/// How often a connected server is asked how it is.
const QUESTION_EVERY: Duration = Duration::from_secs(1);
/// Requests that a server may leave unanswered before it is told goodbye.
const UNANSWERED_MAX: usize = 1 << 16;
/// The longest wait before the next attempt to connect: callers wait for it.
const WAIT_LONGEST: Duration = Duration::from_millis(500);

/// What all lines of a client share.
pub(super) struct Setting {
    pub(super) identity: TlsIdentity,
    pub(super) server_name: String,
    pub(super) connect_limit: Duration,
    pub(super) silence: Duration,
}

/// News of a line for the fleet.
pub(super) enum News {
    /// The server let us in.
    Up { draining: bool },
    /// The server wants no new calls.
    Draining,
    /// The server has owed an answer to a question for too long.
    Mute,
    /// A call has its answer.
    Answer(CallId, Result<Vec<u8>, Error>),
}

/// See the module's own text.
pub(super) struct Line {
    pub(super) id: ServerId,
    pub(super) address: String,
    /// It belongs to the client no longer, and goes when its calls have ended.
    pub(super) leaves: bool,
    state: State,
    backoff: Backoff,
    asked: HashMap<u32, CallId>,
    next_request: u32,
}

enum State {
    Down { until: Instant },
    Resolving { limit: Instant },
    Open(Box<Open>),
}

struct Open {
    stream: TcpStream,
    connection: Connection,
    /// Addresses to try when this one does not answer.
    others: Vec<SocketAddr>,
    phase: Phase,
    /// Sealed records; `written` bytes of them are gone.
    out: Vec<u8>,
    written: usize,
    /// When the last question was asked, and whether it has been answered.
    asked_at: Instant,
    question_open: bool,
}

enum Phase {
    /// The socket connects, TLS shakes hands, or the first question is open.
    Joining {
        connected: bool,
        /// When the next address is tried, should this one not have taken the connection by then.
        turn: Instant,
        limit: Instant,
    },
    Up(Capabilities),
}

impl Line {
    pub(super) fn new(id: ServerId, address: String, now: Instant) -> Self {
        Self {
            id,
            address,
            leaves: false,
            state: State::Down { until: now },
            backoff: Backoff::new(),
            asked: HashMap::new(),
            next_request: 0,
        }
    }

    /// Whether it is time to look up the address and connect. The caller then gives the addresses
    /// to [`Line::open`].
    pub(super) fn begins(&mut self, setting: &Setting, now: Instant) -> bool {
        let due = matches!(self.state, State::Down { until } if until <= now);
        if due {
            let limit = now + setting.connect_limit;
            self.state = State::Resolving { limit };
        }
        due
    }

    /// Whether it has left and nothing is owed on it.
    pub(super) fn is_over(&self) -> bool {
        self.leaves && self.asked.is_empty()
    }

    /// When [`Line::tick`] or [`Line::begins`] has something to do.
    pub(super) fn due(&self, setting: &Setting) -> Instant {
        match &self.state {
            State::Down { until } => *until,
            State::Resolving { limit } => *limit,
            State::Open(open) => match &open.phase {
                Phase::Joining {
                    connected: false,
                    turn,
                    ..
                } if !open.others.is_empty() => *turn,
                Phase::Joining { limit, .. } => *limit,
                Phase::Up(_) if open.question_open => open.asked_at + setting.silence,
                Phase::Up(_) => open.asked_at + QUESTION_EVERY,
            },
        }
    }

    /// Connects to the first of these addresses; the others are tried when it does not answer.
    pub(super) fn open(
        &mut self,
        addresses: io::Result<Vec<SocketAddr>>,
        setting: &Setting,
        registry: &Registry,
        now: Instant,
    ) -> Result<(), Error> {
        let State::Resolving { limit } = self.state else {
            return Ok(());
        };
        let addresses = addresses.map_err(|error| self.unreachable(error))?;
        self.connect(addresses, limit, setting, registry, now)
    }

    fn connect(
        &mut self,
        mut addresses: Vec<SocketAddr>,
        limit: Instant,
        setting: &Setting,
        registry: &Registry,
        now: Instant,
    ) -> Result<(), Error> {
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        while !addresses.is_empty() {
            let turn = now + share_of(limit, now, addresses.len());
            let address = addresses.remove(0);
            let opened = TcpStream::connect(address).and_then(|mut stream| {
                let token = Token(self.id.index());
                registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
                Ok(stream)
            });
            match opened {
                Ok(stream) => {
                    let mut connection = Connection::new(&setting.identity, &setting.server_name)?;
                    connection.submit(&Request::new(OWN_ID, Opcode::ServerInfo))?;
                    self.state = State::Open(Box::new(Open {
                        stream,
                        connection,
                        others: addresses,
                        phase: Phase::Joining {
                            connected: false,
                            turn,
                            limit,
                        },
                        out: Vec::new(),
                        written: 0,
                        asked_at: now,
                        question_open: true,
                    }));
                    return Ok(());
                }
                Err(error) => failure = error,
            }
        }
        Err(self.unreachable(failure))
    }

    fn unreachable(&self, error: io::Error) -> Error {
        let text = format!("{}: {error}", self.address);
        Error::network("connecting", io::Error::new(error.kind(), text))
    }

    /// Nobody has looked at the socket for a while: what is overdue may lie in it.
    pub(super) fn resume(&mut self, setting: &Setting, now: Instant) {
        if let State::Open(open) = &mut self.state {
            match &mut open.phase {
                Phase::Joining { turn, limit, .. } => {
                    let more = (now + setting.connect_limit).saturating_duration_since(*limit);
                    *turn += more;
                    *limit += more;
                }
                Phase::Up(_) if open.question_open => open.asked_at = now,
                Phase::Up(_) => {}
            }
        }
    }

    /// Does what time demands: gives up joining, asks the server how it is.
    pub(super) fn tick(
        &mut self,
        setting: &Setting,
        registry: &Registry,
        now: Instant,
        news: &mut Vec<News>,
    ) -> Result<(), Error> {
        let too_slow = || {
            let milliseconds = setting.connect_limit.as_millis();
            let text = format!("no connection within {milliseconds} ms");
            io::Error::new(io::ErrorKind::TimedOut, text)
        };
        let open = match &mut self.state {
            State::Down { .. } => return Ok(()),
            State::Resolving { limit } if *limit <= now => {
                return Err(self.unreachable(too_slow()));
            }
            State::Resolving { .. } => return Ok(()),
            State::Open(open) => open,
        };
        match &open.phase {
            Phase::Joining { limit, .. } if *limit <= now => Err(self.unreachable(too_slow())),
            Phase::Joining {
                connected: false,
                turn,
                limit,
            } if *turn <= now && !open.others.is_empty() => {
                let (others, limit) = (std::mem::take(&mut open.others), *limit);
                self.connect(others, limit, setting, registry, now)
            }
            Phase::Joining { .. } => Ok(()),
            Phase::Up(capabilities) => {
                let silence = now.saturating_duration_since(open.asked_at);
                if open.question_open && silence >= setting.silence {
                    return Err(Error::lost(
                        "waiting for answers",
                        "the server has fallen silent",
                    ));
                }
                if open.question_open && silence >= QUESTION_EVERY {
                    news.push(News::Mute);
                } else if !open.question_open && silence >= QUESTION_EVERY {
                    let question = capabilities.question();
                    open.connection.submit(&Request::new(OWN_ID, question))?;
                    open.asked_at = now;
                    open.question_open = true;
                }
                Ok(())
            }
        }
    }

    /// Encodes a request. `None` without a connection that is up: the call then goes elsewhere.
    pub(super) fn submit(
        &mut self,
        call: CallId,
        operation: &Operation,
        left: Duration,
    ) -> Option<Result<(), Error>> {
        let State::Open(open) = &mut self.state else {
            return None;
        };
        let Phase::Up(capabilities) = &open.phase else {
            return None;
        };
        let asked = operation.request(capabilities).and_then(|request| {
            capabilities.check(request.opcode)?;
            Ok(request)
        });
        let mut request = match asked {
            Ok(request) => request,
            Err(refusal) => return Some(Err(refusal)),
        };
        self.next_request = self.next_request.wrapping_add(1) % OWN_ID;
        request.id = self.next_request;
        if capabilities.extended {
            request.deadline_us = Some(u32::try_from(left.as_micros()).unwrap_or(u32::MAX));
            request.extended = true;
        }
        let submitted = open.connection.submit(&request);
        if submitted.is_ok() {
            self.asked.insert(request.id, call);
        }
        Some(submitted)
    }

    /// Moves bytes both ways, as far as the socket goes along, and takes the replies.
    pub(super) fn drive(
        &mut self,
        setting: &Setting,
        registry: &Registry,
        now: Instant,
        news: &mut Vec<News>,
    ) -> Result<(), Error> {
        let State::Open(open) = &mut self.state else {
            return Ok(());
        };
        if let Phase::Joining {
            connected, limit, ..
        } = &mut open.phase
            && !*connected
        {
            match is_connected(&open.stream) {
                Ok(false) => return Ok(()),
                Ok(true) => *connected = true,
                Err(_) if !open.others.is_empty() => {
                    let (others, limit) = (std::mem::take(&mut open.others), *limit);
                    return self.connect(others, limit, setting, registry, now);
                }
                Err(error) => return Err(self.unreachable(error)),
            }
        }
        open.flush()?;
        let ended = open.read(&mut self.asked, news);
        // TLS may have something to say about what was read, an alert too.
        let flushed = open.flush();
        if matches!(open.phase, Phase::Up(_)) {
            self.backoff.reset();
        }
        ended?;
        flushed?;
        if self.asked.len() > UNANSWERED_MAX {
            return Err(Error::lost("waiting for answers", "too many are owed"));
        }
        Ok(())
    }

    /// Sends what has been gathered.
    pub(super) fn flush(&mut self) -> Result<(), Error> {
        match &mut self.state {
            State::Open(open) if open.is_connected() => open.flush(),
            _ => Ok(()),
        }
    }

    /// Drops the connection and plans the next one. Gives the calls that were on their way.
    pub(super) fn lose(&mut self, now: Instant) -> Vec<CallId> {
        let wait = self.backoff.wait().min(WAIT_LONGEST);
        self.state = State::Down { until: now + wait };
        self.asked.drain().map(|(_, call)| call).collect()
    }

    /// Says goodbye, as far as the socket takes it at once.
    pub(super) fn close(&mut self) {
        if let State::Open(open) = &mut self.state
            && matches!(open.phase, Phase::Up(_))
        {
            open.connection.close_notify();
            // The connection ends either way.
            let _ = open.flush();
        }
    }
}

impl Open {
    fn is_connected(&self) -> bool {
        !matches!(
            self.phase,
            Phase::Joining {
                connected: false,
                ..
            }
        )
    }

    fn flush(&mut self) -> Result<(), Error> {
        loop {
            if self.written == self.out.len() {
                self.out.clear();
                self.written = 0;
                if self.connection.transmit(&mut self.out)? == 0 {
                    return Ok(());
                }
            }
            let left = self.out.get(self.written..).unwrap_or_default();
            match self.stream.write(left) {
                Ok(length) => self.written += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::network("sending requests", error)),
            }
        }
    }

    fn read(
        &mut self,
        asked: &mut HashMap<u32, CallId>,
        news: &mut Vec<News>,
    ) -> Result<(), Error> {
        let during = "waiting for answers";
        loop {
            let space = self.connection.read_space();
            let room = space.len();
            let length = match self.stream.read(space) {
                Ok(0) => {
                    let why = "the connection was cut without a TLS close";
                    return Err(Error::lost(during, why));
                }
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::network(during, error)),
            };
            let received = self.connection.received(length);
            self.take_replies(asked, news);
            received?;
            if let Some(error) = self.connection.failure() {
                return Err(error.clone());
            }
            if self.connection.peer_has_closed() {
                return Err(Error::lost(during, "the server closed the connection"));
            }
            if length < room {
                // The socket is empty; more bytes, or its end, are a new event.
                return Ok(());
            }
        }
    }

    fn take_replies(&mut self, asked: &mut HashMap<u32, CallId>, news: &mut Vec<News>) {
        while let Some(reply) = self.connection.next_reply() {
            if reply.id != OWN_ID {
                if let Some(call) = asked.remove(&reply.id) {
                    news.push(News::Answer(call, outcome(reply)));
                }
                continue;
            }
            self.question_open = false;
            match &self.phase {
                Phase::Joining { .. } => {
                    let capabilities = Capabilities::of(&reply);
                    let draining = capabilities.draining;
                    self.phase = Phase::Up(capabilities);
                    news.push(News::Up { draining });
                }
                Phase::Up(before) => {
                    if before.extended && Capabilities::of(&reply).draining {
                        news.push(News::Draining);
                    }
                }
            }
        }
    }
}

/// Whether the socket's connection stands.
fn is_connected(stream: &TcpStream) -> io::Result<bool> {
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    match stream.peer_addr() {
        Ok(_) => {
            stream.set_nodelay(true)?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting() -> Setting {
        Setting {
            identity: crate::blocking::tests::identity(),
            server_name: "keys".to_owned(),
            connect_limit: Duration::from_secs(2),
            silence: Duration::from_secs(5),
        }
    }

    #[tokio::test]
    async fn an_address_that_swallows_packets_costs_its_share_of_the_time() {
        let (silent, _full) = crate::silent::address().await;
        let good = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
        let addresses = vec![silent, good.local_addr().expect("bound")];
        let setting = setting();
        let poll = mio::Poll::new().expect("polls");
        let now = Instant::now();
        let id = ServerId::default();
        let mut line = Line::new(id, "keys:2407".to_owned(), now);
        assert!(line.begins(&setting, now));
        line.open(Ok(addresses.clone()), &setting, poll.registry(), now)
            .expect("opens");
        let peer = |line: &Line| match &line.state {
            State::Open(open) => open.stream.peer_addr().ok(),
            _ => None,
        };
        assert_eq!(line.due(&setting), now + Duration::from_secs(1));
        let tick = |line: &mut Line, at: Duration| {
            line.tick(&setting, poll.registry(), now + at, &mut Vec::new())
        };
        tick(&mut line, Duration::from_millis(999)).expect("waits");
        assert_eq!(peer(&line), None, "silent");
        tick(&mut line, Duration::from_secs(1)).expect("goes on to the next");
        assert_eq!(line.due(&setting), now + Duration::from_secs(2));
        let connected = Instant::now() + Duration::from_secs(5);
        while peer(&line).is_none() && Instant::now() < connected {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(peer(&line), Some(addresses[1]));
        tick(&mut line, Duration::from_secs(2)).expect_err("the last has the rest of the time");
    }
}
