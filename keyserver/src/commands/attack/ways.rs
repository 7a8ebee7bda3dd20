//! The ways to have a ciphertext opened.

use keyless_protocol::key_exchange::{MasterRequest, MasterSeed, PremasterRequest, PrfHash};
use keyless_protocol::{Opcode, Request};

use super::line::{Answer, Line, Trouble};
use super::rsa::{RsaPublic, random};
use super::target::{Target, Victim};
use super::verdict::Verdict;

/// The version that an honest ClientHello of TLS 1.2 names.
pub(super) const VERSION: [u8; 2] = [3, 3];

/// One of the operations that open a ciphertext.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// 0x42: the master secret comes back.
    Master,
    /// 0x01 of our own client: the premaster secret.
    Premaster,
    /// 0x01 of a stock client: a block.
    Block,
    /// 0x08: the block as it is.
    Raw,
}

impl Way {
    pub(super) const ALL: [Self; 4] = [Self::Master, Self::Premaster, Self::Block, Self::Raw];

    /// Its name in a report.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Master => "0x42",
            Self::Premaster => "0x01 with a version",
            Self::Block => "0x01",
            Self::Raw => "0x08",
        }
    }

    /// The rights one of which allows it.
    pub(super) const fn rights(self) -> &'static [&'static str] {
        match self {
            Self::Master => &["tls12-master"],
            Self::Premaster => &["decrypt-premaster"],
            Self::Block => &["decrypt-compatible", "decrypt-raw"],
            Self::Raw => &["decrypt-raw"],
        }
    }

    const fn opcode(self) -> Opcode {
        match self {
            Self::Master => Opcode::Tls12Master,
            Self::Premaster | Self::Block => Opcode::RsaDecrypt,
            Self::Raw => Opcode::RsaDecryptRaw,
        }
    }

    /// The payload: the ciphertext with what goes in front of it.
    pub(super) fn payload(self, ciphertext: &[u8], randoms: &[u8; 64]) -> Vec<u8> {
        let mut payload = Vec::new();
        match self {
            Self::Master => MasterRequest {
                client_version: VERSION,
                prf: PrfHash::Sha256,
                seed: MasterSeed::Randoms(randoms),
                ciphertext,
            }
            .encode(&mut payload),
            Self::Premaster => PremasterRequest {
                client_version: VERSION,
                ciphertext,
            }
            .encode(&mut payload),
            Self::Block | Self::Raw => payload.extend_from_slice(ciphertext),
        }
        payload
    }

    /// The request. A stock client does not say that it understands more than the first version.
    pub(super) fn request<'a>(self, victim: &Victim, payload: &'a [u8]) -> Request<'a> {
        Request {
            extended: self != Self::Block,
            ..victim.request(self.opcode(), payload)
        }
    }

    /// Asks for `ciphertext`, within a handshake of these randoms.
    pub(super) fn ask(
        self,
        line: &mut Line,
        victim: &Victim,
        ciphertext: &[u8],
        randoms: &[u8; 64],
    ) -> Result<Answer, Trouble> {
        let payload = self.payload(ciphertext, randoms);
        line.ask(&self.request(victim, &payload))
    }

    /// Whether a fresh, honest ciphertext is opened for this client.
    pub(super) fn is_open(self, line: &mut Line, victim: &Victim) -> Result<bool, Trouble> {
        let Some(rsa) = &victim.rsa else {
            return Ok(false);
        };
        let answer = self.ask(line, victim, &fresh(rsa), &random())?;
        Ok(answer.is_given())
    }
}

/// The ciphertext of a fresh premaster secret.
pub(super) fn fresh(rsa: &RsaPublic) -> Vec<u8> {
    let mut secret = random::<48>();
    secret[..2].copy_from_slice(&VERSION);
    rsa.public(&rsa.encryption_block(&secret))
}

/// A key and a way that is open to us.
#[derive(Debug, Clone)]
pub(super) struct Opening {
    pub(super) victim: Victim,
    pub(super) rsa: RsaPublic,
    pub(super) way: Way,
}

impl Opening {
    /// Names it in a report.
    pub(super) fn name(&self) -> String {
        format!("{} with {}", self.way.name(), self.victim.label)
    }

    /// Fails where an honest ciphertext is not answered any more: a refusal says nothing of its block then.
    pub(super) fn still_answers(&self, line: &mut Line) -> Result<(), Trouble> {
        if self.way.is_open(line, &self.victim)? {
            return Ok(());
        }
        Err(Trouble::unanswered(self.name()))
    }
}

/// The ways that the list of keys promises.
#[derive(Debug)]
pub(super) struct Openings {
    /// Those that are open, each once.
    pub(super) open: Vec<Opening>,
    /// Those that are not, in words.
    shut: Vec<String>,
}

impl Openings {
    /// What an attack that found nothing came to: the server held, if honest ciphertexts are answered in every way, and
    /// were to the end.
    pub(super) fn held(&self, line: &mut Line, why: String) -> Result<Verdict, Trouble> {
        for opening in &self.open {
            opening.still_answers(line)?;
        }
        if self.shut.is_empty() {
            return Ok(Verdict::held(why));
        }
        Err(Trouble::unanswered(self.shut.join(", ")))
    }
}

/// Every way that is open to us, each once. Where no right of the list opens one, that holds against all attacks on paddings.
pub(super) fn openings(target: &mut Target) -> Result<Result<Openings, Verdict>, Trouble> {
    let keys = match target.rsa_keys() {
        Ok(keys) => keys,
        Err(verdict) => return Ok(Err(verdict)),
    };
    let mut found: Vec<Opening> = Vec::new();
    for (victim, rsa) in &keys {
        for way in Way::ALL {
            let known = found.iter().any(|opening| opening.way == way);
            if !known && way.is_open(&mut target.us.line, victim)? {
                found.push(Opening {
                    victim: victim.clone(),
                    rsa: rsa.clone(),
                    way,
                });
            }
        }
    }
    let mut shut = Vec::new();
    for way in Way::ALL {
        let promised = (keys.iter()).find(|(victim, _)| victim.has_right(way.rights()));
        if let Some((victim, _)) = promised
            && !found.iter().any(|opening| opening.way == way)
        {
            shut.push(format!("{} with {}", way.name(), victim.label));
        }
    }
    match (found.is_empty(), shut.is_empty()) {
        (true, true) => {
            let why = "this client may have no ciphertext opened: every way was refused";
            Ok(Err(Verdict::held(why)))
        }
        (true, false) => Err(Trouble::unanswered(shut.join(", "))),
        (false, _) => Ok(Ok(Openings { open: found, shut })),
    }
}
