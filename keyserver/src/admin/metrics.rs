//! Every figure the server exports, in the text format of Prometheus (OpenMetrics).
//!
//! What the data path counts is in [`super::shards`], what the queues count in [`super::queues`]; the rest changes rarely and is kept here.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, UNIX_EPOCH};

use accel::{Class, Engine};
use keyless_protocol::Opcode;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;

use super::ledger::LedgerCollector;
use super::process::ProcessCollector;
use super::queues::{Queues, QueuesCollector};
pub use super::shards::Stage;
use super::shards::{Shards, ShardsCollector, encode_one};
use super::slots::SlotsCollector;
use crate::clock;
use crate::delegation::Outstanding;
use crate::dispatch::Dispatcher;
use crate::ending::Now;
use crate::ledger::LedgerHealth;
use crate::meters::MetersHealth;
use crate::tokens::Tokens;

/// The reason of those that found no room.
const OVERLOAD: &str = "overload";

type Labels = Vec<(&'static str, &'static str)>;

/// All figures. Cheap to call from any thread.
pub struct Metrics {
    registry: Registry,
    shards: Arc<Shards>,
    queues: Arc<Queues>,
    control: Control,
}

/// The figures that the data path rarely touches. Clones share their values.
#[derive(Debug, Clone)]
struct Control {
    rejected: Family<Labels, Counter>,
    /// Of the rejected, those that may come in their hundred thousands.
    overloaded: Counter,
    handshakes: Family<Labels, Counter>,
    resumed: Counter,
    full: Counter,
    handshake_failures: Family<Labels, Counter>,
    last_reload_ok: Gauge,
    last_reload_time: Gauge,
    reloads: Family<Labels, Counter>,
    keys: Gauge,
    certificate_expiry: Gauge,
    build: Family<Labels, Gauge>,
}

impl Metrics {
    /// All figures at zero; those of `engine`, `tokens`, `credentials`, `ledger` and `meters` as they keep them.
    #[must_use]
    pub fn new(
        engine: Arc<Engine>,
        tokens: Tokens,
        credentials: Arc<Outstanding>,
        ledger: Arc<LedgerHealth>,
        meters: Arc<MetersHealth>,
    ) -> Self {
        let shards = Arc::new(Shards::new());
        let queues = Arc::new(Queues::default());
        let control = Control::new();
        let mut registry = Registry::default();
        control.register(&mut registry);
        registry.register_collector(Box::new(ShardsCollector(Arc::clone(&shards))));
        registry.register_collector(Box::new(QueuesCollector(Arc::clone(&queues))));
        registry.register_collector(Box::new(EngineCollector(engine)));
        registry.register_collector(Box::new(SlotsCollector(tokens)));
        registry.register_collector(Box::new(CredentialsCollector(credentials)));
        registry.register_collector(Box::new(LedgerCollector(ledger)));
        registry.register_collector(Box::new(MetersCollector(meters)));
        registry.register_collector(Box::new(ProcessCollector));
        Self {
            registry,
            shards,
            queues,
            control,
        }
    }

    /// A request was answered. `class` is that of its key, for key operations. `result` is one of
    /// `ok`, `refused`, `bad-request`, `crypto-failure`, `busy`, `deadline`, `internal`; anything
    /// else is counted as `other`.
    pub fn request(&self, opcode: Opcode, class: Option<Class>, result: &'static str) {
        self.shards.mine().request(opcode, class, result);
    }

    /// A request spent `time` in `stage`.
    pub fn observe_stage(&self, stage: Stage, time: Duration) {
        self.shards.mine().stage(stage, time);
    }

    /// A crypto thread took `fill` jobs of one class at once.
    pub fn batch(&self, class: Class, fill: usize) {
        self.shards.mine().batch(class, fill);
    }

    /// A request was not carried out.
    pub fn rejected(&self, reason: &'static str) {
        if reason == OVERLOAD {
            self.control.overloaded.inc();
            return;
        }
        self.control
            .rejected
            .get_or_create(&vec![("reason", reason)])
            .inc();
    }

    /// A connection was accepted.
    pub fn connection_opened(&self) {
        self.shards
            .mine()
            .connections
            .fetch_add(1, Ordering::Relaxed);
        self.shards
            .mine()
            .connections_opened
            .fetch_add(1, Ordering::Relaxed);
    }

    /// A connection is gone.
    pub fn connection_closed(&self) {
        self.shards
            .mine()
            .connections
            .fetch_sub(1, Ordering::Relaxed);
    }

    /// Connections that are open now.
    #[must_use]
    pub fn connections(&self) -> i64 {
        self.shards.level(|shard| &shard.connections)
    }

    /// A TLS handshake was completed.
    pub fn handshake(&self, resumed: bool) {
        if resumed {
            &self.control.resumed
        } else {
            &self.control.full
        }
        .inc();
    }

    /// A TLS handshake was not completed.
    pub fn handshake_failed(&self, reason: &'static str) {
        self.control
            .handshake_failures
            .get_or_create(&vec![("reason", reason)])
            .inc();
    }

    /// Reads the figures of the queues from these from now on, once.
    pub(crate) fn watch_queues(&self, dispatchers: Box<[Arc<Dispatcher>]>) {
        self.queues.watch(dispatchers);
    }

    /// The number of admitted requests without an answer changed by `delta`.
    pub fn inflight(&self, delta: i64) {
        self.shards
            .mine()
            .inflight
            .fetch_add(delta, Ordering::Relaxed);
    }

    /// Admitted requests without an answer.
    #[must_use]
    pub fn inflight_now(&self) -> i64 {
        self.shards.level(|shard| &shard.inflight)
    }

    /// Requests so far, by result.
    pub fn results(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.shards.results()
    }

    /// The configuration was loaded, or could not be.
    pub fn reload(&self, ok: bool) {
        let result = if ok { "ok" } else { "failed" };
        self.control
            .reloads
            .get_or_create(&vec![("result", result)])
            .inc();
        self.control.last_reload_ok.set(i64::from(ok));
        if ok {
            let now = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.control
                .last_reload_time
                .set(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
        }
    }

    /// Whether the last attempt to load the configuration took effect.
    #[must_use]
    pub fn last_reload_ok(&self) -> bool {
        self.control.last_reload_ok.get() == 1
    }

    /// `count` keys are loaded.
    pub fn set_keys(&self, count: usize) {
        self.control
            .keys
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// The server's certificate ends at `seconds` since 1970.
    pub fn set_certificate_expiry(&self, seconds: i64) {
        self.control.certificate_expiry.set(seconds);
    }

    /// Which I/O backend and which engine are in use.
    pub fn set_build_info(&self, io: &'static str, engine: &'static str) {
        let labels = vec![
            ("version", env!("CARGO_PKG_VERSION")),
            ("io", io),
            ("engine", engine),
        ];
        self.control.build.clear();
        self.control.build.get_or_create(&labels).set(1);
    }

    /// The text of `/metrics`.
    ///
    /// # Errors
    ///
    /// Fails only when a collector does.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut body = String::new();
        text::encode(&mut body, &self.registry)?;
        Ok(body)
    }
}

impl Control {
    fn new() -> Self {
        let handshakes = Family::<Labels, Counter>::default();
        let rejected = Family::<Labels, Counter>::default();
        Self {
            resumed: handshakes.get_or_create_owned(&vec![("resumed", "yes")]),
            full: handshakes.get_or_create_owned(&vec![("resumed", "no")]),
            handshakes,
            overloaded: rejected.get_or_create_owned(&vec![("reason", OVERLOAD)]),
            rejected,
            handshake_failures: Family::default(),
            last_reload_ok: Gauge::default(),
            last_reload_time: Gauge::default(),
            reloads: Family::default(),
            keys: Gauge::default(),
            certificate_expiry: Gauge::default(),
            build: Family::default(),
        }
    }

    fn register(&self, registry: &mut Registry) {
        registry.register(
            "keyserver_build_info",
            "Version, I/O backend and engine in use",
            self.build.clone(),
        );
        registry.register(
            "keyserver_keys",
            "Private keys that are loaded",
            self.keys.clone(),
        );
        registry.register(
            "keyserver_cert_expiry_timestamp_seconds",
            "End of validity of the server's certificate, seconds since 1970",
            self.certificate_expiry.clone(),
        );
        registry.register(
            "keyserver_config_last_reload_successful",
            "Whether the last attempt to load the configuration took effect",
            self.last_reload_ok.clone(),
        );
        registry.register(
            "keyserver_config_last_reload_success_timestamp_seconds",
            "When the configuration in force was loaded, seconds since 1970",
            self.last_reload_time.clone(),
        );
        registry.register(
            "keyserver_config_reloads",
            "Attempts to load the configuration, by result",
            self.reloads.clone(),
        );
        registry.register(
            "keyserver_rejected",
            "Requests that were not carried out, by reason",
            self.rejected.clone(),
        );
        registry.register(
            "keyserver_tls_handshakes",
            "TLS handshakes that were completed",
            self.handshakes.clone(),
        );
        registry.register(
            "keyserver_tls_handshake_failures",
            "TLS handshakes that were not completed, by reason",
            self.handshake_failures.clone(),
        );
    }
}

/// What the engine counts about itself.
#[derive(Debug)]
struct EngineCollector(Arc<Engine>);

impl Collector for EngineCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let counters = self.0.counters();
        encode_one(
            &mut encoder,
            "keyserver_key_operation_check_failures",
            "Results that did not verify and were withheld: above 0, this machine is failing.",
            &ConstCounter::new(counters.check_failures),
        )?;
        encode_one(
            &mut encoder,
            "keyserver_key_operation_fallbacks",
            "Key operations that were done again, one by one.",
            &ConstCounter::new(counters.fallbacks),
        )?;
        let mut family = encoder.encode_descriptor(
            "keyserver_key_operations",
            "Key operations, in lanes of a batch or one by one.",
            None,
            MetricType::Counter,
        )?;
        for (path, count) in [("batch", counters.batched), ("single", counters.single)] {
            ConstCounter::new(count).encode(family.encode_family(&[("path", path)])?)?;
        }
        let mut family = encoder.encode_descriptor(
            "keyserver_engine_quarantine",
            "0: every backend is used. 1: lanes erred, operations run one by one. 2: those erred too, none is computed.",
            None,
            MetricType::Gauge,
        )?;
        for class in Class::ALL {
            let labels = [("class", class.name())];
            let trust = self.0.trust(class) as u64;
            ConstGauge::new(trust).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// The delegated credentials that are about.
#[derive(Debug)]
struct CredentialsCollector(Arc<Outstanding>);

impl Collector for CredentialsCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let count = i64::try_from(self.0.count(Now::read())).unwrap_or(i64::MAX);
        encode_one(
            &mut encoder,
            "keyserver_delegated_credentials",
            "Delegated credentials that were issued and have not ended.",
            &ConstGauge::new(count),
        )
    }
}

/// The file of the meters.
#[derive(Debug)]
struct MetersCollector(Arc<MetersHealth>);

impl Collector for MetersCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        encode_one(
            &mut encoder,
            "keyserver_meters_writable",
            "Whether uses of grants with daily limits can be written down: while it is 0, they run dry.",
            &ConstGauge::new(i64::from(self.0.is_writable())),
        )?;
        encode_one(
            &mut encoder,
            "keyserver_meters_failures",
            "Writes of what such grants have used that failed.",
            &ConstCounter::new(self.0.failures()),
        )
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}
