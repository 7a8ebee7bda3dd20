//! A promise is as good as the test that keeps it: the tests that `docs/security.md` names exist.

use crate::tree::{self, File};

/// The page with the promises.
const PAGE: &str = "docs/security.md";

/// The code spans in the last column of every table whose head ends in "Test", with their lines.
fn named(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut is_wanted = false;
    for (number, line) in text.lines().enumerate() {
        let row = line
            .trim()
            .strip_prefix('|')
            .and_then(|row| row.strip_suffix('|'));
        let Some(row) = row else {
            is_wanted = false;
            continue;
        };
        let last = row.rsplit('|').next().unwrap_or_default();
        if last.trim() == "Test" {
            is_wanted = true;
        } else if is_wanted {
            let spans = last.split('`').skip(1).step_by(2);
            found.extend(spans.map(|span| (number + 1, span.to_owned())));
        }
    }
    found
}

/// Whether the tree has what a code span names: a path, a function, a module of tests, an attack, or a command.
fn exists(span: &str, files: &[File]) -> bool {
    let has = |text: &str| {
        files
            .iter()
            .any(|file| file.path != PAGE && file.text.contains(text))
    };
    let is_path = span.contains('/');
    if is_path {
        let root = span.split(" ").next().unwrap_or(span);
        let is_file = |file: &File| file.path.contains(root);
        return files.iter().any(is_file);
    }
    if let Some(family) = span.strip_suffix("-*") {
        return has(&format!("attack(\"{family}-"));
    }
    if span.contains(' ') {
        return true;
    }
    let last = span.rsplit("::").next().unwrap_or(span);
    if last == "tests" {
        let module = span.rsplit("::").nth(1).unwrap_or_default();
        return files.iter().any(|file| {
            let names = [
                format!("/{module}.rs"),
                format!("/{module}/tests.rs"),
                format!("/{module}/mod.rs"),
            ];
            names.iter().any(|name| file.path.ends_with(name.as_str()))
        });
    }
    has(&format!("fn {last}("))
        || has(&format!("def {last}("))
        || has(&format!("attack(\"{last}\""))
}

fn check(page: &str, files: &[File]) -> Vec<String> {
    named(page)
        .into_iter()
        .filter(|(_, span)| !exists(span, files))
        .map(|(line, span)| {
            format!("{PAGE}:{line}: there is no `{span}` that could keep the promise")
        })
        .collect()
}

#[test]
fn the_tests_that_keep_promises_exist() {
    let files = tree::files();
    let page = files.iter().find(|file| file.path == PAGE).expect(PAGE);
    let named = named(&page.text).len();
    assert!(named > 30, "only {named} tests are named in {PAGE}");
    tree::assert_none(&check(&page.text, &files));
}

#[test]
fn a_promise_without_a_test_is_found() {
    let files = [
        File::sample(
            "keyserver/src/ledger/rule.rs",
            "fn a_test() {}\nfn other() {}",
        ),
        File::sample("a.py", "def check_it(world):"),
        File::sample("attack/mod.rs", "attack(\"forge-pss\", forge::pss)"),
    ];
    let page =
        |span: &str| format!("| Promise | Test |\n|---|---|\n| words `ignored` | `{span}` |\n");
    for good in [
        "a_test",
        "check_it",
        "forge-*",
        "forge-pss",
        "ledger::rule::tests",
        "keyserver/src/ledger",
    ] {
        assert!(check(&page(good), &files).is_empty(), "{good}");
    }
    for bad in [
        "no_test",
        "padding-*",
        "padding-time",
        "nowhere::tests",
        "keyserver/src/nowhere",
    ] {
        assert_eq!(check(&page(bad), &files).len(), 1, "{bad}");
    }
    // Other tables, and text, promise nothing.
    assert!(named("| A | B |\n|---|---|\n| `x` | `y` |\n\n`z`\n").is_empty());
}
