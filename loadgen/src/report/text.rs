//! The result as a page for people.

use std::fmt::Write as _;

use super::document::server_cpu;
use crate::assess::{Assessment, error_share};
use crate::cli::RunArgs;
use crate::record::Latencies;
use crate::run::Outcome;
use crate::slo::Limit;
use crate::units::{NS_PER_S, duration_ns, float, human_count, human_ns, human_rate, ns_from_f64};

/// The page. It starts with what was done, then says what came out, then how far to believe it.
#[must_use]
pub fn page(args: &RunArgs, outcome: &Outcome, assessment: &Assessment) -> String {
    let mut page = Page {
        text: String::new(),
    };
    load(&mut page, args, outcome);
    throughput(&mut page, args, outcome);
    latencies(&mut page, args, outcome);
    verdicts(&mut page, outcome, assessment);
    page.text
}

struct Page {
    text: String,
}

impl Page {
    fn line(&mut self, head: &str, rest: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{head:<10} {rest}");
    }

    fn blank(&mut self) {
        self.text.push('\n');
    }
}

fn load(page: &mut Page, args: &RunArgs, outcome: &Outcome) {
    let server = outcome.server.as_ref().map_or_else(
        || "stock server".to_owned(),
        |server| format!("{} {}", server.server, server.version),
    );
    let tls = [outcome.tls_version, outcome.key_exchange]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(", ");
    page.line(
        "target",
        &format!(
            "{} ({server}{}{tls})",
            args.targets.join(" "),
            if tls.is_empty() { "" } else { ", " }
        ),
    );
    let kind = match args.rate {
        Some(rate) => format!(
            "open loop, {} arrivals at {}/s",
            args.arrival,
            human_rate(rate)
        ),
        None => "closed loop".to_owned(),
    };
    page.line(
        "load",
        &format!(
            "{kind}; {} connections x {} in flight, {} thread{}; seed {}",
            args.connections,
            args.inflight_per_conn,
            args.threads,
            if args.threads == 1 { "" } else { "s" },
            args.seed
        ),
    );
    page.line(
        "mix",
        &format!(
            "{}; {} keys, RSA padding {}",
            args.mix, outcome.keys, args.pad
        ),
    );
    page.line(
        "measured",
        &format!(
            "{}{}, after {} of warm-up",
            human_ns(outcome.measured_ns),
            if outcome.interrupted {
                " (interrupted)"
            } else {
                ""
            },
            human_ns(duration_ns(args.warmup))
        ),
    );
    page.blank();
}

fn throughput(page: &mut Page, args: &RunArgs, outcome: &Outcome) {
    let total = &outcome.collected.total;
    let measured_s = float(outcome.measured_ns.max(1)) / float(NS_PER_S);
    page.line(
        "offered",
        &format!(
            "{}/s, {} requests",
            human_rate(float(total.offered) / measured_s),
            human_count(total.offered)
        ),
    );
    page.line(
        "answered",
        &format!(
            "{}/s, {} requests",
            human_rate(float(total.completed) / measured_s),
            human_count(total.ok())
        ),
    );
    failures(page, outcome);
    page.line(
        "checked",
        &format!(
            "{} answers ({}): {} right, {} wrong",
            human_count(outcome.verdict.verified + outcome.verdict.wrong_total()),
            args.verify,
            human_count(outcome.verdict.verified),
            human_count(outcome.verdict.wrong_total())
        ),
    );
    if let Some(cpu) = server_cpu(outcome) {
        page.line(
            "server CPU",
            &format!(
                "{:.2} cores, {:.2} us per operation, {} operations per core-second",
                cpu.cores,
                cpu.us_per_operation,
                human_rate(cpu.operations_per_core_second)
            ),
        );
    }
    page.blank();
}

fn failures(page: &mut Page, outcome: &Outcome) {
    let total = &outcome.collected.total;
    let kinds: Vec<String> = total
        .failures
        .named()
        .into_iter()
        .map(|(name, count)| format!("{name} {}", human_count(count)))
        .collect();
    let kinds = if kinds.is_empty() {
        String::new()
    } else {
        format!(": {}", kinds.join(", "))
    };
    page.line(
        "errors",
        &format!(
            "{} ({:.3} %){kinds}",
            human_count(total.failures.total()),
            error_share(outcome) * 100.0
        ),
    );
    if total.held_back + total.unsent > 0 {
        page.line(
            "waited",
            &format!(
                "{} requests for a free place before they could leave, {} of which never did",
                human_count(total.held_back + total.unsent),
                human_count(total.unsent)
            ),
        );
    }
    if total.retry_after > 0 {
        page.line(
            "retry",
            &format!(
                "{} refusals said when to try again",
                human_count(total.retry_after)
            ),
        );
    }
}

fn latencies(page: &mut Page, args: &RunArgs, outcome: &Outcome) {
    let total = &outcome.collected.total;
    let columns = ["mean", "p50", "p90", "p99", "p99.9", "p99.99", "max"];
    let mut rows = vec![
        ("response".to_owned(), total.response()),
        ("service".to_owned(), total.service()),
    ];
    if args.rate.is_some() {
        rows.push(("send lag".to_owned(), total.send_lag.clone()));
    }
    if args.mix.parts().len() > 1 {
        let classes = args.mix.parts().iter().zip(&total.classes);
        rows.extend(
            classes.map(|((class, _), record)| (format!("  {class}"), record.response.clone())),
        );
    }
    let width = rows
        .iter()
        .map(|(name, _)| name.len())
        .max()
        .unwrap_or(0)
        .max(10);
    let header: String = columns
        .iter()
        .map(|column| format!(" {column:>9}"))
        .collect();
    let _ = writeln!(page.text, "{:<width$}{header}", "latency");
    for (name, histogram) in rows {
        let _ = writeln!(page.text, "{name:<width$}{}", row(&histogram));
    }
    page.blank();
}

fn row(histogram: &Latencies) -> String {
    if histogram.is_empty() {
        return " no answer".to_owned();
    }
    let at = |quantile| histogram.value_at_quantile(quantile);
    let values = [
        ns_from_f64(histogram.mean()),
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999),
        at(0.9999),
        histogram.max(),
    ];
    values
        .iter()
        .map(|value| format!(" {:>9}", human_ns(*value)))
        .collect()
}

fn verdicts(page: &mut Page, outcome: &Outcome, assessment: &Assessment) {
    for verdict in &assessment.slos {
        let observed = match verdict.slo.limit {
            Limit::Errors { .. } => format!("{:.4} %", verdict.observed * 100.0),
            Limit::Quantile { .. } | Limit::Mean { .. } | Limit::Max { .. } => {
                human_ns(ns_from_f64(verdict.observed))
            }
        };
        let word = if verdict.met { "met" } else { "MISSED" };
        page.line("objective", &format!("{}: {word}, {observed}", verdict.slo));
    }
    for fault in &assessment.target_faults {
        page.line("TARGET", fault);
    }
    for note in &assessment.notes {
        page.line("note", note);
    }
    if assessment.invalid.is_empty() {
        let busiest = outcome.thread_busy.iter().copied().fold(0.0, f64::max);
        page.line(
            "valid",
            &format!(
                "yes; busiest load thread {:.0} % of a core",
                busiest * 100.0
            ),
        );
    }
    for reason in &assessment.invalid {
        page.line("NOT VALID", reason);
    }
}
