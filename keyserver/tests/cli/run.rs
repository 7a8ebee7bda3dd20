//! `run` under the care of systemd: signals and notifications.

use std::os::unix::net::UnixDatagram;
use std::sync::mpsc::channel;

use keyserver::clock;
use nix::sys::signal::Signal;

use crate::common::Site;
use crate::{Daemon, PATIENCE};

#[test]
fn hangup_reloads_and_a_broken_key_changes_nothing() {
    let site = Site::new();
    site.add_key("shop");
    let daemon = Daemon::start(&site);
    site.add_key("bank");
    daemon.signal(Signal::SIGHUP);
    assert_eq!(daemon.wait_for("configuration reloaded")["keys"], 2);
    site.write_private("keys/torn.key", "torn");
    daemon.signal(Signal::SIGHUP);
    let line = daemon.wait_for("reload failed, the old configuration stays in force");
    assert!(
        line["message"].as_str().unwrap().contains("keys/torn.key"),
        "{line}"
    );
    assert!(daemon.get("/readyz").starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(daemon.get("/metrics").contains("\nkeyserver_keys 2\n"));
}

#[test]
fn systemd_is_told_what_happens() {
    let site = Site::new();
    let socket = UnixDatagram::bind(site.path("notify")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut daemon = Daemon::start_with(&site, |command| {
        command
            .env("NOTIFY_SOCKET", site.path("notify"))
            .env("WATCHDOG_USEC", "300000");
        command.env_remove("WATCHDOG_PID");
    });
    // Read all the time, as systemd does: a full queue would hold the server up.
    let (send, messages) = channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length) = socket.recv(&mut buffer) {
            let _ = send.send(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
    });
    let wait_for = |wanted: &str| {
        let end = clock::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(clock::now());
            let message = messages.recv_timeout(left);
            let message = message.unwrap_or_else(|_| panic!("systemd was not told {wanted}"));
            if message.lines().any(|line| line.starts_with(wanted)) {
                return message;
            }
        }
    };
    assert!(wait_for("READY=1").contains("STATUS=Serving on 127.0.0.1:"));
    wait_for("WATCHDOG=1");
    daemon.signal(Signal::SIGHUP);
    assert!(wait_for("RELOADING=1").contains("\nMONOTONIC_USEC="));
    wait_for("READY=1");
    wait_for("WATCHDOG=1");
    daemon.signal(Signal::SIGTERM);
    wait_for("STOPPING=1");
    assert_eq!(daemon.exit_code(), Some(0));
}
