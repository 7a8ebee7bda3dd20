//! Every kind of operation through the client library.

use std::time::Duration;

use keyserver_client::{Client, Error, ErrorCode, KeyId, SignatureAlgorithm};
use keyserver_tests::KeyKind;

use crate::verify::all_operations;
use crate::{World, on_both_backends};

const KEYS: [KeyKind; 5] = [
    KeyKind::Rsa2048,
    KeyKind::P256,
    KeyKind::P384,
    KeyKind::P521,
    KeyKind::Ed25519,
];

on_both_backends!(
    mixed_operations_at_once,
    the_server_describes_itself_and_its_keys,
    refusals_have_the_right_code,
    deadlines_pass_without_a_trace,
);

/// 500 mixed operations and 3,000 pings over one connection, every answer verified.
async fn mixed_operations_at_once(backend: &str) {
    let world = World::new(backend, &KEYS);
    let client = world.builder().queue(10_000).connect().await.unwrap();
    let operations = all_operations(&client).await;
    assert_eq!(operations.len(), 1 + 7 + 4);
    let calls: Vec<_> = (0..3500_u32)
        .map(|number| {
            let client = client.clone();
            let kind = if number % 7 == 0 { number / 7 } else { 0 };
            let operation = operations[kind as usize % operations.len()].clone();
            tokio::spawn(async move { operation.run(&client, number).await })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(client.in_flight(), 0);
    assert_eq!(world.server.metric(&["keyserver_connections "]), Some(1.0));
    assert!(world.server.stop().success());
}

async fn the_server_describes_itself_and_its_keys(backend: &str) {
    let world = World::new(backend, &[KeyKind::P256]);
    let client = world.client().await;
    let info = client.server_info().await.unwrap().unwrap();
    assert_eq!(info.server, "keyserver");
    assert_eq!(info.state, "serving");
    assert!(info.opcodes.contains(&0x15));
    let keys = client.keys().await.unwrap();
    assert_eq!(keys.len(), 1);
    assert_eq!(
        (keys[0].key_type.as_str(), keys[0].label.as_str()),
        ("p-256", "p-256")
    );
    assert!(
        keys[0]
            .operations
            .iter()
            .any(|right| right == "sign-digest"),
        "{keys:?}"
    );
}

async fn refusals_have_the_right_code(backend: &str) {
    let world = World::new(backend, &KEYS);
    let client = world.client().await;
    let hash = [1; 32];
    let unknown = KeyId::from_ski([9; 20]);
    let refusal = client
        .sign(&unknown, SignatureAlgorithm::EcdsaSha256, &hash)
        .await;
    assert!(matches!(refusal, Err(Error::Refused(_))), "{refusal:?}");

    // An RSA algorithm on a P-256 key: the caller's mistake, not a missing right.
    let keys = client.keys().await.unwrap();
    let p256 = keys.iter().find(|key| key.key_type == "p-256").unwrap();
    let p256 = KeyId::try_from(p256).unwrap();
    let refusal = client
        .sign(&p256, SignatureAlgorithm::RsaPssSha256, &hash)
        .await;
    assert!(
        matches!(refusal, Err(Error::Refused(ErrorCode::CryptoFailure))),
        "{refusal:?}"
    );

    // A client that is in no list is let in, because its certificate is good, and may only ping.
    let stranger = world.fixture.pki.client("stranger");
    world.fixture.write_identity("stranger", &stranger);
    let identity = keyserver_client::TlsIdentity::from_files(
        world.fixture.path("pki/ca.pem"),
        world.fixture.path("pki/stranger.pem"),
        world.fixture.path("pki/stranger-key.pem"),
    );
    let address = world.server.address().to_string();
    let stranger = Client::builder(address, "localhost", identity.unwrap())
        .connect()
        .await
        .unwrap();
    assert_eq!(stranger.ping(b"hello").await.unwrap(), b"hello");
    let refusal = stranger
        .sign(&p256, SignatureAlgorithm::EcdsaSha256, &hash)
        .await;
    assert!(matches!(refusal, Err(Error::Refused(_))), "{refusal:?}");
    assert_eq!(stranger.keys().await.unwrap(), []);
}

/// Calls that give up at once, by the hundred, among calls that do not.
async fn deadlines_pass_without_a_trace(backend: &str) {
    let world = World::new(backend, &[KeyKind::Rsa4096]);
    let client = world.client().await;
    let hasty = client.with_deadline(Duration::from_micros(200));
    let operations = all_operations(&client).await;
    let mut late = 0;
    for number in 0..500_u32 {
        let operation = &operations[number as usize % operations.len()];
        match operation.run(&hasty, number).await {
            Ok(()) => {}
            Err(
                Error::Deadline { .. }
                | Error::Refused(ErrorCode::DeadlineExceeded)
                | Error::Busy { .. },
            ) => late += 1,
            Err(other) => panic!("{other}"),
        }
        if number % 50 == 0 {
            operation.run(&client, number).await.unwrap();
        }
    }
    assert!(
        late > 0,
        "200 us is meant to be too short for an RSA-4096 signature"
    );
    assert_eq!(client.in_flight(), 0);
    assert_eq!(world.server.metric(&["keyserver_connections "]), Some(1.0));
}
