//! Nothing unfinished, nothing of the machine it was written on.

use crate::tree::{self, File};

/// What may not stand in a file: the text, the files it is looked for in, and what to do instead.
/// The texts are put together so that this table does not find itself.
const BANNED: &[(&str, &[&str], &str)] = &[
    (concat!("todo", "!("), &["rs"], "finish it"),
    (concat!("unimplemented", "!("), &["rs"], "finish it"),
    (concat!("dbg", "!("), &["rs"], "take the debugging aid out"),
    (
        concat!("#[", "ignore"),
        &["rs"],
        "a test that does not run tests nothing: repair or delete it",
    ),
    (
        concat!("FIX", "ME"),
        ANY,
        "repair it, or say in plain words what is not supported",
    ),
    (
        concat!("TO", "DO"),
        ANY,
        "do it, or say in plain words what is not supported",
    ),
    (concat!("<<<", "<<<<"), ANY, "finish the merge"),
    (concat!("/work", "/"), ANY, "a path of one machine"),
    (concat!("/root", "/"), ANY, "a path of one machine"),
    (concat!("/home", "/"), ANY, "a path of one machine"),
    (concat!("target", "-warm"), ANY, "a path of one machine"),
];

const ANY: &[&str] = &[
    "rs", "md", "toml", "py", "sh", "service", "socket", "run", "",
];

fn check(files: &[File]) -> Vec<String> {
    let mut findings = Vec::new();
    // What a fuzzer found may hold any text.
    for file in files.iter().filter(|file| !file.path.contains("/corpus/")) {
        let extension = std::path::Path::new(&file.path)
            .extension()
            .unwrap_or_default();
        for (number, line) in file.text.lines().enumerate() {
            for (text, extensions, instead) in BANNED {
                if extensions.iter().any(|wanted| extension == *wanted) && line.contains(text) {
                    findings.push(format!("{}:{}: `{text}`: {instead}", file.path, number + 1));
                }
            }
        }
    }
    findings
}

#[test]
fn nothing_is_left_over() {
    tree::assert_none(&check(&tree::files()));
}

#[test]
fn leftovers_are_found() {
    for (text, extensions, _) in BANNED {
        for extension in *extensions {
            let name = if extension.is_empty() {
                "run".to_owned()
            } else {
                format!("a.{extension}")
            };
            let file = File::sample(&name, &format!("one\ntwo {text} three\n"));
            let findings = check(&[file]);
            assert_eq!(findings.len(), 1, "{text} in {name}: {findings:?}");
            assert!(
                findings[0].starts_with(&format!("{name}:2: ")),
                "{findings:?}"
            );
        }
    }
}
