//! The programs that the tests start are built before them.
//!
//! `tests/run` tells the tests not to look whether a program is up to date, and builds them all first. What it forgets
//! is there all the same wherever the tests have run before, and is missing on a fresh machine only.

use crate::tree;

/// Where tests look for the programs of the workspace.
const WANTED: &str = "tests/src/binaries.rs";

/// What builds them.
const BUILDER: &str = "tests/run";

/// The packages whose programs or libraries are looked for, by the first argument of `binary` and `library`.
fn wanted(text: &str) -> Vec<&str> {
    ["binary(\"", "library(\""]
        .iter()
        .flat_map(|call| text.split(call).skip(1))
        .filter_map(|rest| rest.split('"').next())
        .collect()
}

/// The packages that follow a `-p` in the function `build_programs`.
fn built(text: &str) -> Vec<&str> {
    let body = text
        .split("build_programs() {")
        .nth(1)
        .and_then(|rest| rest.split("\n}").next())
        .unwrap_or_default();
    let words: Vec<_> = body.split_whitespace().collect();
    words
        .windows(2)
        .filter(|pair| pair[0] == "-p")
        .map(|pair| pair[1])
        .collect()
}

fn check(wanted_by: &str, built_by: &str) -> Vec<String> {
    let built = built(built_by);
    wanted(wanted_by)
        .into_iter()
        .filter(|package| !built.contains(package))
        .map(|package| {
            format!(
                "{WANTED} looks for a program of `{package}`, which `build_programs` in {BUILDER} does not build"
            )
        })
        .collect()
}

#[test]
fn programs_that_tests_start_are_built_first() {
    let files = tree::files();
    let text = |path: &str| {
        let file = files.iter().find(|file| file.path == path).expect(path);
        &file.text
    };
    assert!(wanted(text(WANTED)).len() > 5);
    tree::assert_none(&check(text(WANTED), text(BUILDER)));
}

#[test]
fn a_program_that_is_not_built_is_found() {
    let wanted = "binary(\"one\", \"a\") library(\"two\", \"b.so\")";
    let builder = |packages: &str| {
        format!("build_programs() {{\n    cargo build {packages}\n}}\ncargo test -p two\n")
    };
    assert!(check(wanted, &builder("-p one -p two")).is_empty());
    assert_eq!(check(wanted, &builder("-p one")).len(), 1);
    assert_eq!(check(wanted, &builder("")).len(), 2);
}
