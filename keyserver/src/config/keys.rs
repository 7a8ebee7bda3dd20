//! `[[keys]]`: where private keys come from.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::checked::{KeyLocation, KeySource};
use super::circumstances;
use super::paths::{Kind, Paths};
use super::raw::{Section, Value};
use super::tokens::Pkcs11;
use crate::policy::{KeyUse, Purpose};

/// What an entry of files may say, and an entry of a token may not.
const FOR_FILES: [&str; 2] = ["allow_exponents", "allow_weak_permissions"];

/// The reverse.
const FOR_TOKENS: [&str; 4] = ["choice", "pin", "pin_source", "required"];

pub(super) fn read(entries: &[Section<'_>], paths: &Paths, tokens: &Pkcs11) -> Vec<KeySource> {
    entries
        .iter()
        .filter_map(|entry| source(entry, paths, tokens))
        .collect()
}

fn source(entry: &Section<'_>, paths: &Paths, tokens: &Pkcs11) -> Option<KeySource> {
    let location = location(entry, paths, tokens);
    let label = entry.optional("label");
    let certificate = entry.optional("certificate");
    if let (Some(KeyLocation::Directory(_)), Some(value)) =
        (&location, label.as_ref().or(certificate.as_ref()))
    {
        let what = format!(
            "`{}` belongs to one key, but this entry has a directory",
            value.name()
        );
        value.problem(
            what,
            "use `file = ...` for that key, in a [[keys]] entry of its own",
        );
    }
    let label = match label {
        Some(value) => value.text("a name of 1 to 128 characters", |text| {
            let printable = !text.chars().any(char::is_control);
            ((1..=128).contains(&text.len()) && printable).then(|| text.to_owned())
        }),
        None => default_label(entry, location.as_ref()),
    };
    let certificate = certificate.and_then(|value| paths.read(&value, Kind::File));
    let usage = usage(entry);
    let allow_exponents = labels(entry, "allow_exponents");
    let allow_weak_permissions = labels(entry, "allow_weak_permissions");
    entry.finish();
    Some(KeySource {
        location: location?,
        label,
        usage,
        certificate,
        allow_exponents,
        allow_weak_permissions,
    })
}

/// What the keys are for.
fn usage(entry: &Section<'_>) -> Arc<KeyUse> {
    let wanted = "\"sign\" or \"key-exchange\"; for both, for a time, add `dual_use_until`";
    let purpose = entry.optional("purpose");
    let purpose = purpose.and_then(|value| value.text(wanted, Purpose::from_name));
    let meaning = "the last day on which the keys may both sign and open key exchanges";
    let dual_use_until = circumstances::last_day(entry, "dual_use_until", meaning);
    Arc::new(KeyUse {
        purpose: purpose.unwrap_or_default(),
        dual_use_until,
        place: entry.place(),
    })
}

fn location(entry: &Section<'_>, paths: &Paths, tokens: &Pkcs11) -> Option<KeyLocation> {
    let directory = entry.optional("directory");
    let file = entry.optional("file");
    let uris: Vec<Value<'_>> = ["uri", "uris"]
        .into_iter()
        .filter_map(|key| entry.optional(key))
        .collect();
    match (directory, file, uris.as_slice()) {
        (Some(directory), None, []) => {
            none_of(entry, FOR_TOKENS, "a key in a token");
            paths
                .read(&directory, Kind::Directory)
                .map(KeyLocation::Directory)
        }
        (None, Some(file), []) => {
            none_of(entry, FOR_TOKENS, "a key in a token");
            paths.read(&file, Kind::File).map(KeyLocation::File)
        }
        (None, None, [uris]) => {
            none_of(entry, FOR_FILES, "key files");
            token(entry, uris, paths, tokens)
        }
        (None, None, []) => {
            let what = "this [[keys]] entry does not say where its keys are".to_owned();
            entry.problem(
                what,
                "add `directory = \"keys\"`, `file = \"keys/shop.key\"` or `uri = \"pkcs11:...\"`"
                    .into(),
            );
            None
        }
        _ => {
            let what =
                "this [[keys]] entry has more than one of directory, file, uri and uris".to_owned();
            entry.problem(
                what,
                "keep one; write a [[keys]] entry for each of the others".into(),
            );
            None
        }
    }
}

/// Reports settings that mean nothing here.
fn none_of<const N: usize>(entry: &Section<'_>, keys: [&'static str; N], owner: &str) {
    for value in keys.into_iter().filter_map(|key| entry.optional(key)) {
        let what = format!("`{}` belongs to {owner}", value.name());
        value.problem(what, "remove it here");
    }
}

#[cfg(feature = "pkcs11")]
fn token(
    entry: &Section<'_>,
    uris: &Value<'_>,
    paths: &Paths,
    settings: &Pkcs11,
) -> Option<KeyLocation> {
    let items = uris.items("a URI in quotes, or a list of them");
    if items.is_empty() {
        let what = format!("`{}` is empty", uris.name());
        uris.problem(what, "give the URI of the key");
        return None;
    }
    super::tokens::location(entry, &items, paths, settings).map(KeyLocation::Token)
}

#[cfg(not(feature = "pkcs11"))]
fn token(entry: &Section<'_>, uris: &Value<'_>, _: &Paths, _: &Pkcs11) -> Option<KeyLocation> {
    let _known = FOR_TOKENS.map(|key| entry.optional(key));
    uris.problem(
        "this build has no PKCS#11 engine, so it cannot use a key in a token".to_owned(),
        "build it with the feature `pkcs11`, or give `file = ...` or `directory = ...`",
    );
    None
}

fn default_label(entry: &Section<'_>, location: Option<&KeyLocation>) -> Option<String> {
    match location {
        #[cfg(feature = "pkcs11")]
        Some(KeyLocation::Token(source)) => super::tokens::default_label(entry, source),
        _ => {
            let _no_need_to_say_so = entry;
            None
        }
    }
}

/// A list of labels for which a rule is relaxed.
fn labels(entry: &Section<'_>, key: &'static str) -> BTreeSet<String> {
    let Some(value) = entry.optional(key) else {
        return BTreeSet::new();
    };
    let wanted = "a list of key labels (file names without .key), like [\"old-shop\"]";
    let items = value.items(wanted);
    items
        .iter()
        .filter_map(|item| item.string(wanted))
        .map(str::to_owned)
        .collect()
}
