//! How long what was given away goes on after a stop, by key.
//!
//! A stop ends new signatures at once. It does not recall delegated credentials, which end by themselves, nor the ticket keys
//! that an edge holds, which it forgets when it next asks or when their epochs are over.

use std::collections::BTreeSet;
use std::fmt;

use keyless_protocol::info::ski_to_hex;
use serde::{Deserialize, Serialize};

use super::status::period;
use crate::ending::Now;
use crate::state::ServerState;

/// What is about of one key. Fields are added, never renamed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Horizon {
    /// SKI of the key.
    pub ski: String,
    /// Its label, where it is loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Delegated credentials that have not ended.
    pub credentials: usize,
    /// Seconds until the last of them ends.
    pub credentials_seconds: u64,
    /// Seconds until no edge can resume a session with the ticket keys it has, should it ask for none again.
    pub resumption_seconds: u64,
    /// How often the key's ticket keys were revoked.
    pub ticket_generation: u32,
}

/// The horizons of the keys of which anything is about, by SKI.
#[must_use]
pub fn of(server: &ServerState) -> Vec<Horizon> {
    let now = Now::read();
    let (credentials, tickets) = (server.credentials.by_key(now), server.ticket_ends.at(now));
    let (snapshot, stops) = (server.snapshot.load(), server.stops.current());
    let keys: BTreeSet<_> = (credentials.keys()).chain(tickets.keys()).collect();
    let left = |end: u64| end.saturating_sub(now.wall);
    keys.into_iter()
        .map(|ski| {
            let loaded = snapshot.keys.by_ski(ski);
            let label = loaded.and_then(|(index, _)| snapshot.key_at(index.0));
            let extent = credentials.get(ski);
            Horizon {
                ski: ski_to_hex(ski),
                label: label.map(|(_, label)| label.to_owned()),
                credentials: extent.map_or(0, |extent| extent.count),
                credentials_seconds: extent.map_or(0, |extent| left(extent.until)),
                resumption_seconds: tickets.get(ski).map_or(0, |end| left(*end)),
                ticket_generation: stops.generation(ski),
            }
        })
        .collect()
}

impl fmt::Display for Horizon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: handshakes end with a stop",
            self.label.as_ref().unwrap_or(&self.ski)
        )?;
        match self.credentials {
            0 => {}
            1 => write!(
                f,
                ", 1 delegated credential ends in {}",
                period(self.credentials_seconds)
            )?,
            many => write!(
                f,
                ", the last of {many} delegated credentials ends in {}",
                period(self.credentials_seconds)
            )?,
        }
        if self.resumption_seconds > 0 {
            let left = period(self.resumption_seconds);
            write!(f, ", resumption in {left} at the latest")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_horizon_says_what_is_about() {
        let horizon = Horizon {
            ski: "00".to_owned(),
            label: Some("shop".to_owned()),
            credentials: 2,
            credentials_seconds: 3600,
            resumption_seconds: 0,
            ticket_generation: 0,
        };
        assert_eq!(
            horizon.to_string(),
            "shop: handshakes end with a stop, the last of 2 delegated credentials ends in 1h 0min"
        );
        let other = Horizon {
            label: None,
            credentials: 1,
            resumption_seconds: 90,
            ..horizon
        };
        assert_eq!(
            other.to_string(),
            "00: handshakes end with a stop, 1 delegated credential ends in 1h 0min, resumption in 1min 30s at the latest"
        );
    }
}
