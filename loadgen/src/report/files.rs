//! The files of a result directory.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use hdrhistogram::serialization::interval_log::IntervalLogWriterBuilder;
use hdrhistogram::serialization::{Deserializer, V2DeflateSerializer};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Document;
use crate::cli::RunArgs;
use crate::record::Latencies;
use crate::run::Outcome;
use crate::units::float;

/// Makes the directory of `--out`, and refuses one that holds something: a result is not to be overwritten, nor mixed
/// with another. Called before the run, so that no run is lost to a mistyped name.
///
/// # Errors
/// Why it cannot be used.
pub fn check_directory(directory: &Path) -> Result<(), String> {
    let unusable = |error: io::Error| format!("--out {}: {error}", directory.display());
    fs::create_dir_all(directory).map_err(unusable)?;
    match fs::read_dir(directory).map_err(unusable)?.next() {
        None => Ok(()),
        Some(_) => Err(format!(
            "--out {}: the directory is not empty; name a new one",
            directory.display()
        )),
    }
}

/// Writes `result.json` and `summary.txt`, and what else was asked for.
///
/// # Errors
/// Which file could not be written, and why.
pub fn write_files(
    directory: &Path,
    args: &RunArgs,
    outcome: &Outcome,
    document: &Document,
    page: &str,
) -> Result<(), String> {
    let write = |name: &str, content: &[u8]| {
        let path = directory.join(name);
        fs::write(&path, content).map_err(|error| format!("{}: {error}", path.display()))
    };
    let json =
        serde_json::to_vec_pretty(document).map_err(|error| format!("result.json: {error}"))?;
    write("result.json", &json)?;
    write("summary.txt", page.as_bytes())?;
    if args.hlog {
        write(
            "run.hlog",
            &interval_log(outcome).map_err(|error| format!("run.hlog: {error}"))?,
        )?;
    }
    if args.hgrm {
        write(
            "run.hgrm",
            percentile_distribution(&outcome.collected.total.response()).as_bytes(),
        )?;
    }
    Ok(())
}

/// The course of the run as a HdrHistogram interval log, the same data as `intervals` of the document. The maximum in its
/// third column is in milliseconds.
fn interval_log(outcome: &Outcome) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment("response times of loadgen run, nanoseconds")
        .with_start_time(outcome.started)
        .with_base_time(outcome.started)
        .with_max_value_divisor(1e6)
        .begin_log_with(&mut bytes, &mut serializer)?;
    let unreadable = || io::Error::other("a histogram of the run cannot be read back");
    for second in &outcome.collected.seconds {
        let encoded = STANDARD
            .decode(&second.response_hdr)
            .map_err(|_| unreadable())?;
        let histogram: Latencies = Deserializer::new()
            .deserialize(&mut encoded.as_slice())
            .map_err(|_| unreadable())?;
        let (start, length) = (
            Duration::from_nanos(second.start_ns),
            Duration::from_nanos(second.length_ns),
        );
        log.write_histogram(&histogram, start, length, None)
            .map_err(|_| unreadable())?;
    }
    Ok(bytes)
}

/// The table that HdrHistogram's plotters read (`outputPercentileDistribution`), values in milliseconds, five lines per
/// halving of the distance to 100 %.
fn percentile_distribution(histogram: &Latencies) -> String {
    let mut text = String::from("       Value     Percentile TotalCount 1/(1-Percentile)\n\n");
    let milliseconds = |ns: u64| float(ns) / 1e6;
    for step in histogram.iter_quantiles(5) {
        let (value, quantile) = (
            milliseconds(step.value_iterated_to()),
            step.quantile_iterated_to(),
        );
        let count = histogram.count_between(0, step.value_iterated_to());
        // Writing to a string cannot fail.
        let _ = if quantile < 1.0 {
            writeln!(
                text,
                "{value:12.3} {quantile:.12} {count:10} {:14.2}",
                1.0 / (1.0 - quantile)
            )
        } else {
            writeln!(text, "{value:12.3} {quantile:.12} {count:10}")
        };
    }
    let _ = write!(
        text,
        "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]\n#[Max     = {:12.3}, Total count    = {:12}]\n#[Buckets = {:12}, \
         SubBuckets     = {:12}]\n",
        histogram.mean() / 1e6,
        histogram.stdev() / 1e6,
        milliseconds(histogram.max()),
        histogram.len(),
        histogram.buckets(),
        2048
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::latencies;

    #[test]
    fn a_directory_with_something_in_it_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        check_directory(directory.path()).unwrap();
        check_directory(&directory.path().join("new/deep")).unwrap();
        assert!(
            check_directory(directory.path())
                .unwrap_err()
                .contains("not empty")
        );
    }

    #[test]
    fn the_distribution_ends_at_the_maximum_with_every_count() {
        let mut histogram = latencies();
        for value in 1..=1000_u64 {
            histogram.saturating_record(value * 1000);
        }
        let text = percentile_distribution(&histogram);
        let last = text.lines().rfind(|line| !line.starts_with('#')).unwrap();
        let columns: Vec<&str> = last.split_whitespace().collect();
        assert_eq!(columns[1..], ["1.000000000000", "1000"]);
        assert!(text.contains("Total count    =         1000"), "{text}");
        let counts: Vec<u64> = text
            .lines()
            .skip(2)
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().nth(2).unwrap().parse().unwrap())
            .collect();
        assert!(counts.is_sorted());
    }
}
