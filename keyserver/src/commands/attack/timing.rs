//! What time tells: about a padding, and about whether a key exists.
//!
//! One request is under way at a time, on one connection. The classes take turns in an order that is drawn anew for
//! each round; `statistics.rs` says why that makes the comparison a fair one.

use std::time::Duration;

use keyless_protocol::{ErrorCode, Opcode, Request};

use super::line::{Answer, Line, Trouble};
use super::padding::Block;
use super::rsa::{RsaPublic, random};
use super::statistics::{Comparison, median_us};
use super::target::{Target, Victim, tls13_string};
use super::verdict::Verdict;
use super::ways::{Opening, openings};

/// Good and bad blocks, by the time of the answer.
pub(super) fn padding(target: &mut Target) -> Result<Verdict, Trouble> {
    const MAKERS: [fn(&RsaPublic) -> Block; 4] = [
        Block::good,
        Block::bad_padding,
        Block::bad_version,
        Block::bad_separator,
    ];
    let openings = match openings(target)? {
        Ok(openings) => openings,
        Err(verdict) => return Ok(verdict),
    };
    let mut report = Vec::new();
    for opening in &openings.open {
        let Opening { victim, rsa, way } = opening;
        let times = sample(target.samples, MAKERS.len(), |class| {
            let block = MAKERS
                .get(class)
                .map_or_else(|| Block::good(rsa), |make| make(rsa));
            let payload = way.payload(&rsa.public(&block.bytes), &random());
            timed(
                &mut target.us.line,
                &way.request(victim, &payload),
                // An error for a bad block is found by other attacks; its time counts here.
                |answer| class > 0 || answer.is_given(),
            )
        })?;
        let names = ["bad padding", "bad version", "bad separator"];
        match judge(&times, &names) {
            Ok(figures) => report.push(format!("{}: {figures}", opening.name())),
            Err(why) => return Ok(Verdict::broken(format!("{}: {why}", opening.name()))),
        }
    }
    openings.held(&mut target.us.line, report.join("; "))
}

/// A key that does not exist and one that is not ours, by the time of the refusal.
pub(super) fn existence(target: &mut Target) -> Result<Verdict, Trouble> {
    let Some(hidden) = super::enumerate::hidden(target) else {
        return Ok(Verdict::skipped(
            "no key is known that is not ours: give a second client that has one (--other-cert)",
        ));
    };
    let string = tls13_string(&random::<32>());
    let unknown = Victim {
        ski: random(),
        ..hidden.clone()
    };
    let Some(scheme) = hidden.schemes().first() else {
        return Ok(Verdict::skipped("the key has no signature scheme"));
    };
    let request = hidden.signing(Opcode::SignTls13, *scheme, &string);
    if target.us.line.ask(&request)?.is_given() {
        let why = "the key that should be hidden is answered: see foreign-key";
        return Ok(Verdict::skipped(why));
    }
    let names = [&unknown, &hidden];
    let times = sample(target.samples, names.len(), |class| {
        let key = names.get(class).copied().unwrap_or(&hidden);
        let request = key.signing(Opcode::SignTls13, *scheme, &string);
        timed(&mut target.us.line, &request, |answer| {
            matches!(
                answer,
                Answer::Refused(ErrorCode::Denied | ErrorCode::KeyNotFound)
            )
        })
    })?;
    Ok(match judge(&times, &["a key that exists"]) {
        Ok(figures) => Verdict::held(figures),
        Err(why) => Verdict::broken(why),
    })
}

/// Takes `samples` times of each class, in an order drawn for each round.
fn sample(
    samples: usize,
    classes: usize,
    mut ask: impl FnMut(usize) -> Result<Option<Duration>, Trouble>,
) -> Result<Vec<Vec<Duration>>, Trouble> {
    let mut times = vec![Vec::with_capacity(samples); classes];
    // The first rounds warm up whatever can be warm.
    for round in 0..samples + samples / 10 {
        for class in shuffled(classes) {
            let took = ask(class)?;
            let counts = round >= samples / 10;
            if let Some((took, times)) = took.filter(|_| counts).zip(times.get_mut(class)) {
                times.push(took);
            }
        }
    }
    Ok(times)
}

/// Asks, and takes the time of an answer that is as expected. Others say that something else is going on.
fn timed(
    line: &mut Line,
    request: &Request<'_>,
    expected: impl Fn(&Answer) -> bool,
) -> Result<Option<Duration>, Trouble> {
    match line.time(request)? {
        Some((answer, took)) if expected(&answer) => Ok(Some(took)),
        None => Ok(None),
        Some((answer, _)) => Err(Trouble::unanswered(format_args!(
            "the server stopped answering as before while times were taken ({}; fewer --samples may do)",
            answer.shape()
        ))),
    }
}

/// Compares every class with the first.
fn judge(times: &[Vec<Duration>], names: &[&str]) -> Result<String, String> {
    let Some((good, others)) = times.split_first() else {
        return Ok(String::new());
    };
    let mut figures = Vec::new();
    for (name, other) in names.iter().zip(others) {
        let comparison = Comparison::of(good, other);
        let text = format!(
            "{name} {:+.1} us, z = {:+.1}",
            comparison.median_us, comparison.z
        );
        if comparison.differs() {
            return Err(format!("{text}, of {} samples", other.len()));
        }
        figures.push(text);
    }
    Ok(format!(
        "{} samples a class around {:.0} us: {}",
        good.len(),
        median_us(good),
        figures.join(", ")
    ))
}

/// The numbers below `count` in an order by chance.
fn shuffled(count: usize) -> Vec<usize> {
    let mut keyed: Vec<(u64, usize)> = (0..count)
        .map(|class| (u64::from_be_bytes(random()), class))
        .collect();
    keyed.sort_unstable();
    keyed.into_iter().map(|(_, class)| class).collect()
}
