//! The figures that the data path touches with every request.
//!
//! Each thread counts in one of a few shards, its own while there are enough, so that counting
//! never makes two cores fight over a cache line. A scrape adds the shards up.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use accel::Class;
use crossbeam_utils::CachePadded;
use keyless_protocol::Opcode;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::limits::BATCH_MAX;

/// Copies of the counters. More threads than this share.
const SHARDS: usize = 16;

/// What can become of a request: the `result` label. Anything else is counted as the last.
const RESULTS: [&str; 8] = [
    "ok",
    "refused",
    "bad-request",
    "crypto-failure",
    "busy",
    "deadline",
    "internal",
    "other",
];

/// The classes, and one more for requests without a key operation.
const COLUMNS: usize = Class::ALL.len() + 1;

/// Upper bounds of the duration histograms, in microseconds; one more bucket takes the rest. They
/// are closest where the overload contract has its bounds, at 10 and 20 ms.
const BOUNDS_US: [u64; 28] = [
    10, 20, 50, 100, 200, 500, 1_000, 2_000, 3_000, 5_000, 6_000, 7_000, 8_000, 9_000, 10_000,
    12_500, 15_000, 17_500, 20_000, 25_000, 30_000, 50_000, 100_000, 200_000, 500_000, 1_000_000,
    2_000_000, 5_000_000,
];

/// A part of the way of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// From admission until a crypto thread took it.
    Queue,
    /// The key operation, with the check of its result.
    Crypto,
    /// From the parsed request until its reply was handed to its connection.
    Total,
}

impl Stage {
    const ALL: [Self; 3] = [Self::Queue, Self::Crypto, Self::Total];

    const fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Crypto => "crypto",
            Self::Total => "total",
        }
    }
}

/// All shards.
pub(super) struct Shards {
    shards: Box<[CachePadded<Shard>]>,
}

/// One copy of the counters. Relaxed ordering throughout: each figure stands alone.
pub(super) struct Shard {
    /// `[opcode][column][result]`, flat.
    requests: Box<[AtomicU64]>,
    stages: [Histogram; Stage::ALL.len()],
    /// `[class][fill - 1]`
    batches: [[AtomicU64; BATCH_MAX]; Class::ALL.len()],
    pub(super) connections: AtomicI64,
    pub(super) connections_opened: AtomicU64,
    pub(super) inflight: AtomicI64,
}

#[derive(Default)]
struct Histogram {
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    sum_ns: AtomicU64,
}

impl Shards {
    pub(super) fn new() -> Self {
        Self {
            shards: (0..SHARDS)
                .map(|_| CachePadded::new(Shard::new()))
                .collect(),
        }
    }

    /// The shard of the calling thread.
    pub(super) fn mine(&self) -> &Shard {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static MINE: Cell<usize> = Cell::new(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
        }
        &self.shards[MINE.get()]
    }

    fn sum(&self, figure: impl Fn(&Shard) -> &AtomicU64) -> u64 {
        self.shards
            .iter()
            .map(|shard| figure(shard).load(Ordering::Relaxed))
            .sum()
    }

    pub(super) fn level(&self, figure: impl Fn(&Shard) -> &AtomicI64) -> i64 {
        self.shards
            .iter()
            .map(|shard| figure(shard).load(Ordering::Relaxed))
            .sum()
    }

    /// Requests by result, over all operations.
    pub(super) fn results(&self) -> impl Iterator<Item = (&'static str, u64)> {
        RESULTS.iter().enumerate().map(|(result, name)| {
            let cells =
                (result..Opcode::ALL.len() * COLUMNS * RESULTS.len()).step_by(RESULTS.len());
            (
                *name,
                cells
                    .map(|cell| self.sum(|shard| &shard.requests[cell]))
                    .sum(),
            )
        })
    }
}

impl Shard {
    fn new() -> Self {
        let cells = Opcode::ALL.len() * COLUMNS * RESULTS.len();
        Self {
            requests: std::iter::repeat_with(AtomicU64::default)
                .take(cells)
                .collect(),
            stages: Default::default(),
            batches: Default::default(),
            connections: AtomicI64::default(),
            connections_opened: AtomicU64::default(),
            inflight: AtomicI64::default(),
        }
    }

    pub(super) fn request(&self, opcode: Opcode, class: Option<Class>, result: &str) {
        let row = Opcode::ALL
            .iter()
            .position(|known| *known == opcode)
            .unwrap_or_default();
        let column = class.map_or(COLUMNS - 1, Class::index);
        let known = RESULTS.iter().position(|known| *known == result);
        let cell = cell(row, column, known.unwrap_or(RESULTS.len() - 1));
        self.requests[cell].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn stage(&self, stage: Stage, time: Duration) {
        let histogram = &self.stages[stage as usize];
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.partition_point(|bound| *bound < micros);
        histogram.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        histogram.sum_ns.fetch_add(nanos, Ordering::Relaxed);
    }

    pub(super) fn batch(&self, class: Class, fill: usize) {
        let fill = fill.clamp(1, BATCH_MAX);
        self.batches[class.index()][fill - 1].fetch_add(1, Ordering::Relaxed);
    }
}

/// Position of a cell in [`Shard::requests`].
const fn cell(opcode: usize, column: usize, result: usize) -> usize {
    (opcode * COLUMNS + column) * RESULTS.len() + result
}

/// Adds the shards up for a scrape.
#[derive(Debug)]
pub(super) struct ShardsCollector(pub(super) Arc<Shards>);

impl Collector for ShardsCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_requests(&mut encoder)?;
        self.encode_stages(&mut encoder)?;
        self.encode_batches(&mut encoder)?;
        let level = |figure: fn(&Shard) -> &AtomicI64| ConstGauge::new(self.0.level(figure));
        let total = |figure: fn(&Shard) -> &AtomicU64| ConstCounter::new(self.0.sum(figure));
        encode_one(
            &mut encoder,
            "keyserver_connections",
            "Client connections that are open.",
            &level(|shard| &shard.connections),
        )?;
        encode_one(
            &mut encoder,
            "keyserver_connections_opened",
            "Client connections that were accepted.",
            &total(|shard| &shard.connections_opened),
        )?;
        encode_one(
            &mut encoder,
            "keyserver_inflight",
            "Requests that were admitted and not yet answered.",
            &level(|shard| &shard.inflight),
        )
    }
}

impl ShardsCollector {
    fn encode_requests(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut family = encoder.encode_descriptor(
            "keyserver_requests",
            "Requests answered, by operation, algorithm of the key and result.",
            None,
            MetricType::Counter,
        )?;
        for (row, opcode) in Opcode::ALL.iter().enumerate() {
            for column in 0..COLUMNS {
                let alg = Class::ALL.get(column).map_or("none", |class| class.name());
                for (position, result) in RESULTS.iter().enumerate() {
                    let count = self
                        .0
                        .sum(|shard| &shard.requests[cell(row, column, position)]);
                    if count > 0 {
                        let labels = [("op", opcode.name()), ("alg", alg), ("result", *result)];
                        ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn encode_stages(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut family = encoder.encode_descriptor(
            "keyserver_request_duration_seconds",
            "Time of admitted requests: waiting for a crypto thread, computing, in all.",
            None,
            MetricType::Histogram,
        )?;
        let bounds = BOUNDS_US
            .iter()
            .map(|micros| Duration::from_micros(*micros).as_secs_f64());
        let bounds: Vec<f64> = bounds.chain([f64::INFINITY]).collect();
        for stage in Stage::ALL {
            let at = stage as usize;
            let buckets: Vec<(f64, u64)> = (bounds.iter().enumerate())
                .map(|(bucket, bound)| {
                    (
                        *bound,
                        self.0.sum(|shard| &shard.stages[at].buckets[bucket]),
                    )
                })
                .collect();
            let count = buckets.iter().map(|(_, count)| count).sum();
            let sum = Duration::from_nanos(self.0.sum(|shard| &shard.stages[at].sum_ns));
            family
                .encode_family(&[("stage", stage.name())])?
                .encode_histogram::<NoLabelSet>(sum.as_secs_f64(), count, &buckets, None)?;
        }
        Ok(())
    }

    fn encode_batches(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut family = encoder.encode_descriptor(
            "keyserver_batch_fill",
            "Jobs that a crypto thread took at once, by class.",
            None,
            MetricType::Histogram,
        )?;
        for class in Class::ALL {
            let mut buckets = Vec::new();
            let (mut count, mut sum) = (0, 0.0);
            for fill in 1..=BATCH_MAX {
                let batches = self.0.sum(|shard| &shard.batches[class.index()][fill - 1]);
                let jobs = u32::try_from(fill).map_or(0.0, f64::from);
                count += batches;
                sum += jobs * batches as f64;
                buckets.push((jobs, batches));
            }
            if count > 0 {
                buckets.push((f64::INFINITY, 0));
                family
                    .encode_family(&[("class", class.name())])?
                    .encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
            }
        }
        Ok(())
    }
}

pub(super) fn encode_one(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    metric: &impl EncodeMetric,
) -> fmt::Result {
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

impl fmt::Debug for Shards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shards").finish_non_exhaustive()
    }
}
