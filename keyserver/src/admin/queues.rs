//! The figures of the queues, read at each scrape from where they are kept.

use std::fmt;
use std::sync::{Arc, OnceLock};

use accel::Class;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::dispatch::Dispatcher;
use crate::dispatch::scheduler::Figures;

/// The queues of a running server; none before it runs.
#[derive(Debug, Default)]
pub(super) struct Queues(OnceLock<Box<[Arc<Dispatcher>]>>);

impl Queues {
    /// Names the queues to read. Those of a server do not change: a second call has no effect.
    pub(super) fn watch(&self, dispatchers: Box<[Arc<Dispatcher>]>) {
        let _ = self.0.set(dispatchers);
    }

    /// The figures of a class, over all cells.
    fn figures(&self, class: Class) -> Figures {
        let mut sum = Figures::default();
        for dispatcher in self.0.get().into_iter().flatten() {
            let one = dispatcher.figures(class);
            sum.waiting += one.waiting;
            // A job waits in one cell: the longest wait is the one to know.
            sum.wait = sum.wait.max(one.wait);
            sum.busy += one.busy;
            sum.too_late += one.too_late;
            sum.expired += one.expired;
        }
        sum
    }
}

/// Encodes [`Queues`] for a scrape.
#[derive(Debug)]
pub(super) struct QueuesCollector(pub(super) Arc<Queues>);

impl Collector for QueuesCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let figures = Class::ALL.map(|class| (class.name(), self.0.figures(class)));
        let mut family = encoder.encode_descriptor(
            "keyserver_queue_depth",
            "Jobs waiting for a crypto thread, by class.",
            None,
            MetricType::Gauge,
        )?;
        for (class, figures) in figures {
            let depth = i64::try_from(figures.waiting).unwrap_or(i64::MAX);
            ConstGauge::new(depth).encode(family.encode_family(&[("class", class)])?)?;
        }
        let mut family = encoder.encode_descriptor(
            "keyserver_queue_wait_seconds",
            "Time that the crypto threads need for what waits, by class; also what a refused client is told to wait.",
            None,
            MetricType::Gauge,
        )?;
        for (class, figures) in figures {
            let wait = figures.wait.as_secs_f64();
            ConstGauge::new(wait).encode(family.encode_family(&[("class", class)])?)?;
        }
        let mut family = encoder.encode_descriptor(
            "keyserver_queue_refusals",
            "Jobs not done: no room in time (busy), no chance by their deadline (too-late), deadline passed while waiting (expired).",
            None,
            MetricType::Counter,
        )?;
        for (class, figures) in figures {
            let reasons = [
                ("busy", figures.busy),
                ("too-late", figures.too_late),
                ("expired", figures.expired),
            ];
            for (reason, count) in reasons {
                let labels = [("class", class), ("reason", reason)];
                ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
