//! A slot whose device stops answering, beside one that works and a key in a file.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use keyserver_client::{Client, Error, ErrorCode, KeyId};
use keyserver_tests::{Fixture, KeyKind, KeyServer, ServerConfig, SoftHsm, binaries, http};
use pkcs11_shim::Installed;
use tokio::task::JoinHandle;

use crate::proc::wait_for_metric;
use crate::verify::{Operation, all_operations};
use crate::{World, on_both_backends};

on_both_backends!(
    a_hung_slot_is_answered_for_and_touches_nobody,
    stopping_does_not_wait_for_a_hung_slot,
);

/// What requests are answered by, and when a call counts as hung: short, so that much happens in a short test, and not too
/// short for the slot that works, to which they apply as well. Twice the threads are lost in turn before the first deadline.
const SETTINGS: &str =
    "[pkcs11]\nsessions = 4\nqueue = 16\ndeadline = \"5s\"\ncall_timeout = \"2s\"\n";
const DEADLINE: Duration = Duration::from_secs(5);

/// What a request that must fail may take: the deadline, and what a busy machine adds.
const ANSWERED: Duration = Duration::from_secs(20);

/// The gauge of threads that the hung slot has lost.
const STUCK: [&str; 2] = ["keyserver_hsm_stuck_threads{", "token=\"hung\""];

struct Slots {
    world: World,
    hung: Installed,
    _hsm: SoftHsm,
}

/// A server with a key in a file, `file`, and one in each of two slots, `hung` and `well`.
fn start(backend: &str) -> Option<Slots> {
    let hsm = SoftHsm::new()?;
    let fixture = Fixture::new();
    fixture.add_key("file", KeyKind::P256);
    let mut config = ServerConfig::default().io_backend(backend);
    config.extra = SETTINGS.to_owned();
    let modules = ["hung", "well"].map(|name| {
        hsm.add_token(name);
        hsm.add_key(name, KeyKind::P256, name, 1);
        let module = hsm.faulty(name);
        let entry = hsm.entry_through(&module.module, name, name);
        config.extra.push_str(&entry);
        module
    });
    let [hung, _] = modules;
    let server = KeyServer::start(&fixture, &config);
    Some(Slots {
        world: World { fixture, server },
        hung,
        _hsm: hsm,
    })
}

/// The signature with the key of this label.
async fn operation(client: &Client, label: &str) -> Operation {
    let keys = client.keys().await.unwrap();
    let entry = keys.iter().find(|key| key.label == label).unwrap();
    let wanted = KeyId::try_from(entry).unwrap();
    let found = |operation: &Operation| match operation {
        Operation::Sign(key, _) => key.id == wanted,
        Operation::Ping | Operation::Decrypt(_) => false,
    };
    all_operations(client)
        .await
        .into_iter()
        .find(found)
        .unwrap()
}

/// Signs with one key, over a connection of its own, until it is stopped; every answer must be good.
struct Steady {
    done: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Steady {
    async fn start(world: &World, label: &str) -> Self {
        let client = world.client().await;
        let operation = operation(&client, label).await;
        let done = Arc::new(AtomicU32::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let (count, ends) = (Arc::clone(&done), Arc::clone(&stop));
        let task = tokio::spawn(async move {
            let mut number = 0;
            while !ends.load(Ordering::Relaxed) {
                operation.run(&client, number).await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                number += 1;
            }
        });
        Self { done, stop, task }
    }

    /// Waits for this many more signatures.
    async fn progress(&self, more: u32) {
        let goal = self.done.load(Ordering::Relaxed) + more;
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.done.load(Ordering::Relaxed) < goal {
            assert!(!self.task.is_finished(), "an operation failed");
            assert!(Instant::now() < deadline, "it is served no more");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
    }
}

fn ksctl(world: &World, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(binaries::ksctl())
        .arg("--socket")
        .arg(world.fixture.path("run/admin.sock"))
        .args(arguments)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

/// Waits until `/readyz` says this, whatever its status.
async fn wait_for_readiness(world: &World, wanted: impl Fn(&http::Response) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = http::get(world.server.metrics_address(), "/readyz").unwrap();
        if wanted(&answer) {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{answer:?}\n{}\n{}",
            ksctl(world, &["status"]).1,
            world.server.log()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Asks more of the hung slot than its sessions and queue hold, until it is given up. Each request is
/// answered in time, and the others are served all the while.
async fn give_up(world: &World, client: &Client, hung: &Operation, others: [&Steady; 2]) {
    let mut kinds = [0; 3];
    let up = ["keyserver_hsm_up{", "token=\"hung\""];
    let mut rounds = 0;
    while world.server.metric(&up) == Some(1.0) || kinds[2] == 0 {
        assert!(rounds < 60, "the slot is never given up: {kinds:?}");
        let calls: Vec<_> = (0..40)
            .map(|number| {
                let (client, hung) = (client.clone(), hung.clone());
                tokio::spawn(async move {
                    let begun = Instant::now();
                    let result = hung.run(&client, rounds * 40 + number).await;
                    (result, begun.elapsed())
                })
            })
            .collect();
        for call in calls {
            let (result, took) = call.await.unwrap();
            assert!(took < ANSWERED, "{result:?} after {took:?}");
            match result {
                Err(Error::Refused(ErrorCode::DeadlineExceeded)) => kinds[0] += 1,
                Err(Error::Busy { .. }) => kinds[1] += 1,
                Err(Error::Refused(ErrorCode::Internal)) => kinds[2] += 1,
                other => panic!("{other:?}"),
            }
        }
        for steady in others {
            steady.progress(20).await;
        }
        rounds += 1;
    }
    assert!(
        kinds[0] > 0 && kinds[1] > 0,
        "late, busy, unavailable: {kinds:?}"
    );
}

/// One slot of two is down: metrics, `ksctl` and readiness say which, and the server stays ready.
async fn is_seen(world: &World) {
    wait_for_metric(&world.server, &STUCK, |threads| threads > 0.0).await;
    let (_, status) = ksctl(world, &["status"]);
    assert!(status.contains("threads STUCK"), "{status}");
    let ready = http::get(world.server.metrics_address(), "/readyz").unwrap();
    assert_eq!(ready.status, 200, "{ready:?}");
    assert!(ready.body.starts_with("ready\nslot "), "{ready:?}");
    assert!(ready.body.contains("(token \"hung\", "), "{ready:?}");
    assert!(!ready.body.contains("(token \"well\", "), "{ready:?}");
    assert_eq!(
        world
            .server
            .metric(&["keyserver_hsm_up{", "token=\"well\""]),
        Some(1.0)
    );
    assert!(ksctl(world, &["ready"]).0);
}

async fn a_hung_slot_is_answered_for_and_touches_nobody(backend: &str) {
    let Some(slots) = start(backend) else { return };
    let world = &slots.world;
    let client = world.client().await;
    let hung = operation(&client, "hung").await;
    hung.run(&client, 0).await.unwrap();
    let file = Steady::start(world, "file").await;
    let well = Steady::start(world, "well").await;

    slots.hung.control.tell("hang C_Sign *");
    let begun = Instant::now();
    let first = hung.run(&client, 1).await;
    assert!(
        matches!(first, Err(Error::Refused(ErrorCode::DeadlineExceeded))),
        "{first:?}"
    );
    assert!(
        begun.elapsed() >= DEADLINE - Duration::from_millis(10),
        "{:?}",
        begun.elapsed()
    );
    assert!(begun.elapsed() < ANSWERED, "{:?}", begun.elapsed());

    give_up(world, &client, &hung, [&file, &well]).await;
    is_seen(world).await;

    // A reload does not wait for the device, and keeps its key.
    world.fixture.add_key("new", KeyKind::Ed25519);
    let begun = Instant::now();
    let (reloaded, text) = ksctl(world, &["reload", "--wait"]);
    assert!(
        reloaded && text.contains("4 keys (1 new, 0 gone)"),
        "{text}"
    );
    assert!(begun.elapsed() < ANSWERED, "{:?}", begun.elapsed());
    file.progress(20).await;
    well.progress(20).await;

    // The device comes back, and with it the slot, without a restart.
    slots.hung.control.tell("release");
    wait_for_readiness(world, |answer| answer.body == "ready\n").await;
    let deadline = Instant::now() + Duration::from_secs(60);
    while let Err(error) = hung.run(&client, 1).await {
        assert!(Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    wait_for_metric(&world.server, &STUCK, |threads| threads == 0.0).await;
    file.finish().await;
    well.finish().await;
    assert_eq!(world.server.metric(&["keyserver_inflight "]), Some(0.0));
    assert!(slots.world.server.stop().success());
}

/// The drain waits for the deadline of what is in the slot, and for nothing else.
async fn stopping_does_not_wait_for_a_hung_slot(backend: &str) {
    let Some(slots) = start(backend) else { return };
    let client = slots.world.client().await;
    let hung = operation(&client, "hung").await;
    slots.hung.control.tell("hang C_Sign *");
    let calls: Vec<_> = (0..12_u32)
        .map(|number| {
            let (client, hung) = (client.clone(), hung.clone());
            tokio::spawn(async move { hung.run(&client, number).await })
        })
        .collect();
    wait_for_metric(
        &slots.world.server,
        &["keyserver_hsm_inflight{", "token=\"hung\""],
        |calls| calls > 0.0,
    )
    .await;
    let begun = Instant::now();
    slots.world.server.signal(nix::sys::signal::Signal::SIGTERM);
    for call in calls {
        // At the deadline; or sooner, when the slot was given up while it waited.
        let result = call.await.unwrap();
        assert!(
            matches!(
                result,
                Err(
                    Error::Refused(ErrorCode::DeadlineExceeded | ErrorCode::Internal)
                        | Error::Busy { .. }
                )
            ),
            "{result:?}"
        );
    }
    drop(client);
    let mut server = slots.world.server;
    let status = server.wait();
    assert!(status.success(), "{status}\n{}", server.log());
    assert!(
        begun.elapsed() < Duration::from_secs(35),
        "{:?}",
        begun.elapsed()
    );
}
