//! Why a client may, or may not: the policy's answer to a made-up request, with the line of the configuration that decides.
//!
//! The answer is that of [`Policy::decide`](crate::policy::Policy::decide), which decides about real requests; nothing
//! is counted. A stop of an operator comes before it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::time::SystemTime;

use accel::{Key, KeyIndex};
use keyless_protocol::SignatureScheme;
use serde::{Deserialize, Serialize};

use super::stopping;
use crate::clock;
use crate::config::Match;
use crate::handshake::Version;
use crate::policy::window::read_time;
use crate::policy::{Ask, ClientId, CompiledGrant, Count, Facts, Handshake, Policy, Right, Unmet};
use crate::snapshot::Snapshot;
use crate::stops::{Stops, Subject};

/// A made-up request. Members are added, never renamed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Question {
    /// The client's name in the configuration, or what is in its certificate: `dns:edge-1`.
    pub client: String,
    /// The key's label or SKI.
    pub key: String,
    /// The right that the operation needs.
    pub right: String,
    /// Signature scheme.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    /// The edge sends the handshake, in which the client asks for this name; none if it is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
    /// The edge sends the handshake, in which this protocol is selected; none if it is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpn: Option<String>,
    /// The edge sends the handshake.
    #[serde(default)]
    pub transcript: bool,
    /// In it, the client offers X25519MLKEM768 and does not get it.
    #[serde(default)]
    pub classical: bool,
    /// The key exchange of TLS 1.2 carries the downgrade sentinel.
    #[serde(default)]
    pub downgrade_sentinel: bool,
    /// The address that the client is connected from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// At another time: `2026-11-22T22:39Z`. What limits have used up is then left out of account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// Whether it is allowed.
    pub allowed: bool,
    /// What decided.
    pub decided: Finding,
    /// What was found of each grant of the client, in the order of the configuration.
    pub grants: Vec<Finding>,
}

/// One thing that speaks for or against it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// `FILE:LINE`, or `ksctl` for what an operator has stopped.
    pub place: String,
    /// The setting on that line; empty for a whole table.
    pub setting: String,
    /// What it does.
    pub says: String,
}

impl Finding {
    fn new(place: String, setting: &str, says: impl Into<String>) -> Self {
        Self {
            place,
            setting: setting.to_owned(),
            says: says.into(),
        }
    }

    fn of(grant: &CompiledGrant, found: Result<(), Unmet>) -> Self {
        let place = &grant.grant().place;
        match found {
            Ok(()) => Self::new(place.of("allow"), "allow", "the grant covers it"),
            Err(unmet) => Self::new(
                place.of(unmet.setting()),
                unmet.setting(),
                unmet.to_string(),
            ),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.setting.as_str() {
            "" => write!(f, "{}: {}", self.place, self.says),
            setting => write!(f, "{}: `{setting}`: {}", self.place, self.says),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", if self.allowed { "yes" } else { "no" })?;
        writeln!(f, "  {}", self.decided)?;
        let others = self.grants.iter().filter(|grant| **grant != self.decided);
        for (position, grant) in others.enumerate() {
            if position == 0 {
                writeln!(f, "other grants of the client")?;
            }
            writeln!(f, "  {grant}")?;
        }
        Ok(())
    }
}

/// Answers. Without `stops`, what an operator has stopped is not known.
///
/// # Errors
///
/// The question names something that does not exist, or leaves out what the answer depends on.
pub fn explain(
    question: &Question,
    snapshot: &Snapshot,
    stops: Option<&Stops>,
) -> Result<Explanation, String> {
    let policy = &snapshot.policy;
    let client = client(question, policy)?;
    let (KeyIndex(position), key) = key(question, snapshot)?;
    let right = Right::from_name(&question.right)
        .ok_or_else(|| format!("there is no right \"{}\"", question.right.escape_debug()))?;
    let at = question.at.as_deref().map(time).transpose()?;
    let mut ask = Ask {
        client,
        key: position,
        right,
        facts: None,
        lifetime: None,
        address: source(question)?.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        now: clock::now(),
        at,
    };
    let count = if at.is_some() {
        Count::Nothing
    } else {
        Count::Look
    };
    let impossible = match facts(question, right, key)? {
        Ok(facts) => {
            ask.facts = facts;
            None
        }
        Err(why) => Some(why),
    };
    complete(question, policy, &ask)?;
    let found = policy.examine(&ask, count);
    let grants: Vec<_> = found
        .iter()
        .map(|(grant, found)| Finding::of(grant, *found))
        .collect();
    let answer = |allowed, decided| Explanation {
        allowed,
        decided,
        grants,
    };
    if let Some(decided) = stops.and_then(|stops| stopped(stops, policy, client, key)) {
        return Ok(answer(false, decided));
    }
    let usage = &policy.usage(position).place;
    if let Some(why) = impossible {
        return Ok(answer(false, Finding::new(usage.to_string(), "", why)));
    }
    let decision = policy.decide(&ask, count);
    let decided = match decision {
        Err(Unmet::Purpose) => {
            Finding::new(usage.of("purpose"), "purpose", Unmet::Purpose.to_string())
        }
        Err(Unmet::Keys) => {
            let place = policy.client_place(client).map(ToString::to_string);
            let says = "no grant of the client names the key";
            Finding::new(place.unwrap_or_default(), "", says)
        }
        Ok(()) | Err(_) => {
            let deciding = found.iter().find(|(_, found)| *found == decision);
            // Only a limit that is used up between the two looks could leave none.
            deciding.map_or_else(
                || Finding::new(String::new(), "", "it changed meanwhile; ask again"),
                |(grant, found)| Finding::of(grant, *found),
            )
        }
    };
    Ok(answer(decision.is_ok(), decided))
}

fn client(question: &Question, policy: &Policy) -> Result<ClientId, String> {
    let name = question.client.as_str();
    let by_certificate = || Match::parse(name).and_then(|name| policy.client_matching(&name));
    policy
        .client_named(name)
        .or_else(by_certificate)
        .ok_or_else(|| {
            format!(
                "no [[clients]] entry is named \"{0}\" or matches it: such a client may use no key",
                name.escape_debug()
            )
        })
}

fn key<'a>(question: &Question, snapshot: &'a Snapshot) -> Result<(KeyIndex, &'a Key), String> {
    let ski = stopping::key_named(&question.key, snapshot)?;
    let found = snapshot
        .keys
        .by_ski(&ski)
        .map(|(index, key)| (index, &**key));
    found.ok_or_else(|| "no loaded key has this SKI: nobody may use it".to_owned())
}

fn time(text: &str) -> Result<SystemTime, String> {
    let wrong = || {
        let text = text.escape_debug();
        format!("\"{text}\" is no time; give one in UTC, like 2026-11-22T22:39Z")
    };
    read_time(text).ok_or_else(wrong)
}

fn source(question: &Question) -> Result<Option<IpAddr>, String> {
    let read = |text: &String| {
        let wrong = |_| format!("\"{}\" is no IP address", text.escape_debug());
        text.parse().map_err(wrong)
    };
    question.source.as_ref().map(read).transpose()
}

/// What the request would sign; or why the key cannot do such a thing, whoever asks.
fn facts<'a>(
    question: &'a Question,
    right: Right,
    key: &Key,
) -> Result<Result<Option<Facts<'a>>, String>, String> {
    let kind = key.key_type();
    let cannot = |what: &str| {
        Ok(Err(format!(
            "a key of type {} cannot be used for {what}",
            kind.name()
        )))
    };
    let version = match right {
        Right::Tls13Sign => Version::Tls13,
        Right::Tls12Sign => Version::Tls12,
        _ if right.fits(kind) => return Ok(Ok(None)),
        _ => return cannot(right.name()),
    };
    let named = |name: &String| {
        let found = SignatureScheme::ALL
            .into_iter()
            .find(|scheme| scheme.name() == name);
        found.ok_or_else(|| format!("there is no signature scheme \"{}\"", name.escape_debug()))
    };
    let given = question.scheme.as_ref().map(named).transpose()?;
    let mut fitting = SignatureScheme::ALL
        .into_iter()
        .filter(|scheme| version.knows(*scheme) && version.lets(kind, *scheme));
    let scheme = match given {
        Some(given) => fitting.find(|scheme| *scheme == given),
        None => fitting.next(),
    };
    let Some(scheme) = scheme else {
        let with = given.map_or_else(String::new, |scheme| format!(" with {}", scheme.name()));
        return cannot(&format!("{right}{with}"));
    };
    let text = |text: &'a Option<String>| {
        let text = text.as_deref().filter(|text| !text.is_empty());
        text.map(str::as_bytes)
    };
    let is_shown = question.transcript || question.sni.is_some() || question.alpn.is_some();
    let handshake = match version {
        Version::Tls12 => Handshake::Tls12 {
            says_downgrade: question.downgrade_sentinel,
        },
        Version::Tls13 if is_shown || question.classical => Handshake::Shown {
            server_name: text(&question.sni),
            protocol: text(&question.alpn),
            passes_over_post_quantum: question.classical,
        },
        Version::Tls13 => Handshake::Hashed,
    };
    Ok(Ok(Some(Facts { scheme, handshake })))
}

/// Whether the question says all that the grants look at.
fn complete(question: &Question, policy: &Policy, ask: &Ask<'_>) -> Result<(), String> {
    for (grant, found) in policy.examine(ask, Count::Nothing) {
        if matches!(found, Err(Unmet::Keys | Unmet::Allow | Unmet::Expires)) {
            continue;
        }
        let grant = grant.grant();
        let needs = |setting: &str, option: &str| {
            let place = grant.place.of(setting);
            Err(format!(
                "{place}: it depends on `{setting}` of this grant; say {option}"
            ))
        };
        if !grant.sources.is_empty() && question.source.is_none() {
            return needs("source", "--source ADDRESS");
        }
        if !grant.conditions.schemes.is_empty() && question.scheme.is_none() {
            return needs("schemes", "--scheme NAME");
        }
    }
    Ok(())
}

fn stopped(stops: &Stops, policy: &Policy, client: ClientId, key: &Key) -> Option<Finding> {
    let name = policy.client_name(client).to_owned();
    let subjects = [
        (Subject::All, "unseal"),
        (Subject::Key(key.ski()), "keys enable"),
        (Subject::Client(name), "clients unblock"),
    ];
    let (subject, command) = subjects
        .into_iter()
        .find(|(subject, _)| stops.stops(subject))?;
    let stop = stops.iter().find(|(other, _)| **other == subject)?.1;
    let (uid, reason) = (stop.uid, &stop.reason);
    let says = format!("stopped by uid {uid}: {reason} (`ksctl {command}` ends it)");
    Some(Finding::new("ksctl".to_owned(), "", says))
}
