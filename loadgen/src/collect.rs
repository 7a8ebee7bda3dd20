//! Adds up what the threads measure: per second for the course of the run, and in total.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::serialization::{Serializer as _, V2DeflateSerializer};

use crate::bootstrap::Blocks;
use crate::record::{Interval, Latencies};

/// One stretch of the run, as reports show it.
#[derive(Clone, Debug)]
pub struct Second {
    /// Start, in nanoseconds after the measurement began.
    pub start_ns: u64,
    /// Length: one second, except for the last.
    pub length_ns: u64,
    /// Requests meant to leave.
    pub offered: u64,
    /// Right answers that arrived.
    pub completed: u64,
    /// Requests that failed.
    pub errors: u64,
    /// Median of `response`.
    pub p50_ns: u64,
    /// 99th percentile of `response`.
    pub p99_ns: u64,
    /// Largest `response`.
    pub max_ns: u64,
    /// Generator's lag, 99.9th percentile.
    pub send_lag_p999_ns: u64,
    /// `response`, all classes, as [`encode`] writes it.
    pub response_hdr: String,
}

/// The measurements of a run so far.
#[derive(Debug)]
pub struct Collector {
    threads: usize,
    /// Records of seconds that not all threads have handed over yet, by start.
    open: BTreeMap<u64, (usize, Interval)>,
    /// Everything so far.
    pub total: Interval,
    /// The course of the run.
    pub seconds: Vec<Second>,
    /// `response` in blocks of time, for confidence intervals.
    pub blocks: Blocks,
}

impl Collector {
    /// A collector for so many threads and so many parts of the mix.
    #[must_use]
    pub fn new(threads: usize, parts: usize) -> Self {
        Self {
            threads,
            open: BTreeMap::new(),
            total: Interval::new(parts),
            seconds: Vec::new(),
            blocks: Blocks::default(),
        }
    }

    /// Takes one thread's record. Returns the second that is complete with it, if one is.
    pub fn add(&mut self, interval: Interval) -> Option<&Second> {
        let start_ns = interval.start_ns;
        let complete = match self.open.get_mut(&start_ns) {
            Some((threads, sum)) => {
                sum.add(&interval);
                *threads += 1;
                *threads == self.threads
            }
            None => {
                self.open.insert(start_ns, (1, interval));
                self.threads == 1
            }
        };
        if !complete {
            return None;
        }
        let (_, sum) = self.open.remove(&start_ns)?;
        self.close(&sum);
        self.seconds.last()
    }

    /// Closes what is still open when the run has ended.
    pub fn finish(&mut self) {
        while let Some((_, (_, sum))) = self.open.pop_first() {
            self.close(&sum);
        }
    }

    fn close(&mut self, sum: &Interval) {
        let response = sum.response();
        self.seconds.push(Second {
            start_ns: sum.start_ns,
            length_ns: sum.end_ns.saturating_sub(sum.start_ns),
            offered: sum.offered,
            completed: sum.completed,
            errors: sum.failures.total(),
            p50_ns: response.value_at_quantile(0.5),
            p99_ns: response.value_at_quantile(0.99),
            max_ns: response.max(),
            send_lag_p999_ns: sum.send_lag.value_at_quantile(0.999),
            response_hdr: encode(&response),
        });
        self.total.add(sum);
        self.blocks.push(response);
    }
}

/// A histogram in the interchange form of the HdrHistogram family: V2, deflated, in base64. Every implementation reads
/// it (`Histogram.decodeFromCompressedByteBuffer` in Java).
#[must_use]
pub fn encode(histogram: &Latencies) -> String {
    let mut bytes = Vec::new();
    let written = V2DeflateSerializer::new().serialize(histogram, &mut bytes);
    debug_assert!(written.is_ok(), "writing to memory");
    STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::serialization::Deserializer;

    fn interval(start_ns: u64, response_ns: u64) -> Interval {
        let mut interval = Interval::new(1);
        interval.start_ns = start_ns;
        interval.end_ns = start_ns + 1_000_000_000;
        interval.offered = 1;
        interval.completed = 1;
        interval.answered(0, response_ns, response_ns);
        interval
    }

    #[test]
    fn a_second_is_complete_when_every_thread_has_told() {
        let mut collector = Collector::new(2, 1);
        assert!(collector.add(interval(0, 1000)).is_none());
        assert!(collector.add(interval(1_000_000_000, 3000)).is_none());
        let second = collector.add(interval(0, 2000)).unwrap();
        assert_eq!(
            (second.start_ns, second.completed, second.length_ns),
            (0, 2, 1_000_000_000)
        );
        collector.finish();
        assert_eq!(collector.seconds.len(), 2);
        assert_eq!(collector.total.offered, 3);
        assert_eq!(collector.total.end_ns, 2_000_000_000);
    }

    #[test]
    fn histograms_survive_the_interchange_form() {
        let original = interval(0, 123_456).response();
        let bytes = STANDARD.decode(encode(&original)).unwrap();
        let read: Latencies = Deserializer::new()
            .deserialize(&mut bytes.as_slice())
            .unwrap();
        assert_eq!(read, original);
    }
}
