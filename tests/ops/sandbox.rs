//! The daemon under the system call filter of its unit.
//!
//! systemd turns `SystemCallFilter=` into a seccomp filter. This does the same without systemd as
//! the first process: `systemd-analyze syscall-filter` says what is in a group, the kernel's header
//! says which number a call has, and `allow-only` applies the list and becomes the daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use keyserver_tests::{ClientRule, Fixture, KeyServer, ServerConfig, binaries, parts};

use crate::client::{self, KEY};

const HEADERS: [&str; 2] = [
    "/usr/include/x86_64-linux-gnu/asm/unistd_64.h",
    "/usr/include/asm-generic/unistd.h",
];

/// The calls of each group that systemd knows, groups within groups included as `@name`.
type Groups = BTreeMap<String, BTreeSet<String>>;

/// Reads what `systemd-analyze syscall-filter` prints: a group's name in the first column, what is
/// in it indented below.
fn read_groups(text: &str) -> Groups {
    let mut groups = Groups::new();
    let mut current = String::new();
    for line in text.lines() {
        let name = line.trim();
        if name.is_empty() || name.starts_with('#') {
            continue;
        }
        if line.starts_with('@') {
            name.clone_into(&mut current);
            groups.entry(current.clone()).or_default();
        } else if let Some(group) = groups.get_mut(&current) {
            group.insert(name.to_owned());
        }
    }
    groups
}

fn expand(name: &str, groups: &Groups) -> BTreeSet<String> {
    let Some(group) = groups.get(name) else {
        return BTreeSet::from([name.to_owned()]);
    };
    group
        .iter()
        .flat_map(|inner| expand(inner, groups))
        .collect()
}

/// The calls that the `SystemCallFilter=` lines of a unit leave: the first line begins a list of
/// what is allowed, lines with `~` take away, later ones without give back.
fn allowed(unit: &str, groups: &Groups) -> BTreeSet<String> {
    // systemd itself always allows what every process needs to start and to end.
    let mut allowed = expand("@default", groups);
    allowed.insert("execve".to_owned());
    for line in unit
        .lines()
        .filter_map(|line| line.strip_prefix("SystemCallFilter="))
    {
        let names = line.trim_start_matches('~').split_whitespace();
        let calls = names.flat_map(|name| expand(name, groups));
        if line.starts_with('~') {
            for call in calls {
                allowed.remove(&call);
            }
        } else {
            allowed.extend(calls);
        }
    }
    allowed
}

/// `#define __NR_read 0` in the kernel's header: the number of each call.
fn read_numbers(header: &str) -> BTreeMap<String, u32> {
    let number = |line: &str| {
        let mut words = line.strip_prefix("#define __NR_")?.split_whitespace();
        Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
    };
    header.lines().filter_map(number).collect()
}

/// What `allow-only` takes: the allowed calls of this machine by number. `None` after saying that
/// the test is skipped.
fn filter() -> Option<String> {
    let Ok(output) = Command::new("systemd-analyze")
        .args(["--no-pager", "syscall-filter"])
        .output()
    else {
        parts::missing("systemd-analyze (Debian: systemd)");
        return None;
    };
    let Some(header) = HEADERS
        .iter()
        .find_map(|path| std::fs::read_to_string(path).ok())
    else {
        parts::missing("the kernel's headers (Debian: linux-libc-dev)");
        return None;
    };
    let unit = std::fs::read_to_string(binaries::source_root().join("systemd/keyserver.service"));
    let groups = read_groups(&String::from_utf8_lossy(&output.stdout));
    let allowed = allowed(&unit.expect("the unit"), &groups);
    let numbers = read_numbers(&header);
    let list: Vec<String> = allowed
        .iter()
        .filter_map(|name| numbers.get(name))
        .map(u32::to_string)
        .collect();
    assert!(
        list.len() > 150,
        "only {} calls are allowed: {allowed:?}",
        list.len()
    );
    Some(list.join(","))
}

fn serves_under_the_filter(backend: &str) {
    let Some(filter) = filter() else { return };
    let fixture = Fixture::new();
    fixture.add_key(KEY.0, KEY.1);
    let config = ServerConfig {
        clients: vec![ClientRule::new("edge-1", &["sign-digest"])],
        extra: "[shutdown]\nspread = \"0s\"\nlimit = \"5s\"\n".to_owned(),
        ..ServerConfig::default().io_backend(backend)
    };
    let server =
        KeyServer::start_under(&[binaries::allow_only(), filter.into()], &fixture, &config);
    client::use_server(&fixture, server.address());
    let io = server.metric(&["keyserver_build_info", &format!("io=\"{backend}\"")]);
    assert_eq!(io, Some(1.0), "{}", server.metrics());
    assert!(server.stop().success());
}

#[test]
fn the_daemon_serves_over_io_uring_under_the_filter_of_its_unit() {
    serves_under_the_filter("uring");
}

#[test]
fn the_daemon_serves_over_epoll_under_the_filter_of_its_unit() {
    serves_under_the_filter("epoll");
}

/// The filter is on: a call that the unit takes away is refused. `ionice` makes one of them.
#[test]
fn the_filter_refuses_what_the_unit_does_not_allow() {
    let Some(filter) = filter() else { return };
    let ionice = ["/usr/bin/ionice", "--class=2", "--classdata=7", "/bin/true"];
    let without_filter = Command::new(ionice[0]).args(&ionice[1..]).output();
    let Ok(without_filter) = without_filter else {
        parts::missing("ionice (Debian: util-linux)");
        return;
    };
    assert!(without_filter.status.success(), "{without_filter:?}");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(binaries::allow_only());
        command
            .arg(&filter)
            .args(arguments)
            .output()
            .expect("allow-only starts")
    };
    assert!(run(&["/bin/true"]).status.success());
    let refused = run(&ionice);
    assert!(!refused.status.success(), "{refused:?}");
}

#[test]
fn groups_are_expanded_and_taken_away() {
    let groups = read_groups(
        "@default\n    # base\n    exit\n@a\n    # A\n    @b\n    one\n    two\n\n@b\n    three\n",
    );
    assert_eq!(
        expand("@a", &groups),
        ["one", "three", "two"].map(str::to_owned).into()
    );
    let unit = "SystemCallFilter=@a\nUser=x\nSystemCallFilter=~@b one\nSystemCallFilter=one four\n";
    let expected = ["execve", "exit", "four", "one", "two"]
        .map(str::to_owned)
        .into();
    assert_eq!(allowed(unit, &groups), expected);
    assert_eq!(
        read_numbers("#define __NR_read 0\n#define X 1\n").get("read"),
        Some(&0)
    );
}
