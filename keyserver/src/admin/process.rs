//! What the kernel says about this process, under the names every Prometheus dashboard knows.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Reads `/proc/self` at every scrape. What cannot be read is left out.
#[derive(Debug)]
pub(super) struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut gauge = |name: &str, help: &str, value: Option<i64>| {
            value.map_or(Ok(()), |value| {
                let metric = ConstGauge::new(value);
                metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
            })
        };
        gauge(
            "process_resident_memory_bytes",
            "Memory of this process that is in RAM.",
            status_kib("VmRSS:").map(|kib| kib.saturating_mul(1024)),
        )?;
        gauge(
            "process_open_fds",
            "Open file descriptors.",
            open_descriptors(),
        )?;
        gauge("process_threads", "Threads.", status_kib("Threads:"))?;
        let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
        let limit = limit.ok().and_then(|(soft, _)| i64::try_from(soft).ok());
        gauge("process_max_fds", "Open file descriptors allowed.", limit)?;
        if let Some(seconds) = cpu_seconds() {
            let metric = ConstCounter::new(seconds);
            metric.encode(encoder.encode_descriptor(
                "process_cpu_seconds",
                "CPU time used by this process.",
                None,
                metric.metric_type(),
            )?)?;
        }
        Ok(())
    }
}

/// The number in the line of `/proc/self/status` that begins with `name`.
fn status_kib(name: &str) -> Option<i64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Resident memory of this process in bytes.
#[must_use]
pub(super) fn resident_bytes() -> Option<i64> {
    Some(status_kib("VmRSS:")?.saturating_mul(1024))
}

/// Open descriptors, without the one that is open to count them.
#[must_use]
pub(super) fn open_descriptors() -> Option<i64> {
    let count = fs::read_dir("/proc/self/fd").ok()?.count();
    i64::try_from(count.saturating_sub(1)).ok()
}

fn cpu_seconds() -> Option<f64> {
    use nix::sys::resource::{UsageWho, getrusage};
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let seconds =
        |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1_000_000.0;
    Some(seconds(usage.user_time()) + seconds(usage.system_time()))
}
