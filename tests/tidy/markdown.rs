//! Links and anchors in Markdown resolve; every folder that a reader opens says what it is for.

use std::collections::BTreeMap;

use crate::tree::{self, File};

/// Folders with a README: what lives here, what may not, how to change one thing.
const FOLDERS: [&str; 12] = [
    "accel/",
    "accel/lanes/",
    "client-lib/",
    "client-lib/capi/",
    "client-lib/pkcs11/",
    "client-lib/protocol/",
    "docs/",
    "keyserver/",
    "loadgen/",
    "systemd/",
    "tests/",
    "",
];

/// The lines of a Markdown text outside its code blocks, with their numbers; code spans are blank.
fn prose(text: &str) -> Vec<(usize, String)> {
    let mut inside_code = false;
    let mut lines = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            inside_code = !inside_code;
        } else if !inside_code {
            let outside_spans = |(i, part): (usize, &str)| {
                if i % 2 == 0 {
                    part.to_owned()
                } else {
                    String::new()
                }
            };
            lines.push((
                number + 1,
                line.split('`').enumerate().map(outside_spans).collect(),
            ));
        }
    }
    lines
}

/// The targets of inline links `[text](target)` and of definitions `[text]: target`.
fn links(line: &str) -> Vec<String> {
    let mut found: Vec<String> = line
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split([')', ' ']).next())
        .map(|target| target.trim_matches(['<', '>']).to_owned())
        .collect();
    if let Some((_, target)) = line
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("]: "))
    {
        found.push(target.trim().trim_matches(['<', '>']).to_owned());
    }
    found
}

/// The anchors of a text's headings, made the way GitHub and GitLab make them.
fn anchors(text: &str) -> Vec<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut found = Vec::new();
    let mut inside_code = false;
    for line in text.lines() {
        inside_code ^= line.trim_start().starts_with("```");
        let heading = line.trim_start_matches('#');
        if inside_code || heading.len() == line.len() || !heading.starts_with(' ') {
            continue;
        }
        let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
        let anchor: String = heading.trim().to_lowercase().chars().filter(kept).collect();
        let anchor = anchor.replace(' ', "-");
        let count = seen.entry(anchor.clone()).or_default();
        found.push(if *count == 0 {
            anchor
        } else {
            format!("{anchor}-{count}")
        });
        *count += 1;
    }
    found
}

fn check(files: &[File]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.has_extension("md")) {
        let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (number, line) in prose(&file.text) {
            for link in links(&line)
                .iter()
                .filter(|link| !link.contains("://") && !link.starts_with("mailto:"))
            {
                let at = format!("{}:{number}: link `{link}`", file.path);
                let (target, anchor) = link.split_once('#').unwrap_or((link, ""));
                let target = if target.is_empty() {
                    Some(file.path.clone())
                } else {
                    tree::resolve(folder, target)
                };
                let Some(target) = target else {
                    findings.push(format!("{at} leaves the tree"));
                    continue;
                };
                let found = files.iter().find(|file| file.path == target);
                let is_folder = files
                    .iter()
                    .any(|file| file.path.starts_with(&format!("{target}/")));
                match found {
                    None if !is_folder => findings.push(format!("{at} leads nowhere")),
                    Some(found)
                        if !anchor.is_empty()
                            && !anchors(&found.text).iter().any(|it| it == anchor) =>
                    {
                        findings.push(format!("{at}: no heading of {target} has this anchor"));
                    }
                    _ => {}
                }
            }
        }
    }
    findings
}

fn without_readme(files: &[File]) -> Vec<String> {
    let has_readme = |folder: &&&str| {
        let path = format!("{folder}README.md");
        files
            .iter()
            .any(|file| file.path == path && file.text.lines().count() >= 8)
    };
    let missing = FOLDERS.iter().filter(|folder| !has_readme(folder));
    missing
        .map(|folder| format!("{folder}README.md: missing, or too short to say what lives here"))
        .collect()
}

#[test]
fn links_and_anchors_resolve() {
    let files = tree::files();
    let pages = files.iter().filter(|file| file.has_extension("md")).count();
    assert!(
        pages >= FOLDERS.len(),
        "only {pages} Markdown files were found"
    );
    tree::assert_none(&check(&files));
}

#[test]
fn every_folder_has_a_readme() {
    tree::assert_none(&without_readme(&tree::files()));
}

#[test]
fn broken_links_are_found() {
    let text = "# One `two`: three\n\n[a](b.md) [b](docs/b.md#part-2) [c](#one-two-three) [d](docs)\n\
                [e](../e.md)\n`[f](f.md)`\n```\n[g](g.md)\n```\n[h]: h.md\n[i](https://example.com/i) [j](#no)\n\
                [k](docs/b.md#no)\n";
    let files = [
        File::sample("README.md", text),
        File::sample("docs/b.md", "# Part 1\n## Part 2\n"),
    ];
    let found = check(&files);
    let lines: Vec<&str> = found
        .iter()
        .filter_map(|it| it.split(": ").next())
        .collect();
    assert_eq!(
        lines,
        [
            "README.md:3",
            "README.md:4",
            "README.md:9",
            "README.md:10",
            "README.md:11"
        ],
        "{found:?}"
    );
}

#[test]
fn repeated_headings_have_numbered_anchors() {
    assert_eq!(
        anchors("# A b\n```\n# not\n```\n## A b\n"),
        ["a-b", "a-b-1"]
    );
}

#[test]
fn a_folder_without_readme_is_found() {
    assert_eq!(without_readme(&[]).len(), FOLDERS.len());
    let readme = File::sample("README.md", &"line\n".repeat(8));
    assert_eq!(without_readme(&[readme]).len(), FOLDERS.len() - 1);
}
