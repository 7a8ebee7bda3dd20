//! The source tree in memory, and cargo's own view of it.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// What holds no sources: results of builds, the history (a file that leads to it in a second
/// working tree), what a fuzzer wrote down.
const NOT_SOURCES: [&str; 5] = [".git", "target", "artifacts", "node_modules", "__pycache__"];

/// One text file, its path relative to the root of the tree with `/` between the parts.
#[derive(Debug, Clone)]
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
}

impl File {
    /// A made-up file for the self-tests of the checks.
    pub(crate) fn sample(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    pub(crate) fn has_extension(&self, extension: &str) -> bool {
        Path::new(&self.path)
            .extension()
            .is_some_and(|found| found == extension)
    }
}

/// The folder that holds the workspace manifest.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ has a parent")
        .to_owned()
}

/// Every text file of the tree, by path. Binary files, such as keys in DER, are left out.
pub(crate) fn files() -> Vec<File> {
    let mut found = Vec::new();
    collect(&root(), &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(
        found.len() > 40,
        "the walk over the tree found only {} files",
        found.len()
    );
    found
}

fn collect(folder: &Path, found: &mut Vec<File>) {
    for entry in std::fs::read_dir(folder).expect("a folder of the tree can be read") {
        let path = entry.expect("an entry of a folder can be read").path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if NOT_SOURCES.contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            collect(&path, found);
        } else if let Ok(text) = std::fs::read_to_string(&path) {
            let relative = path
                .strip_prefix(root())
                .expect("the walk started at the root");
            found.push(File {
                path: relative.to_string_lossy().into_owned(),
                text,
            });
        }
    }
}

/// `cargo metadata` of the workspace whose manifest is given, without the packages it depends on.
pub(crate) fn metadata(manifest: &str) -> Value {
    let text = cargo(&[
        "metadata",
        "--no-deps",
        "--offline",
        "--format-version=1",
        "--manifest-path",
        &root().join(manifest).to_string_lossy(),
    ]);
    serde_json::from_str(&text).expect("cargo metadata prints JSON")
}

/// Runs cargo in the root of the tree and returns what it printed.
pub(crate) fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(root())
        .output()
        .expect("cargo can be started");
    assert!(
        output.status.success(),
        "cargo {arguments:?} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("cargo prints UTF-8")
}

/// Follows `..` and `.` in a relative path; `None` when it leaves the tree.
pub(crate) fn resolve(folder: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// Fails with every finding on a line of its own.
pub(crate) fn assert_none(findings: &[String]) {
    assert!(
        findings.is_empty(),
        "{} findings:\n{}",
        findings.len(),
        findings.join("\n")
    );
}
