//! `keyserver selftest --attack`: attacks a running server with the rights of one client, and says what held.
//!
//! Whoever takes an edge has its certificate and key. This is what they would try with it: each file is one way in,
//! each row of [`ATTACKS`] one attack, which ends as held, broken or skipped, with the reason. Everything is asked over
//! the wire, by the client library's connection, so any server that speaks the protocol can be attacked; the tests show
//! each attack to work against a server that makes the mistake (`tests/attack`).
//!
//! | file | what is tried |
//! |---|---|
//! | `forge.rs` | signatures by an operation that decrypts, or that signs any digest |
//! | `padding.rs`, `timing.rs` | whether anything, time included, tells a good padding from a bad one |
//! | `deputy.rs`, `objects.rs` | signatures of what is no handshake, by the operations for handshakes |
//! | `cross_shape.rs` | strings of one operation at another, and everything near the borders |
//! | `replay.rs` | opening what was opened before |
//! | `foreign_key.rs`, `purpose.rs` | keys of others, and uses that are not granted |
//! | `enumerate.rs`, `timing.rs` | which keys exist |
//! | `line.rs`, `target.rs`, `ways.rs`, `rsa.rs`, `statistics.rs`, `verdict.rs` | what the attacks are made of |

use std::path::PathBuf;

use serde::Serialize;

use self::line::{Door, Trouble};
use self::target::{Party, Target};
use self::verdict::Verdict;
use super::{Failure, output};

mod cross_shape;
mod deputy;
mod enumerate;
mod foreign_key;
mod forge;
mod line;
mod objects;
mod padding;
mod purpose;
mod replay;
mod rsa;
mod statistics;
mod target;
mod timing;
mod verdict;
mod ways;

/// Whom to attack, as whom, and how.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Attack the server with the rights of a client, and say which attacks held
    #[arg(long, required = true)]
    attack: bool,
    /// Address of the server
    #[arg(long, value_name = "HOST:PORT")]
    target: String,
    /// Certificate authority of the server, PEM
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,
    /// Certificate of the client whose rights are tried, PEM
    #[arg(long, value_name = "FILE")]
    cert: PathBuf,
    /// Private key of that certificate, PEM
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Name in the server's certificate, where it is not the host of --target
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
    /// Certificate of a second client, for attacks across clients
    #[arg(long, value_name = "FILE", requires = "other_key")]
    other_cert: Option<PathBuf>,
    /// Private key of the second client
    #[arg(long, value_name = "FILE", requires = "other_cert")]
    other_key: Option<PathBuf>,
    /// Try signing with this key only, by label or SKI
    #[arg(long, value_name = "KEY")]
    sign_key: Option<String>,
    /// Only this attack (repeatable); an unknown name lists them
    #[arg(long, value_name = "ATTACK", value_parser = known)]
    only: Vec<String>,
    /// Requests of each class where times are compared; 100000 for a thorough run
    #[arg(long, value_name = "COUNT", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    samples: u32,
    /// Keep an exchange in this file, or replay the one that is there: run, restart the server, run again
    #[arg(long, value_name = "FILE")]
    recording: Option<PathBuf>,
    /// Print JSON, schema keyserver.attack/1
    #[arg(long)]
    json: bool,
}

/// One attack.
struct Attack {
    name: &'static str,
    run: fn(&mut Target) -> Result<Verdict, Trouble>,
}

/// Every attack, in the order they are run.
const ATTACKS: [Attack; 22] = [
    attack("forge-pkcs1", forge::pkcs1),
    attack("forge-pss", forge::pss),
    attack("sign-digest", forge::digests),
    attack("padding-repetition", padding::repetition),
    attack("padding-version", padding::version),
    attack("padding-separator", padding::separator),
    attack("padding-error", padding::error_code),
    attack("padding-length", padding::length),
    attack("padding-time", timing::padding),
    attack("sign-request", deputy::certificate_request),
    attack("sign-jws", deputy::web_signature),
    attack("sign-revocation", deputy::revocation),
    attack("sign-credential", deputy::delegated_credential),
    attack("sign-other", deputy::other),
    attack("cross-shape", cross_shape::run),
    attack("replay-same", replay::by_the_same),
    attack("replay-other", replay::by_another),
    attack("replay-later", replay::later),
    attack("foreign-key", foreign_key::run),
    attack("purpose", purpose::run),
    attack("enumerate-answer", enumerate::by_answer),
    attack("enumerate-time", timing::existence),
];

const fn attack(name: &'static str, run: fn(&mut Target) -> Result<Verdict, Trouble>) -> Attack {
    Attack { name, run }
}

fn known(name: &str) -> Result<String, String> {
    if ATTACKS.iter().any(|attack| attack.name == name) {
        return Ok(name.to_owned());
    }
    let names: Vec<&str> = ATTACKS.iter().map(|attack| attack.name).collect();
    Err(format!("the attacks are {}", names.join(", ")))
}

/// The JSON document.
#[derive(Debug, Serialize)]
struct Document<'a> {
    schema: &'static str,
    target: &'a str,
    attacks: &'a [Row],
}

#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    /// `held`, `broken` or `skipped`.
    verdict: &'static str,
    why: String,
}

/// Runs the attacks; fails when one of them worked, and when one could not be judged.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut target = connect(arguments).map_err(Failure::start)?;
    let mut rows = Vec::new();
    let wanted = |attack: &&Attack| {
        arguments.only.is_empty() || arguments.only.iter().any(|name| name == attack.name)
    };
    let mut unjudged = Vec::new();
    for attack in ATTACKS.iter().filter(wanted) {
        let verdict = match (attack.run)(&mut target) {
            Ok(verdict) => verdict,
            Err(trouble @ Trouble::Unanswered(_)) => {
                unjudged.push(attack.name);
                Verdict::skipped(trouble.to_string())
            }
            Err(trouble) => return Err(Failure::run(format!("{}: {trouble}", attack.name))),
        };
        if !arguments.json {
            output::line(&text(attack.name, &verdict));
        }
        rows.push(Row {
            name: attack.name,
            verdict: verdict.word(),
            why: verdict.why().to_owned(),
        });
    }
    let of = |word: &str| rows.iter().filter(|row| row.verdict == word).count();
    let counts = format!(
        "{} held, {} broken, {} skipped",
        of("held"),
        of("broken"),
        of("skipped")
    );
    if arguments.json {
        let document = Document {
            schema: "keyserver.attack/1",
            target: &arguments.target,
            attacks: &rows,
        };
        output::line(&serde_json::to_string(&document).map_err(Failure::run)?);
    } else {
        output::line(&format!("\n{counts}"));
    }
    if of("broken") > 0 {
        return Err(Failure::run(format!("{}: {counts}", arguments.target)));
    }
    if !unjudged.is_empty() {
        return Err(Failure::run(format!(
            "{}: {counts}, and it is not known whether these would have held: {}",
            arguments.target,
            unjudged.join(", ")
        )));
    }
    Ok(())
}

fn connect(arguments: &Arguments) -> Result<Target, Trouble> {
    let host = arguments.target.rsplit_once(':').map(|(host, _)| host);
    let server_name = (arguments.server_name.as_deref())
        .or_else(|| host.map(|host| host.trim_matches(['[', ']'])))
        .ok_or_else(|| Trouble::new("--target needs a host and a port: keys.example:2407"))?;
    let door = |certificate: &PathBuf, key: &PathBuf| {
        Door::new(
            &arguments.target,
            server_name,
            [&arguments.ca, certificate, key],
        )
    };
    let us = Party::connect(&door(&arguments.cert, &arguments.key)?)?;
    let other = match (&arguments.other_cert, &arguments.other_key) {
        (Some(certificate), Some(key)) => Some(Party::connect(&door(certificate, key)?)?),
        _ => None,
    };
    Ok(Target {
        us,
        other,
        samples: usize::try_from(arguments.samples).unwrap_or(usize::MAX),
        recording: arguments.recording.clone(),
        sign_key: arguments.sign_key.clone(),
    })
}

fn text(name: &str, verdict: &Verdict) -> String {
    let colour = match verdict {
        Verdict::Held(_) => "32",
        Verdict::Broken(_) => "31;1",
        Verdict::Skipped(_) => "33",
    };
    let word = output::paint_out(colour, &format!("{:<8}", verdict.word()));
    format!("{name:<19} {word} {}", verdict.why())
}
