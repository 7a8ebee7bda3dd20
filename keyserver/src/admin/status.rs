//! The state of the server in one document: the answer to `ksctl status`. `/state` has a summary of it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::engine::{self, QuarantineEntry};
use super::horizon::{self, Horizon};
use super::process;
use super::stopping::{self, StopEntry};
use crate::clock;
use crate::ledger::LedgerReport;
use crate::state::ServerState;
use crate::stops::Subject;
use crate::tokens::SlotReport;

/// What the server is doing. Fields are added, never renamed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// `starting`, `serving`, `sealed` or `draining`.
    pub state: String,
    /// Version of the server.
    pub version: String,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// Process id.
    pub pid: u32,
    /// `uring` or `epoll`.
    pub io: String,
    /// The engine in use.
    pub engine: String,
    /// 1 at start, one more with every reload that took effect.
    pub generation: u64,
    /// Whether the last attempt to load the configuration took effect.
    pub last_reload_successful: bool,
    /// The configuration file.
    pub config: String,
    /// Keys loaded.
    pub keys: usize,
    /// Keys that cannot be served now: every slot that holds them is down.
    #[serde(default)]
    pub keys_down: usize,
    /// Labels of keys that are configured and were not loaded, because their token could not be reached.
    #[serde(default)]
    pub keys_absent: Vec<String>,
    /// The slots of tokens.
    #[serde(default)]
    pub slots: Vec<SlotReport>,
    /// Clients configured.
    pub clients: usize,
    /// Connections open.
    pub connections: i64,
    /// Admitted requests without an answer.
    pub inflight: i64,
    /// Requests answered so far, by result.
    pub requests: BTreeMap<String, u64>,
    /// Results that did not verify and were withheld: above 0, this machine is failing.
    #[serde(default)]
    pub check_failures: u64,
    /// Classes whose results were wrong, and how they are served now.
    #[serde(default)]
    pub quarantine: Vec<QuarantineEntry>,
    /// There are keys, and the engine refuses to compute with every one of them.
    #[serde(default)]
    pub refuses_all: bool,
    /// The ledger of ciphertexts, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<LedgerReport>,
    /// End of validity of the server's certificate, seconds since 1970.
    pub certificate_expiry: i64,
    /// Memory in RAM, in bytes.
    pub resident_bytes: Option<i64>,
    /// Open file descriptors.
    pub open_fds: Option<i64>,
    /// Threads that do not turn, by name; empty when all is well.
    pub stuck: Vec<String>,
    /// What an operator has stopped.
    #[serde(default)]
    pub stops: Vec<StopEntry>,
    /// How long what was given away goes on after a stop, by key; only keys of which anything is about.
    #[serde(default)]
    pub horizons: Vec<Horizon>,
    /// What the operator should know about the configuration in force.
    pub warnings: Vec<String>,
}

impl Status {
    /// The status now.
    #[must_use]
    pub fn of(server: &ServerState) -> Self {
        let snapshot = server.snapshot.load();
        let uptime = clock::wall()
            .duration_since(server.started())
            .unwrap_or_default();
        let [io, engine] = server.health.backends();
        let state = if server.health.is_draining() {
            "draining"
        } else if server.stops.current().stops(&Subject::All) {
            "sealed"
        } else if server.health.is_ready() {
            "serving"
        } else {
            "starting"
        };
        Self {
            state: state.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: uptime.as_secs(),
            pid: std::process::id(),
            io: io.to_owned(),
            engine: engine.to_owned(),
            generation: snapshot.generation,
            last_reload_successful: server.metrics.last_reload_ok(),
            config: absolute(&snapshot.config.path),
            keys: snapshot.keys.len(),
            keys_down: snapshot.keys_down(),
            keys_absent: (snapshot.absent.iter())
                .map(|key| key.label.clone())
                .collect(),
            slots: server.tokens.slots(),
            clients: snapshot.policy.client_count(),
            connections: server.metrics.connections(),
            inflight: server.metrics.inflight_now(),
            requests: (server.metrics.results())
                .filter(|(_, count)| *count > 0)
                .map(|(result, count)| (result.to_owned(), count))
                .collect(),
            check_failures: server.engine().counters().check_failures,
            quarantine: engine::quarantined(server),
            refuses_all: engine::refuses_all(server),
            ledger: server.ledger.report(),
            certificate_expiry: snapshot.certificate_expiry,
            resident_bytes: process::resident_bytes(),
            open_fds: process::open_descriptors(),
            stuck: server.health.stuck(),
            stops: stopping::entries(&server.stops.current(), &snapshot),
            horizons: horizon::of(server),
            warnings: (server.meters.health().trouble().into_iter())
                .chain(server.credentials.trouble())
                .chain(server.meters.exhausted())
                .chain(server.meters.clock_is_behind())
                .chain(snapshot.warnings())
                .collect(),
        }
    }
}

impl Status {
    /// Whether the server takes requests and at least one key can be served.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let configured = self.keys + self.keys_absent.len();
        self.state == "serving"
            && self.stuck.is_empty()
            && !self.refuses_all
            && (configured == 0 || self.keys_down < self.keys)
    }
}

/// What to do about a machine whose results do not verify.
const ALARM: &str = "failed the check and was withheld: take this machine out of service";

impl fmt::Display for Status {
    /// A few lines for a terminal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "state        {} for {}",
            self.state,
            period(self.uptime_seconds)
        )?;
        writeln!(
            f,
            "version      {} (pid {}, {}, engine {})",
            self.version, self.pid, self.io, self.engine
        )?;
        let reload = if self.last_reload_successful {
            ""
        } else {
            "; the last reload FAILED"
        };
        writeln!(
            f,
            "config       {} (generation {}{reload})",
            self.config, self.generation
        )?;
        write!(f, "keys         {}", self.keys)?;
        if self.keys_down > 0 {
            write!(f, ", {} of them DOWN", self.keys_down)?;
        }
        if !self.keys_absent.is_empty() {
            write!(f, "; ABSENT: {}", self.keys_absent.join(", "))?;
        }
        writeln!(f)?;
        for slot in &self.slots {
            writeln!(f, "slot         {slot}")?;
        }
        writeln!(f, "clients      {}", self.clients)?;
        writeln!(
            f,
            "connections  {} ({} requests in flight)",
            self.connections, self.inflight
        )?;
        let requests: Vec<_> = self
            .requests
            .iter()
            .map(|(result, count)| format!("{count} {result}"))
            .collect();
        let requests = if requests.is_empty() {
            "none yet".into()
        } else {
            requests.join(", ")
        };
        writeln!(f, "requests     {requests}")?;
        self.show_alarms(f)?;
        for name in &self.stuck {
            writeln!(f, "STUCK        {name}")?;
        }
        self.stops
            .iter()
            .try_for_each(|entry| show_stop(f, entry))?;
        self.horizons
            .iter()
            .try_for_each(|horizon| writeln!(f, "horizon      {horizon}"))?;
        self.warnings
            .iter()
            .try_for_each(|warning| writeln!(f, "warning      {warning}"))
    }
}

impl Status {
    /// The ledger, and whatever computed wrongly.
    fn show_alarms(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(ledger) = &self.ledger {
            show_ledger(f, ledger)?;
        }
        match self.check_failures {
            0 => {}
            1 => writeln!(f, "ALARM        1 result {ALARM}")?,
            many => writeln!(f, "ALARM        {many} results {ALARM}")?,
        }
        for entry in &self.quarantine {
            let (class, how) = (&entry.class, entry.trust.as_str());
            let how = match how {
                "single" => "one by one and all verified",
                other => other,
            };
            writeln!(
                f,
                "QUARANTINE   {class}: {how}; then `ksctl engine release --class {class}`"
            )?;
        }
        Ok(())
    }
}

/// What is remembered of ciphertexts, and what is wrong with it.
fn show_ledger(f: &mut fmt::Formatter<'_>, ledger: &LedgerReport) -> fmt::Result {
    writeln!(
        f,
        "ledger       {} ciphertexts in {} MiB; last write {} us",
        ledger.entries,
        ledger.bytes >> 20,
        ledger.last_write_us
    )?;
    if !ledger.writable {
        let why = ledger.failure.as_deref().unwrap_or("it is closed");
        writeln!(f, "ALARM        nothing is decrypted: {why}")?;
    }
    if ledger.replays > 0 {
        let replays = ledger.replays;
        writeln!(
            f,
            "ALARM        {replays} ciphertexts were sent again and refused: see the log for who"
        )?;
    }
    Ok(())
}

/// The line of one thing that is stopped.
fn show_stop(f: &mut fmt::Formatter<'_>, entry: &StopEntry) -> fmt::Result {
    let stop = &entry.stop;
    let what = match (entry.kind.as_str(), &entry.label) {
        ("all", _) => "everything".to_owned(),
        (kind, Some(label)) => format!("{kind} {} ({label})", entry.name),
        (kind, None) => format!("{kind} {}", entry.name),
    };
    let ago = UNIX_EPOCH
        .checked_add(Duration::from_secs(stop.since))
        .and_then(|since| clock::wall().duration_since(since).ok())
        .unwrap_or_default();
    writeln!(
        f,
        "STOPPED      {what}, for {} by uid {}: {}",
        period(ago.as_secs()),
        stop.uid,
        stop.reason
    )
}

/// The path as seen from anywhere; as it was given if the working directory is gone.
fn absolute(path: &Path) -> String {
    std::path::absolute(path)
        .unwrap_or_else(|_| path.to_owned())
        .display()
        .to_string()
}

/// `3d 4h`, `4h 5min`, `5min 6s`, `6s`.
pub(super) fn period(seconds: u64) -> String {
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let (minutes, rest) = (seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest}s"),
        (0, 0, _) => format!("{minutes}min {rest}s"),
        (0, _, _) => format!("{hours}h {minutes}min"),
        _ => format!("{days}d {hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_have_two_units_at_most() {
        assert_eq!(period(6), "6s");
        assert_eq!(period(306), "5min 6s");
        assert_eq!(period(14_700), "4h 5min");
        assert_eq!(period(273_600), "3d 4h");
    }
}
