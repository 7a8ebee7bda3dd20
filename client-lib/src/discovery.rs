//! Finding servers by name, and finding out when they change.
//!
//! The standard library looks up addresses, but neither services nor how long an answer is good. So
//! the few questions that this needs are asked here. A whole resolver would bring some thirty crates
//! into programs that load this library for a signature.

mod ask;
mod known;
mod message;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

pub(crate) use known::{Known, Roster};
use message::{Kind, Record};

use crate::fleet::Place;

/// The least and the most time between two look-ups, whatever the name server says.
const GOOD_FOR: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// When a look-up that failed is made again. Until then the servers stay as they are.
pub(crate) const RETRY: Duration = Duration::from_secs(2);
/// Most servers of one name. Further ones are left out.
const SERVERS_MAX: usize = 64;

/// A name behind which there are servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// SRV records: hosts with ports. A lower priority is used before a higher one, and within one
    /// weights say how calls are shared.
    Service(String),
    /// A and AAAA records: addresses, all with this port.
    Host(String, u16),
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// `host:port` and place.
    pub(crate) servers: Vec<(String, Place)>,
    /// When to look again.
    pub(crate) good_for: Duration,
    /// The addresses of this kind could not be looked up.
    unanswered: Option<Kind>,
}

impl Found {
    /// Whether nothing was found out about this server, because its kind of address could not be looked up.
    fn leaves_open(&self, address: &str) -> bool {
        self.unanswered.is_some_and(|kind| {
            let address = address.parse::<SocketAddr>();
            address.is_ok_and(|address| address.is_ipv6() == (kind == Kind::Aaaa))
        })
    }
}

impl Source {
    /// Looks it up, with the system's name servers unless others are given. Blocks for seconds when
    /// they do not answer. A name without servers is an error: nobody means that.
    pub(crate) fn look_up(&self, name_servers: &[SocketAddr]) -> io::Result<Found> {
        let mut unanswered = None;
        let (mut servers, good_for) = match self {
            Self::Service(name) => services(ask::ask(name, Kind::Srv, name_servers)?),
            Self::Host(host, port) => {
                let four = ask::ask(host, Kind::A, name_servers);
                let six = ask::ask(host, Kind::Aaaa, name_servers);
                match (four, six) {
                    (Ok(four), Ok(six)) => {
                        let good_for = match (four.0.is_empty(), six.0.is_empty()) {
                            (true, false) => six.1,
                            (false, true) => four.1,
                            _ => four.1.min(six.1),
                        };
                        addresses(four.0.into_iter().chain(six.0), *port, good_for)
                    }
                    (Ok(one), Err(_)) => {
                        unanswered = Some(Kind::Aaaa);
                        addresses(one.0, *port, one.1.min(RETRY))
                    }
                    (Err(_), Ok(one)) => {
                        unanswered = Some(Kind::A);
                        addresses(one.0, *port, one.1.min(RETRY))
                    }
                    (Err(error), Err(_)) => return Err(error),
                }
            }
        };
        servers.sort();
        servers.dedup_by(|one, other| one.0 == other.0);
        // Those that are used first stay, should there be too many.
        servers.sort_by_key(|(_, place)| place.tier);
        servers.truncate(SERVERS_MAX);
        if servers.is_empty() {
            let text = format!("{} has no servers", self.name());
            return Err(io::Error::new(io::ErrorKind::NotFound, text));
        }
        let good_for = good_for.clamp(GOOD_FOR.0, GOOD_FOR.1);
        Ok(Found {
            servers,
            good_for,
            unanswered,
        })
    }

    fn name(&self) -> &str {
        match self {
            Self::Service(name) | Self::Host(name, _) => name,
        }
    }
}

/// A target of `.` says that there is no such service (RFC 2782).
fn services((records, good_for): (Vec<Record>, Duration)) -> (Vec<(String, Place)>, Duration) {
    let records = records.into_iter().filter_map(|record| match record {
        Record::Service {
            priority,
            weight,
            port,
            target,
        } if !target.is_empty() => Some((format!("{target}:{port}"), (priority, weight))),
        _ => None,
    });
    let (addresses, records): (Vec<_>, Vec<_>) = records.unzip();
    let places = Place::of_service(&records);
    (addresses.into_iter().zip(places).collect(), good_for)
}

fn addresses(
    records: impl IntoIterator<Item = Record>,
    port: u16,
    good_for: Duration,
) -> (Vec<(String, Place)>, Duration) {
    let servers = records.into_iter().filter_map(|record| match record {
        Record::Address(address) => {
            let address = SocketAddr::new(address, port).to_string();
            Some((address, Place::of_tier(0)))
        }
        Record::Service { .. } => None,
    });
    (servers.collect(), good_for)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::thread;

    /// A name server that has one A record, good for a minute, and fails when asked for AAAA records.
    fn half_a_name_server() -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("binds");
        let address = socket.local_addr().expect("bound");
        thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, asker)) = socket.recv_from(&mut buffer) {
                // Without the record for EDNS, of 11 bytes.
                let mut reply = buffer[..length - 11].to_vec();
                let is_for_a = reply[reply.len() - 4..] == [0, 1, 0, 1];
                reply[2..4].copy_from_slice(&[0x81, if is_for_a { 0x80 } else { 0x82 }]);
                reply[6..12].copy_from_slice(&[0, u8::from(is_for_a), 0, 0, 0, 0]);
                if is_for_a {
                    reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 0, 0, 1]);
                }
                socket.send_to(&reply, asker).expect("answers");
            }
        });
        address
    }

    #[test]
    fn a_kind_of_address_that_cannot_be_looked_up_is_left_open() {
        let host = Source::Host("keys.example".to_owned(), 2407);
        let found = host.look_up(&[half_a_name_server()]).expect("finds one");
        let addresses: Vec<_> = found.servers.iter().map(|it| it.0.as_str()).collect();
        assert_eq!(addresses, ["10.0.0.1:2407"]);
        assert_eq!(found.good_for, RETRY);
        assert!(found.leaves_open("[fd00::1]:2407"));
        assert!(!found.leaves_open("10.0.0.2:2407"), "that one is gone");
        assert!(!found.leaves_open("keys.example:2407"));
    }
}
