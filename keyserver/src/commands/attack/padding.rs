//! Bleichenbacher's attack (CRYPTO 1998) and what has been made of it since: whatever tells a well-padded block from
//! another opens every recorded session of the key, and signs with it.
//!
//! The attacker knows the blocks here, so one question suffices each time: does anything that an asker can see depend
//! on how the block was spoilt? Time has a file of its own, `timing.rs`.
//!
//! | attack | what differs in a server that is open to it | from |
//! |---|---|---|
//! | repetition | the second answer to one ciphertext, where a substitute is drawn at random | RFC 5246, section 7.4.7.1 has it drawn once a handshake |
//! | version | the answer to a wrong version inside a good block | Klima, Pokorny, Rosa 2003 |
//! | separator | the answer where the separator is somewhere else | Bardou and others 2012 |
//! | error code | the error for a wrong first or second byte | Bleichenbacher 1998 |
//! | length | the length of the answer | Böck, Somorovsky, Young 2018 |

use super::line::{Answer, Line, Trouble};
use super::rsa::{RsaPublic, random};
use super::target::Target;
use super::verdict::Verdict;
use super::ways::{Opening, VERSION, openings};

/// Bytes of a block that, found in an answer, are no chance.
const WINDOW: usize = 12;

/// A block and how it came to be.
pub(super) struct Block {
    pub(super) what: &'static str,
    pub(super) bytes: Vec<u8>,
}

impl Block {
    /// One that conforms, with a fresh secret.
    pub(super) fn good(rsa: &RsaPublic) -> Self {
        Self::with_version(rsa, "a good block", VERSION)
    }

    fn with_version(rsa: &RsaPublic, what: &'static str, version: [u8; 2]) -> Self {
        let mut secret = random::<48>();
        secret[..2].copy_from_slice(&version);
        let bytes = rsa.encryption_block(&secret);
        Self { what, bytes }
    }

    /// One with a byte changed.
    fn changed(rsa: &RsaPublic, what: &'static str, place: usize, value: u8) -> Self {
        let mut block = Self::good(rsa);
        if let Some(byte) = block.bytes.get_mut(place) {
            *byte = value;
        }
        Self { what, ..block }
    }

    fn with_message(rsa: &RsaPublic, what: &'static str, length: usize) -> Self {
        let message: Vec<u8> = random::<64>().into_iter().take(length).collect();
        let message: Vec<u8> = message.into_iter().map(|byte| byte | 1).collect();
        let bytes = rsa.encryption_block(&message);
        Self { what, bytes }
    }

    /// The first two bytes are not those of an encryption.
    pub(super) fn bad_padding(rsa: &RsaPublic) -> Self {
        Self::changed(rsa, "a wrong block type", 1, 1)
    }

    /// The secret begins with another version.
    pub(super) fn bad_version(rsa: &RsaPublic) -> Self {
        Self::with_version(rsa, "version 3.2 inside", [3, 2])
    }

    /// The separator is not where it belongs.
    pub(super) fn bad_separator(rsa: &RsaPublic) -> Self {
        Self::with_message(rsa, "a message of 47 bytes", 47)
    }
}

fn wrong_heads(rsa: &RsaPublic) -> Vec<Block> {
    let mut noise = random::<512>().to_vec();
    noise.resize(rsa.k, 0x5a);
    // Below the modulus, and no padding of any kind.
    noise.splice(..2, [0, 0x77]);
    vec![
        Block::changed(rsa, "a wrong first byte", 0, 1),
        Block::bad_padding(rsa),
        Block {
            what: "a block of noise",
            bytes: noise,
        },
    ]
}

fn wrong_versions(rsa: &RsaPublic) -> Vec<Block> {
    vec![
        Block::bad_version(rsa),
        Block::with_version(rsa, "version 3.4 inside", [3, 4]),
        Block::with_version(rsa, "version 0.0 inside", [0, 0]),
        Block::with_version(rsa, "version 255.255 inside", [0xff; 2]),
    ]
}

fn wrong_separators(rsa: &RsaPublic) -> Vec<Block> {
    let k = rsa.k;
    vec![
        Block::bad_separator(rsa),
        Block::with_message(rsa, "a message of 49 bytes", 49),
        Block::with_message(rsa, "an empty message", 0),
        Block::changed(rsa, "no separator", k.saturating_sub(49), 7),
        Block::changed(rsa, "a zero early in the filler", 40, 0),
        Block::changed(rsa, "a filler of three bytes", 5, 0),
    ]
}

/// One ciphertext, asked for twice: whether the two answers are equal must not depend on the block.
pub(super) fn repetition(target: &mut Target) -> Result<Verdict, Trouble> {
    compare(target, |line, opening| {
        let rsa = &opening.rsa;
        let twice = |line: &mut Line, block: &Block| {
            let ciphertext = rsa.public(&block.bytes);
            let randoms = random();
            let (way, victim) = (opening.way, &opening.victim);
            let first = way.ask(line, victim, &ciphertext, &randoms)?;
            let second = way.ask(line, victim, &ciphertext, &randoms)?;
            Ok::<_, Trouble>(if first == second {
                "the same answer twice"
            } else {
                "two answers"
            })
        };
        let good = twice(line, &Block::good(rsa))?;
        opening.still_answers(line)?;
        let blocks = [wrong_heads(rsa), wrong_versions(rsa), wrong_separators(rsa)];
        let mut count = 0;
        for bad in blocks.into_iter().flatten() {
            let seen = twice(line, &bad)?;
            if seen != good {
                opening.still_answers(line)?;
                return Ok(Err(format!("{}: {seen}; a good block: {good}", bad.what)));
            }
            count += 1;
        }
        Ok(Ok(count))
    })
}

/// A wrong version inside a block with a good padding.
pub(super) fn version(target: &mut Target) -> Result<Verdict, Trouble> {
    compare(target, |line, opening| {
        let blocks = wrong_versions(&opening.rsa);
        same_answer(line, opening, &blocks, |answer| Some(answer.shape()))
    })
}

/// A separator in another place: the answer has one shape, and nothing of the block is in it.
pub(super) fn separator(target: &mut Target) -> Result<Verdict, Trouble> {
    compare(target, |line, opening| {
        let blocks = wrong_separators(&opening.rsa);
        for block in &blocks {
            let answer = ask(line, opening, block)?;
            if answer.given().is_some_and(|given| shows(given, block)) {
                return Ok(Err(format!("{}: its bytes are in the answer", block.what)));
            }
        }
        let blocks = wrong_separators(&opening.rsa);
        same_answer(line, opening, &blocks, |answer| Some(answer.shape()))
    })
}

/// Another error for a block that is none.
pub(super) fn error_code(target: &mut Target) -> Result<Verdict, Trouble> {
    compare(target, |line, opening| {
        let blocks = wrong_heads(&opening.rsa);
        same_answer(line, opening, &blocks, |answer| match answer {
            Answer::Given(_) => Some("an answer".to_owned()),
            Answer::Refused(_) => Some(answer.shape()),
        })
    })
}

/// Another length of the answer for a block that is none.
pub(super) fn length(target: &mut Target) -> Result<Verdict, Trouble> {
    compare(target, |line, opening| {
        let blocks = wrong_heads(&opening.rsa);
        same_answer(line, opening, &blocks, |answer| match answer {
            Answer::Given(_) => Some(answer.shape()),
            Answer::Refused(_) => None,
        })
    })
}

/// What one way has shown: how many blocks were answered alike, or what told one from a good one.
type Finding = Result<usize, String>;

/// Tries every way that is open.
fn compare(
    target: &mut Target,
    mut attempt: impl FnMut(&mut Line, &Opening) -> Result<Finding, Trouble>,
) -> Result<Verdict, Trouble> {
    let openings = match openings(target)? {
        Ok(openings) => openings,
        Err(verdict) => return Ok(verdict),
    };
    let mut blocks = 0;
    for opening in &openings.open {
        match attempt(&mut target.us.line, opening)? {
            Ok(count) => blocks += count,
            Err(why) => return Ok(Verdict::broken(format!("{}: {why}", opening.name()))),
        }
    }
    let ways: Vec<String> = openings.open.iter().map(Opening::name).collect();
    let ways = ways.join(", ");
    let why = format!("{blocks} bad blocks were answered like good ones, through {ways}");
    openings.held(&mut target.us.line, why)
}

fn ask(line: &mut Line, opening: &Opening, block: &Block) -> Result<Answer, Trouble> {
    let ciphertext = opening.rsa.public(&block.bytes);
    (opening.way).ask(line, &opening.victim, &ciphertext, &random())
}

/// Whether every block is answered like a good one, in what is looked at; an answer that says nothing about that is
/// passed over.
fn same_answer(
    line: &mut Line,
    opening: &Opening,
    blocks: &[Block],
    seen_as: impl Fn(&Answer) -> Option<String>,
) -> Result<Finding, Trouble> {
    let good = ask(line, opening, &Block::good(&opening.rsa))?;
    if !good.is_given() {
        return Err(Trouble::unanswered(opening.name()));
    }
    let good = seen_as(&good);
    for block in blocks {
        let seen = seen_as(&ask(line, opening, block)?);
        if let Some((seen, good)) = seen.zip(good.as_ref()).filter(|(seen, good)| seen != *good) {
            opening.still_answers(line)?;
            return Ok(Err(format!("{}: {seen}; a good block: {good}", block.what)));
        }
    }
    Ok(Ok(blocks.len()))
}

/// Whether a stretch of the block is in the answer.
fn shows(answer: &[u8], block: &Block) -> bool {
    let stretches = block.bytes.windows(WINDOW);
    stretches
        .filter(|stretch| stretch.iter().any(|byte| *byte != 0))
        .any(|stretch| answer.windows(WINDOW).any(|part| part == stretch))
}
