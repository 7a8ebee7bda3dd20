//! What the kernel knows about the server's process.

use std::fs;
use std::time::{Duration, Instant};

use keyserver_tests::KeyServer;

/// Its open descriptors.
pub(crate) fn descriptors(server: &KeyServer) -> usize {
    server.open_files()
}

/// Its open descriptors once they stay as many: those of what has just begun or ended may come or go a moment later.
pub(crate) async fn settled_descriptors(server: &KeyServer) -> usize {
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut last = descriptors(server);
    loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = descriptors(server);
        if now == last {
            return now;
        }
        assert!(Instant::now() < deadline, "{last} descriptors, {now}, ...");
        last = now;
    }
}

/// Its resident memory in bytes.
pub(crate) fn resident_bytes(server: &KeyServer) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

/// Waits until it has at most this many descriptors, and fails if that does not happen.
pub(crate) async fn wait_for_descriptors(server: &KeyServer, at_most: usize) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let open = descriptors(server);
        if open <= at_most {
            return;
        }
        if Instant::now() > deadline {
            let kinds: Vec<_> = fs::read_dir(format!("/proc/{}/fd", server.pid()))
                .into_iter()
                .flatten()
                .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
                .collect();
            panic!(
                "{open} descriptors, expected at most {at_most}: {kinds:?}\n{}",
                server.log()
            );
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until the sample of this metric satisfies `wanted`.
pub(crate) async fn wait_for_metric(
    server: &KeyServer,
    parts: &[&str],
    wanted: impl Fn(f64) -> bool,
) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let value = server.metric(parts);
        if value.is_some_and(&wanted) {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{parts:?} is {value:?}\n{}",
            server.log()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
