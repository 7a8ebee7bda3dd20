//! A ledger whose disk is full, truly: a file system of eight mebibytes.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use keyless_protocol::ErrorCode;
use keyserver_client::{Client, Error, KeyId, SignatureAlgorithm};
use keyserver_tests::{
    ClientRule, Fixture, KeyKind, KeyServer, ServerConfig, binaries, http, parts,
};

use crate::World;
use crate::ledger::{Random, client, second_edge};
use crate::verify::key_of;

/// A small file system in memory, while it lasts.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one; nothing where the system does not let us.
    fn mount(at: PathBuf) -> Option<Self> {
        fs::create_dir_all(&at).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=8m,mode=700", "none"])
            .arg(&at)
            .output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(at));
        }
        parts::missing("a file system to fill (`mount -t tmpfs` needs CAP_SYS_ADMIN)");
        None
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    /// Writes until there is no room.
    fn fill(&self) {
        let mut file = File::options();
        let mut file = file.append(true).create(true).open(self.ballast()).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the server may still hold it open for a moment.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

async fn keys(edge: &Client) -> (KeyId, KeyId) {
    let listed = edge.keys().await.unwrap();
    let id = |kind: &str| {
        let entry = listed.iter().find(|key| key.key_type == kind).unwrap();
        key_of(entry).id
    };
    (id("rsa-2048"), id("p-256"))
}

fn is_no_ledger(result: &Result<Vec<u8>, Error>) -> bool {
    matches!(result, Err(Error::Refused(ErrorCode::Internal)))
}

fn status(world: &World) -> String {
    let output = Command::new(binaries::ksctl())
        .arg("--socket")
        .arg(world.fixture.path("run/admin.sock"))
        .arg("status")
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn ready(world: &World) -> String {
    let response = http::get(world.server.metrics_address(), "/readyz").unwrap();
    format!("{} {}", response.status, response.body)
}

/// Decryption ends and says so, signing goes on, and with room it begins again and has forgotten nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_decryption_and_nothing_else() {
    let fixture = second_edge();
    let Some(disk) = SmallDisk::mount(fixture.path("small")) else {
        return;
    };
    let config = ServerConfig {
        clients: ["edge-1", "edge-2"]
            .map(|name| ClientRule::new(name, &["decrypt-compatible", "sign-digest"]))
            .to_vec(),
        extra: "[ledger]\ndirectory = \"small/ledger\"\n".into(),
        ..ServerConfig::default()
    };
    add_keys(&fixture);
    let server = KeyServer::start(&fixture, &config);
    let world = World { fixture, server };
    let edge = client(&world, "edge-1").await;
    let (rsa, p256) = keys(&edge).await;
    let mut random = Random(0xfeed_0a17);
    let mut answered = Vec::new();
    for _ in 0..10 {
        let ciphertext = random.ciphertext();
        edge.decrypt(&rsa, &ciphertext).await.unwrap();
        answered.push(ciphertext);
    }
    assert_eq!(ready(&world), "200 ready\n");

    disk.fill();
    // What is left of a block of the file takes some more.
    let refused = loop {
        let ciphertext = random.ciphertext();
        let result = edge.decrypt(&rsa, &ciphertext).await;
        if result.is_err() {
            assert!(is_no_ledger(&result), "{result:?}");
            break ciphertext;
        }
        answered.push(ciphertext);
        assert!(answered.len() < 10_000, "the disk is full");
    };
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) || ready(&world) == "200 ready\n" {
        // The ledger tries to come back, and cuts off what it could not write: that is room for a few more.
        disk.fill();
        let ciphertext = random.ciphertext();
        let result = edge.decrypt(&rsa, &ciphertext).await;
        assert!(result.is_ok() || is_no_ledger(&result), "{result:?}");
        if result.is_ok() {
            answered.push(ciphertext);
        }
        edge.sign(&p256, SignatureAlgorithm::EcdsaSha256, &[7; 32])
            .await
            .expect("signing goes on");
        assert!(began.elapsed() < Duration::from_secs(30), "it stays open");
    }
    it_is_told(&world);

    fs::remove_file(disk.ballast()).unwrap();
    let began = Instant::now();
    loop {
        // It was never answered: whoever asked first may go on asking.
        let result = edge.decrypt(&rsa, &refused).await;
        if result.is_ok() || began.elapsed() > Duration::from_secs(8) {
            break;
        }
        assert!(is_no_ledger(&result), "{result:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let fresh = random.ciphertext();
    wait_for_answer(&edge, &rsa, &fresh).await;
    answered.push(fresh);
    assert_eq!(ready(&world), "200 ready\n");
    assert!(!status(&world).contains("nothing is decrypted"));

    let world = nobody_else_gets_them(world, &config, &rsa, &answered).await;
    assert!(world.server.stop().success());
    assert!(Path::new(&disk.0).exists());
}

/// What the operator sees of a ledger that cannot be written.
fn it_is_told(world: &World) {
    let told = "200 ready\nthe ledger cannot be written: nothing is decrypted\n";
    assert_eq!(ready(world), told);
    assert_eq!(
        world.server.metric(&["keyserver_ledger_writable"]),
        Some(0.0)
    );
    let text = status(world);
    assert!(
        text.contains("ALARM        nothing is decrypted: ledger "),
        "{text}"
    );
    let log = world.server.log();
    let alarms = log.wait_for_matching(Duration::from_secs(30), "ledger_unwritable", 1);
    assert!(!alarms.is_empty(), "{log}");
}

/// What was answered before the disk was full stays answered, also after a restart.
async fn nobody_else_gets_them(
    mut world: World,
    config: &ServerConfig,
    key: &KeyId,
    answered: &[Vec<u8>],
) -> World {
    let mut random = Random(0xa150_a150);
    for restarted in [false, true] {
        if restarted {
            drop(world.server);
            world.server = KeyServer::start(&world.fixture, config);
        }
        let other = client(&world, "edge-2").await;
        for ciphertext in answered {
            let result = other.decrypt(key, ciphertext).await;
            let denied = matches!(result, Err(Error::Refused(ErrorCode::Denied)));
            assert!(denied, "restarted: {restarted}: {result:?}");
        }
        other.decrypt(key, &random.ciphertext()).await.unwrap();
    }
    world
}

async fn wait_for_answer(edge: &Client, key: &KeyId, ciphertext: &[u8]) {
    let began = Instant::now();
    while let Err(error) = edge.decrypt(key, ciphertext).await {
        assert!(
            matches!(error, Error::Refused(ErrorCode::Internal)),
            "{error}"
        );
        assert!(began.elapsed() < Duration::from_secs(30), "{error}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn add_keys(fixture: &Fixture) {
    fixture.add_key("shop", KeyKind::Rsa2048);
    fixture.add_key("site", KeyKind::P256);
}
