//! The settings of a grant that say what a TLS handshake must be like before it is signed.

use std::time::Duration;

use keyless_protocol::SignatureScheme;

use super::raw::{Section, Value};
use super::units;
use crate::limits;
use crate::policy::conditions::{Conditions, ServerName};
use crate::policy::rights::{Right, Rights};

/// Rights whose operations see what they sign.
const TLS: [Right; 2] = [Right::Tls13Sign, Right::Tls12Sign];

/// The one right whose operation can be given a whole handshake.
const TLS13: [Right; 1] = [Right::Tls13Sign];

/// A shorter life would be over before clients with slow clocks see its beginning.
const CREDENTIAL_LIFETIME_MIN: Duration = Duration::from_mins(1);

/// Reads the conditions of a grant that allows `allow`.
pub(super) fn read(entry: &Section<'_>, allow: Rights) -> Conditions {
    let setting = |key, rights: &[Right]| {
        let value = entry.optional(key)?;
        check_rights(&value, allow, rights);
        Some(value)
    };
    let transcript = setting("transcript", &TLS13).and_then(|value| only(&value, "required"));
    let schemes = setting("schemes", &TLS).map(|value| schemes(&value));
    let server_names = setting("sni", &TLS13).map(|value| server_names(&value));
    let protocols = setting("alpn", &TLS13).map(|value| protocols(&value));
    let post_quantum = setting("post_quantum", &TLS13).and_then(|value| only(&value, "if-offered"));
    let downgrade_sentinel =
        setting("downgrade_sentinel", &TLS).and_then(|value| only(&value, "required"));
    Conditions {
        transcript: transcript.is_some(),
        schemes: schemes.unwrap_or_default(),
        server_names,
        protocols,
        post_quantum: post_quantum.is_some(),
        downgrade_sentinel: downgrade_sentinel.is_some(),
    }
}

/// Reads the longest life of a delegated credential: a bound, not a condition.
pub(super) fn credential_lifetime(entry: &Section<'_>, allow: Rights) -> Option<Duration> {
    let value = entry.optional("max_credential_lifetime")?;
    if !allow.contains(Right::Delegate) {
        value.problem(
            format!("`{}` is for the right delegate", value.name()),
            "allow \"delegate\" in this grant, or leave it out",
        );
    }
    let time = value.text("a time with a unit, like \"1h\"", units::duration)?;
    let good = CREDENTIAL_LIFETIME_MIN..=limits::CREDENTIAL_LIFETIME_MAX;
    if good.contains(&time) {
        return Some(time);
    }
    value.problem(
        format!("`{}` is out of bounds", value.name()),
        "give a time from \"1min\" to \"7d\", the longest that TLS allows",
    );
    None
}

/// A condition that an operation cannot see would be a promise that nobody keeps.
fn check_rights(value: &Value<'_>, allow: Rights, seen_by: &[Right]) {
    let names = |rights: Vec<Right>| {
        rights
            .into_iter()
            .map(Right::name)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let blind: Vec<_> = allow
        .iter()
        .filter(|right| !seen_by.contains(right))
        .collect();
    if !blind.is_empty() {
        value.problem(
            format!("`{}` cannot be checked for {}", value.name(), names(blind)),
            format!(
                "give other rights than {} a grant of their own, without it",
                names(seen_by.to_vec())
            ),
        );
    }
}

/// A setting with one value besides being left out.
fn only(value: &Value<'_>, word: &str) -> Option<()> {
    value.text(&format!("\"{word}\", or leave it out"), |text| {
        (text == word).then_some(())
    })
}

fn schemes(value: &Value<'_>) -> Vec<SignatureScheme> {
    let names: Vec<_> = SignatureScheme::ALL.map(SignatureScheme::name).to_vec();
    let wanted = format!("signature schemes of {}", names.join(", "));
    filled(value, &wanted)
        .iter()
        .filter_map(|item| {
            item.text(&wanted, |text| {
                SignatureScheme::ALL
                    .into_iter()
                    .find(|scheme| scheme.name() == text)
            })
        })
        .collect()
}

fn server_names(value: &Value<'_>) -> Vec<ServerName> {
    let wanted = "a list of host names; \"*.shop.example\" is every name one label below it, \
                  \"\" a client that asks for none";
    filled(value, wanted)
        .iter()
        .filter_map(|item| item.text(wanted, server_name))
        .collect()
}

/// A host name as it goes over the wire: letters, digits, hyphens and dots (RFC 6066, section 3),
/// international names in their ASCII form.
fn server_name(text: &str) -> Option<ServerName> {
    if text.is_empty() {
        return Some(ServerName::Absent);
    }
    let (name, is_below) = match text.strip_prefix("*.") {
        Some(name) => (name, true),
        None => (text, false),
    };
    let good = name.len() <= 253
        && name.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        });
    let name = name.to_ascii_lowercase();
    good.then(|| {
        if is_below {
            ServerName::Below(format!(".{name}"))
        } else {
            ServerName::Exact(name)
        }
    })
}

fn protocols(value: &Value<'_>) -> Vec<String> {
    let wanted =
        "a list of ALPN protocols, like [\"h2\", \"http/1.1\"]; \"\" is a handshake without one";
    filled(value, wanted)
        .iter()
        .filter_map(|item| item.text(wanted, |text| (text.len() < 256).then(|| text.to_owned())))
        .collect()
}

/// The items of a list that must not be empty: an empty one would let nothing through.
pub(super) fn filled<'a>(value: &Value<'a>, wanted: &str) -> Vec<Value<'a>> {
    let items = value.items(wanted);
    if items.is_empty() {
        value.problem(
            format!("`{}` lets nothing through", value.name()),
            format!("give {wanted}; or leave it out"),
        );
    }
    items
}
