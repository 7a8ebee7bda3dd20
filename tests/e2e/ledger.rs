//! Key exchanges through the client library: recorded before they are answered, also by a process that is killed, and
//! opened by tokens as by files.
//!
//! `KEYSERVER_LEDGER_KILLS=1000 cargo nextest run -p keyserver-tests --test e2e ledger` kills the server at a thousand
//! random moments instead of six.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use keyless_protocol::ErrorCode;
use keyserver_client::{Client, Error, KeyId, TlsIdentity};
use keyserver_tests::{ClientRule, Fixture, KeyKind, KeyServer, ServerConfig, SoftHsm};

use crate::World;
use crate::verify::key_of;

/// What was asked and what was answered.
type Answered = Vec<(Vec<u8>, Vec<u8>)>;

/// How long a ciphertext may be asked for again.
const RETRY_WINDOW: Duration = Duration::from_secs(10);

/// Of the answers of a round, so many are asked for by somebody else.
const STRANGER_ASKS: usize = 32;

/// Two edges that may open ciphertexts in the way of stock clients.
fn config() -> ServerConfig {
    ServerConfig {
        clients: ["edge-1", "edge-2"]
            .map(|name| ClientRule::new(name, &["decrypt-compatible"]))
            .to_vec(),
        extra: "[ledger]\ndirectory = \"ledger\"\n".into(),
        ..ServerConfig::default()
    }
}

pub(crate) fn second_edge() -> Fixture {
    let fixture = Fixture::new();
    fixture.write_identity("edge-2", &fixture.pki.client("edge-2"));
    fixture
}

pub(crate) async fn client(world: &World, name: &str) -> Client {
    let identity = TlsIdentity::from_files(
        world.fixture.path("pki/ca.pem"),
        world.fixture.path(format!("pki/{name}.pem")),
        world.fixture.path(format!("pki/{name}-key.pem")),
    )
    .unwrap();
    let address = world.server.address().to_string();
    let builder = Client::builder(address, "localhost", identity);
    builder
        .deadline(Duration::from_secs(20))
        .connect_limit(Duration::from_secs(30))
        .connect()
        .await
        .unwrap()
}

/// Random bytes, from a generator that is started anew for each test.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below any modulus of 256 bytes. Its block is no good one, which nobody can see.
    pub(crate) fn ciphertext(&mut self) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..256).map(|_| self.next().to_le_bytes()[3]).collect();
        bytes[0] = 0;
        bytes
    }
}

/// Keeps four requests under way until the server is gone, and notes what was answered. Each task ends with the one
/// that was not.
fn ask_until_it_dies(
    client: &Client,
    key: KeyId,
    seed: u64,
) -> (Arc<Mutex<Answered>>, Vec<tokio::task::JoinHandle<Vec<u8>>>) {
    let answered = Arc::new(Mutex::new(Answered::new()));
    let tasks = (1..=4).map(|task| {
        let (client, answered) = (client.clone(), Arc::clone(&answered));
        let mut random = Random(seed * 5 + task + (u64::from(std::process::id()) << 20));
        tokio::spawn(async move {
            loop {
                let ciphertext = random.ciphertext();
                match client.decrypt(&key, &ciphertext).await {
                    Ok(block) => answered.lock().unwrap().push((ciphertext, block)),
                    Err(_) => return ciphertext,
                }
            }
        })
    });
    (Arc::clone(&answered), tasks.collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_before_a_kill_is_not_answered_to_others_after_it() {
    let kills = std::env::var("KEYSERVER_LEDGER_KILLS").map_or(6, |kills| kills.parse().unwrap());
    let config = config();
    let fixture = second_edge();
    fixture.add_key("shop", KeyKind::Rsa2048);
    let server = KeyServer::start(&fixture, &config);
    let mut world = World { fixture, server };
    let listed = client(&world, "edge-1").await.keys().await.unwrap();
    let key = key_of(&listed[0]).id;
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ u64::from(std::process::id()) << 7);
    let (mut seen, mut retried, mut cut_short) = (0, 0, 0);
    for kill in 1..=kills {
        let edge = client(&world, "edge-1").await;
        let (answered, tasks) = ask_until_it_dies(&edge, key, kill);
        tokio::time::sleep(Duration::from_micros(10_000 + random.next() % 90_000)).await;
        // Killed, not asked.
        drop(world.server);
        let killed = Instant::now();
        let mut unanswered = Vec::new();
        for task in tasks {
            unanswered.push(task.await.unwrap());
        }
        drop(edge);
        world.server = KeyServer::start(&world.fixture, &config);
        let answered = std::mem::take(&mut *answered.lock().unwrap());
        seen += answered.len();
        // The edge that had its connection cut asks again for what was not answered, and for the last that was. A
        // machine that is so busy that the server took its time to start lets the window pass.
        let edge = client(&world, "edge-1").await;
        let last = answered.iter().rev().take(4);
        let last = last.map(|(ciphertext, block)| (ciphertext, Some(block)));
        let lost = unanswered.iter().map(|ciphertext| (ciphertext, None));
        let mut again_answered = Vec::new();
        for (ciphertext, block) in last.chain(lost) {
            let again = edge.decrypt(&key, ciphertext).await;
            if killed.elapsed() > RETRY_WINDOW - Duration::from_secs(1) {
                cut_short += 1;
                break;
            }
            let again = again.expect("an honest retry");
            assert!(block.is_none_or(|block| *block == again), "another answer");
            retried += 1;
            again_answered.push(ciphertext);
        }
        // Nobody else gets an answer, to the last of this round least of all.
        let other = client(&world, "edge-2").await;
        let every = 1 + answered.len() / STRANGER_ASKS;
        let spread = answered.iter().rev().step_by(every);
        if kill % 50 == 0 {
            println!("{kill} kills");
        }
        for ciphertext in spread.map(|(c, _)| c).chain(again_answered) {
            let result = other.decrypt(&key, ciphertext).await;
            let denied = matches!(result, Err(Error::Refused(ErrorCode::Denied)));
            assert!(denied, "kill {kill}: {result:?}");
        }
    }
    let line = format!(
        "{kills} kills, {seen} answers before them, none answered to another client after; \
         {retried} honest retries, all answered; {cut_short} rounds too slow to retry in time"
    );
    println!("{line}");
    assert!(seen > 4 * usize::try_from(kills).unwrap(), "{line}");
    assert!(
        retried > 4 * usize::try_from(kills - cut_short).unwrap(),
        "{line}"
    );
    assert!(cut_short <= kills / 2, "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_opens_key_exchanges_without_telling_about_the_padding() {
    let Some(hsm) = SoftHsm::new() else { return };
    hsm.add_token("bank");
    hsm.add_key("bank", KeyKind::Rsa2048, "shop", 1);
    let mut config = config();
    config.extra.push_str(&hsm.entry("bank", "shop"));
    let fixture = second_edge();
    let server = KeyServer::start_under(&hsm.wrapper(), &fixture, &config);
    let world = World { fixture, server };
    let edge = client(&world, "edge-1").await;
    let listed = edge.keys().await.unwrap();
    let key = key_of(&listed[0]);
    let secret: Vec<u8> = (0..48).collect();
    let block = edge.decrypt(&key.id, &key.encrypt(&secret)).await.unwrap();
    assert_eq!((block.len(), &block[..2]), (256, &[0, 2][..]));
    assert!(block.ends_with(&secret));
    assert_eq!(block[256 - 49], 0);
    // A message of another length, and a block that is none: the same form, the same answer each time.
    let mut random = Random(7);
    for bad in [key.encrypt(&secret[1..]), random.ciphertext()] {
        let first = edge.decrypt(&key.id, &bad).await.unwrap();
        assert_eq!(
            (first.len(), &first[..2], first[256 - 49]),
            (256, &[0, 2][..], 0)
        );
        assert!(!first.ends_with(&secret[1..]));
        assert_eq!(edge.decrypt(&key.id, &bad).await.unwrap(), first);
    }
    let again = client(&world, "edge-2").await;
    let refused = again.decrypt(&key.id, &random.ciphertext()).await;
    assert!(refused.is_ok(), "a fresh one is not refused");
    assert!(world.server.stop().success());
}

/// A request that found its queue full was not opened, so it has taken none of its three tries.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_as_busy_may_be_asked_for_again() {
    let mut config = config();
    config
        .extra
        .push_str("[limits]\nqueue_time = \"1ms\"\nin_flight_per_connection = 8\n");
    let fixture = second_edge();
    fixture.add_key("shop", KeyKind::Rsa2048);
    let server = KeyServer::start(&fixture, &config);
    let world = World { fixture, server };
    let key = key_of(&client(&world, "edge-1").await.keys().await.unwrap()[0]).id;
    let mut random = Random(0x5eed_b059);
    let mut tasks = Vec::new();
    for _ in 0..24 {
        let edge = client(&world, "edge-1").await;
        for _ in 0..8 {
            let (edge, ciphertexts) = (edge.clone(), [(); 4].map(|()| random.ciphertext()));
            tasks.push(tokio::spawn(async move {
                let mut worst = 0;
                for ciphertext in ciphertexts {
                    let mut busy = 0;
                    while let Err(error) = edge.decrypt(&key, &ciphertext).await {
                        assert!(matches!(error, Error::Busy { .. }), "{error}");
                        busy += 1;
                    }
                    worst = worst.max(busy);
                }
                worst
            }));
        }
    }
    let mut worst = 0;
    for task in tasks {
        worst = worst.max(task.await.unwrap());
    }
    // The client never repeats a decryption by itself, so each of these is one refusal.
    println!("{worst} times busy before an answer, at the worst");
    assert!(
        worst >= 3,
        "{worst}: nobody was refused as often as it may ask"
    );
    assert_eq!(
        world.server.metric(&["keyserver_ledger_decisions_total"]),
        Some(24.0 * 8.0 * 4.0)
    );
}
