//! `keyserver speed`: what one core of this machine does, in the spirit of `openssl speed`.

use std::time::Duration;

use accel::Class;
use accel::speed::{Speed, measure};
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

use super::{Failure, output};

/// What is reported.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print JSON, schema keyserver.speed/1
    #[arg(long)]
    json: bool,
    /// Only this class (repeatable): p256, p384, p521, ed25519, mldsa, rsa2048, rsa3072, rsa4096,
    /// rsa-other
    #[arg(long = "class", value_name = "CLASS", value_parser = class)]
    classes: Vec<Class>,
    /// CPU time to spend on each class, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, value_parser = seconds)]
    seconds: f64,
}

/// The JSON document. Times are CPU time of one thread; `ops` and `ratio` are at full lanes.
#[derive(Debug, Serialize)]
struct Document {
    schema: &'static str,
    classes: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    class: &'static str,
    single_ops: f64,
    /// Microseconds of a batch with 1, 2 ... 8 lanes filled; empty where the class has no lanes.
    batch_us: Vec<f64>,
    ops: f64,
    ratio: f64,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let classes = if arguments.classes.is_empty() {
        Class::ALL.to_vec()
    } else {
        arguments.classes.clone()
    };
    if !arguments.json {
        output::line(&heading());
    }
    let mut rows = Vec::new();
    for class in classes {
        let budget = Duration::from_secs_f64(arguments.seconds);
        let speed = measure(class, budget, &thread_time)
            .map_err(|error| Failure::run(format!("{}: {error}", class.name())))?;
        if !arguments.json {
            output::line(&text(&speed));
        }
        rows.push(row(&speed));
    }
    if arguments.json {
        let document = Document {
            schema: "keyserver.speed/1",
            classes: rows,
        };
        let json = serde_json::to_string(&document).map_err(Failure::run)?;
        output::line(&json);
    }
    Ok(())
}

/// CPU time of this thread. A kernel without that clock does not run this program.
fn thread_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

fn row(speed: &Speed) -> Row {
    Row {
        class: speed.class.name(),
        single_ops: rounded(speed.single_ops(), 1.0),
        batch_us: speed
            .batch
            .iter()
            .flatten()
            .map(|time| rounded(time.as_secs_f64() * 1e6, 100.0))
            .collect(),
        ops: rounded(speed.ops(), 1.0),
        ratio: rounded(speed.ratio(), 100.0),
    }
}

fn rounded(value: f64, steps: f64) -> f64 {
    (value * steps).round() / steps
}

fn heading() -> String {
    let fills: String = (1..=accel::MAX_FILL)
        .map(|fill| format!("{fill:>9}"))
        .collect();
    format!(
        "{:<9}{:>10}{:>10}{:>7}   us a batch, by fill\n{:39}{fills}",
        "class", "single/s", "ops/s", "ratio", ""
    )
}

fn text(speed: &Speed) -> String {
    let row = row(speed);
    let batch: String = row.batch_us.iter().map(|us| format!("{us:>9.1}")).collect();
    let batch = if batch.is_empty() {
        "   single operations only".to_owned()
    } else {
        batch
    };
    format!(
        "{:<9}{:>10.0}{:>10.0}{:>7.2}   {batch}",
        row.class, row.single_ops, row.ops, row.ratio
    )
}

fn class(name: &str) -> Result<Class, String> {
    Class::ALL
        .into_iter()
        .find(|class| class.name() == name)
        .ok_or_else(|| {
            let known: Vec<&str> = Class::ALL.into_iter().map(Class::name).collect();
            format!(
                "there is no class {name:?}; the classes are {}",
                known.join(", ")
            )
        })
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= 600.0 => Ok(seconds),
        _ => Err("give a number of seconds above 0 and at most 600".to_owned()),
    }
}
