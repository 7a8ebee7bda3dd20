//! Figures of the slots of tokens, one series a slot.
//!
//! Labels: `module` (its path), `slot` (its number), `token` (its label). A slot appears when the first
//! key of it is loaded, and stays.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::tokens::{SlotReport, Tokens};

/// Asks the pools at every scrape. They keep the figures; nothing of it touches a device.
#[derive(Debug)]
pub(super) struct SlotsCollector(pub(super) Tokens);

/// A figure of a slot: name, meaning, how it is read.
type Figure<N> = (&'static str, &'static str, fn(&SlotReport) -> N);

const GAUGES: [Figure<usize>; 6] = [
    (
        "keyserver_hsm_up",
        "Whether requests are taken for the slot: 0 while its breaker is open.",
        |slot| usize::from(slot.is_up()),
    ),
    (
        "keyserver_hsm_queue_depth",
        "Requests that wait for a session of the slot.",
        |slot| slot.queued,
    ),
    (
        "keyserver_hsm_inflight",
        "Requests that the device works on.",
        |slot| slot.in_flight,
    ),
    (
        "keyserver_hsm_sessions",
        "Sessions of the slot that are open.",
        |slot| slot.sessions,
    ),
    (
        "keyserver_hsm_limit",
        "Sessions that are used at one time, as the pool has found to be best.",
        |slot| slot.limit,
    ),
    (
        "keyserver_hsm_stuck_threads",
        "Threads in a call into the module that does not return.",
        |slot| slot.stuck_threads,
    ),
];

const COUNTERS: [Figure<u64>; 3] = [
    (
        "keyserver_hsm_operations",
        "Operations of the slot that succeeded and verified.",
        |slot| slot.operations,
    ),
    (
        "keyserver_hsm_check_failures",
        "Results that did not verify and were withheld: above 0, the device or the way to it is failing.",
        |slot| slot.check_failures,
    ),
    (
        "keyserver_hsm_generation",
        "New logins and new starts of the module, each of which looks the keys up again.",
        |slot| slot.generation,
    ),
];

impl Collector for SlotsCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let slots = self.0.slots();
        if slots.is_empty() {
            return Ok(());
        }
        for (name, help, read) in GAUGES {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for slot in &slots {
                let value = i64::try_from(read(slot)).unwrap_or(i64::MAX);
                ConstGauge::new(value).encode(family.encode_family(&labels(slot))?)?;
            }
        }
        for (name, help, read) in COUNTERS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for slot in &slots {
                ConstCounter::new(read(slot)).encode(family.encode_family(&labels(slot))?)?;
            }
        }
        encode_states(&slots, &mut encoder)?;
        encode_errors(&slots, &mut encoder)?;
        encode_latencies(&slots, &mut encoder)
    }
}

fn labels(slot: &SlotReport) -> [(&'static str, String); 3] {
    [
        ("module", slot.module.clone()),
        ("slot", slot.slot.to_string()),
        ("token", slot.token.clone()),
    ]
}

/// The labels of a slot and one more.
fn labels_and(slot: &SlotReport, name: &'static str, value: &str) -> [(&'static str, String); 4] {
    let [module, number, token] = labels(slot);
    [module, number, token, (name, value.to_owned())]
}

/// What [`SlotReport::state`] can be.
const STATES: [&str; 5] = ["up", "recovering", "probing", "down", "locked"];

fn encode_states(slots: &[SlotReport], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let mut family = encoder.encode_descriptor(
        "keyserver_hsm_state",
        "1 for the state that the slot is in; locked: the PIN was refused.",
        None,
        MetricType::Gauge,
    )?;
    for slot in slots {
        for state in STATES {
            let value = i64::from(slot.state == state);
            ConstGauge::new(value)
                .encode(family.encode_family(&labels_and(slot, "state", state))?)?;
        }
    }
    Ok(())
}

fn encode_errors(slots: &[SlotReport], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let mut family = encoder.encode_descriptor(
        "keyserver_hsm_errors",
        "Errors that the module returned, by code; also calls that did not return.",
        None,
        MetricType::Counter,
    )?;
    for slot in slots {
        for (code, count) in &slot.errors {
            ConstCounter::new(*count)
                .encode(family.encode_family(&labels_and(slot, "code", code))?)?;
        }
    }
    Ok(())
}

fn encode_latencies(slots: &[SlotReport], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let mut family = encoder.encode_descriptor(
        "keyserver_hsm_latency_seconds",
        "Time of the last operations of the slot without the wait for a session, by quantile.",
        None,
        MetricType::Gauge,
    )?;
    for slot in slots {
        for (quantile, micros) in [("0.5", slot.p50_us), ("0.99", slot.p99_us)] {
            let seconds = std::time::Duration::from_micros(micros).as_secs_f64();
            ConstGauge::new(seconds)
                .encode(family.encode_family(&labels_and(slot, "quantile", quantile))?)?;
        }
    }
    Ok(())
}
