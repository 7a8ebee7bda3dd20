//! `ksctl keys disable`, `clients block`, `seal`: what they stop, how soon, and for how long.

use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use keyserver_client::{Client, Error, ErrorCode, KeyId, SignatureAlgorithm};
use keyserver_tests::{Fixture, KeyKind, KeyServer, ServerConfig, binaries, http};
use nix::sys::signal::Signal;
use tokio::task::JoinSet;

use crate::{World, on_both_backends};

on_both_backends!(
    a_disabled_key_signs_no_more_under_load,
    a_stop_survives_sigkill,
    clients_are_blocked_and_the_server_is_sealed,
    digits_name_a_label_before_an_ski,
);

/// Time that a signature may still take to leave after the command has returned.
const GRACE: Duration = Duration::from_millis(10);

const RUNS: usize = 10;

/// Requests at work for each key.
const TASKS: usize = 8;

fn world(backend: &str) -> (World, ServerConfig) {
    let config = ServerConfig::default().io_backend(backend);
    let fixture = Fixture::new();
    fixture.add_key("victim", KeyKind::P256);
    fixture.add_key("other", KeyKind::P256);
    let server = KeyServer::start(&fixture, &config);
    (World { fixture, server }, config)
}

fn ksctl(world: &World, arguments: &[&str]) -> Output {
    Command::new(binaries::ksctl())
        .arg("--socket")
        .arg(world.fixture.path("run/admin.sock"))
        .args(arguments)
        .output()
        .unwrap()
}

/// A command that must succeed; what it printed.
fn done(world: &World, arguments: &[&str]) -> String {
    let output = ksctl(world, arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

async fn key(client: &Client, label: &str) -> KeyId {
    let keys = client.keys().await.unwrap();
    let entry = keys.iter().find(|key| key.label == label).unwrap();
    KeyId::try_from(entry).unwrap()
}

async fn sign(client: &Client, key: &KeyId) -> Result<Vec<u8>, Error> {
    client
        .sign(key, SignatureAlgorithm::EcdsaSha256, &[7; 32])
        .await
}

fn is_refused(result: &Result<Vec<u8>, Error>, code: ErrorCode) -> bool {
    matches!(result, Err(Error::Refused(found)) if *found == code)
}

/// How late this machine lets a thread run that wants to: what a busy machine adds to every time
/// that is measured on it.
struct Stalls {
    worst_us: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
}

impl Stalls {
    fn watch() -> Self {
        let (worst_us, over) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        for _ in 0..4 {
            let (worst, over) = (Arc::clone(&worst_us), Arc::clone(&over));
            thread::spawn(move || {
                let step = Duration::from_millis(1);
                while !over.load(Ordering::Relaxed) {
                    let start = Instant::now();
                    thread::sleep(step);
                    let late = start.elapsed().saturating_sub(step).as_micros();
                    worst.fetch_max(u64::try_from(late).unwrap(), Ordering::Relaxed);
                }
            });
        }
        Self { worst_us, over }
    }

    fn worst(&self) -> Duration {
        Duration::from_micros(self.worst_us.load(Ordering::Relaxed))
    }
}

impl Drop for Stalls {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// When a signature was asked for and when it came; nothing when it was refused.
type Signed = (Instant, Option<Instant>);

/// Signs again and again until told to end. `asked_for` counts what has been begun.
async fn keep_signing(
    client: Client,
    key: KeyId,
    asked_for: Arc<AtomicUsize>,
    end: Arc<AtomicBool>,
) -> Vec<Signed> {
    let mut signed = Vec::new();
    while !end.load(Ordering::Relaxed) {
        asked_for.fetch_add(1, Ordering::Relaxed);
        let asked = Instant::now();
        let result = sign(&client, &key).await;
        let refused = is_refused(&result, ErrorCode::KeyDisabled);
        assert!(result.is_ok() || refused, "{result:?}");
        signed.push((asked, result.is_ok().then(Instant::now)));
        if refused {
            // Refusals cost nothing: without a pause they would crowd out the other key's work.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    signed
}

/// Lets two loads go on for a while, until so many more signatures of each have been asked for.
async fn go_on(asked_for: &[Arc<AtomicUsize>; 2], more: usize) {
    let before = asked_for
        .each_ref()
        .map(|count| count.load(Ordering::Relaxed));
    tokio::time::sleep(Duration::from_millis(100)).await;
    let deadline = Instant::now() + Duration::from_secs(30);
    for (count, before) in asked_for.iter().zip(before) {
        while count.load(Ordering::Relaxed) < before + more {
            assert!(Instant::now() < deadline, "there is no load");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn a_disabled_key_signs_no_more_under_load(backend: &str) {
    let (world, _) = world(backend);
    let client = world.client().await;
    let victim = key(&client, "victim").await;
    let other = key(&client, "other").await;
    for run in 0..RUNS {
        let stalls = Stalls::watch();
        let end = Arc::new(AtomicBool::new(false));
        let asked_for = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
        let [victims, others] = [(&asked_for[0], victim), (&asked_for[1], other)].map(
            |(asked_for, key)| -> JoinSet<_> {
                let task =
                    || keep_signing(client.clone(), key, Arc::clone(asked_for), Arc::clone(&end));
                (0..TASKS).map(|_| task()).collect()
            },
        );
        // One more than there are tasks: one has had an answer.
        go_on(&asked_for, TASKS + 1).await;
        let said = tokio::task::block_in_place(|| {
            done(&world, &["keys", "disable", "victim", "--reason", "a test"])
        });
        let returned = Instant::now();
        assert_eq!(said, "stopped\n");
        go_on(&asked_for, 1).await;
        end.store(true, Ordering::Relaxed);

        let signed: Vec<Signed> = victims.join_all().await.into_iter().flatten().collect();
        let last = signed.iter().filter_map(|(_, came)| *came).max().unwrap();
        let late = last.saturating_duration_since(returned);
        let others: Vec<Signed> = others.join_all().await.into_iter().flatten().collect();
        // What had been signed by then comes the same way as the signatures of the other key, some of which take long.
        let slowest = others
            .iter()
            .filter_map(|(asked, came)| Some((*came)? - *asked));
        let allowed = GRACE + stalls.worst() + slowest.max().unwrap();
        assert!(
            late <= allowed,
            "run {run}: {late:?} after the command returned, {allowed:?} allowed"
        );
        // What is asked afterwards is refused, all of it.
        let asked_later = signed.iter().filter(|(asked, _)| *asked > returned);
        assert!(asked_later.clone().count() > 0, "the load went on");
        assert!(asked_later.clone().all(|(_, came)| came.is_none()));
        // The other key lost nothing.
        assert!(others.iter().all(|(_, came)| came.is_some()));
        assert!(others.iter().any(|(asked, _)| *asked > returned));

        let said = done(
            &world,
            &["keys", "enable", "victim", "--reason", "next run"],
        );
        assert_eq!(said, "it goes on\n");
        sign(&client, &victim).await.unwrap();
    }
    // The last line may still be on its way from the server's log to here.
    let log = world.server.log();
    let log = log.wait_for_matching(Duration::from_secs(30), "keyserver::audit", 2 * RUNS);
    assert_eq!(log.len(), 2 * RUNS, "{log:?}");
    let uid = format!("\"uid\":{},", nix::unistd::getuid());
    let complete = |line: &String| line.contains(&uid) && line.contains("\"reason\":\"");
    assert!(log.iter().all(complete), "{log:?}");
}

async fn a_stop_survives_sigkill(backend: &str) {
    let (mut world, config) = world(backend);
    let client = world.client().await;
    let victim = key(&client, "victim").await;
    let other = key(&client, "other").await;
    for _ in 0..3 {
        done(&world, &["keys", "disable", "victim", "--reason", "kept"]);
        // At once: whatever the command did not do, is not done.
        world.server.signal(Signal::SIGKILL);
        world.server.wait();
        world.server = KeyServer::start(&world.fixture, &config);
        let client = world.client().await;
        let result = sign(&client, &victim).await;
        assert!(is_refused(&result, ErrorCode::KeyDisabled), "{result:?}");
        sign(&client, &other).await.unwrap();
        // A reload does not forget it either.
        done(&world, &["reload", "--wait"]);
        let result = sign(&client, &victim).await;
        assert!(is_refused(&result, ErrorCode::KeyDisabled), "{result:?}");
        let status = done(&world, &["status"]);
        assert!(status.contains("STOPPED      key "), "{status}");
        assert!(status.contains("(victim), for "), "{status}");
        assert!(status.contains(": kept\n"), "{status}");
        done(&world, &["keys", "enable", "victim", "--reason", "again"]);
        sign(&client, &victim).await.unwrap();
    }
    // A file that cannot be read in full keeps the server from starting.
    done(&world, &["keys", "disable", "victim", "--reason", "kept"]);
    world.server.signal(Signal::SIGKILL);
    world.server.wait();
    let file = world.fixture.path("state/stops");
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() - 2]).unwrap();
    let (status, log) = KeyServer::start_failing(&world.fixture, &config);
    assert!(!status.success());
    assert!(
        log.to_string().contains("state/stops: it is damaged"),
        "{log}"
    );
    std::fs::write(&file, whole).unwrap();
    world.server = KeyServer::start(&world.fixture, &config);
    let result = sign(&world.client().await, &victim).await;
    assert!(is_refused(&result, ErrorCode::KeyDisabled), "{result:?}");
}

async fn clients_are_blocked_and_the_server_is_sealed(backend: &str) {
    let (world, _) = world(backend);
    let client = world.client().await;
    let key = key(&client, "other").await;
    let ready = || {
        http::get(world.server.metrics_address(), "/readyz")
            .unwrap()
            .status
    };

    done(
        &world,
        &["clients", "block", "edge-1", "--reason", "odd traffic"],
    );
    let result = sign(&client, &key).await;
    assert!(is_refused(&result, ErrorCode::Denied), "{result:?}");
    client.ping(b"still connected").await.unwrap();
    assert_eq!(ready(), 200);
    done(
        &world,
        &["clients", "unblock", "edge-1", "--reason", "explained"],
    );
    sign(&client, &key).await.unwrap();

    assert_eq!(done(&world, &["seal", "--reason", "intruder"]), "stopped\n");
    let said = done(&world, &["seal", "--reason", "again"]);
    assert_eq!(said, "it was stopped already, and is\n");
    let result = sign(&client, &key).await;
    assert!(is_refused(&result, ErrorCode::Sealed), "{result:?}");
    assert_eq!(client.server_info().await.unwrap().unwrap().state, "sealed");
    assert_eq!(ready(), 503);
    assert!(done(&world, &["status"]).starts_with("state        sealed"));
    done(&world, &["unseal", "--reason", "rebuilt"]);
    sign(&client, &key).await.unwrap();
    assert_eq!(ready(), 200);

    for (arguments, says) in [
        (
            &["keys", "disable", "nothing", "--reason", "x"][..],
            "no loaded key",
        ),
        (
            &["clients", "block", "nobody", "--reason", "x"],
            "no client \"nobody\"",
        ),
        (&["seal", "--reason", " "], "a reason is one line"),
        (&["seal", "--reason", "a\nb"], "a reason is one line"),
    ] {
        let output = ksctl(&world, arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {errors}");
        assert!(errors.contains(says), "{arguments:?}: {errors}");
    }
    // Without a reason there is no command.
    assert_eq!(ksctl(&world, &["seal"]).status.code(), Some(2));
    sign(&client, &key).await.unwrap();
}

/// A key file may be named by forty digits that are not its SKI.
async fn digits_name_a_label_before_an_ski(backend: &str) {
    let config = ServerConfig::default().io_backend(backend);
    let fixture = Fixture::new();
    let digits = "0123456789abcdef0123456789abcdef01234567";
    fixture.add_key(digits, KeyKind::P256);
    fixture.add_key("other", KeyKind::P256);
    let server = KeyServer::start(&fixture, &config);
    let world = World { fixture, server };
    let client = world.client().await;
    let (named, other) = (key(&client, digits).await, key(&client, "other").await);
    sign(&client, &named).await.unwrap();
    let disable = |name: &str| done(&world, &["keys", "disable", name, "--reason", "x"]);
    assert_eq!(disable(digits), "stopped\n");
    let refused = sign(&client, &named).await;
    assert!(is_refused(&refused, ErrorCode::KeyDisabled), "{refused:?}");
    sign(&client, &other).await.unwrap();
    // An SKI that no key has is said to be one.
    let nobody = "ff".repeat(20);
    assert_eq!(disable(&nobody), "stopped, but no such key is loaded\n");

    // One key's label is now the other's SKI: nothing is guessed.
    let ski: String = other
        .ski()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    world.fixture.add_key(&ski, KeyKind::P256);
    done(&world, &["reload", "--wait"]);
    let output = ksctl(&world, &["keys", "disable", &ski, "--reason", "x"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        errors.contains("the label of one key and the SKI of another"),
        "{errors}"
    );
    assert_eq!(output.status.code(), Some(1));
    let colons: Vec<_> = ski
        .as_bytes()
        .chunks(2)
        .map(String::from_utf8_lossy)
        .collect();
    assert_eq!(disable(&colons.join(":")), "stopped\n");
    let refused = sign(&client, &other).await;
    assert!(is_refused(&refused, ErrorCode::KeyDisabled), "{refused:?}");
}
