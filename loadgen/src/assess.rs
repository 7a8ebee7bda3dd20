//! What to think of a run: whether the measurement is valid, whether the objectives were met, and the exit status.

use crate::cli::{FailOn, RunArgs};
use crate::error::{EXIT_INTERRUPTED, EXIT_MET, EXIT_NOT_VALID, EXIT_SLO_MISSED, EXIT_TARGET};
use crate::run::Outcome;
use crate::slo::{Limit, Slo};
use crate::units::{NS_PER_S, float, human_ns, human_rate, ns_from_f64};

/// The generator may be late by this share of the tightest objective, or of the measured 99.9th percentile.
const SEND_LAG_SHARE_MAX: f64 = 0.1;
/// A lag below this is never held against a run without objectives: waking up takes about as long.
const SEND_LAG_NS_FREE: f64 = 200_000.0;
/// More stolen CPU time than this and the latencies are the hypervisor's.
const STEAL_MAX: f64 = 0.005;
/// Answers per offered request below which somebody did not keep up.
const ACHIEVED_MIN: f64 = 0.995;
/// With a smaller share of requests that had to wait for a place, it was not the target that did not keep up.
const HELD_BACK_MIN: f64 = 0.01;
/// A step of the wall clock during the run.
const CLOCK_STEP_NS_MAX: u64 = 500_000_000;
/// Share of failed requests that is too many when no objective says otherwise.
const ERRORS_MAX_DEFAULT: f64 = 0.01;
/// A closed loop whose thread is this busy has probably measured itself.
const THREAD_BUSY_MAX: f64 = 0.97;
/// Clock sources too slow to be read at every turn.
const SLOW_CLOCKS: [&str; 3] = ["acpi_pm", "hpet", "jiffies"];

/// The verdict on one objective.
#[derive(Clone, Debug, PartialEq)]
pub struct SloVerdict {
    /// The objective.
    pub slo: Slo,
    /// Nanoseconds, or for errors a fraction.
    pub observed: f64,
    /// Whether it was kept.
    pub met: bool,
}

/// The verdict on a run.
#[derive(Clone, Debug, Default)]
pub struct Assessment {
    /// Why the measurement is not valid; empty when it is.
    pub invalid: Vec<String>,
    /// What a reader should know about a valid measurement.
    pub notes: Vec<String>,
    /// The objectives, in the order given.
    pub slos: Vec<SloVerdict>,
    /// Why the target is at fault; empty when it is not.
    pub target_faults: Vec<String>,
    /// The exit status.
    pub exit_status: u8,
}

/// Judges a run.
#[must_use]
pub fn assess(args: &RunArgs, outcome: &Outcome, clocksource: &str) -> Assessment {
    let mut assessment = Assessment {
        slos: args.slos.iter().map(|slo| judge(slo, outcome)).collect(),
        ..Assessment::default()
    };
    assess_generator(args, outcome, clocksource, &mut assessment);
    assess_shortfall(args, outcome, &mut assessment);
    assess_target(args, outcome, &mut assessment);
    assessment.exit_status = exit_status(args.fail_on, outcome.interrupted, &assessment);
    assessment
}

/// Requests answered or failed.
fn ended(outcome: &Outcome) -> u64 {
    outcome.collected.total.ok() + outcome.collected.total.failures.total()
}

/// The share of requests that failed.
#[must_use]
pub fn error_share(outcome: &Outcome) -> f64 {
    float(outcome.collected.total.failures.total()) / float(ended(outcome).max(1))
}

fn judge(slo: &Slo, outcome: &Outcome) -> SloVerdict {
    let response = outcome.collected.total.response();
    let observed = match slo.limit {
        Limit::Errors { .. } => error_share(outcome),
        Limit::Max { .. } => float(response.max()),
        Limit::Mean { .. } => response.mean(),
        Limit::Quantile { quantile, .. } => float(response.value_at_quantile(quantile)),
    };
    // A run without answers has kept no latency objective.
    let measured = slo.below_ns().is_none() || !response.is_empty();
    SloVerdict {
        slo: slo.clone(),
        observed,
        met: measured && slo.is_met_by(observed),
    }
}

fn assess_generator(
    args: &RunArgs,
    outcome: &Outcome,
    clocksource: &str,
    assessment: &mut Assessment,
) {
    let total = &outcome.collected.total;
    if ended(outcome) == 0 {
        assessment
            .invalid
            .push("no request was answered or failed within the measured time".to_owned());
    }
    let lag_ns = total.send_lag.value_at_quantile(0.999);
    let tightest = args.slos.iter().filter_map(Slo::below_ns).min();
    let limit_ns = match tightest {
        Some(below_ns) => float(below_ns) * SEND_LAG_SHARE_MAX,
        None => (float(total.response().value_at_quantile(0.999)) * SEND_LAG_SHARE_MAX)
            .max(SEND_LAG_NS_FREE),
    };
    if args.rate.is_some() && float(lag_ns) > limit_ns {
        assessment.invalid.push(format!(
            "the generator was late: send lag p99.9 {} (limit here {}); give it more --threads, free cores, or a lower rate",
            human_ns(lag_ns),
            human_ns(ns_from_f64(limit_ns))
        ));
    }
    if let Some(steal) = outcome.around.steal.filter(|steal| *steal > STEAL_MAX) {
        assessment.invalid.push(format!(
            "the hypervisor took {:.1} % of the CPU time away (limit {} %)",
            steal * 100.0,
            STEAL_MAX * 100.0
        ));
    }
    if SLOW_CLOCKS.contains(&clocksource) {
        assessment.invalid.push(format!(
            "the kernel reads time from `{clocksource}`, which is too slow for this"
        ));
    }
    if outcome.around.clock_step_ns > CLOCK_STEP_NS_MAX {
        assessment.notes.push(format!(
            "the wall clock was set by {} during the run; only the timestamps are affected",
            human_ns(outcome.around.clock_step_ns)
        ));
    }
    let busiest = outcome.thread_busy.iter().copied().fold(0.0, f64::max);
    if args.closed && busiest > THREAD_BUSY_MAX {
        assessment.notes.push(format!(
            "a load thread was {:.0} % busy: the target may be able to do more; raise --threads to find out",
            busiest * 100.0
        ));
    }
    if outcome.verdict.unchecked > 0 && !outcome.interrupted {
        assessment.invalid.push(format!(
            "{} answers were not checked for lack of memory to keep them; use --verify 1% or a shorter run",
            outcome.verdict.unchecked
        ));
    }
}

/// Offered but not answered: the target's limit, or ours?
fn assess_shortfall(args: &RunArgs, outcome: &Outcome, assessment: &mut Assessment) {
    let total = &outcome.collected.total;
    let measured_s = float(outcome.measured_ns.max(1)) / float(NS_PER_S);
    let (offered, completed) = (float(total.offered), float(total.completed));
    let in_flight = float(args.connections as u64) * f64::from(args.inflight_per_conn);
    // What may be under way at the end is no shortfall.
    let failed = float(total.failures.total() - total.failures.unsent());
    if args.closed || completed + failed + in_flight.min(offered * 0.05) >= offered * ACHIEVED_MIN {
        return;
    }
    let rates = format!(
        "{}/s answered of {}/s offered",
        human_rate(completed / measured_s),
        human_rate(offered / measured_s)
    );
    if float(total.held_back + total.unsent) >= offered * HELD_BACK_MIN {
        assessment.notes.push(format!(
            "{rates}: the target did not keep up, and requests waited for a place ({} connections x {}); read the rate as its \
             limit under this load",
            args.connections, args.inflight_per_conn
        ));
    } else {
        assessment.invalid.push(format!(
            "{rates}, though there was room to send more: the generator did not keep up"
        ));
    }
}

fn assess_target(args: &RunArgs, outcome: &Outcome, assessment: &mut Assessment) {
    let wrong = outcome.verdict.wrong_total() + outcome.collected.total.failures.wrong_echoes();
    if wrong > 0 {
        assessment
            .target_faults
            .push(format!("{wrong} answers were wrong"));
    }
    let share = error_share(outcome);
    let limit = args.slos.iter().find_map(|slo| match slo.limit {
        Limit::Errors { .. } => Some(slo.is_met_by(share)),
        Limit::Quantile { .. } | Limit::Mean { .. } | Limit::Max { .. } => None,
    });
    if !limit.unwrap_or(share <= ERRORS_MAX_DEFAULT) {
        let bound = if limit.is_some() {
            "the objective"
        } else {
            "the default limit of 1 %"
        };
        assessment.target_faults.push(format!(
            "{:.3} % of the requests failed, more than {bound}",
            share * 100.0
        ));
    }
    let lost = outcome.collected.total.connections_lost;
    if lost > 0 {
        let why = outcome.trouble.as_deref().unwrap_or("no reason known");
        assessment.notes.push(format!(
            "{lost} connections were lost and made again: {why}"
        ));
    }
}

fn exit_status(fail_on: FailOn, interrupted: bool, assessment: &Assessment) -> u8 {
    if interrupted {
        EXIT_INTERRUPTED
    } else if fail_on >= FailOn::Slo && !assessment.target_faults.is_empty() {
        EXIT_TARGET
    } else if fail_on >= FailOn::Validity && !assessment.invalid.is_empty() {
        EXIT_NOT_VALID
    } else if fail_on >= FailOn::Slo && assessment.slos.iter().any(|verdict| !verdict.met) {
        EXIT_SLO_MISSED
    } else {
        EXIT_MET
    }
}
