//! Finding out which keys exist, by what a refusal looks like. By its time: `timing.rs`.

use keyless_protocol::{Opcode, Request};

use super::deputy::count_of;
use super::forge::name_of;
use super::line::Trouble;
use super::purpose::{Use, uses};
use super::rsa::random;
use super::target::{Party, Target, Victim};
use super::verdict::Verdict;

/// Keys of the other client that this one may not use; every type once.
pub(super) fn foreign(us: &Party, other: &Party) -> Vec<Victim> {
    let unseen = |key: &&Victim| !us.lists(&key.ski);
    let mut keys: Vec<Victim> = Vec::new();
    let all: Vec<Victim> = other.listed.iter().filter_map(Victim::new).collect();
    for key in all.iter().filter(unseen) {
        if !keys.iter().any(|known| known.key_type == key.key_type) {
            keys.push(key.clone());
        }
    }
    keys
}

/// A key that exists and that this client does not see.
pub(super) fn hidden(target: &Target) -> Option<Victim> {
    let other = target.other.as_ref()?;
    foreign(&target.us, other).into_iter().next()
}

/// The refusal of a key that exists, of one that does not, and of none: by SKI and by digest, to stock clients and to
/// others.
pub(super) fn by_answer(target: &mut Target) -> Result<Verdict, Trouble> {
    let mut keys: Vec<Victim> = match &target.other {
        Some(other) => foreign(&target.us, other),
        None => Vec::new(),
    };
    keys.extend(target.us.keys.iter().cloned());
    let mut compared = 0;
    for key in &keys {
        let foreign = !target.us.lists(&key.ski);
        let attempts = uses(key);
        // What is granted is answered, in one way or another, and that the key exists is no secret.
        let granted: Vec<Opcode> = (attempts.iter())
            .filter(|attempt| !foreign && key.has_right(attempt.rights))
            .map(|attempt| attempt.opcode)
            .collect();
        for attempt in attempts {
            if granted.contains(&attempt.opcode) {
                continue;
            }
            for extended in [true, false] {
                match refusals(target, key, &attempt, extended)? {
                    Ok(count) => compared += count,
                    Err(why) => return Ok(Verdict::broken(why)),
                }
            }
        }
    }
    if compared == 0 {
        let why = "this client may do everything with every key that is known: give a second one (--other-cert)";
        return Ok(Verdict::skipped(why));
    }
    Ok(Verdict::held(format!(
        "{} of {} read the same as those of keys that do not exist",
        count_of(compared, "refusal"),
        count_of(keys.len(), "key"),
    )))
}

/// Compares the answer for a key with that for one that does not exist, however either is named.
fn refusals(
    target: &mut Target,
    key: &Victim,
    attempt: &Use,
    extended: bool,
) -> Result<Result<usize, String>, Trouble> {
    let request = Request {
        extended,
        ..attempt.request(key)
    };
    let nobody = Request {
        ski: Some(random()),
        ..request
    };
    let unknown = target.us.line.ask(&nobody)?;
    let by_digest = key.rsa.as_ref().map(|rsa| Request {
        ski: None,
        digest: Some(rsa.certificate_digest()),
        ..request
    });
    let unnamed = Request {
        ski: None,
        ..request
    };
    let mut compared = 0;
    for (how, request) in [
        ("named by SKI", Some(request)),
        ("named by digest", by_digest),
        ("not named", Some(unnamed)),
    ] {
        let Some(request) = request else { continue };
        let answer = target.us.line.ask(&request)?;
        // A use that is not granted and takes place is what other attacks look for.
        if !answer.is_given() && answer != unknown {
            return Ok(Err(format!(
                "{}: {} for a key that exists, {how}, and {} for one that does not",
                describe(request.opcode, extended),
                answer.shape(),
                unknown.shape()
            )));
        }
        compared += 1;
    }
    Ok(Ok(compared))
}

fn describe(opcode: Opcode, extended: bool) -> String {
    let who = if extended { "" } else { " of a stock client" };
    format!("{}{who}", name_of(opcode))
}
