//! Does the time of a refusal tell why? Welch's t-test between reasons, from the side of a client, through a running
//! server.
//!
//! ```text
//! cargo build --release -p keyserver && \
//!     cargo run --release -p keyserver-tests --example timing_refusals [samples [keys]]
//! ```
//!
//! The client sends one request after the other over one connection, each of a reason drawn at random, and takes the
//! time until the answer is there. |t| below 4.5 says that no difference was found; it grows with the square root of
//! the number of samples where there is one. The last test compares a refusal with a request that is refused in the
//! same words after a look at a thousand grants more, and must find that: what it sees is not noise only.
//!
//! With `keys` there are as many keys of others, and each is asked for in turn: of very many, one is in no cache of the
//! processor when it is asked for, which must not tell that it exists.
//!
//! Run it on an otherwise idle machine. 100,000 samples of each reason (the default) take about fifteen seconds.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a command that prints its findings, and ends where something is wrong"
)]

use std::process::ExitCode;
use std::time::Instant;

use keyless_protocol::{Opcode, Request, Ski};
use keyserver_tests::handshakes::tls13_string;
use keyserver_tests::{ClientRule, Fixture, KeyKind, KeyServer, ServerConfig, Wire};

/// |t| from which on the times of the two reasons count as different.
const THRESHOLD: f64 = 4.5;

/// Grants that are looked at in vain before the one that must be found to take longer.
const MANY: usize = 1000;

/// A reason: which keys are asked for, in turn, and with which string.
type Reason<'a> = (&'a str, &'a [Ski], &'a [u8]);

/// xorshift64.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// The time of one refusal, in nanoseconds.
fn time(wire: &mut Wire, (_, skis, payload): Reason<'_>, turn: usize, refusal: &[u8]) -> f64 {
    let request = Request {
        ski: skis.get(turn % skis.len()).copied(),
        payload,
        extended: true,
        signature_scheme: Some(0x0403),
        ..Request::new(7, Opcode::SignTls13)
    };
    let start = Instant::now();
    let answer = wire.exchange(&request);
    let elapsed = start.elapsed();
    assert_eq!(answer, refusal, "it was not refused as the others");
    elapsed.as_secs_f64() * 1e9
}

/// Times of each reason, mixed at random.
fn sample(
    wire: &mut Wire,
    reasons: &[Reason<'_>],
    samples: usize,
    refusal: &[u8],
) -> Vec<Vec<f64>> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut times = vec![Vec::with_capacity(samples); reasons.len()];
    let warm_up = samples / 20;
    for round in 0..(samples + warm_up) * reasons.len() {
        let reason = usize::try_from(next(&mut state) >> 32).unwrap() % reasons.len();
        let elapsed = time(wire, reasons[reason], round, refusal);
        if round >= warm_up * reasons.len() {
            times[reason].push(elapsed);
        }
    }
    times
}

/// The largest |t| over several cut-offs, so that a few interrupts hide nothing.
fn t_test(a: &[f64], b: &[f64]) -> f64 {
    let mut all: Vec<f64> = a.iter().chain(b).copied().collect();
    all.sort_by(f64::total_cmp);
    let cut = |part: usize| all.get(all.len() * part / 100).copied().unwrap_or(f64::MAX);
    let found = [50, 75, 90, 100].map(|part| welch(a, b, cut(part)));
    found.into_iter().fold(
        0.0,
        |most, t| if t.abs() > f64::abs(most) { t } else { most },
    )
}

/// Welch's t of the times up to `limit`.
fn welch(a: &[f64], b: &[f64], limit: f64) -> f64 {
    let moments = |times: &[f64]| {
        let kept: Vec<f64> = times
            .iter()
            .copied()
            .filter(|time| *time <= limit)
            .collect();
        let count = kept.len() as f64;
        let mean = kept.iter().sum::<f64>() / count;
        let variance = kept.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / (count - 1.0);
        (mean, variance / count)
    };
    let ((mean_a, error_a), (mean_b, error_b)) = (moments(a), moments(b));
    (mean_a - mean_b) / (error_a + error_b).sqrt()
}

fn median(times: &[f64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// `edge-1` may sign with `own` only. `many` has a thousand grants on `slow` that count from elsewhere.
fn config() -> ServerConfig {
    let mut many = String::from("[[clients]]\nname = \"many\"\nmatch = \"dns:many\"\n");
    for _ in 0..MANY {
        many += "[[clients.grants]]\nkeys = [\"slow\"]\nallow = [\"tls13-sign\"]\nsource = [\"192.0.2.1\"]\n";
    }
    ServerConfig {
        clients: vec![ClientRule {
            keys: vec!["own".into()],
            ..ClientRule::new("edge-1", &["tls13-sign"])
        }],
        extra: many,
        ..ServerConfig::default()
    }
}

fn main() -> ExitCode {
    let argument = |place, default| {
        let given = std::env::args().nth(place);
        given.map_or(default, |count| count.parse().unwrap())
    };
    let (samples, keys): (usize, usize) = (argument(1, 100_000), argument(2, 1));
    let fixture = Fixture::new();
    let add = |name: &str| {
        let key = KeyKind::P256.generate();
        fixture.write(format!("keys/{name}.key"), &key);
        ski_of(&key)
    };
    let [own, slow] = ["own", "slow"].map(|name| [add(name)]);
    let others: Vec<Ski> = (0..keys).map(|at| add(&format!("other-{at}"))).collect();
    fixture.write_identity("many", &fixture.pki.client("many"));
    let server = KeyServer::start(&fixture, &config());
    let mut state = 0x2545_f491_4f6c_dd1d;
    let unknown: Vec<Ski> = (0..keys)
        .map(|_| std::array::from_fn(|_| next(&mut state).to_le_bytes()[7]))
        .collect();
    let good = tls13_string();
    let mut bad = good.clone();
    // Wrong in the last byte that is looked at.
    bad[97] = 1;
    let mut reasons: Vec<Reason<'_>> = vec![
        ("an unknown key", &unknown, &good),
        ("another's key", &others, &good),
        ("another shape, unknown key", &unknown, &bad),
        ("another shape, own key", &own, &bad),
    ];
    if keys > 1 {
        // That the one key of its own is in a cache is nothing that an edge does not know.
        reasons.pop();
    }
    println!("{samples} samples of each reason, {keys} keys of others");
    let mut edge = Wire::connect(&fixture, server.address(), "edge-1");
    let refusal = refusal(&mut edge, unknown[0], &good);
    let times = sample(&mut edge, &reasons, samples, &refusal);
    let mut failures = 0;
    let mut report = |one: &str, other: &str, times: [&[f64]; 2], differs: bool| {
        let [a, b] = times;
        let t = t_test(a, b);
        let found = t.abs() >= THRESHOLD;
        failures += u32::from(found != differs);
        let verdict = if found { "differs" } else { "no difference" };
        let (a, b) = (median(a) / 1e3, median(b) / 1e3);
        println!("{one:24} {other:28} {a:7.2} {b:7.2} us  t = {t:7.2}  {verdict}");
    };
    for (first, (one, ..)) in reasons.iter().enumerate() {
        for (second, (other, ..)) in reasons.iter().enumerate().skip(first + 1) {
            report(one, other, [&times[first], &times[second]], false);
        }
    }
    let mut many = Wire::connect(&fixture, server.address(), "many");
    let control: [Reason<'_>; 2] = [
        ("an unknown key", &unknown, &good),
        ("a thousand grants", &slow, &good),
    ];
    let times = sample(&mut many, &control, samples.min(20_000), &refusal);
    report(
        control[0].0,
        "a thousand grants: must",
        [&times[0], &times[1]],
        true,
    );
    if failures == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The answer that all must be.
fn refusal(wire: &mut Wire, unknown: Ski, payload: &[u8]) -> Vec<u8> {
    let request = Request {
        ski: Some(unknown),
        payload,
        extended: true,
        signature_scheme: Some(0x0403),
        ..Request::new(7, Opcode::SignTls13)
    };
    wire.exchange(&request).to_vec()
}

/// The subject key identifier of a private key file.
fn ski_of(pkcs8: &[u8]) -> Ski {
    accel::Key::from_bytes(pkcs8).unwrap().ski()
}
