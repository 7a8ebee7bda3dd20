//! The module in nginx, master and workers, under valgrind: no invalid access and no leak has a
//! function of the module on its stack.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use keyserver_tests::{KeyKind, binaries, parts};
use nix::sys::signal::Signal;

use crate::edge::{Edge, PATIENCE, run};
use crate::nginx::{self, Nginx};

/// The part of valgrind's report between these tags, each time.
fn elements<'a>(report: &'a str, tag: &str) -> Vec<&'a str> {
    let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
    let parts = report.split(&open).skip(1);
    parts
        .map(|part| part.split(&close).next().unwrap())
        .collect()
}

/// The errors in which the module takes part. What only a pointer into its middle leads to is not
/// among them: that is how the module holds what the process still uses when nginx ends, without a
/// word to the module.
fn errors_of(library: &str, report: &str) -> Vec<String> {
    let errors = elements(report, "error").into_iter();
    let errors = errors.filter(|error| elements(error, "kind") != ["Leak_PossiblyLost"]);
    let ours = errors.filter(|error| {
        elements(error, "obj")
            .iter()
            .any(|object| object.ends_with(library))
    });
    ours.map(|error| {
        let functions = elements(error, "fn");
        format!("{:?}: {functions:?}", elements(error, "kind"))
    })
    .collect()
}

#[test]
fn nginx_finds_no_error_of_the_module() {
    let (Some(valgrind), Some(program)) = (parts::program("valgrind"), nginx::program()) else {
        return;
    };
    let kinds = [KeyKind::Rsa2048, KeyKind::P256];
    let edge = Edge::for_valgrind(&kinds);
    let mut command = edge.command(valgrind);
    command.args([
        "--trace-children=yes",
        "--leak-check=full",
        "--num-callers=40",
    ]);
    command.args([
        "--keep-debuginfo=yes",
        "--xml=yes",
        "--xml-file=report.%p.xml",
    ]);
    command.arg(program);
    let nginx = Nginx::start_with(edge, command, &kinds, 1);
    for _ in 0..2 {
        let printed = run(&mut nginx.handshakes(8));
        assert!(printed.starts_with("ok 8 failed 0"), "{printed}");
        // The old worker ends, a new one inherits the module from the master.
        let master = nginx.process.pid().to_string();
        let file = format!("/proc/{master}/task/{master}/children");
        let workers = || {
            let pids = fs::read_to_string(&file).unwrap();
            pids.split_whitespace()
                .map(String::from)
                .collect::<BTreeSet<_>>()
        };
        let before = workers();
        nginx.process.signal(Signal::SIGHUP);
        let deadline = Instant::now() + PATIENCE;
        while !workers().is_disjoint(&before) {
            assert!(Instant::now() < deadline, "{}", nginx.process.log);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    let edge = nginx.stop();

    let library = binaries::pkcs11_module();
    let library = library.file_name().unwrap().to_str().unwrap();
    let mut finished = 0;
    for entry in fs::read_dir(edge.path("")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "xml") {
            let report = fs::read_to_string(&path).unwrap();
            let found = errors_of(library, &report);
            assert!(found.is_empty(), "{}: {found:#?}", path.display());
            finished += usize::from(report.contains("<state>FINISHED</state>"));
        }
    }
    assert!(finished >= 4, "the master and three workers: {finished}");
}

#[test]
fn an_error_is_found_by_the_library_on_its_stack() {
    let report = "<error><kind>InvalidRead</kind><stack><frame><obj>/a/libours.so</obj>\
                  <fn>sign</fn></frame></stack></error>\
                  <error><kind>Leak_DefinitelyLost</kind><obj>/usr/lib/libtheirs.so</obj></error>";
    let found = errors_of("libours.so", report);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].contains("InvalidRead") && found[0].contains("sign"),
        "{found:?}"
    );
}
