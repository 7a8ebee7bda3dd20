//! C programs: the examples of the C library, and those of `tests/abi`, which load the module over and
//! over. They are compiled as a user would, with every warning an error.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use keyserver_tests::{KeyKind, binaries, parts};

use crate::edge::{Edge, run};

/// The folder of the C library.
fn capi() -> PathBuf {
    binaries::source_root().join("client-lib/capi")
}

/// Compiles a program; `None` after saying that the test is skipped.
fn compile(edge: &Edge, source: &Path, link: &[&str]) -> Option<PathBuf> {
    let compiler = parts::program("cc")?;
    let program = edge.path(&source.file_stem().unwrap().to_string_lossy());
    let mut command = Command::new(compiler);
    command.args(["-std=gnu11", "-g", "-Wall", "-Wextra", "-Werror", "-I"]);
    command.arg(capi().join("include")).arg(source).args(link);
    run(command.arg("-o").arg(&program));
    Some(program)
}

/// An example with the arguments that all of them take.
fn example(edge: &Edge, name: &str, link: &[&str], last: &str) -> Option<Command> {
    let source = capi().join(format!("examples/{name}.c"));
    let program = compile(edge, &source, link)?;
    let mut command = edge.command(program);
    command.arg(edge.server().address().to_string());
    command.args([
        "localhost",
        "pki/ca.pem",
        "pki/edge-1.pem",
        "pki/edge-1-key.pem",
    ]);
    command.args(["sites/p-256.pem", last]);
    Some(command)
}

/// How to link with the shared library where it was built.
fn shared() -> [String; 2] {
    let library = binaries::c_library();
    let folder = library.parent().unwrap().display().to_string();
    [
        library.display().to_string(),
        format!("-Wl,-rpath,{folder}"),
    ]
}

/// valgrind, which fails at an invalid access or a leak of the program that is to follow.
fn checked_by(valgrind: &Path, edge: &Edge) -> Command {
    let mut command = edge.command(valgrind);
    command.args(["--quiet", "--leak-check=full", "--error-exitcode=99"]);
    command.args(["--errors-for-leak-kinds=definite,indirect"]);
    command
}

/// A signature of each example, linked with the shared and with the static library.
#[test]
fn the_examples_sign() {
    let Some(openssl) = parts::program("openssl") else {
        return;
    };
    let edge = Edge::new(&[KeyKind::P256]);
    edge.fixture.write("digest", [0x11; 32]);
    let shared = shared();
    let archive = binaries::c_library().with_extension("a");
    // What keyserver-client.pc has as `Libs.private`.
    let package = std::fs::read_to_string(capi().join("keyserver-client.pc")).unwrap();
    let private = package
        .lines()
        .find_map(|line| line.strip_prefix("Libs.private: "));
    let mut still = vec![archive.to_str().unwrap()];
    still.extend(private.unwrap().split(' '));
    for link in [&shared.each_ref().map(String::as_str)[..], &still] {
        let Some(mut blocking) = example(&edge, "blocking", link, "signature") else {
            return;
        };
        run(&mut blocking);
        let mut verify = edge.command(&openssl);
        verify.args(["pkeyutl", "-verify", "-certin", "-inkey", "sites/p-256.pem"]);
        let verified = run(verify.args(["-sigfile", "signature", "-in", "digest"]));
        assert!(verified.contains("Verified Successfully"), "{verified}");
        let mut event_loop = example(&edge, "event_loop", link, "1000").unwrap();
        assert_eq!(run(&mut event_loop).trim(), "signed 1000 of 1000");
    }
}

/// valgrind finds no invalid access and no leak in the examples.
#[test]
fn the_examples_leak_nothing() {
    let Some(valgrind) = parts::program("valgrind") else {
        return;
    };
    let edge = Edge::for_valgrind(&[KeyKind::P256]);
    let shared = shared();
    for (name, last) in [("blocking", "signature"), ("event_loop", "50")] {
        let link = shared.each_ref().map(String::as_str);
        let Some(command) = example(&edge, name, &link, last) else {
            return;
        };
        let mut checked = checked_by(&valgrind, &edge);
        run(checked.arg(command.get_program()).args(command.get_args()));
    }
}

/// What no program should hand over is a status and no crash, and valgrind sees nothing either; the
/// numbers and places that programs were compiled with are as they were.
#[test]
fn misuse_is_refused() {
    let Some(valgrind) = parts::program("valgrind") else {
        return;
    };
    let edge = Edge::for_valgrind(&[KeyKind::P256]);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("abi/misuse.c");
    let Some(program) = compile(&edge, &source, &shared().each_ref().map(String::as_str)) else {
        return;
    };
    let address = edge.server().address().to_string();
    let mut command = checked_by(&valgrind, &edge);
    command.arg(program).args([&address, "localhost"]);
    command.args(["pki/ca.pem", "pki/edge-1.pem", "pki/edge-1-key.pem"]);
    assert_eq!(run(&mut command).trim(), "every misuse was refused");
}

/// The shared library has every function of the header, and the module the two that hosts look up.
#[test]
fn the_libraries_export_what_programs_call() {
    let Some(nm) = parts::program_of("binutils", "nm") else {
        return;
    };
    let exported = |library: &Path| {
        let symbols = run(Command::new(&nm)
            .args(["-D", "--defined-only"])
            .arg(library));
        let names = symbols.lines().filter_map(|line| line.split(' ').nth(2));
        names.map(String::from).collect::<BTreeSet<String>>()
    };
    let header = std::fs::read_to_string(capi().join("include/keyserver_client.h")).unwrap();
    let declared: BTreeSet<String> = header
        .lines()
        .filter(|line| line.starts_with(|first: char| first.is_ascii_alphabetic()))
        .filter_map(|line| line.split_once('(')?.0.rsplit([' ', '*']).next())
        .filter(|name| name.starts_with("keyserver_"))
        .map(String::from)
        .collect();
    assert_eq!(declared.len(), 10, "{declared:?}");
    let ours = |names: BTreeSet<String>| {
        let ours = names
            .into_iter()
            .filter(|name| name.starts_with("keyserver_"));
        ours.collect::<BTreeSet<_>>()
    };
    assert_eq!(ours(exported(&binaries::c_library())), declared);
    let module = exported(&binaries::pkcs11_module());
    for entry in ["C_GetFunctionList", "C_GetInterface"] {
        assert!(module.contains(entry), "{entry}: {module:?}");
    }
}

/// What is caught at an entry has to unwind so far: the profile of these libraries says so.
#[test]
fn the_profile_of_the_c_libraries_unwinds() {
    let manifest = std::fs::read_to_string(binaries::source_root().join("Cargo.toml")).unwrap();
    let manifest: toml::Table = toml::from_str(&manifest).unwrap();
    let profile = &manifest["profile"]["c-abi"];
    assert_eq!(profile["panic"].as_str(), Some("unwind"), "{profile}");
    assert_eq!(profile["inherits"].as_str(), Some("release"), "{profile}");
}

/// The header stands alone, in C++ too.
#[test]
fn the_header_is_good_for_cpp() {
    let Some(compiler) = parts::program("c++") else {
        return;
    };
    let header = capi().join("include/keyserver_client.h");
    let mut command = Command::new(compiler);
    run(command
        .args(["-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-x", "c++"])
        .arg(header));
}

/// The header is what cbindgen makes of the sources now.
#[test]
fn the_header_is_current() {
    let Some(cbindgen) = parts::program("cbindgen") else {
        return;
    };
    let mut command = Command::new(cbindgen);
    command
        .current_dir(capi())
        .args(["--quiet", "--config", "cbindgen.toml", "src/lib.rs"]);
    let made = run(&mut command);
    let committed = std::fs::read_to_string(capi().join("include/keyserver_client.h")).unwrap();
    assert!(
        made == committed,
        "the header is old: in client-lib/capi, cbindgen --config cbindgen.toml src/lib.rs \
         -o include/keyserver_client.h"
    );
}

/// A thousand times loaded and closed, a hundred children that sign while the parent does: nothing
/// grows and nothing fails.
#[test]
fn the_module_survives_loads_and_forks() {
    let edge = Edge::new(&[KeyKind::P256]);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("abi/cycles.c");
    let Some(program) = compile(&edge, &source, &["-ldl"]) else {
        return;
    };
    let mut command = edge.command(program);
    let printed = run(command.arg(binaries::pkcs11_module()).args(["1000", "100"]));
    assert!(printed.contains("1000 loads, 100 forks"), "{printed}");
}
