//! `ksctl`, and the socket it speaks to.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};

use nix::sys::signal::Signal;

use crate::common::Site;
use crate::{Daemon, PATIENCE, keyserver, ksctl, stderr, stdout, text};

#[test]
fn ksctl_shows_and_reloads_a_running_server() {
    let site = Site::new();
    site.add_key("shop");
    let mut daemon = Daemon::start(&site);
    let mode = fs::metadata(site.path("run/admin.sock"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o660);
    let status = ksctl(&site, &["status"]);
    assert!(
        stdout(&status).starts_with("state        serving for "),
        "{}",
        stdout(&status)
    );
    let json: serde_json::Value =
        serde_json::from_slice(&ksctl(&site, &["status", "--json"]).stdout).unwrap();
    assert_eq!(json["config"].as_str(), site.config().to_str());
    assert_eq!(stdout(&ksctl(&site, &["ready"])), "ready\n");

    site.add_key("bank");
    let reload = ksctl(&site, &["reload", "--wait"]);
    assert!(reload.status.success(), "{}", stderr(&reload));
    let report = stdout(&reload);
    assert!(
        report.starts_with("reloaded: generation 2, 2 keys (1 new, 0 gone), 1 client"),
        "{report}"
    );

    site.write_private("keys/torn.key", "torn");
    let reload = ksctl(&site, &["reload", "--wait"]);
    assert_eq!(reload.status.code(), Some(1));
    assert!(
        stderr(&reload).contains("keys/torn.key"),
        "{}",
        stderr(&reload)
    );
    assert!(
        daemon
            .get("/metrics")
            .contains("\nkeyserver_config_last_reload_successful 0\n")
    );
    assert!(daemon.get("/metrics").contains("\nkeyserver_keys 2\n"));
    assert!(stdout(&ksctl(&site, &["status"])).contains("the last reload FAILED"));

    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.exit_code(), Some(0));
    assert!(!site.path("run/admin.sock").exists());
    let gone = ksctl(&site, &["ready"]);
    assert_eq!(gone.status.code(), Some(3));
    assert!(
        stderr(&gone).contains("is the server running"),
        "{}",
        stderr(&gone)
    );
}

#[test]
fn the_control_socket_answers_every_line_and_refuses_what_it_cannot_read() {
    let site = Site::new();
    let _daemon = Daemon::start(&site);
    let ask = |line: &str| {
        let mut stream = UnixStream::connect(site.path("run/admin.sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(line.as_bytes()).unwrap();
        let mut reply = String::new();
        BufReader::new(stream).read_line(&mut reply).unwrap();
        reply
    };
    assert!(ask("{\"v\":1,\"command\":\"status\"}\n").starts_with("{\"v\":1,\"status\":{"));
    assert!(ask("{\"v\":2,\"command\":\"status\"}\n").contains("speaks version 1"));
    assert!(ask("{\"v\":1,\"command\":\"seal\"}\n").contains("does not know the command"));
    assert!(ask("hello\n").contains("this is not a command"));
    assert!(ask(&format!("{}\n", "x".repeat(5000))).contains("this is not a command"));
}

#[test]
fn a_socket_left_behind_is_replaced_and_one_in_use_is_not() {
    let site = Site::new();
    let mut first = Daemon::start(&site);
    let second = keyserver(&["run", "--config", text(&site.config())]);
    assert_eq!(second.status.code(), Some(2));
    assert!(
        stderr(&second).contains("another server answers on it"),
        "{}",
        stderr(&second)
    );
    assert!(
        ksctl(&site, &["ready"]).status.success(),
        "the first one still answers"
    );
    first.signal(Signal::SIGKILL);
    first.exit_code();
    assert!(site.path("run/admin.sock").exists());
    let third = Daemon::start(&site);
    assert!(ksctl(&site, &["ready"]).status.success());
    drop(third);

    fs::remove_file(site.path("run/admin.sock")).unwrap();
    site.write("run/admin.sock", "precious");
    let output = keyserver(&["run", "--config", text(&site.config())]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("not a socket"),
        "{}",
        stderr(&output)
    );
    assert_eq!(
        fs::read_to_string(site.path("run/admin.sock")).unwrap(),
        "precious"
    );
}

#[test]
fn a_stuck_server_does_not_hang_ready_for_ever() {
    let site = Site::new();
    fs::create_dir(site.path("run")).unwrap();
    let listener = UnixListener::bind(site.path("run/admin.sock")).unwrap();
    let closer = std::thread::spawn(move || drop(listener.accept().unwrap()));
    let output = ksctl(&site, &["ready"]);
    closer.join().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(!output.stderr.is_empty());
}
