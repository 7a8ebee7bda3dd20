//! Figures of the ledger of ciphertexts, and the command that drops a key from it.

use std::fmt;
use std::sync::Arc;

use keyless_protocol::info::ski_from_hex;
use nix::sys::socket::UnixCredentials;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use serde::{Deserialize, Serialize};

use super::protocol::ControlReply;
use super::shards::encode_one;
use super::stopping::check_reason;
use crate::ledger::{LedgerHealth, LedgerReport};
use crate::state::ServerState;

/// A command to drop what a key has opened. It cannot be taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropRequest {
    /// The SKI of the key, in hexadecimal digits.
    pub key: String,
    /// Why, for the record.
    pub reason: String,
}

/// Carries out the command for a peer, and records it.
pub(super) fn execute(
    request: &DropRequest,
    peer: &UnixCredentials,
    state: &ServerState,
) -> ControlReply {
    let outcome = drop_key(request, state);
    tracing::warn!(
        target: "keyserver::audit",
        uid = peer.uid(),
        pid = peer.pid(),
        key = %request.key.escape_debug(),
        reason = %request.reason.escape_debug(),
        "{}",
        outcome.as_ref().map_or_else(
            |message| format!("not dropped from the ledger: {}", message.escape_debug()),
            |()| "dropped from the ledger by command".to_owned(),
        )
    );
    outcome.map_or_else(ControlReply::error, |()| ControlReply::dropped())
}

/// A key that may still be used is not dropped: from then on it would open nothing.
fn drop_key(request: &DropRequest, state: &ServerState) -> Result<(), String> {
    check_reason(&request.reason)?;
    let ski = ski_from_hex(&request.key.replace(':', "")).ok_or_else(|| {
        "name the key by its SKI, 40 hexadecimal digits: what is dropped is gone for good"
            .to_owned()
    })?;
    let snapshot = state.snapshot.load();
    if snapshot.keys.by_ski(&ski).is_some() {
        return Err("this key is loaded: take it out of the configuration first".to_owned());
    }
    if let Some(absent) = snapshot.absent.first() {
        return Err(format!(
            "the key {} is configured and its token cannot be reached: it might be the one that is meant",
            absent.label
        ));
    }
    state.ledger.drop_key(ski)
}

/// Asks at every scrape; without a ledger there are no figures.
#[derive(Debug)]
pub(super) struct LedgerCollector(pub(super) Arc<LedgerHealth>);

/// A figure: name, meaning, how it is read.
type Figure = (&'static str, &'static str, fn(&LedgerReport) -> u64);

const COUNTERS: [Figure; 4] = [
    (
        "keyserver_ledger_decisions",
        "Requests to open a ciphertext that the ledger decided about.",
        |ledger| ledger.decisions,
    ),
    (
        "keyserver_ledger_writes",
        "Writes of the ledger to its disk; each makes many decisions durable.",
        |ledger| ledger.writes,
    ),
    (
        "keyserver_ledger_failures",
        "Writes that failed: what they were for was refused.",
        |ledger| ledger.failures,
    ),
    (
        "keyserver_ledger_replays",
        "Ciphertexts that were sent again: above 0, look who replays recorded handshakes.",
        |ledger| ledger.replays,
    ),
];

const GAUGES: [Figure; 3] = [
    (
        "keyserver_ledger_writable",
        "Whether ciphertexts can be recorded: while it is 0, none is answered.",
        |ledger| u64::from(ledger.writable),
    ),
    (
        "keyserver_ledger_entries",
        "Ciphertexts that the ledger remembers, about.",
        |ledger| ledger.entries,
    ),
    ("keyserver_ledger_bytes", "Bytes of its files.", |ledger| {
        ledger.bytes
    }),
];

impl Collector for LedgerCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(report) = self.0.report() else {
            return Ok(());
        };
        for (name, help, read) in COUNTERS {
            encode_one(&mut encoder, name, help, &ConstCounter::new(read(&report)))?;
        }
        for (name, help, read) in GAUGES {
            encode_one(&mut encoder, name, help, &ConstGauge::new(read(&report)))?;
        }
        encode_one(
            &mut encoder,
            "keyserver_ledger_write_seconds",
            "Time spent on writes.",
            &ConstCounter::new(seconds(report.write_us)),
        )?;
        encode_one(
            &mut encoder,
            "keyserver_ledger_last_write_seconds",
            "Time that the last write took.",
            &ConstGauge::new(seconds(report.last_write_us)),
        )
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "exact for the first 285 years of writing"
)]
fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}
