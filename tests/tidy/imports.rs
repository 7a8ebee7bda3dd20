//! The import table: which package may depend on which. The table itself stands in
//! `ARCHITECTURE.md`, where people read it; this test reads the same rows.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::tree;

/// Crates with one door. `deny.toml` must name the same packages as the table.
const DOORS: [&str; 6] = [
    "aws-lc-sys",
    "cryptoki",
    "cryptoki-sys",
    "hdrhistogram",
    "rustls",
    "tokio-uring",
];

/// What a package may use: other packages of the workspace, and crates with one door.
#[derive(Debug, Default, PartialEq)]
struct Row {
    packages: BTreeSet<String>,
    doors: BTreeSet<String>,
}

type Table = BTreeMap<String, Row>;

/// Reads the rows `| package (folder) | purpose | may import | only door to |`.
fn read_table(text: &str) -> Table {
    let mut rows: Vec<Vec<&str>> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        let cells: Vec<&str> = line
            .trim()
            .trim_matches('|')
            .split('|')
            .map(str::trim)
            .collect();
        inside = line.starts_with('|') && (inside || line.contains("May import"));
        if inside && cells.len() == 4 && cells[0].starts_with('`') {
            rows.push(cells);
        }
    }
    let names: BTreeSet<String> = rows
        .iter()
        .filter_map(|cells| code_spans(cells[0]).next())
        .collect();
    let row = |cells: &Vec<&str>| {
        let packages = match cells[2] {
            "everything" => names.clone(),
            cell => code_spans(cell)
                .filter(|name| names.contains(name))
                .collect(),
        };
        let doors = code_spans(cells[3])
            .filter(|name| DOORS.contains(&name.as_str()))
            .collect();
        (
            code_spans(cells[0]).next().unwrap_or_default(),
            Row { packages, doors },
        )
    };
    rows.iter().map(row).collect()
}

/// The texts between backticks.
fn code_spans(cell: &str) -> impl Iterator<Item = String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned)
}

/// What the manifests say: per package the names of what it depends on, tests and builds included.
fn read_manifests(metadata: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let packages = metadata["packages"].as_array().into_iter().flatten();
    packages
        .map(|package| {
            let dependencies = package["dependencies"].as_array().into_iter().flatten();
            let names = dependencies.filter_map(|it| it["name"].as_str().map(str::to_owned));
            (
                package["name"].as_str().unwrap_or_default().to_owned(),
                names.collect(),
            )
        })
        .collect()
}

fn check(table: &Table, manifests: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut findings = Vec::new();
    for (package, dependencies) in manifests {
        let Some(row) = table.get(package) else {
            findings.push(format!(
                "{package}: has no row in the import table of ARCHITECTURE.md"
            ));
            continue;
        };
        for name in dependencies {
            if manifests.contains_key(name) && !row.packages.contains(name) && name != package {
                findings.push(format!(
                    "{package}: may not import {name}, see ARCHITECTURE.md"
                ));
            }
            if DOORS.contains(&name.as_str()) && !row.doors.contains(name) {
                findings.push(format!(
                    "{package}: is no door to {name}, see ARCHITECTURE.md"
                ));
            }
        }
    }
    let gone = table
        .keys()
        .filter(|package| !manifests.contains_key(*package));
    findings
        .extend(gone.map(|package| format!("{package}: in the import table, but no such package")));
    findings
}

/// The packages of ours that `deny.toml` lets through to a crate with one door.
fn deny_wrappers(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let file: toml::Value = toml::from_str(text).expect("deny.toml is TOML");
    let bans = file["bans"]["deny"]
        .as_array()
        .expect("deny.toml has a list of bans")
        .iter();
    let named = bans.filter_map(|ban| {
        let wrappers = ban.get("wrappers")?.as_array()?.iter();
        let names = wrappers.filter_map(|name| name.as_str().map(str::to_owned));
        Some((ban["crate"].as_str()?.to_owned(), names.collect()))
    });
    named.collect()
}

fn table() -> Table {
    let text = std::fs::read_to_string(tree::root().join("ARCHITECTURE.md"));
    let table = read_table(&text.expect("ARCHITECTURE.md can be read"));
    assert!(
        table.len() >= 7,
        "the import table of ARCHITECTURE.md has only {} rows",
        table.len()
    );
    table
}

#[test]
fn manifests_keep_to_the_import_table() {
    tree::assert_none(&check(
        &table(),
        &read_manifests(&tree::metadata("Cargo.toml")),
    ));
}

#[test]
fn deny_toml_has_the_same_doors() {
    let text = std::fs::read_to_string(tree::root().join("deny.toml"));
    let wrappers = deny_wrappers(&text.expect("deny.toml can be read"));
    for door in DOORS {
        let mut wanted: BTreeSet<String> = table()
            .into_iter()
            .filter(|(_, row)| row.doors.contains(door))
            .map(|(name, _)| name)
            .collect();
        // A crate of somebody else's that is the safe way to the door.
        let safe = match door {
            "aws-lc-sys" => Some("aws-lc-rs"),
            "cryptoki-sys" => Some("cryptoki"),
            _ => None,
        };
        wanted.extend(safe.map(str::to_owned));
        assert_eq!(
            wrappers.get(door),
            Some(&wanted),
            "`{door}` in deny.toml and in ARCHITECTURE.md"
        );
    }
}

/// The production daemon holds no client, no certificate authority and no load generator.
#[test]
fn the_production_daemon_is_the_server_alone() {
    let trial_only = ["keyserver-client", "rcgen", "loadgen", "hdrhistogram"];
    let tree = |features: &[&str]| {
        let mut arguments = vec!["tree", "--offline", "-p", "keyserver", "-e", "normal,build"];
        arguments.extend(["--prefix", "none"]);
        arguments.extend(features);
        tree::cargo(&arguments)
    };
    let names = |text: &str| -> BTreeSet<String> {
        text.lines()
            .filter_map(|line| line.split(' ').next().map(str::to_owned))
            .collect()
    };
    let production = names(&tree(&[
        "--no-default-features",
        "--features",
        "uring,pkcs11",
    ]));
    assert!(
        production.contains("tokio-uring") && production.contains("accel"),
        "{production:?}"
    );
    for name in trial_only {
        assert!(
            !production.contains(name),
            "{name} is part of the production daemon"
        );
    }
    // The same look finds the client where it belongs, so it would find it there.
    assert!(names(&tree(&[])).contains("keyserver-client"));
    assert!(!names(&tree(&["--no-default-features"])).contains("tokio-uring"));
}

#[test]
fn a_forbidden_import_is_found() {
    let text = "| Package | Purpose | May import | Only door to |\n|---|---|---|---|\n\
                | `a` (`x/a`) | bytes | nothing | - |\n\
                | `b` (`b`) | server | `a` | server-side `rustls`, `other` |\n\
                | `t` (`t`) | tests | everything | - |\n\
                \n| `c` | not | a row | - |\n";
    let table = read_table(text);
    assert_eq!(table.len(), 3, "{table:?}");
    let manifests = |list: &[(&str, &[&str])]| {
        let entry = |(name, uses): &(&str, &[&str])| {
            (
                (*name).to_owned(),
                uses.iter().map(|name| (*name).to_owned()).collect(),
            )
        };
        list.iter().map(entry).collect::<BTreeMap<_, _>>()
    };
    tree::assert_none(&check(
        &table,
        &manifests(&[
            ("a", &["serde"]),
            ("b", &["a", "rustls"]),
            ("t", &["a", "b", "t"]),
        ]),
    ));
    let bad = manifests(&[("a", &["b", "rustls"]), ("b", &["cryptoki"]), ("c", &[])]);
    let found = check(&table, &bad);
    assert_eq!(found.len(), 5, "{found:?}");
}
