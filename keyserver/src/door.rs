//! Who may come in: bounds on connections and handshakes, in all and by where they come from.
//!
//! A TLS handshake costs about as much as a thousand requests, and nobody has proved anything
//! before its end. So what strangers may begin is bounded at the door, where refusing costs next to
//! nothing: the connection is closed and counted under a reason. What is established has paid, and
//! is never touched by this.
//!
//! A source is an IPv4 address or an IPv6 network of 64 bits, which is what one subscriber has.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::{config, limits};

/// Where a connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// One address.
    V4(Ipv4Addr),
    /// The upper 64 bits of an address.
    V6(u64),
}

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Self::V6(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
            }
        }
    }
}

/// Why a connection was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// There are as many connections as there may be.
    Connections,
    /// This source has as many as one may have.
    ConnectionsPerSource,
    /// This source has as many handshakes under way as one may have.
    HandshakesPerSource,
    /// This source begins handshakes faster than one may.
    HandshakeRate,
}

impl Refused {
    /// The label of `keyserver_rejected_total`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::ConnectionsPerSource => "connections-per-source",
            Self::HandshakesPerSource => "handshakes-per-source",
            Self::HandshakeRate => "handshake-rate",
        }
    }
}

/// What is open, by source. One for the whole server.
#[derive(Debug)]
pub(crate) struct Door {
    limits: config::Limits,
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    connections: usize,
    sources: HashMap<Source, Visits>,
}

/// What one source has open.
#[derive(Debug, Clone, Copy)]
struct Visits {
    connections: usize,
    handshakes: usize,
    /// When the handshakes that it has begun would be over if they had come at the rate that is
    /// allowed. It may run ahead of the clock by [`limits::HANDSHAKE_BURST`].
    paid_until: Instant,
}

impl Visits {
    /// Whether nothing would be forgotten with this entry.
    fn is_idle(&self, now: Instant) -> bool {
        self.connections == 0 && self.paid_until <= now
    }
}

/// The leave to have one connection open; given back when dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    door: Arc<Door>,
    source: Source,
    handshaking: bool,
}

impl Door {
    /// A door with nobody inside.
    pub(crate) fn new(limits: config::Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            inside: Mutex::default(),
        })
    }

    /// Lets a connection in, to begin its handshake.
    ///
    /// # Errors
    ///
    /// Which bound it would exceed.
    pub(crate) fn enter(
        self: &Arc<Self>,
        address: IpAddr,
        now: Instant,
    ) -> Result<Ticket, Refused> {
        let source = Source::from(address);
        let mut inside = self.lock();
        if inside.connections >= self.limits.connections {
            return Err(Refused::Connections);
        }
        inside.make_room(now);
        let visits = inside.sources.entry(source).or_insert(Visits {
            connections: 0,
            handshakes: 0,
            paid_until: now,
        });
        if visits.connections >= self.limits.connections_per_source {
            return Err(Refused::ConnectionsPerSource);
        }
        if visits.handshakes >= self.limits.handshakes_per_source {
            return Err(Refused::HandshakesPerSource);
        }
        let rate = u32::try_from(self.limits.handshake_rate_per_source).unwrap_or(u32::MAX);
        let paid_until = visits.paid_until.max(now) + Duration::from_secs(1) / rate.max(1);
        if paid_until.saturating_duration_since(now) > limits::HANDSHAKE_BURST {
            return Err(Refused::HandshakeRate);
        }
        visits.paid_until = paid_until;
        visits.connections += 1;
        visits.handshakes += 1;
        inside.connections += 1;
        Ok(Ticket {
            door: Arc::clone(self),
            source,
            handshaking: true,
        })
    }

    /// The counts are whole after every statement, so a panic elsewhere while it was held leaves
    /// nothing broken.
    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inside {
    /// Keeps the table bounded: forgets sources that have nothing open, first those whose rate
    /// says nothing any more, then the others. What is left has a connection each.
    fn make_room(&mut self, now: Instant) {
        if self.sources.len() < limits::SOURCES_REMEMBERED {
            return;
        }
        self.sources.retain(|_, visits| !visits.is_idle(now));
        if self.sources.len() >= limits::SOURCES_REMEMBERED {
            self.sources.retain(|_, visits| visits.connections > 0);
        }
    }
}

impl Ticket {
    /// The handshake is complete.
    pub(crate) fn established(&mut self) {
        if !std::mem::replace(&mut self.handshaking, false) {
            return;
        }
        if let Some(visits) = self.door.lock().sources.get_mut(&self.source) {
            visits.handshakes = visits.handshakes.saturating_sub(1);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.established();
        let mut inside = self.door.lock();
        inside.connections = inside.connections.saturating_sub(1);
        if let Some(visits) = inside.sources.get_mut(&self.source) {
            visits.connections = visits.connections.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door(change: impl FnOnce(&mut config::Limits)) -> Arc<Door> {
        let mut limits = config::Limits::default();
        change(&mut limits);
        Door::new(limits)
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_source_is_an_ipv4_address_or_a_network_of_64_bits() {
        let source = |text| Source::from(address(text));
        assert_eq!(source("10.0.0.1"), source("::ffff:10.0.0.1"));
        assert_ne!(source("10.0.0.1"), source("10.0.0.2"));
        assert_eq!(source("2001:db8:0:1::1"), source("2001:db8:0:1:ffff::2"));
        assert_ne!(source("2001:db8:0:1::1"), source("2001:db8:0:2::1"));
    }

    #[test]
    fn each_bound_refuses_by_its_name_and_gives_back_what_ends() {
        let now = crate::clock::now();
        let (here, there) = (address("10.0.0.1"), address("10.0.0.2"));
        let door = door(|limits| {
            limits.connections = 4;
            limits.connections_per_source = 3;
            limits.handshakes_per_source = 2;
        });
        let mut first = door.enter(here, now).unwrap();
        let second = door.enter(here, now).unwrap();
        assert_eq!(
            door.enter(here, now).unwrap_err(),
            Refused::HandshakesPerSource
        );
        // Another source is not concerned.
        let third = door.enter(there, now).unwrap();
        first.established();
        let fourth = door.enter(here, now).unwrap();
        assert_eq!(door.enter(there, now).unwrap_err(), Refused::Connections);
        drop(third);
        assert_eq!(
            door.enter(here, now).unwrap_err(),
            Refused::ConnectionsPerSource
        );
        drop([first, second, fourth]);
        door.enter(here, now).unwrap();
    }

    #[test]
    fn a_source_has_a_burst_and_then_its_rate() {
        let now = crate::clock::now();
        let door = door(|limits| limits.handshake_rate_per_source = 10);
        let tries = |now| {
            let let_in = (0..1000).filter(|_| door.enter(address("10.0.0.1"), now).is_ok());
            u64::try_from(let_in.count()).unwrap()
        };
        assert_eq!(tries(now), 10 * limits::HANDSHAKE_BURST.as_secs());
        assert_eq!(tries(now), 0);
        assert_eq!(tries(now + Duration::from_secs(1)), 10);
    }

    /// However many addresses knock, the table stays small, and those inside are not forgotten.
    #[test]
    fn the_table_of_sources_is_bounded() {
        let now = crate::clock::now();
        let door = door(|limits| limits.handshake_rate_per_source = 1);
        let inside = door.enter(address("192.0.2.1"), now).unwrap();
        for number in 0..u32::try_from(3 * limits::SOURCES_REMEMBERED).unwrap() {
            let stranger = IpAddr::V4(Ipv4Addr::from_bits(0x0A00_0000 + number));
            drop(door.enter(stranger, now).unwrap());
        }
        let known = |address| door.lock().sources.contains_key(&Source::from(address));
        assert!(door.lock().sources.len() <= limits::SOURCES_REMEMBERED);
        assert!(known(address("192.0.2.1")));
        drop(inside);
        assert_eq!(door.lock().connections, 0);
    }
}
