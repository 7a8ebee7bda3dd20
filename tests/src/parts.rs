//! Parts of the system that some tests need and not every machine has.
//!
//! Outside CI a missing part is a skip that the test prints by name. With `CI=true` it is a
//! failure: there, every part must be present.

use std::env;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Says that a test is skipped because `what` is missing, or fails in CI.
pub fn missing(what: &str) {
    let in_ci = env::var("CI").is_ok_and(|value| value == "true");
    assert!(
        !in_ci,
        "{what} is missing, and in CI nothing may be skipped"
    );
    eprintln!("SKIPPED: {what} is missing");
    // tests/run names every skip in its closing lines. A list that cannot be written hides nothing
    // that the test's own output does not say.
    if let Some(list) = env::var_os("KEYSERVER_TEST_SKIPS") {
        let file = OpenOptions::new().append(true).create(true).open(list);
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        drop(file.and_then(|mut file| writeln!(file, "{test}: {what} is missing")));
    }
}

/// A Python 3 with the `cryptography` package (Debian: `python3-cryptography`), or `None` after
/// saying that the test is skipped.
pub fn python_with_cryptography() -> Option<PathBuf> {
    let found = ["/usr/bin/python3", "python3"]
        .into_iter()
        .map(Path::new)
        .find(|python| {
            Command::new(python)
                .args(["-c", "import cryptography, ssl"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
        });
    if found.is_none() {
        missing("Python 3 with the package cryptography (Debian: python3-cryptography)");
    }
    found.map(Path::to_path_buf)
}

/// A Python with tlslite-ng, or `None` after saying that the test is skipped.
pub fn python_with_tlslite() -> Option<PathBuf> {
    built("tests/tlslite", "tlslite/current/bin/python")
}

/// The client library's example on BoringSSL, or `None` after saying that the test is skipped.
pub fn boring_edge() -> Option<PathBuf> {
    built("tests/boring_edge", "boring_edge/debug/boring-edge")
}

/// What a script has put into the target folder, somewhere above the running test.
fn built(script: &str, file: &str) -> Option<PathBuf> {
    let test = env::current_exe().ok()?;
    let found = test.ancestors().map(|folder| folder.join(file));
    let found = { found }.find(|path| path.is_file());
    if found.is_none() {
        missing(&format!("what {script} builds"));
    }
    found
}

/// A program on the path, or `None` after saying that the test is skipped.
pub fn program(name: &str) -> Option<PathBuf> {
    let found = find(name);
    if found.is_none() {
        missing(&format!("the program {name}"));
    }
    found
}

/// As [`program`], for one whose Debian package has another name.
pub fn program_of(package: &str, name: &str) -> Option<PathBuf> {
    let found = find(name);
    if found.is_none() {
        missing(&format!("the program {name} (Debian: {package})"));
    }
    found
}

/// Looks in the folders for administrators too, which are not on everybody's path.
fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}
