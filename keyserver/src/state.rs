//! What all threads of the server share, and the one way to change it: [`ServerState::reload`].

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use accel::{Engine, Key, Trust};
use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};

use crate::admin::metrics::Metrics;
use crate::config::{Config, Pkcs11};
use crate::delegation::Outstanding;
use crate::ledger::LedgerHealth;
use crate::meters::Meters;
use crate::selftest::Prover;
use crate::snapshot::{LoadError, Snapshot};
use crate::statefile::StateError;
use crate::stops::Switchboard;
use crate::tickets::TicketEnds;
use crate::tokens::Tokens;
use crate::turns::{Turn, Turns};
use crate::{clock, limits};

/// A loop that has not turned for this long is stuck: `/livez` fails, and systemd is no longer
/// told that the server is well.
pub const STUCK_AFTER: Duration = Duration::from_secs(5);

/// How long a reload waits for another that is under way.
const RELOAD_PATIENCE: Duration = Duration::from_secs(2);

/// Shared by every thread, for the life of the server.
#[derive(Debug)]
pub struct ServerState {
    /// The keys and rules in force. Readers take it once per turn.
    pub snapshot: ArcSwap<Snapshot>,
    /// Counters and gauges.
    pub metrics: Metrics,
    /// Whether the server is alive, ready, draining.
    pub health: Health,
    /// The tokens that hold some of the keys.
    pub tokens: Tokens,
    /// What an operator has stopped.
    pub stops: Switchboard,
    /// How much of the limits of grants is used.
    pub meters: Meters,
    /// The delegated credentials that are about.
    pub credentials: Arc<Outstanding>,
    /// Until when the ticket keys are of use that edges have.
    pub ticket_ends: TicketEnds,
    /// How the ledger of ciphertexts is.
    pub ledger: Arc<LedgerHealth>,
    engine: Arc<Engine>,
    prover: Prover,
    started: SystemTime,
    reloading: Turns,
    /// A signal waits for the reload that is under way.
    signal_waits: AtomicBool,
}

/// What a reload changed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReloadReport {
    /// Generation of the snapshot now in force.
    pub generation: u64,
    /// Keys in it.
    pub keys: usize,
    /// Keys that were not there before. Each has signed once for a test.
    pub added: usize,
    /// Keys that are gone.
    pub removed: usize,
    /// Clients in it.
    pub clients: usize,
    /// Sections that changed in the file but count only after a restart.
    pub needs_restart: Vec<String>,
    /// What the operator should know about the new configuration.
    pub warnings: Vec<String>,
}

impl ServerState {
    /// Loads everything that `config` names, and signs once with every key.
    ///
    /// # Errors
    ///
    /// [`LoadError`] when something cannot be used; the server must not start then.
    pub fn load(config: Config, engine: Arc<Engine>) -> Result<Arc<Self>, LoadError> {
        let prover = Prover::new(&config.accel).map_err(LoadError::Engine)?;
        let stops = Switchboard::open(config.admin.state.as_deref()).map_err(LoadError::State)?;
        let tokens = Tokens::new(&config.pkcs11);
        let meters = Meters::open(config.admin.state.as_deref()).map_err(LoadError::State)?;
        let credentials =
            Outstanding::open(config.admin.state.as_deref()).map_err(LoadError::State)?;
        let credentials = Arc::new(credentials);
        let mut snapshot = Snapshot::load(config, &tokens, None)?;
        prover.prove(&snapshot, None)?;
        (meters.attach(&mut snapshot.policy)).map_err(LoadError::State)?;
        let ledger = Arc::<LedgerHealth>::default();
        let metrics = Metrics::new(
            Arc::clone(&engine),
            tokens.clone(),
            Arc::clone(&credentials),
            Arc::clone(&ledger),
            Arc::clone(meters.health()),
        );
        metrics.reload(true);
        metrics.set_keys(snapshot.keys.len());
        metrics.set_certificate_expiry(snapshot.certificate_expiry);
        Ok(Arc::new(Self {
            snapshot: ArcSwap::from_pointee(snapshot),
            metrics,
            health: Health::default(),
            tokens,
            stops,
            meters,
            credentials,
            ticket_ends: TicketEnds::default(),
            ledger,
            engine,
            prover,
            started: clock::wall(),
            reloading: Turns::default(),
            signal_waits: AtomicBool::new(false),
        }))
    }

    /// Reads the configuration file again and puts what it names in force: parse, validate, build,
    /// sign once with every new or changed key, swap. Other keys in files stay the objects that they
    /// were. Connections are not touched; a request decided under the old snapshot finishes under it.
    ///
    /// # Errors
    ///
    /// [`LoadError`] when anything cannot be used. Nothing has changed then; the failure is logged
    /// and visible in `keyserver_config_last_reload_successful`. Also when another reload is under way for longer than two seconds,
    /// which may have read the files before they were last changed: it is logged, and to be asked for again.
    pub fn reload(&self) -> Result<ReloadReport, LoadError> {
        // Nobody waits for long for another, which may wait for a disk that does not answer: each would keep one of the few
        // places of the control socket.
        let turn = self.reloading.take(RELOAD_PATIENCE, false).ok_or_else(|| {
            let what = "a reload is under way: ask again when it has ended";
            tracing::error!("not reloaded: {what}");
            LoadError::State(StateError {
                what: what.to_owned(),
            })
        })?;
        self.reload_in_turn(turn)
    }

    /// The same for a signal, which cannot be told to ask again: one waits for a reload that is under way, however long.
    /// Nothing, when one waits already: it reads what is there when its turn comes.
    pub fn reload_at_signal(&self) -> Option<Result<ReloadReport, LoadError>> {
        if self.signal_waits.swap(true, Ordering::SeqCst) {
            return None;
        }
        let turn = self.reloading.take(Duration::MAX, false)?;
        // A signal that comes from now on may be about files that this reload has read.
        self.signal_waits.store(false, Ordering::SeqCst);
        Some(self.reload_in_turn(turn))
    }

    fn reload_in_turn(&self, _turn: Turn<'_>) -> Result<ReloadReport, LoadError> {
        let old = self.snapshot.load_full();
        let result = self.replace(&old);
        self.metrics.reload(result.is_ok());
        match &result {
            Ok(report) => {
                tracing::info!(
                    generation = report.generation,
                    keys = report.keys,
                    added = report.added,
                    removed = report.removed,
                    clients = report.clients,
                    "configuration reloaded"
                );
                for section in &report.needs_restart {
                    tracing::warn!("[{section}] changed; it counts after a restart");
                }
                for warning in &report.warnings {
                    tracing::warn!("{warning}");
                }
            }
            Err(error) => tracing::error!(
                generation = old.generation,
                "reload failed, the old configuration stays in force: {error}"
            ),
        }
        result
    }

    fn replace(&self, old: &Snapshot) -> Result<ReloadReport, LoadError> {
        let config = Config::load(&old.config.path)?;
        let needs_restart = needs_restart(&old.config, &config);
        let mut new = Snapshot::load(config, &self.tokens, Some(old))?;
        // Of a class in quarantine every key is taken as it was read and proved again: the one in memory may be
        // what is wrong.
        let may_keep = |key: &Key| self.engine.trust(key.class()) == Trust::Trusted;
        new.keys.adopt(&old.keys, may_keep);
        self.prover.prove(&new, Some(old))?;
        (self.meters.attach(&mut new.policy)).map_err(LoadError::State)?;
        let missing_in = |other: &Snapshot, of: &Snapshot| {
            of.keys
                .iter()
                .filter(|(_, entry)| !contains(other, &entry.key))
                .count()
        };
        let report = ReloadReport {
            generation: new.generation,
            keys: new.keys.len(),
            added: missing_in(old, &new),
            removed: missing_in(&new, old),
            clients: new.policy.client_count(),
            needs_restart,
            warnings: new.warnings(),
        };
        self.metrics.set_keys(new.keys.len());
        self.metrics.set_certificate_expiry(new.certificate_expiry);
        self.snapshot.store(Arc::new(new));
        Ok(report)
    }

    /// The engine that the crypto threads share.
    #[must_use]
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// When the server started, time of day.
    #[must_use]
    pub fn started(&self) -> SystemTime {
        self.started
    }
}

fn contains(snapshot: &Snapshot, key: &Key) -> bool {
    snapshot.keys.by_ski(&key.ski()).is_some()
}

/// Sections that are read at start only.
fn needs_restart(old: &Config, new: &Config) -> Vec<String> {
    [
        ("listen", old.listen != new.listen),
        ("admin", old.admin != new.admin),
        ("metrics", old.metrics != new.metrics),
        ("ledger", old.ledger != new.ledger),
        ("io", old.io != new.io),
        ("accel", old.accel != new.accel),
        ("limits", old.limits != new.limits),
        ("shutdown", old.shutdown != new.shutdown),
        ("pkcs11", pools(old) != pools(new)),
    ]
    .into_iter()
    .filter(|(_, changed)| *changed)
    .map(|(section, _)| section.to_owned())
    .collect()
}

/// What the pools of the slots were made from. The rest of the table counts at once.
fn pools(config: &Config) -> Pkcs11 {
    Pkcs11 {
        module: None,
        deadline: limits::JOB_DEADLINE,
        ..config.pkcs11.clone()
    }
}

/// Whether the server is well, as its own threads see it.
#[derive(Debug, Default)]
pub struct Health {
    ready: AtomicBool,
    draining: AtomicBool,
    backends: OnceLock<[&'static str; 2]>,
    loops: Mutex<Vec<Arc<Heartbeat>>>,
}

/// The pulse of one loop. Its thread calls [`Self::tick`] every turn, at least once a second.
#[derive(Debug)]
pub struct Heartbeat {
    name: String,
    origin: Instant,
    /// Milliseconds after `origin`.
    last: AtomicU64,
}

impl Heartbeat {
    fn new(name: String, origin: Instant) -> Self {
        Self {
            name,
            origin,
            last: AtomicU64::new(0),
        }
    }

    /// The loop has turned.
    pub fn tick(&self) {
        self.last.store(self.millis(), Ordering::Relaxed);
    }

    fn is_stuck(&self) -> bool {
        let silent = self
            .millis()
            .saturating_sub(self.last.load(Ordering::Relaxed));
        Duration::from_millis(silent) > STUCK_AFTER
    }

    fn millis(&self) -> u64 {
        let since = clock::now().saturating_duration_since(self.origin);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

impl Health {
    /// Starts to watch a loop.
    pub fn watch(&self, name: impl Into<String>) -> Arc<Heartbeat> {
        let heartbeat = Arc::new(Heartbeat::new(name.into(), clock::now()));
        self.loops().push(Arc::clone(&heartbeat));
        heartbeat
    }

    /// Stops to watch a loop, before its thread ends in good order.
    pub fn unwatch(&self, heartbeat: &Arc<Heartbeat>) {
        self.loops().retain(|other| !Arc::ptr_eq(other, heartbeat));
    }

    /// The loops that have not turned for [`STUCK_AFTER`].
    #[must_use]
    pub fn stuck(&self) -> Vec<String> {
        let loops = self.loops();
        loops
            .iter()
            .filter(|beat| beat.is_stuck())
            .map(|beat| beat.name.clone())
            .collect()
    }

    /// The server accepts connections.
    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    /// The server is going away: not ready from here on, but alive.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether new work is welcome.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire) && !self.is_draining()
    }

    /// Whether the server is going away.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Notes which I/O backend and which engine are in use. Neither changes while the server runs:
    /// a second call has no effect.
    pub fn set_backends(&self, io: &'static str, engine: &'static str) {
        let _ = self.backends.set([io, engine]);
    }

    /// The I/O backend (`uring` or `epoll`) and the engine in use; `none` before start.
    #[must_use]
    pub fn backends(&self) -> [&'static str; 2] {
        self.backends.get().copied().unwrap_or(["none"; 2])
    }

    fn loops(&self) -> MutexGuard<'_, Vec<Arc<Heartbeat>>> {
        self.loops.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_ends_with_draining_and_liveness_does_not() {
        let health = Health::default();
        assert!(!health.is_ready());
        health.set_ready();
        assert!(health.is_ready());
        health.set_draining();
        assert!(!health.is_ready() && health.is_draining() && health.stuck().is_empty());
    }

    #[test]
    fn a_loop_that_stops_turning_is_named() {
        let health = Health::default();
        let long_ago = clock::now().checked_sub(STUCK_AFTER * 2);
        let long_ago = long_ago.expect("the machine has been up for a while");
        let heartbeat = Arc::new(Heartbeat::new("io-0".to_owned(), long_ago));
        health.loops().push(Arc::clone(&heartbeat));
        assert_eq!(health.stuck(), ["io-0"]);
        heartbeat.tick();
        assert!(health.stuck().is_empty());
        health.unwatch(&heartbeat);
        assert!(health.loops().is_empty());
    }
}
