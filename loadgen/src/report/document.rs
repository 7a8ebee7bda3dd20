//! The result document, `loadgen.run/1`. Its JSON Schema is `schema/run-1.schema.json`.
//!
//! Within the major version members are only added. All times are nanoseconds unless a name says otherwise, rates are per
//! second, shares are fractions of one.

use std::collections::BTreeMap;

use keyless_protocol::ServerInfo;
use serde::Serialize;

use super::timestamp::rfc3339;
use crate::assess::{Assessment, SloVerdict};
use crate::cli::RunArgs;
use crate::collect::encode;
use crate::host::Host;
use crate::record::{ClassRecord, Latencies};
use crate::run::Outcome;
use crate::slo::Limit;
use crate::units::{NS_PER_S, duration_ns, float};

/// The name and major version of the document.
pub const SCHEMA: &str = "loadgen.run/1";

/// The quantiles that get a confidence interval.
const CI_QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999)];

/// The result of a run.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the JSON Schema describes every member")]
pub struct Document {
    pub schema: &'static str,
    pub run: RunInfo,
    pub target: Target,
    pub workload: WorkloadInfo,
    pub validity: Validity,
    pub result: ResultInfo,
    pub intervals: Vec<IntervalInfo>,
    pub slo: Vec<SloInfo>,
}

/// Which run this was, and how to repeat it.
#[derive(Debug, Serialize)]
pub struct RunInfo {
    pub label: BTreeMap<String, String>,
    pub started: String,
    pub ended: String,
    pub measured_ns: u64,
    pub interrupted: bool,
    pub cmdline: Vec<String>,
    pub seed: u64,
    pub tool: Tool,
    pub host: Host,
    pub exit_status: u8,
}

/// The program that made it.
#[derive(Debug, Serialize)]
pub struct Tool {
    pub name: &'static str,
    pub version: &'static str,
    pub build: &'static str,
}

/// What was under load.
#[derive(Debug, Serialize)]
pub struct Target {
    pub endpoints: Vec<String>,
    pub layer: &'static str,
    pub server: Option<ServerInfo>,
    pub tls_version: Option<&'static str>,
    pub key_exchange: Option<&'static str>,
}

/// What the load was.
#[derive(Debug, Serialize)]
pub struct WorkloadInfo {
    #[serde(rename = "loop")]
    pub kind: &'static str,
    pub arrival: Option<String>,
    pub rate: Option<f64>,
    pub connections: usize,
    pub in_flight_per_connection: u16,
    pub threads: usize,
    pub warmup_ns: u64,
    pub duration_ns: u64,
    pub count: Option<u64>,
    pub timeout_ns: u64,
    pub deadline_ns: Option<u64>,
    pub mix: Vec<MixPart>,
    pub pad: String,
    pub keys: usize,
    pub verify: String,
}

/// A class and its weight.
#[derive(Debug, Serialize)]
pub struct MixPart {
    pub class: String,
    pub weight: u32,
}

/// Whether the measurement can be trusted.
#[derive(Debug, Serialize)]
pub struct Validity {
    pub ok: bool,
    pub reasons: Vec<String>,
    pub notes: Vec<String>,
    pub send_lag: SendLag,
    pub steal: Option<f64>,
    pub clock: ClockInfo,
    pub thread_busy: Vec<f64>,
}

/// How late the generator was.
#[derive(Debug, Serialize)]
pub struct SendLag {
    pub p50: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
}

/// What time was read from.
#[derive(Debug, Serialize)]
pub struct ClockInfo {
    pub source: String,
    pub wall_step_ns: u64,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub struct ResultInfo {
    pub offered: f64,
    pub achieved: f64,
    pub requests: u64,
    pub ok: u64,
    pub errors: BTreeMap<String, u64>,
    pub held_back: u64,
    pub unsent: u64,
    pub retry_after: u64,
    pub connections_lost: u64,
    pub verified: u64,
    pub wrong_signatures: u64,
    pub unchecked: u64,
    pub latency: Clocks,
    pub by_class: Vec<ClassInfo>,
    pub server_cpu: Option<ServerCpu>,
}

/// The two clocks.
#[derive(Debug, Serialize)]
pub struct Clocks {
    pub response: Latency,
    pub service: Latency,
}

/// One distribution of latencies.
#[derive(Debug, Serialize)]
pub struct Latency {
    pub unit: &'static str,
    pub count: u64,
    pub mean: f64,
    pub min: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p999: u64,
    pub p9999: u64,
    pub max: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ci95: Option<BTreeMap<&'static str, (u64, u64)>>,
    pub hdr_v2: String,
}

/// One class of the mix.
#[derive(Debug, Serialize)]
pub struct ClassInfo {
    pub class: String,
    pub ok: u64,
    pub failed: u64,
    pub wrong_signatures: u64,
    pub latency: Clocks,
}

/// What the server's process took, when it was watched.
#[derive(Debug, Serialize)]
pub struct ServerCpu {
    pub seconds: f64,
    pub cores: f64,
    pub us_per_operation: f64,
    pub operations_per_core_second: f64,
}

/// One stretch of the course of the run.
#[derive(Debug, Serialize)]
pub struct IntervalInfo {
    pub t_ns: u64,
    pub dur_ns: u64,
    pub offered: u64,
    pub achieved: u64,
    pub errors: u64,
    pub p50: u64,
    pub p99: u64,
    pub max: u64,
    pub send_lag_p999: u64,
    pub hdr_v2: String,
}

/// One objective and its verdict.
#[derive(Debug, Serialize)]
pub struct SloInfo {
    pub expr: String,
    pub observed: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ci95: Option<(u64, u64)>,
    pub verdict: &'static str,
}

impl Document {
    /// Puts a run and its assessment into the form of the document.
    #[must_use]
    pub fn new(args: &RunArgs, outcome: &Outcome, assessment: &Assessment, host: Host) -> Self {
        Self {
            schema: SCHEMA,
            validity: validity(outcome, assessment, &host),
            run: run_info(args, outcome, assessment, host),
            target: Target {
                endpoints: args.targets.clone(),
                layer: "op",
                server: outcome.server.clone(),
                tls_version: outcome.tls_version,
                key_exchange: outcome.key_exchange,
            },
            workload: workload(args, outcome),
            result: result(args, outcome),
            intervals: intervals(outcome),
            slo: assessment
                .slos
                .iter()
                .map(|verdict| slo(verdict, args, outcome))
                .collect(),
        }
    }
}

fn run_info(args: &RunArgs, outcome: &Outcome, assessment: &Assessment, host: Host) -> RunInfo {
    RunInfo {
        label: args.labels.iter().cloned().collect(),
        started: rfc3339(outcome.started),
        ended: rfc3339(outcome.ended),
        measured_ns: outcome.measured_ns,
        interrupted: outcome.interrupted,
        cmdline: std::env::args_os()
            .map(|argument| argument.to_string_lossy().into_owned())
            .collect(),
        seed: args.seed,
        tool: Tool {
            name: env!("CARGO_PKG_NAME"),
            version: env!("CARGO_PKG_VERSION"),
            build: if cfg!(debug_assertions) {
                "debug"
            } else {
                "release"
            },
        },
        host,
        exit_status: assessment.exit_status,
    }
}

fn workload(args: &RunArgs, outcome: &Outcome) -> WorkloadInfo {
    let mix = args.mix.parts().iter();
    WorkloadInfo {
        kind: if args.closed { "closed" } else { "open" },
        arrival: args.rate.map(|_| args.arrival.to_string()),
        rate: args.rate,
        connections: args.connections,
        in_flight_per_connection: args.inflight_per_conn,
        threads: args.threads,
        warmup_ns: duration_ns(args.warmup),
        duration_ns: duration_ns(args.duration()),
        count: args.count,
        timeout_ns: duration_ns(args.timeout),
        deadline_ns: args.deadline.map(duration_ns),
        mix: mix
            .map(|(class, weight)| MixPart {
                class: class.to_string(),
                weight: *weight,
            })
            .collect(),
        pad: args.pad.to_string(),
        keys: outcome.keys,
        verify: args.verify.to_string(),
    }
}

fn validity(outcome: &Outcome, assessment: &Assessment, host: &Host) -> Validity {
    let lag = &outcome.collected.total.send_lag;
    Validity {
        ok: assessment.invalid.is_empty(),
        reasons: assessment.invalid.clone(),
        notes: assessment
            .notes
            .iter()
            .chain(&assessment.target_faults)
            .cloned()
            .collect(),
        send_lag: SendLag {
            p50: lag.value_at_quantile(0.5),
            p99: lag.value_at_quantile(0.99),
            p999: lag.value_at_quantile(0.999),
            max: lag.max(),
        },
        steal: outcome.around.steal,
        clock: ClockInfo {
            source: host.clocksource.clone(),
            wall_step_ns: outcome.around.clock_step_ns,
        },
        thread_busy: outcome.thread_busy.clone(),
    }
}

fn result(args: &RunArgs, outcome: &Outcome) -> ResultInfo {
    let total = &outcome.collected.total;
    let measured_s = float(outcome.measured_ns.max(1)) / float(NS_PER_S);
    let mut response = latency(&total.response());
    let quantiles = CI_QUANTILES.map(|(_, quantile)| quantile);
    response.ci95 = outcome
        .collected
        .blocks
        .intervals(&quantiles, args.seed)
        .map(|bounds| {
            CI_QUANTILES
                .iter()
                .map(|(name, _)| *name)
                .zip(bounds)
                .collect()
        });
    let classes = args.mix.parts().iter().zip(&total.classes);
    let wrong = outcome
        .verdict
        .wrong
        .iter()
        .copied()
        .chain(std::iter::repeat(0));
    ResultInfo {
        offered: float(total.offered) / measured_s,
        achieved: float(total.completed) / measured_s,
        requests: total.offered,
        ok: total.ok(),
        errors: total.failures.named().into_iter().collect(),
        held_back: total.held_back,
        unsent: total.unsent,
        retry_after: total.retry_after,
        connections_lost: total.connections_lost,
        verified: outcome.verdict.verified,
        wrong_signatures: outcome.verdict.wrong_total(),
        unchecked: outcome.verdict.unchecked,
        latency: Clocks {
            response,
            service: latency(&total.service()),
        },
        by_class: classes
            .zip(wrong)
            .map(|(((class, _), record), wrong)| class_info(class.to_string(), record, wrong))
            .collect(),
        server_cpu: server_cpu(outcome),
    }
}

/// What the server's CPU time comes to per answer.
pub(super) fn server_cpu(outcome: &Outcome) -> Option<ServerCpu> {
    let (cpu_s, wall_s) = outcome.around.server_cpu?;
    let operations = float(outcome.collected.total.completed);
    if cpu_s <= 0.0 || wall_s <= 0.0 || operations <= 0.0 {
        return None;
    }
    Some(ServerCpu {
        seconds: cpu_s,
        cores: cpu_s / wall_s,
        us_per_operation: cpu_s * 1e6 / operations,
        operations_per_core_second: operations / cpu_s,
    })
}

fn class_info(class: String, record: &ClassRecord, wrong_signatures: u64) -> ClassInfo {
    let (response, service) = (latency(&record.response), latency(&record.service));
    let ok = record.response.len().saturating_sub(record.timed_out);
    ClassInfo {
        class,
        ok,
        failed: record.failed,
        wrong_signatures,
        latency: Clocks { response, service },
    }
}

fn latency(histogram: &Latencies) -> Latency {
    let at = |quantile| histogram.value_at_quantile(quantile);
    Latency {
        unit: "ns",
        count: histogram.len(),
        mean: histogram.mean(),
        min: if histogram.is_empty() {
            0
        } else {
            histogram.min()
        },
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        p999: at(0.999),
        p9999: at(0.9999),
        max: histogram.max(),
        ci95: None,
        hdr_v2: encode(histogram),
    }
}

fn intervals(outcome: &Outcome) -> Vec<IntervalInfo> {
    let seconds = outcome.collected.seconds.iter();
    seconds
        .map(|second| IntervalInfo {
            t_ns: second.start_ns,
            dur_ns: second.length_ns,
            offered: second.offered,
            achieved: second.completed,
            errors: second.errors,
            p50: second.p50_ns,
            p99: second.p99_ns,
            max: second.max_ns,
            send_lag_p999: second.send_lag_p999_ns,
            hdr_v2: second.response_hdr.clone(),
        })
        .collect()
}

fn slo(verdict: &SloVerdict, args: &RunArgs, outcome: &Outcome) -> SloInfo {
    let ci95 = match verdict.slo.limit {
        Limit::Quantile { quantile, .. } => outcome
            .collected
            .blocks
            .intervals(&[quantile], args.seed)
            .and_then(|bounds| bounds.into_iter().next()),
        Limit::Errors { .. } | Limit::Max { .. } | Limit::Mean { .. } => None,
    };
    SloInfo {
        expr: verdict.slo.to_string(),
        observed: verdict.observed,
        ci95,
        verdict: if verdict.met { "met" } else { "missed" },
    }
}
