//! `/metrics`, `/livez`, `/readyz` and `/state`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use keyserver::clock;

use crate::common::{MINIMAL, Site};
use crate::{Daemon, PATIENCE, ksctl, stdout};

#[test]
fn health_and_metrics_are_served() {
    let site = Site::new();
    site.add_key("shop");
    let daemon = Daemon::start(&site);
    assert!(daemon.get("/livez").starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(daemon.get("/readyz").ends_with("\r\n\r\nready\n"));
    assert!(daemon.get("/nothing").starts_with("HTTP/1.1 404 "));
    assert!(
        daemon
            .http("POST /livez HTTP/1.1\r\n\r\n")
            .starts_with("HTTP/1.1 405 ")
    );
    assert!(
        daemon
            .http("HEAD /livez HTTP/1.1\r\n\r\n")
            .ends_with("\r\n\r\n")
    );
    assert!(
        daemon
            .http("\u{16}\u{3}\u{1}\r\n\r\n")
            .starts_with("HTTP/1.1 400 ")
    );
    let state = daemon.get("/state");
    let (_, body) = state.split_once("\r\n\r\n").unwrap();
    let state: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(
        (state["state"].as_str(), state["keys"].as_u64()),
        (Some("serving"), Some(1))
    );

    let metrics = daemon.get("/metrics");
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");
    for name in [
        "keyserver_build_info{version=",
        "keyserver_keys 1\n",
        "keyserver_cert_expiry_timestamp_seconds ",
        "keyserver_config_last_reload_successful 1\n",
        "keyserver_config_last_reload_success_timestamp_seconds ",
        "keyserver_tls_handshakes_total{resumed=\"no\"} 0\n",
        "keyserver_request_duration_seconds_bucket{le=\"+Inf\",stage=\"total\"} 0\n",
        "keyserver_queue_depth{class=\"p256\"} 0\n",
        "keyserver_queue_wait_seconds{class=\"rsa2048\"} 0",
        "keyserver_queue_refusals_total{class=\"rsa4096\",reason=\"busy\"} 0\n",
        "keyserver_connections 0\n",
        "keyserver_inflight 0\n",
        "keyserver_key_operation_check_failures_total 0\n",
        "process_resident_memory_bytes ",
        "process_open_fds ",
    ] {
        assert!(metrics.contains(name), "{name} is missing:\n{metrics}");
    }
}

/// What the control socket protects is not told in clear text.
#[test]
fn the_state_has_no_names() {
    let site = Site::new();
    site.add_key("wanda");
    site.add_key("bare");
    let grants = "allow  = [\"tls13-sign\", \"tls12-sign\", \"sign-digest\", \"delegate\"]";
    let text = MINIMAL.replace(
        "allow  = [\"tls13-sign\", \"tls12-sign\", \"sign-digest\"]",
        grants,
    );
    let text = text.replace("[admin]", "[admin]\nstate = \"state\"");
    std::fs::create_dir(site.path("state")).unwrap();
    site.configure(&text.replace("edge-1", "edgar"));
    let daemon = Daemon::start(&site);
    for command in [
        ["keys", "disable", "wanda", "--reason", "stolen"],
        ["clients", "block", "edgar", "--reason", "stolen"],
    ] {
        let output = ksctl(&site, &command);
        assert!(output.status.success(), "{output:?}");
    }
    let told = stdout(&ksctl(&site, &["status", "--json"]));
    let state = daemon.get("/state");
    let (_, body) = state.split_once("\r\n\r\n").unwrap();
    let path = site.path("").display().to_string();
    for name in ["wanda", "edgar", "bare", "stolen", "uid", &path] {
        assert!(told.contains(name), "{name}: {told}");
        assert!(!body.contains(name), "{name}: {body}");
    }
    let state: serde_json::Value = serde_json::from_str(body).unwrap();
    let stops = serde_json::json!({"client": 1, "key": 1});
    assert_eq!(state["stops"], stops);
    let all: serde_json::Value = serde_json::from_str(&told).unwrap();
    let warnings = all["warnings"].as_array().unwrap().len();
    assert_eq!(state["warnings"], warnings);
}

#[test]
fn a_silent_scraper_keeps_nobody_waiting() {
    let site = Site::new();
    let daemon = Daemon::start(&site);
    let silent: Vec<_> = (0..8)
        .map(|_| TcpStream::connect(daemon.metrics).unwrap())
        .collect();
    let began = clock::now();
    for _ in 0..20 {
        assert!(daemon.get("/livez").starts_with("HTTP/1.1 200 OK\r\n"));
    }
    // The silent ones would have held a single thread for two seconds each.
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    // They are closed in the end, so they cannot use up the places.
    for mut stream in silent {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        assert!(matches!(stream.read(&mut [0; 16]), Ok(0) | Err(_)));
    }
}

#[test]
fn a_long_request_head_is_refused() {
    let site = Site::new();
    let daemon = Daemon::start(&site);
    let long = format!("GET /livez HTTP/1.1\r\nX: {}\r\n", "x".repeat(9000));
    let mut stream = TcpStream::connect(daemon.metrics).unwrap();
    stream.write_all(long.as_bytes()).unwrap();
    let mut response = Vec::new();
    // Closing on unread input may reset the connection; what counts is that it ends.
    let _ = stream.read_to_end(&mut response);
    assert!(response.is_empty() || response.starts_with(b"HTTP/1.1 400 "));
}
