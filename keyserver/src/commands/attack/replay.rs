//! Opening recorded handshakes: the same ciphertext again, by the client that asked first and by another, in this run
//! and in a later one.
//!
//! Proof that the client finished its handshake would not help here, because a recording has that too. What helps is a
//! memory of what was answered, and one that outlives the process.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyless_protocol::info::{ski_from_hex, ski_to_hex};
use serde::{Deserialize, Serialize};

use super::line::{Answer, Trouble};
use super::rsa::random;
use super::target::{Party, Target, Victim};
use super::verdict::Verdict;
use super::ways::{Opening, Way, fresh, openings};

/// How often an honest client may ask for one ciphertext: once, and again when its connection was cut.
const TRIES_MAX: usize = 3;

/// Again, and again, by the client that asked first; and for another handshake.
pub(super) fn by_the_same(target: &mut Target) -> Result<Verdict, Trouble> {
    let openings = match openings(target)? {
        Ok(openings) => openings,
        Err(verdict) => return Ok(verdict),
    };
    for opening in &openings.open {
        let Opening { victim, rsa, way } = opening;
        let line = &mut target.us.line;
        let ciphertext = fresh(rsa);
        let randoms = random();
        let mut given = 0;
        for _ in 0..2 * TRIES_MAX {
            let answer = way.ask(line, victim, &ciphertext, &randoms)?;
            given += usize::from(answer.is_given());
        }
        if given == 0 {
            return Err(Trouble::unanswered(opening.name()));
        }
        if given > TRIES_MAX {
            return Ok(Verdict::broken(format!(
                "{}: one ciphertext was answered {given} times",
                way.name()
            )));
        }
        if *way == Way::Master {
            let ciphertext = fresh(rsa);
            let first = way.ask(line, victim, &ciphertext, &random())?;
            let second = way.ask(line, victim, &ciphertext, &random())?;
            if first.is_given() && second.is_given() {
                let why = "0x42: one ciphertext was answered for two handshakes";
                return Ok(Verdict::broken(why));
            }
        }
    }
    let ways: Vec<_> = (openings.open.iter().map(|opening| opening.way.name())).collect();
    let ways = ways.join(", ");
    let why =
        format!("a ciphertext is answered {TRIES_MAX} times at most, for one handshake ({ways})");
    openings.held(&mut target.us.line, why)
}

/// By another client that may open ciphertexts of the key as well.
pub(super) fn by_another(target: &mut Target) -> Result<Verdict, Trouble> {
    let openings = match openings(target)? {
        Ok(openings) => openings,
        Err(verdict) => return Ok(verdict),
    };
    let Some(other) = &mut target.other else {
        let why = "give a second client (--other-cert, --other-key) that may open ciphertexts";
        return Ok(Verdict::skipped(why));
    };
    let mut tried = Vec::new();
    for Opening { victim, rsa, way } in &openings.open {
        let promised = find(other, &victim.ski);
        for theirs in Way::ALL {
            if !theirs.is_open(&mut other.line, victim)? {
                if promised
                    .as_ref()
                    .is_some_and(|key| key.has_right(theirs.rights()))
                {
                    return Err(unanswered_for_other(theirs, victim));
                }
                continue;
            }
            let ciphertext = fresh(rsa);
            let first = way.ask(&mut target.us.line, victim, &ciphertext, &random())?;
            let second = theirs.ask(&mut other.line, victim, &ciphertext, &random())?;
            if first.is_given() && second.is_given() {
                return Ok(Verdict::broken(format!(
                    "what this client had opened by {} was opened for the other by {}",
                    way.name(),
                    theirs.name()
                )));
            }
            // The refusal was about the ciphertext only if another is answered.
            if !first.is_given() || !theirs.is_open(&mut other.line, victim)? {
                return Err(unanswered_for_other(theirs, victim));
            }
            tried.push(format!("{} then {}", way.name(), theirs.name()));
        }
    }
    if tried.is_empty() {
        let why = "the second client may open nothing with the keys that this one may open with";
        return Ok(Verdict::skipped(why));
    }
    let tried = tried.join(", ");
    let why = format!("what one client had opened was refused to the other ({tried})");
    openings.held(&mut target.us.line, why)
}

fn unanswered_for_other(way: Way, victim: &Victim) -> Trouble {
    Trouble::unanswered(format_args!(
        "{} with {}, of the second client",
        way.name(),
        victim.label
    ))
}

/// An exchange that was answered, as somebody on the wire has it.
#[derive(Debug, Serialize, Deserialize)]
struct Recording {
    schema: String,
    /// 40 hexadecimal digits.
    ski: String,
    /// Base64, as all that follows.
    ciphertext: String,
    randoms: String,
    /// [`Way::name`].
    way: String,
}

const SCHEMA: &str = "keyserver.recording/1";

/// In a later run: what is in the file is asked for again; otherwise an exchange is made and kept there.
pub(super) fn later(target: &mut Target) -> Result<Verdict, Trouble> {
    let Some(path) = target.recording.clone() else {
        let why =
            "give --recording FILE, restart the server, and run this again with the same file";
        return Ok(Verdict::skipped(why));
    };
    match fs::read(&path) {
        Ok(bytes) => again(target, &bytes, &path),
        Err(error) if error.kind() == ErrorKind::NotFound => record(target, &path),
        Err(error) => Err(cannot("read", &path, &error)),
    }
}

fn cannot(what: &str, path: &Path, error: &dyn std::fmt::Display) -> Trouble {
    Trouble::new(format_args!("{} cannot be {what}: {error}", path.display()))
}

/// Makes an exchange, uses up its honest retries, and keeps it.
fn record(target: &mut Target, path: &Path) -> Result<Verdict, Trouble> {
    let openings = match openings(target)? {
        Ok(openings) => openings,
        Err(verdict) => return Ok(verdict),
    };
    let Some(opening) = openings.open.first() else {
        return Ok(Verdict::skipped("no way is open"));
    };
    let Opening { victim, rsa, way } = opening;
    let line = &mut target.us.line;
    let (ciphertext, randoms) = (fresh(rsa), random());
    if !way.ask(line, victim, &ciphertext, &randoms)?.is_given() {
        return Err(Trouble::unanswered(opening.name()));
    }
    for _ in 1..TRIES_MAX {
        way.ask(line, victim, &ciphertext, &randoms)?;
    }
    opening.still_answers(line)?;
    let recording = Recording {
        schema: SCHEMA.to_owned(),
        ski: ski_to_hex(&victim.ski),
        ciphertext: STANDARD.encode(&ciphertext),
        randoms: STANDARD.encode(randoms),
        way: way.name().to_owned(),
    };
    let json = serde_json::to_vec(&recording).map_err(Trouble::new)?;
    fs::write(path, json).map_err(|error| cannot("written", path, &error))?;
    Ok(Verdict::skipped(format!(
        "an exchange is kept in {}: restart the server and run this again",
        path.display()
    )))
}

/// Asks for what was recorded, as everybody.
fn again(target: &mut Target, bytes: &[u8], path: &Path) -> Result<Verdict, Trouble> {
    let not_one = || cannot("used", path, &"it is no recording of this command");
    let recording: Recording = serde_json::from_slice(bytes).map_err(|_| not_one())?;
    if recording.schema != SCHEMA {
        return Err(not_one());
    }
    let ski = ski_from_hex(&recording.ski).ok_or_else(not_one)?;
    let ciphertext = STANDARD
        .decode(&recording.ciphertext)
        .map_err(|_| not_one())?;
    let randoms = STANDARD.decode(&recording.randoms).map_err(|_| not_one())?;
    let randoms: [u8; 64] = randoms.try_into().map_err(|_| not_one())?;
    let mut refused = 0;
    for (who, party) in [
        ("this client", Some(&mut target.us)),
        ("the other", target.other.as_mut()),
    ] {
        let Some(party) = party else { continue };
        let Some(victim) = find(party, &ski) else {
            continue;
        };
        for way in Way::ALL {
            match way.ask(&mut party.line, &victim, &ciphertext, &randoms)? {
                Answer::Given(_) => {
                    return Ok(Verdict::broken(format!(
                        "{}: an exchange of an earlier run was opened for {who}",
                        way.name()
                    )));
                }
                Answer::Refused(_) if way.is_open(&mut party.line, &victim)? => refused += 1,
                Answer::Refused(_) if victim.has_right(way.rights()) => {
                    let what = format!("{} with {}, of {who}", way.name(), victim.label);
                    return Err(Trouble::unanswered(what));
                }
                Answer::Refused(_) => {}
            }
        }
    }
    if refused == 0 {
        return Ok(Verdict::skipped(
            "nobody here may have ciphertexts opened with the key of the recording",
        ));
    }
    Ok(Verdict::held(format!(
        "an exchange of an earlier run, opened then by {}, was refused {refused} times",
        recording.way
    )))
}

/// The key with this SKI, if the party may use it.
fn find(party: &Party, ski: &[u8; 20]) -> Option<Victim> {
    let mut entries = party.listed.iter();
    entries
        .find(|entry| entry.ski_bytes().as_ref() == Some(ski))
        .and_then(Victim::new)
}
