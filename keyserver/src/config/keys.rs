//! `[[keys]]`: where private keys come from.

use std::collections::BTreeSet;

use super::checked::{KeyLocation, KeySource};
use super::paths::{Kind, Paths};
use super::raw::Section;

pub(super) fn read(entries: &[Section<'_>], paths: &Paths) -> Vec<KeySource> {
    entries
        .iter()
        .filter_map(|entry| source(entry, paths))
        .collect()
}

fn source(entry: &Section<'_>, paths: &Paths) -> Option<KeySource> {
    let location = location(entry, paths);
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
    let label = label.and_then(|value| {
        value.text("a name of 1 to 128 characters", |text| {
            let printable = !text.chars().any(char::is_control);
            ((1..=128).contains(&text.len()) && printable).then(|| text.to_owned())
        })
    });
    let certificate = certificate.and_then(|value| paths.read(&value, Kind::File));
    let allow_exponents = labels(entry, "allow_exponents");
    let allow_weak_permissions = labels(entry, "allow_weak_permissions");
    entry.finish();
    Some(KeySource {
        location: location?,
        label,
        certificate,
        allow_exponents,
        allow_weak_permissions,
    })
}

fn location(entry: &Section<'_>, paths: &Paths) -> Option<KeyLocation> {
    let directory = entry.optional("directory");
    let file = entry.optional("file");
    let uri = entry.optional("uri");
    match (directory, file, uri) {
        (Some(directory), None, None) => paths
            .read(&directory, Kind::Directory)
            .map(KeyLocation::Directory),
        (None, Some(file), None) => paths.read(&file, Kind::File).map(KeyLocation::File),
        (None, None, Some(uri)) => {
            let text = uri.string("a URI in quotes")?;
            if text.starts_with("pkcs11:") {
                uri.problem(
                    "this build has no PKCS#11 engine, so it cannot use a key in an HSM".to_owned(),
                    "give `file = ...` or `directory = ...`",
                );
            } else {
                let what = format!("`{}` is not a URI this server knows", uri.name());
                uri.problem(
                    what,
                    "give `file = ...` or `directory = ...` for keys in files",
                );
            }
            None
        }
        (None, None, None) => {
            let what = "this [[keys]] entry does not say where its keys are".to_owned();
            entry.problem(
                what,
                "add `directory = \"keys\"` or `file = \"keys/shop.key\"`".into(),
            );
            None
        }
        _ => {
            let what =
                "this [[keys]] entry has more than one of directory, file and uri".to_owned();
            entry.problem(
                what,
                "keep one; write a [[keys]] entry for each of the others".into(),
            );
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
