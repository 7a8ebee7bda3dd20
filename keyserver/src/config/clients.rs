//! `[[clients]]`: who may connect for more than a ping, and with which rights.

use std::collections::HashMap;

use keyless_protocol::info::ski_from_hex;

use super::checked::{Client, Grant, KeyPattern, Match};
use super::raw::{Section, Value, suggest};
use super::{circumstances, conditions};
use crate::policy::rights::{Right, Rights};

const MATCH_FORMS: &str = "dns:NAME, uri:URI, subject:CN=NAME,... or spki-sha256:HEX";

/// The largest `weight`: a client that is served a thousand times as often as another is as good
/// as alone.
const WEIGHT_MAX: u64 = 1000;

pub(super) fn read(entries: &[Section<'_>]) -> Vec<Client> {
    let mut names = HashMap::new();
    let mut matches = HashMap::new();
    let mut clients = Vec::new();
    for entry in entries {
        let Some(client) = client(entry) else {
            continue;
        };
        if let Some(first) = names.insert(client.name.clone(), entry.place()) {
            let what = format!("client \"{}\" is already defined at {first}", client.name);
            entry.problem(what, "give each client a name of its own".to_owned());
        }
        for matched in &client.matches {
            if let Some(other) = matches.insert(matched.clone(), client.name.clone()) {
                let what = format!(
                    "{matched} is claimed by client \"{other}\" and by client \"{}\"",
                    client.name
                );
                entry.problem(
                    what,
                    "a certificate is one client: remove one of the two".to_owned(),
                );
            }
        }
        clients.push(client);
    }
    clients
}

fn client(entry: &Section<'_>) -> Option<Client> {
    let name = entry.required("name", "\"edge-1\"").and_then(|value| {
        value.text("a name of 1 to 128 characters", |text| {
            let printable = !text.chars().any(char::is_control);
            ((1..=128).contains(&text.len()) && printable).then(|| text.to_owned())
        })
    });
    let matches = entry.required("match", "\"dns:edge-1\"").map(|value| {
        let items = value.items(&format!("a string or a list of strings: {MATCH_FORMS}"));
        if items.is_empty() {
            value.problem(
                format!("`{}` fits nobody", value.name()),
                format!("give {MATCH_FORMS}"),
            );
        }
        items.iter().filter_map(matched).collect()
    });
    let weight = entry.optional("weight").map_or(Some(1), |value| {
        let weight = value.integer(1..WEIGHT_MAX + 1)?;
        u32::try_from(weight).ok()
    });
    let grants = entry.list("grants").iter().filter_map(grant).collect();
    entry.finish();
    Some(Client {
        name: name?,
        weight: weight?,
        matches: matches?,
        grants,
        place: entry.place(),
    })
}

impl Match {
    /// Reads it as it is written in the configuration: `dns:edge-1`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        match kind {
            _ if rest.is_empty() => None,
            "dns" if !rest.contains('*') => Some(Self::Dns(rest.to_ascii_lowercase())),
            "uri" => Some(Self::Uri(rest.to_owned())),
            "subject" => Some(Self::Subject(rest.to_owned())),
            "spki-sha256" => sha256_from_hex(rest).map(Self::SpkiSha256),
            _ => None,
        }
    }
}

fn matched(value: &Value<'_>) -> Option<Match> {
    let text = value.string(&format!("a string: {MATCH_FORMS}"))?;
    if let Some(found) = Match::parse(text) {
        return Some(found);
    }
    let (kind, _) = text.split_once(':').unwrap_or((text, ""));
    let what = format!(
        "`{}` = \"{}\" is not understood",
        value.name(),
        text.escape_debug()
    );
    let fix = match kind {
        "dns" => "give one name of the certificate in full; wildcards are not expanded".to_owned(),
        "spki-sha256" => "give 64 hexadecimal digits: the SHA-256 of the public key in DER, from \
             `openssl x509 -in client.pem -pubkey -noout | openssl pkey -pubin -outform DER | sha256sum`"
            .to_owned(),
        "uri" | "subject" => format!("give one of {MATCH_FORMS}"),
        other => {
            let kinds = ["dns", "uri", "subject", "spki-sha256"];
            format!("{} Forms: {MATCH_FORMS}", suggest(other, kinds.into_iter()))
        }
    };
    value.problem(what, fix);
    None
}

fn grant(entry: &Section<'_>) -> Option<Grant> {
    let keys = entry.required("keys", "[\"*\"]").map(|value| {
        let items = value.items("a list of labels, globs or SKIs");
        if items.is_empty() {
            value.problem(
                format!("`{}` names no key", value.name()),
                "name keys by label, glob or SKI; \"*\" is every key",
            );
        }
        items.iter().filter_map(pattern).collect()
    });
    let allow = entry.required("allow", "[\"sign-digest\"]").map(|value| {
        let items = value.items("a list of rights, like [\"sign-digest\"]");
        if items.is_empty() {
            let what = format!("`{}` allows nothing", value.name());
            value.problem(what, "name a right, or remove the grant");
        }
        items.iter().filter_map(right).collect::<Rights>()
    });
    let expires = circumstances::last_day(entry, "expires", "the last day the grant counts");
    if expires.is_none() && allow.is_some_and(|allow| allow.contains(Right::DecryptRaw)) {
        entry.problem(
            "a grant of decrypt-raw needs an end: it is full use of the key, forged signatures included".to_owned(),
            "add `expires = YYYY-MM-DD`; or allow \"decrypt-compatible\", with which stock edges work".to_owned(),
        );
    }
    let conditions = conditions::read(entry, allow.unwrap_or_default());
    let max_credential_lifetime = conditions::credential_lifetime(entry, allow.unwrap_or_default());
    let sources = circumstances::sources(entry);
    let window = circumstances::window(entry);
    let limits = circumstances::limits(entry);
    entry.finish();
    Some(Grant {
        keys: keys?,
        allow: allow?,
        expires,
        conditions,
        max_credential_lifetime,
        sources,
        window,
        limits,
        place: entry.place(),
    })
}

fn pattern(value: &Value<'_>) -> Option<KeyPattern> {
    value.text(
        "a label, a glob, or an SKI of 40 hexadecimal digits",
        |text| {
            if text.is_empty() || text.len() > 256 {
                return None;
            }
            // Digits alone may be the label of a file, and are looked up as such first. Colons, as openssl prints them,
            // make them an SKI.
            let ski = ski_from_hex(&text.replace(':', "")).filter(|_| text.contains(':'));
            Some(ski.map_or_else(|| KeyPattern::Label(text.to_owned()), KeyPattern::Ski))
        },
    )
}

fn right(value: &Value<'_>) -> Option<Right> {
    let name = value.string("the name of a right in quotes")?;
    let right = Right::from_name(name);
    if right.is_none() {
        let what = format!("there is no right \"{}\"", name.escape_debug());
        value.problem(what, suggest(name, Right::ALL.into_iter().map(Right::name)));
    }
    right
}

fn sha256_from_hex(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|character| *character != ':')
        .map(|character| {
            character
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
        })
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits
        .chunks_exact(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect();
    if digits.len() != 64 {
        return None;
    }
    bytes.try_into().ok()
}
