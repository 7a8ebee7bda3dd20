//! The command line: what may be asked for, and that it makes sense together.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};

use crate::arrival::Arrival;
use crate::drive::IN_FLIGHT_MAX;
use crate::host::parse_cores;
use crate::mix::{Mix, Pad};
use crate::slo::Slo;
use crate::units::{parse_count, parse_duration, parse_rate};
use crate::verify::Verify;

/// Most connections of a run.
const CONNECTIONS_MAX: usize = 60_000;
/// Most threads of a run.
const THREADS_MAX: usize = 1024;
/// The longest run and warm-up. Whoever wants more starts it again, on purpose.
const DURATION_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// The run's length when neither `--duration` nor `--count` is given.
const DURATION_DEFAULT: Duration = Duration::from_secs(10);
/// With `--count` alone, the time after which the run ends all the same.
const DURATION_WITH_COUNT: Duration = Duration::from_secs(3600);

/// Load generator for key servers that speak the Keyless protocol.
#[derive(Debug, Parser)]
#[command(
    name = "loadgen",
    version,
    about,
    propagate_version = true,
    max_term_width = 110
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Put one load on a server and measure it
    #[command(after_long_help = RUN_HELP)]
    Run(Box<RunArgs>),
}

const RUN_HELP: &str = "\
Two clocks: `response` counts from the time a request was meant to leave, so that a stall is charged to everyone it \
kept waiting; `service` counts from the time it really left. `send lag` is how late the generator itself was.

Exit status:
  0    done; every --slo was met
  1    an --slo was missed
  2    a mistake in the command line or in the files it names
  3    the measurement is not valid: the generator was late, CPU time was stolen, or the clock is not to be trusted
  4    the target refused us, answered wrongly, or answered too often with errors
  130  interrupted; what was measured until then is reported

Examples:
  loadgen run --target keys.example:2407 --ca ca.pem --cert client.pem --key client.key \\
      --mix rsa2048=65,p256=30,ping=5 -r 5k -d 60s --slo 'p99<5ms' --slo 'errors<0.01%'
  loadgen run --target keys.example:2407 --ca ca.pem --cert client.pem --key client.key \\
      --mix p256 --closed -c 16 --inflight-per-conn 16 --verify all --format json";

/// Options of `loadgen run`.
#[derive(Args, Clone, Debug)]
#[command(group(ArgGroup::new("loop").required(true).args(["rate", "closed"])))]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an independent switch of the command line"
)]
pub struct RunArgs {
    /// Server to load; repeat it to spread the connections over several servers with the same keys
    #[arg(
        long = "target",
        value_name = "HOST:PORT",
        required = true,
        help_heading = "Target"
    )]
    pub targets: Vec<String>,

    /// PEM file with the authorities whose server certificates we accept
    #[arg(long, value_name = "FILE", help_heading = "Target")]
    pub ca: PathBuf,

    /// PEM file with our client certificate and its chain
    #[arg(long, value_name = "FILE", help_heading = "Target")]
    pub cert: PathBuf,

    /// PEM file with the private key of --cert
    #[arg(long, value_name = "FILE", help_heading = "Target")]
    pub key: PathBuf,

    /// Name the server's certificate must have [default: the host of --target]
    #[arg(long, value_name = "NAME", help_heading = "Target")]
    pub server_name: Option<String>,

    /// Certificates or public keys of the keys to use, for servers that cannot list them (stock servers). Without it
    /// the server is asked
    #[arg(long, value_name = "DIR", help_heading = "Target")]
    pub public_keys: Option<PathBuf>,

    /// Open loop: requests per second, sent whether or not answers come (500, 20k, 1.5M)
    #[arg(short, long, value_name = "RATE", value_parser = parse_rate, help_heading = "Load")]
    pub rate: Option<f64>,

    /// Open loop: how requests are spaced: poisson, constant, or burst:N
    #[arg(
        long,
        value_name = "PROCESS",
        default_value = "poisson",
        help_heading = "Load"
    )]
    pub arrival: Arrival,

    /// Closed loop: keep connections times --inflight-per-conn requests outstanding, the next as one is answered. Finds
    /// the throughput; its latencies say little, since it asks less when the server is slow
    #[arg(long, help_heading = "Load")]
    pub closed: bool,

    /// Connections, over all targets
    #[arg(
        short,
        long,
        value_name = "N",
        default_value_t = 16,
        help_heading = "Load"
    )]
    pub connections: usize,

    /// Requests outstanding on one connection. In an open loop a request that finds every place taken waits, and its
    /// response time counts the wait
    #[arg(long, value_name = "N", default_value_t = 64, help_heading = "Load")]
    pub inflight_per_conn: u16,

    /// Threads, each with its share of the connections and the rate
    #[arg(
        short,
        long,
        value_name = "N",
        default_value_t = 1,
        help_heading = "Load"
    )]
    pub threads: usize,

    /// Tie the threads to these cores, in turn (1 or 0-3,8)
    #[arg(long, value_name = "CORES", help_heading = "Load")]
    pub pin_core: Option<String>,

    /// Busy-wait for send times: sharper, at the price of a core per thread. Only where the generator has cores of its own
    #[arg(long, help_heading = "Load")]
    pub spin: bool,

    /// Length of the measured run [default: 10s; with --count alone at most 1h]
    #[arg(short, long, value_name = "TIME", value_parser = parse_duration, help_heading = "Load")]
    pub duration: Option<Duration>,

    /// End after this many measured requests
    #[arg(short = 'n', long, value_name = "N", value_parser = parse_count, help_heading = "Load")]
    pub count: Option<u64>,

    /// The same load beforehand, not measured
    #[arg(short, long, value_name = "TIME", value_parser = parse_duration, default_value = "1s", help_heading = "Load")]
    pub warmup: Duration,

    /// Give a request up after this long; it counts as an error. In an open loop that is also how long one may wait for
    /// a free place
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "2s", help_heading = "Load")]
    pub timeout: Duration,

    /// Tell the server with each request how long its answer is of use, so that it drops what comes too late (tag 0x30)
    #[arg(long, value_name = "TIME", value_parser = parse_duration, help_heading = "Load")]
    pub deadline: Option<Duration>,

    /// Seed of everything drawn at random: inputs, arrivals, order. The same seed asks the same questions
    #[arg(long, value_name = "N", default_value_t = 42, help_heading = "Load")]
    pub seed: u64,

    /// What to ask for, with weights. Classes: rsa2048 rsa3072 rsa4096 p256 p384 p521 ed25519 (signatures),
    /// rsa2048-decrypt rsa3072-decrypt rsa4096-decrypt, tls13-KEY and tls12-KEY (handshake strings), ping
    #[arg(
        long,
        value_name = "CLASS=WEIGHT,..",
        default_value = "rsa2048=65,p256=30,ping=5",
        help_heading = "Requests"
    )]
    pub mix: Mix,

    /// Padding of RSA signatures
    #[arg(long, value_enum, default_value_t = Pad::Pss, help_heading = "Requests")]
    pub pad: Pad,

    /// Prepare N inputs of each class and ask for them in order, for none again before all have been, instead of for a
    /// few again and again: for a server that answers a ciphertext once (decrypt-compatible)
    #[arg(long, value_name = "N", help_heading = "Requests")]
    pub fresh: Option<usize>,

    /// Check answers against the public keys, when the load has ended: all, none, or a share such as 1%
    #[arg(
        long,
        value_name = "HOW MANY",
        default_value = "1%",
        help_heading = "Requests"
    )]
    pub verify: Verify,

    /// Objective to keep, repeatable: 'p99<5ms', 'p99.9<20ms', 'mean<1ms', 'max<50ms' (response times), 'errors<0.01%'
    #[arg(long = "slo", value_name = "OBJECTIVE", help_heading = "Verdict")]
    pub slos: Vec<Slo>,

    /// What makes the exit status non-zero: a missed objective or too many errors (slo), also an invalid measurement
    /// (validity), or neither (never)
    #[arg(long, value_enum, default_value_t = FailOn::Validity, help_heading = "Verdict")]
    pub fail_on: FailOn,

    /// Process id of the server on this machine, to report its CPU time per operation
    #[arg(long, value_name = "PID", help_heading = "Verdict")]
    pub server_pid: Option<u32>,

    /// Write result.json and summary.txt into this new or empty directory
    #[arg(short, long, value_name = "DIR", help_heading = "Output")]
    pub out: Option<PathBuf>,

    /// What goes to standard output
    #[arg(long, value_enum, default_value_t = Format::Text, help_heading = "Output")]
    pub format: Format,

    /// Also write run.hlog into --out: a HdrHistogram interval log (V2) with one line per second
    #[arg(long, requires = "out", help_heading = "Output")]
    pub hlog: bool,

    /// Also write run.hgrm into --out: the percentile distribution of `response`, for HdrHistogram plotters
    #[arg(long, requires = "out", help_heading = "Output")]
    pub hgrm: bool,

    /// Note to keep with the result, repeatable
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label, help_heading = "Output")]
    pub labels: Vec<(String, String)>,

    /// No line per second on standard error
    #[arg(long, help_heading = "Output")]
    pub no_progress: bool,
}

/// What makes the exit status non-zero. Each level contains the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum FailOn {
    /// Nothing that was measured.
    Never,
    /// Missed objectives, too many errors, wrong answers.
    Slo,
    /// Also a measurement that is not valid.
    Validity,
}

/// The form of the result on standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// The result document, `loadgen.run/1`.
    Json,
    /// A page for people.
    Text,
}

impl RunArgs {
    /// Checks what the parser cannot: options that must fit each other.
    ///
    /// # Errors
    /// What is wrong, and what to write instead.
    pub fn check(&self) -> Result<(), String> {
        let within = |name: &str, value: usize, max: usize| {
            if (1..=max).contains(&value) {
                Ok(())
            } else {
                Err(format!("{name} must be from 1 to {max}, not {value}"))
            }
        };
        within("--connections", self.connections, CONNECTIONS_MAX)?;
        within(
            "--inflight-per-conn",
            usize::from(self.inflight_per_conn),
            usize::from(IN_FLIGHT_MAX),
        )?;
        within("--threads", self.threads, THREADS_MAX)?;
        if self.threads > self.connections {
            return Err(format!(
                "{} threads cannot share {} connections; raise --connections or lower --threads",
                self.threads, self.connections
            ));
        }
        if self.targets.len() > self.connections {
            return Err(format!(
                "{} targets need at least as many --connections, not {}",
                self.targets.len(),
                self.connections
            ));
        }
        if self.closed && (self.arrival != Arrival::Poisson || self.spin) {
            return Err("--arrival and --spin belong to an open loop (--rate); a closed loop has no send times".to_owned());
        }
        for (name, time) in [("--duration", self.duration()), ("--timeout", self.timeout)] {
            if time.is_zero() {
                return Err(format!("{name} must be longer than nothing"));
            }
        }
        for (name, time) in [
            ("--duration", self.duration()),
            ("--warmup", self.warmup),
            ("--timeout", self.timeout),
        ] {
            if time > DURATION_MAX {
                return Err(format!("{name} is longer than 7 days"));
            }
        }
        if self.count.is_some_and(|count| count < self.threads as u64) {
            return Err("--count must be at least one request per thread".to_owned());
        }
        for (index, (key, _)) in self.labels.iter().enumerate() {
            if self
                .labels
                .iter()
                .take(index)
                .any(|(other, _)| other == key)
            {
                return Err(format!("--label {key} is given twice"));
            }
        }
        self.cores().map(|_| ())
    }

    /// The measured time, at most.
    #[must_use]
    pub fn duration(&self) -> Duration {
        let default = if self.count.is_some() {
            DURATION_WITH_COUNT
        } else {
            DURATION_DEFAULT
        };
        self.duration.unwrap_or(default)
    }

    /// The cores to pin threads to; none without `--pin-core`.
    ///
    /// # Errors
    /// The list cannot be read.
    pub fn cores(&self) -> Result<Vec<usize>, String> {
        let cores = self.pin_core.as_deref().map(parse_cores).transpose();
        cores
            .map(Option::unwrap_or_default)
            .map_err(|error| format!("--pin-core: {error}"))
    }
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("`{text}` is not KEY=VALUE")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    const TARGET: [&str; 10] = [
        "loadgen", "run", "--target", "h:1", "--ca", "a", "--cert", "b", "--key", "c",
    ];

    fn parse(more: &[&str]) -> Result<RunArgs, String> {
        let all = TARGET.iter().chain(more);
        let Cli {
            command: Command::Run(args),
        } = Cli::try_parse_from(all).map_err(|error| error.to_string())?;
        args.check().map(|()| *args)
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_run_needs_a_loop_and_is_bounded() {
        assert!(parse(&[]).unwrap_err().contains("--rate"));
        assert!(
            parse(&["-r", "1k", "--closed"])
                .unwrap_err()
                .contains("cannot be used")
        );
        let args = parse(&["-r", "1k"]).unwrap();
        assert_eq!(args.duration(), Duration::from_secs(10));
        assert_eq!(
            parse(&["--closed", "-n", "5"]).unwrap().duration(),
            Duration::from_secs(3600)
        );
    }

    #[test]
    fn bad_arguments_are_explained() {
        for (more, says) in [
            (&["-r", "fast"][..], "20k"),
            (&["-r", "1k", "-d", "10"], "10s"),
            (&["-r", "1k", "-d", "0s"], "--duration"),
            (&["-r", "1k", "-c", "0"], "--connections"),
            (&["-r", "1k", "-t", "4", "-c", "2"], "threads"),
            (&["-r", "1k", "--target", "b:2", "-c", "1"], "targets"),
            (&["-r", "1k", "--mix", "dsa=1"], "rsa2048"),
            (&["-r", "1k", "--slo", "p99>5ms"], "p99<5ms"),
            (&["-r", "1k", "--verify", "some"], "1%"),
            (&["-r", "1k", "--arrival", "uniform"], "poisson"),
            (&["-r", "1k", "--pin-core", "x"], "--pin-core"),
            (&["-r", "1k", "--label", "novalue"], "KEY=VALUE"),
            (&["-r", "1k", "--label", "a=1", "--label", "a=2"], "twice"),
            (&["-r", "1k", "--hlog"], "--out"),
            (
                &["-r", "1k", "--inflight-per-conn", "0"],
                "--inflight-per-conn",
            ),
            (&["-r", "1k", "--inflight-per-conn", "70000"], "70000"),
            (&["--closed", "--arrival", "constant"], "open loop"),
            (&["--closed", "-n", "0.5"], "--count"),
        ] {
            let error = parse(more).unwrap_err();
            assert!(error.contains(says), "{more:?} gave: {error}");
        }
    }

    #[test]
    fn every_option_has_a_help_text() {
        let mut command = Cli::command();
        let run = command.find_subcommand_mut("run").unwrap();
        for argument in run.get_arguments() {
            assert!(
                argument.get_help().is_some(),
                "{} has none",
                argument.get_id()
            );
        }
        assert!(run.render_long_help().to_string().contains("130"));
    }
}
