//! `/metrics`, `/livez`, `/readyz` and `/state` over HTTP/1.1, in clear text, for the loopback
//! address or a management network.
//!
//! Deliberately small: GET and HEAD, one request a connection, no bodies. A TCP connection that
//! opens says nothing about the server: load balancers should ask `/readyz`.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use super::accept::AcceptThread;
use super::engine;
use super::status::Status;
use super::summary::Summary;
use crate::clock;
use crate::state::ServerState;
use crate::stops::Subject;

/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Headers of a request.
const HEADERS_MAX: usize = 64;

/// Time for a whole request, and again for its answer.
const DEADLINE: Duration = Duration::from_secs(2);

/// What Prometheus asks for; it is the text format with a defined end.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// The listener and its thread.
#[derive(Debug)]
pub struct HttpListener {
    address: SocketAddr,
    thread: AcceptThread,
}

impl HttpListener {
    /// Listens on `address`; port 0 takes a free one.
    ///
    /// # Errors
    ///
    /// The address is in use, not ours, or not allowed; the error names it.
    pub fn start(address: SocketAddr, state: &Arc<ServerState>) -> io::Result<Self> {
        let in_use = |error: io::Error| {
            io::Error::new(
                error.kind(),
                format!("[metrics] address {address}: {error}"),
            )
        };
        let listener = TcpListener::bind(address).map_err(in_use)?;
        let address = listener.local_addr()?;
        let state = Arc::clone(state);
        let thread = AcceptThread::spawn(
            "metrics",
            listener,
            |listener| listener.accept().map(|(stream, _)| stream),
            move |stream| {
                // The peer went away or was too slow: its loss.
                let _ = serve(stream, &state);
            },
        )?;
        Ok(Self { address, thread })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends the listener.
    pub fn stop(self) {
        self.thread.stop();
    }
}

struct Answer {
    status: &'static str,
    content_type: &'static str,
    body: String,
}

impl Answer {
    fn text(status: &'static str, body: impl Into<String>) -> Self {
        Self {
            status,
            content_type: TEXT,
            body: body.into(),
        }
    }
}

fn serve(mut stream: TcpStream, state: &ServerState) -> io::Result<()> {
    let head = read_head(&mut stream)?;
    let (answer, with_body) = respond(&head, state);
    let mut response = String::new();
    let length = answer.body.len();
    // Writing to a string does not fail.
    let _ = write!(
        response,
        "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {length}\r\nCache-Control: no-store\r\n\
         X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n",
        answer.status, answer.content_type
    );
    if with_body {
        response.push_str(&answer.body);
    }
    stream.set_write_timeout(Some(DEADLINE))?;
    stream.write_all(response.as_bytes())?;
    stream.shutdown(Shutdown::Write)
}

/// Reads up to the empty line. A peer that sends a byte at a time does not get more time for it.
fn read_head(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let end = clock::now() + DEADLINE;
    let mut head = Vec::new();
    let mut chunk = [0; 1024];
    loop {
        let left = end.saturating_duration_since(clock::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let count = stream.read(&mut chunk)?;
        head.extend_from_slice(chunk.get(..count).unwrap_or_default());
        let complete = head.windows(4).any(|window| window == b"\r\n\r\n");
        if complete || count == 0 || head.len() > HEAD_BYTES_MAX {
            return Ok(head);
        }
    }
}

/// The answer, and whether its body is sent.
fn respond(head: &[u8], state: &ServerState) -> (Answer, bool) {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let complete = request.parse(head).is_ok_and(|status| status.is_complete());
    let (Some(method), Some(target), true) = (request.method, request.path, complete) else {
        return (
            Answer::text("400 Bad Request", "this is not an HTTP/1 request\n"),
            true,
        );
    };
    match method {
        "GET" => (route(target, state), true),
        "HEAD" => (route(target, state), false),
        _ => (
            Answer::text("405 Method Not Allowed", "only GET and HEAD\n"),
            true,
        ),
    }
}

fn route(target: &str, state: &ServerState) -> Answer {
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    match path {
        "/metrics" => match state.metrics.encode() {
            Ok(body) => Answer {
                status: "200 OK",
                content_type: OPENMETRICS,
                body,
            },
            Err(error) => Answer::text("500 Internal Server Error", format!("{error}\n")),
        },
        "/livez" => liveness(state),
        "/readyz" => readiness(state),
        "/state" => match serde_json::to_string_pretty(&Summary::from(Status::of(state))) {
            Ok(body) => Answer {
                status: "200 OK",
                content_type: JSON,
                body: body + "\n",
            },
            Err(error) => Answer::text("500 Internal Server Error", format!("{error}\n")),
        },
        _ => Answer::text("404 Not Found", "here are /metrics /livez /readyz /state\n"),
    }
}

fn liveness(state: &ServerState) -> Answer {
    let stuck = state.health.stuck();
    if stuck.is_empty() {
        return Answer::text("200 OK", "alive\n");
    }
    let body = format!(
        "not turning for {:?}: {}\n",
        crate::state::STUCK_AFTER,
        stuck.join(", ")
    );
    Answer::text("503 Service Unavailable", body)
}

fn readiness(state: &ServerState) -> Answer {
    if state.health.is_draining() {
        return Answer::text("503 Service Unavailable", "draining\n");
    }
    if !state.health.is_ready() {
        return Answer::text("503 Service Unavailable", "starting\n");
    }
    if state.stops.current().stops(&Subject::All) {
        return Answer::text("503 Service Unavailable", "sealed\n");
    }
    let alive = liveness(state);
    if alive.status != "200 OK" {
        return alive;
    }
    // One slot that is down is no reason to send everybody elsewhere: its keys are refused, the
    // others are served. Which it is stands in the answer either way.
    let slots: String = (state.tokens.slots().iter())
        .filter(|slot| !slot.is_up() || slot.stuck_threads > 0)
        .map(|slot| {
            let stuck = slot.stuck_threads;
            format!("{} is {}, {stuck} threads stuck\n", slot.name(), slot.state)
        })
        .collect();
    // Nor is a ledger that cannot be written: signing goes on.
    let ledger = state.ledger.report().filter(|ledger| !ledger.writable);
    let ledger = ledger.map_or(
        "",
        |_| "the ledger cannot be written: nothing is decrypted\n",
    );
    let quarantine: String = (engine::quarantined(state).iter())
        .map(|entry| format!("{} is in quarantine: {}\n", entry.class, entry.trust))
        .collect();
    if engine::refuses_all(state) {
        let body = format!("no key can be served: results were wrong\n{quarantine}");
        return Answer::text("503 Service Unavailable", body);
    }
    if state.snapshot.load().can_serve() {
        Answer::text("200 OK", format!("ready\n{slots}{ledger}{quarantine}"))
    } else {
        let body = format!("no key can be served: every slot is down\n{slots}");
        Answer::text("503 Service Unavailable", body)
    }
}
