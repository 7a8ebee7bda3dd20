//! SIGHUP while clients are at work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use keyserver_client::Client;
use keyserver_tests::{KeyKind, KeyServer, Pki};
use nix::sys::signal::Signal;
use tokio::task::JoinHandle;

use crate::proc::wait_for_metric;
use crate::verify::all_operations;
use crate::{World, on_both_backends};

on_both_backends!(
    reload_under_load,
    an_authority_that_is_taken_away_takes_its_connections
);

/// Clients that work until they are told to stop. The first failure of any operation is theirs.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU32>,
    workers: Vec<JoinHandle<()>>,
}

impl Load {
    async fn start(client: &Client) -> Self {
        let (stop, done) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU32::new(0)),
        );
        let operations = all_operations(client).await;
        let workers = (0..8_u32)
            .map(|worker| {
                let (client, operations) = (client.clone(), operations.clone());
                let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
                tokio::spawn(async move {
                    let mut number = worker;
                    while !stop.load(Ordering::Relaxed) {
                        let operation = &operations[number as usize % operations.len()];
                        operation.run(&client, number).await.unwrap();
                        done.fetch_add(1, Ordering::Relaxed);
                        number += 1;
                    }
                })
            })
            .collect();
        Self {
            stop,
            done,
            workers,
        }
    }

    /// Waits until this many more operations have succeeded, and fails when a worker has failed.
    async fn progress(&self, more: u32) {
        let goal = self.done.load(Ordering::Relaxed) + more;
        while self.done.load(Ordering::Relaxed) < goal {
            assert!(
                self.workers.iter().all(|worker| !worker.is_finished()),
                "a worker has failed"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.workers {
            worker.await.unwrap();
        }
    }
}

/// For what the server has said to arrive here, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

const RESULT: [&str; 1] = ["keyserver_config_last_reload_successful"];

/// Waits until the server has said this often that it has reloaded.
fn wait_for_reloads(server: &KeyServer, times: usize) {
    let wait = || (server.log()).wait_for_matching(PATIENCE, "configuration reloaded", times);
    let said = tokio::task::block_in_place(wait);
    assert!(said.len() >= times, "no reload {times}:\n{}", server.log());
}

async fn reload_under_load(backend: &str) {
    let world = World::new(backend, &[KeyKind::Rsa2048, KeyKind::P256]);
    let client = world.client().await;
    let load = Load::start(&client).await;
    load.progress(100).await;

    // Ten reloads, each with another new key.
    for round in 1..=10 {
        world
            .fixture
            .add_key(&format!("new-{round}"), KeyKind::Ed25519);
        world.server.signal(Signal::SIGHUP);
        load.progress(20).await;
        wait_for_reloads(&world.server, round);
    }
    assert_eq!(client.keys().await.unwrap().len(), 12);

    // A file that is no key: the old state stays in force, and the failure is plain to see.
    world.fixture.write("keys/broken.key", "this is no key");
    world.fixture.add_key("not-yet", KeyKind::P256);
    world.server.signal(Signal::SIGHUP);
    wait_for_metric(&world.server, &RESULT, |value| value == 0.0).await;
    load.progress(200).await;
    let log = world.server.log();
    let failures = log.wait_for_matching(PATIENCE, "reload failed", 1);
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert!(failures[0].contains("broken.key"), "{failures:?}");
    assert!(
        !world.server.log().to_string().contains("this is no key"),
        "contents of a key file"
    );
    assert_eq!(client.keys().await.unwrap().len(), 12);

    std::fs::remove_file(world.fixture.path("keys/broken.key")).unwrap();
    world.server.signal(Signal::SIGHUP);
    wait_for_metric(&world.server, &RESULT, |value| value == 1.0).await;
    load.progress(200).await;
    assert_eq!(client.keys().await.unwrap().len(), 13);
    load.finish().await;

    // All of it over the connection that was there before.
    assert_eq!(world.server.metric(&["keyserver_connections "]), Some(1.0));
    assert!(world.server.stop().success());
}

/// Clients of an authority that is no longer in `client_ca` are not served over what they opened before.
async fn an_authority_that_is_taken_away_takes_its_connections(backend: &str) {
    const CONNECTIONS: [&str; 1] = ["keyserver_connections "];
    let world = World::new(backend, &[KeyKind::P256]);
    let client = world.client().await;
    client.keys().await.unwrap();
    let old = std::fs::read_to_string(world.fixture.path("pki/ca.pem")).unwrap();
    let new = Pki::named("the next authority");
    // One that is added changes nothing for anybody.
    let both = format!("{old}{}", new.certificate());
    world.fixture.write("pki/ca.pem", both);
    world.server.signal(Signal::SIGHUP);
    wait_for_reloads(&world.server, 1);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(world.server.metric(&CONNECTIONS), Some(1.0));
    client.keys().await.unwrap();

    world.fixture.write("pki/ca.pem", new.certificate());
    world.server.signal(Signal::SIGHUP);
    wait_for_reloads(&world.server, 2);
    wait_for_metric(&world.server, &CONNECTIONS, |value| value == 0.0).await;
    // It tries for as long as it may, which is not waited for.
    let answer = tokio::time::timeout(Duration::from_secs(2), client.keys()).await;
    assert!(!matches!(answer, Ok(Ok(_))), "it is let in again");
    assert!(world.server.stop().success());
}
