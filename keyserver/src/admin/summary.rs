//! What `/state` tells: counts and states, and no names.
//!
//! It goes out in clear text to whoever reaches the port. Names of clients, labels and identifiers of keys, who
//! stopped what and why, and where files are: the control socket tells those, to whom it knows.

use std::collections::BTreeMap;

use serde::Serialize;

use super::engine::QuarantineEntry;
use super::status::Status;
use crate::ledger::LedgerReport;

/// The state of the server for anybody who may ask for metrics. Fields are added, never renamed; those with the
/// name of a field of [`Status`] mean the same.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    state: String,
    version: String,
    uptime_seconds: u64,
    io: String,
    engine: String,
    generation: u64,
    last_reload_successful: bool,
    keys: usize,
    keys_down: usize,
    /// How many.
    keys_absent: usize,
    /// How many slots are in each state.
    slots: BTreeMap<String, usize>,
    clients: usize,
    connections: i64,
    inflight: i64,
    requests: BTreeMap<String, u64>,
    check_failures: u64,
    quarantine: Vec<QuarantineEntry>,
    refuses_all: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    ledger: Option<LedgerReport>,
    certificate_expiry: i64,
    resident_bytes: Option<i64>,
    open_fds: Option<i64>,
    stuck: Vec<String>,
    /// How many keys, how many clients, and whether all are stopped.
    stops: BTreeMap<String, usize>,
    /// How many.
    warnings: usize,
}

impl From<Status> for Summary {
    fn from(status: Status) -> Self {
        // Each field by name: a new one of the status is left out here, or let through by somebody's decision.
        let Status {
            state,
            version,
            uptime_seconds,
            pid: _,
            io,
            engine,
            generation,
            last_reload_successful,
            config: _,
            keys,
            keys_down,
            keys_absent,
            slots,
            clients,
            connections,
            inflight,
            requests,
            check_failures,
            quarantine,
            refuses_all,
            ledger,
            certificate_expiry,
            resident_bytes,
            open_fds,
            stuck,
            stops,
            horizons: _,
            warnings,
        } = status;
        Self {
            state,
            version,
            uptime_seconds,
            io,
            engine,
            generation,
            last_reload_successful,
            keys,
            keys_down,
            keys_absent: keys_absent.len(),
            slots: counts(slots.into_iter().map(|slot| slot.state)),
            clients,
            connections,
            inflight,
            requests,
            check_failures,
            quarantine,
            refuses_all,
            // Why it cannot be written has the path in it.
            ledger: ledger.map(|ledger| LedgerReport {
                failure: None,
                ..ledger
            }),
            certificate_expiry,
            resident_bytes,
            open_fds,
            stuck,
            stops: counts(stops.into_iter().map(|entry| entry.kind)),
            warnings: warnings.len(),
        }
    }
}

/// How often each stands there.
fn counts(names: impl Iterator<Item = String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for name in names {
        *counts.entry(name).or_default() += 1;
    }
    counts
}
