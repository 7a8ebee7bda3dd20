//! Asking the system's name servers: over UDP, and over TCP when an answer is too long for that.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use super::message::{self, Kind, Record, Reply};

const RESOLV_CONF: &str = "/etc/resolv.conf";
/// As many as the system's resolver asks.
const NAME_SERVERS_MAX: usize = 3;
/// How long one name server may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// The records of a name, and for how long they are good. Blocks, a few seconds at most.
pub(super) fn ask(
    name: &str,
    kind: Kind,
    name_servers: &[SocketAddr],
) -> io::Result<(Vec<Record>, Duration)> {
    let given: Vec<SocketAddr>;
    let name_servers = if name_servers.is_empty() {
        given = system_name_servers();
        &given
    } else {
        name_servers
    };
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "no name server is configured");
    for server in name_servers {
        match ask_one(name, kind, *server) {
            Ok((records, seconds)) => {
                return Ok((records, Duration::from_secs(seconds.into())));
            }
            Err(error) => {
                let text = format!("{name}, asked of {server}: {error}");
                failure = io::Error::new(error.kind(), text);
            }
        }
    }
    Err(failure)
}

fn system_name_servers() -> Vec<SocketAddr> {
    let text = fs::read_to_string(RESOLV_CONF).unwrap_or_default();
    let lines = text.lines();
    let addresses = lines.filter_map(|line| {
        let address = line.trim().strip_prefix("nameserver")?;
        address.trim().parse::<IpAddr>().ok()
    });
    let servers = addresses.map(|address| SocketAddr::new(address, 53));
    servers.take(NAME_SERVERS_MAX).collect()
}

fn ask_one(name: &str, kind: Kind, server: SocketAddr) -> io::Result<(Vec<Record>, u32)> {
    let mut id = [0; 2];
    aws_lc_rs::rand::fill(&mut id).map_err(|_| io::Error::other("no randomness"))?;
    let id = u16::from_ne_bytes(id);
    let question = message::question(id, name, kind)
        .map_err(|why| io::Error::new(io::ErrorKind::InvalidInput, why))?;
    let invalid = |why| io::Error::new(io::ErrorKind::InvalidData, why);
    let read = |reply: &[u8]| message::read(reply, id, name, kind);
    match over_udp(&question, server, read)?.map_err(invalid)? {
        Reply::Records(records, seconds) => return Ok((records, seconds)),
        Reply::Truncated => {}
    }
    match read(&over_tcp(&question, server)?) {
        Some(Ok(Reply::Records(records, seconds))) => Ok((records, seconds)),
        Some(Err(why)) => Err(invalid(why)),
        _ => Err(invalid("over TCP it answers another question")),
    }
}

/// Waits for the answer to this question, whatever else comes. The port is the kernel's choice and the
/// socket connected, so a forger has to guess both that and the id.
fn over_udp<T>(
    question: &[u8],
    server: SocketAddr,
    read: impl Fn(&[u8]) -> Option<T>,
) -> io::Result<T> {
    let socket = UdpSocket::bind(match server {
        SocketAddr::V4(_) => "0.0.0.0:0",
        SocketAddr::V6(_) => "[::]:0",
    })?;
    socket.connect(server)?;
    let begun = Instant::now();
    let mut buffer = vec![0; message::UDP_BYTES.into()];
    // Packets are lost: it is asked again after a third of the time.
    for share in [3, 1] {
        socket.send(question)?;
        let until = begun + PATIENCE / share;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            socket.set_read_timeout(Some(left))?;
            match socket.recv(&mut buffer) {
                Ok(length) => {
                    if let Some(answer) = read(buffer.get(..length).unwrap_or_default()) {
                        return Ok(answer);
                    }
                }
                Err(error) if !is_for_later(error.kind()) => return Err(error),
                Err(_) => {}
            }
        }
    }
    let text = format!("no answer within {} s", PATIENCE.as_secs());
    Err(io::Error::new(io::ErrorKind::TimedOut, text))
}

/// Nothing has come yet, or a signal of the host's came instead.
fn is_for_later(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    [Interrupted, TimedOut, WouldBlock].contains(&kind)
}

/// Both ways behind their length, two bytes (RFC 1035, section 4.2.2).
fn over_tcp(question: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), question].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}
