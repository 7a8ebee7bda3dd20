//! What all threads of the server share, and the one way to change it: [`ServerState::reload`].

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use accel::Key;
use arc_swap::ArcSwap;

use crate::admin::metrics::Metrics;
use crate::clock;
use crate::config::Config;
use crate::snapshot::{LoadError, Snapshot};

mod selftest;

use selftest::Prover;

/// A loop that has not turned for this long is stuck: `/livez` fails, and systemd is no longer
/// told that the server is well.
pub const STUCK_AFTER: Duration = Duration::from_secs(5);

/// I/O loops that are watched.
const LOOPS_MAX: usize = 64;

/// Shared by every thread, for the life of the server.
#[derive(Debug)]
pub struct ServerState {
    /// The keys and rules in force. Readers take it once per turn.
    pub snapshot: ArcSwap<Snapshot>,
    /// Counters and gauges.
    pub metrics: Metrics,
    /// Whether the server is alive, ready, draining.
    pub health: Health,
    prover: Prover,
    started: SystemTime,
    reloading: Mutex<()>,
}

/// What a reload changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
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
    pub needs_restart: Vec<&'static str>,
    /// What the operator should know about the new configuration.
    pub warnings: Vec<String>,
}

impl ServerState {
    /// Loads everything that `config` names, and signs once with every key.
    ///
    /// # Errors
    ///
    /// [`LoadError`] when something cannot be used; the server must not start then.
    pub fn load(config: Config) -> Result<Arc<Self>, LoadError> {
        let prover = Prover::new(&config.accel).map_err(LoadError::Engine)?;
        let snapshot = Snapshot::load(config, 1)?;
        prover.prove(&snapshot, None)?;
        let metrics = Metrics::new();
        metrics.reload(true);
        metrics.set_keys(snapshot.keys.len());
        metrics.set_certificate_expiry(snapshot.certificate_expiry);
        Ok(Arc::new(Self {
            snapshot: ArcSwap::from_pointee(snapshot),
            metrics,
            health: Health::default(),
            prover,
            started: clock::wall(),
            reloading: Mutex::new(()),
        }))
    }

    /// Reads the configuration file again and puts what it names in force: parse, validate, build,
    /// sign once with every new or changed key, swap. Connections are not touched; a request
    /// decided under the old snapshot finishes under it.
    ///
    /// # Errors
    ///
    /// [`LoadError`] when anything cannot be used. Nothing has changed then; the failure is logged
    /// and visible in `keyserver_config_last_reload_successful`.
    pub fn reload(&self) -> Result<ReloadReport, LoadError> {
        // One at a time. The mutex guards no data, so a panic under it spoils nothing.
        let _one_at_a_time = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
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
        let new = Snapshot::load(config, old.generation + 1)?;
        self.prover.prove(&new, Some(old))?;
        let missing_in = |other: &Snapshot, of: &Snapshot| {
            of.keys.iter().filter(|(_, entry)| !contains(other, &entry.key)).count()
        };
        let report = ReloadReport {
            generation: new.generation,
            keys: new.keys.len(),
            added: missing_in(old, &new),
            removed: missing_in(&new, old),
            clients: new.policy.client_count(),
            needs_restart,
            warnings: new.policy.warnings().to_vec(),
        };
        self.metrics.set_keys(new.keys.len());
        self.metrics.set_certificate_expiry(new.certificate_expiry);
        self.snapshot.store(Arc::new(new));
        Ok(report)
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
fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    [
        ("listen", old.listen != new.listen),
        ("admin", old.admin != new.admin),
        ("metrics", old.metrics != new.metrics),
        ("io", old.io != new.io),
        ("accel", old.accel != new.accel),
        ("limits", old.limits != new.limits),
        ("shutdown", old.shutdown != new.shutdown),
    ]
    .into_iter()
    .filter_map(|(section, changed)| changed.then_some(section))
    .collect()
}

/// Whether the server is well, as its own threads see it.
#[derive(Debug)]
pub struct Health {
    /// The server accepts connections.
    pub ready: AtomicBool,
    /// The server is going away: not ready from here on, but alive.
    pub draining: AtomicBool,
    backends: OnceLock<[&'static str; 2]>,
    origin: Instant,
    /// When each I/O loop turned last, in milliseconds since `origin`, plus one; 0 for a loop that
    /// has not started.
    ticks: [AtomicU64; LOOPS_MAX],
}

impl Default for Health {
    fn default() -> Self {
        Self {
            ready: AtomicBool::default(),
            draining: AtomicBool::default(),
            backends: OnceLock::new(),
            origin: clock::now(),
            ticks: [const { AtomicU64::new(0) }; LOOPS_MAX],
        }
    }
}

impl Health {
    /// I/O loop number `index` has turned. It must, at least once a second.
    pub fn tick(&self, index: usize) {
        if let Some(tick) = self.ticks.get(index) {
            tick.store(self.millis().saturating_add(1), Ordering::Relaxed);
        }
    }

    /// I/O loop number `index` has ended in good order.
    pub fn ended(&self, index: usize) {
        if let Some(tick) = self.ticks.get(index) {
            tick.store(0, Ordering::Relaxed);
        }
    }

    /// The I/O loops that have not turned for [`STUCK_AFTER`].
    #[must_use]
    pub fn stuck(&self) -> Vec<usize> {
        let oldest = self.millis().saturating_sub(STUCK_AFTER.as_millis().try_into().unwrap_or(0));
        let stuck = |tick: &AtomicU64| (1..=oldest).contains(&tick.load(Ordering::Relaxed));
        let ticks = self.ticks.iter().enumerate();
        ticks.filter_map(|(index, tick)| stuck(tick).then_some(index)).collect()
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

    fn millis(&self) -> u64 {
        let since = clock::now().saturating_duration_since(self.origin);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_ends_with_draining_and_liveness_does_not() {
        let health = Health::default();
        assert!(!health.is_ready());
        health.ready.store(true, Ordering::Release);
        assert!(health.is_ready());
        health.draining.store(true, Ordering::Release);
        assert!(!health.is_ready() && health.is_draining() && health.stuck().is_empty());
    }

    #[test]
    fn a_loop_that_stops_turning_is_named() {
        let long_ago = clock::now().checked_sub(STUCK_AFTER * 3);
        let health = Health {
            origin: long_ago.expect("the machine has been up for a while"),
            ..Health::default()
        };
        health.tick(0);
        health.ticks[3].store(1, Ordering::Relaxed);
        assert_eq!(health.stuck(), [3]);
        health.tick(3);
        assert!(health.stuck().is_empty());
        health.ticks[3].store(1, Ordering::Relaxed);
        health.ended(3);
        assert!(health.stuck().is_empty());
        health.tick(LOOPS_MAX);
    }
}
