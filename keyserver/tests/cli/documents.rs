//! What the programs print about themselves.

use crate::{keyserver, stderr, stdout, text};

#[test]
fn the_binaries_document_themselves() {
    for (arguments, expected) in [
        (
            &["version"][..],
            concat!("keyserver ", env!("CARGO_PKG_VERSION")),
        ),
        (&["completions", "bash"], "_keyserver()"),
        (&["completions", "zsh"], "#compdef keyserver"),
        (&["man"], ".TH keyserver 1"),
        (&["--help"], "Exit codes:"),
    ] {
        let output = keyserver(arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            stderr(&output)
        );
        assert!(
            stdout(&output).contains(expected),
            "{arguments:?}: {}",
            stdout(&output)
        );
    }
    let temporary = tempfile::tempdir().unwrap();
    assert!(keyserver(&["man", text(temporary.path())]).status.success());
    assert!(temporary.path().join("keyserver-run.1").exists());
}
