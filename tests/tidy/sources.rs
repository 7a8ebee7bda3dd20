//! Every source file belongs to a target: a file that nothing declares compiles nowhere and rots.
//! Every fuzz target has a corpus that the ordinary tests replay.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::lexer;
use crate::tree::{self, File};

/// The fuzz targets are a workspace of their own, because libFuzzer wants its own compiler flags.
const FUZZ_MANIFEST: &str = "tests/fuzz/Cargo.toml";

/// The example on BoringSSL too, because BoringSSL is built from source.
const BORING_MANIFEST: &str = "client-lib/examples/boring_edge/Cargo.toml";

/// The source files of a workspace's targets, relative to the root of the tree.
fn target_files(metadata: &Value) -> Vec<String> {
    let root = tree::root();
    let packages = metadata["packages"].as_array().into_iter().flatten();
    packages
        .flat_map(|package| package["targets"].as_array().into_iter().flatten())
        .filter_map(|target| target["src_path"].as_str())
        .filter_map(|path| {
            Some(
                Path::new(path)
                    .strip_prefix(&root)
                    .ok()?
                    .to_str()?
                    .to_owned(),
            )
        })
        .collect()
}

/// The modules a file declares, as the paths where the compiler would look for them.
fn declared(file: &File, is_target: bool) -> Vec<[String; 2]> {
    let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let stem = Path::new(&file.path)
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy();
    // Children of main.rs, lib.rs, mod.rs and other target roots stand beside them; children of
    // any other file stand in a folder of its name.
    let children = if is_target || stem == "mod" {
        folder.to_owned()
    } else {
        format!("{folder}/{stem}")
    };
    let mut found = Vec::new();
    let mut explicit: Option<String> = None;
    for line in lexer::code_and_strings(&file.text).lines() {
        let line = line.trim();
        if let Some(path) = line
            .strip_prefix("#[path = \"")
            .and_then(|rest| rest.strip_suffix("\"]"))
        {
            explicit = Some(path.to_owned());
        } else if let Some(name) = module_name(line) {
            found.push(match explicit.take() {
                Some(path) => [
                    tree::resolve(folder, &path).unwrap_or_default(),
                    String::new(),
                ],
                None => [
                    format!("{children}/{name}.rs"),
                    format!("{children}/{name}/mod.rs"),
                ],
            });
        }
    }
    found
}

/// The name in `mod name;`, whatever its visibility.
fn module_name(line: &str) -> Option<&str> {
    let (before, name) = line.strip_suffix(';')?.split_once("mod ")?;
    let visibility = before.trim();
    (visibility.is_empty() || visibility.starts_with("pub")).then_some(name.trim())
}

fn orphans(files: &[File], targets: &[String]) -> Vec<String> {
    let mut reached: BTreeSet<String> = targets.iter().cloned().collect();
    let mut open: Vec<String> = targets.to_vec();
    while let Some(path) = open.pop() {
        let Some(file) = files.iter().find(|file| file.path == path) else {
            continue;
        };
        for child in declared(file, targets.contains(&path))
            .into_iter()
            .flatten()
        {
            if files.iter().any(|file| file.path == child) && reached.insert(child.clone()) {
                open.push(child);
            }
        }
    }
    let sources = files.iter().filter(|file| file.has_extension("rs"));
    sources
        .filter(|file| !reached.contains(&file.path))
        .map(|file| {
            format!(
                "{}: no target declares it as a module: declare it or delete it",
                file.path
            )
        })
        .collect()
}

fn fuzz_targets(metadata: &Value) -> Vec<String> {
    let packages = metadata["packages"].as_array().into_iter().flatten();
    packages
        .flat_map(|package| package["targets"].as_array().into_iter().flatten())
        .filter(|target| target["kind"][0] == "bin")
        .filter_map(|target| target["name"].as_str().map(str::to_owned))
        .collect()
}

fn without_corpus(targets: &[String], corpora: &Path) -> Vec<String> {
    let kept = |target: &String| {
        std::fs::read_dir(corpora.join(target)).is_ok_and(|mut entries| entries.next().is_some())
    };
    let missing = targets.iter().filter(|target| !kept(target));
    missing
        .map(|target| {
            format!("tests/fuzz/corpus/{target}: empty or missing: keep inputs to replay")
        })
        .collect()
}

#[test]
fn every_source_file_belongs_to_a_target() {
    let mut targets = target_files(&tree::metadata("Cargo.toml"));
    targets.extend(target_files(&tree::metadata(FUZZ_MANIFEST)));
    targets.extend(target_files(&tree::metadata(BORING_MANIFEST)));
    tree::assert_none(&orphans(&tree::files(), &targets));
}

#[test]
fn orphans_are_found() {
    let files = [
        File::sample(
            "a/src/lib.rs",
            "pub(crate) mod one;\nmod two { }\n// mod three;\n#[path = \"../src/x/y.rs\"]\nmod four;",
        ),
        File::sample("a/src/one.rs", "mod deep;"),
        File::sample("a/src/one/deep.rs", ""),
        File::sample("a/src/three.rs", ""),
        File::sample("a/src/x/y.rs", ""),
        File::sample("a/src/five/mod.rs", "mod six;"),
        File::sample("a/src/five/six.rs", ""),
    ];
    let targets = ["a/src/lib.rs".to_owned()];
    let found = orphans(&files, &targets);
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[0].starts_with("a/src/three.rs: "), "{found:?}");
    let targets = [
        "a/src/lib.rs".to_owned(),
        "a/src/five/mod.rs".to_owned(),
        "a/src/three.rs".to_owned(),
    ];
    tree::assert_none(&orphans(&files, &targets));
}

#[test]
fn every_fuzz_target_has_a_corpus() {
    let targets = fuzz_targets(&tree::metadata(FUZZ_MANIFEST));
    assert!(!targets.is_empty(), "{FUZZ_MANIFEST} names no target");
    tree::assert_none(&without_corpus(
        &targets,
        &tree::root().join("tests/fuzz/corpus"),
    ));
}

#[test]
fn an_empty_corpus_is_found() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::create_dir(folder.path().join("empty")).expect("a folder");
    std::fs::create_dir(folder.path().join("full")).expect("a folder");
    std::fs::write(folder.path().join("full/one"), "x").expect("a file");
    let targets = ["empty", "full", "missing"].map(str::to_owned);
    assert_eq!(without_corpus(&targets, folder.path()).len(), 2);
}
