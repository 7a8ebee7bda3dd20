//! The async client of several servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use keyserver_client::{
    Client, Error, Fault, KeyId, Operation, Pool, PoolBuilder, SignatureAlgorithm, SignatureScheme,
    blocking,
};

use crate::blocking::Log;
use crate::support::{Act, Frame, KEY, NOBODY, Pki, Server, refusal};

const HASH: [u8; 32] = [3; 32];
const PATIENT: Duration = Duration::from_secs(20);

fn builder(servers: &[&Server]) -> PoolBuilder {
    let builder = Pool::builder("localhost", servers[0].identity());
    servers
        .iter()
        .fold(builder, |builder, server| builder.server(server.address()))
        .deadline(PATIENT)
        .connect_limit(PATIENT)
}

async fn sign(pool: &Pool) -> Result<Vec<u8>, Error> {
    let key = KeyId::from_ski(KEY);
    pool.sign(&key, SignatureAlgorithm::EcdsaSha256, &HASH)
        .await
}

fn is_sign(frame: &Frame) -> bool {
    frame.opcode == 0x15
}

async fn two(
    first: impl Fn(&Frame) -> Option<Vec<Act>> + Send + Sync + 'static,
) -> (Server, Server) {
    let one = Server::scripted(first).await;
    let two = Server::scripted_under(&one.pki, |_| None).await;
    (one, two)
}

#[tokio::test]
async fn one_server_restarts_and_the_other_takes_over() {
    let (mut first, second) = two(|_| None).await;
    let log = Arc::new(Log::default());
    let pool = builder(&[&first, &second]).observer(log.clone());
    let pool = pool.connect().await.unwrap();
    assert_eq!(pool.keys().await.unwrap().len(), 2);
    for round in 0..3 {
        for _ in 0..100 {
            let calls = (0..8).map(|_| {
                let pool = pool.clone();
                tokio::spawn(async move { sign(&pool).await })
            });
            for call in calls.collect::<Vec<_>>() {
                call.await.unwrap().unwrap();
            }
        }
        match round {
            0 => first.stop(),
            1 => first.restart().await,
            _ => {}
        }
    }
    let begun = Instant::now();
    while log.count("Connected") < 3 {
        assert!(begun.elapsed() < PATIENT, "it is connected again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(second.connections(), 1);
}

#[tokio::test]
async fn a_stalled_server_is_hedged_and_dropped_calls_leak_nothing() {
    let left = AtomicUsize::new(60);
    let (first, second) = two(move |frame| {
        let take = |n: usize| n.checked_sub(1);
        let stall = is_sign(frame)
            && left
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, take)
                .is_err();
        stall.then(Vec::new)
    })
    .await;
    let log = Arc::new(Log::default());
    let pool = builder(&[&first, &second]).observer(log.clone());
    let pool = pool.connect().await.unwrap();
    let since = Instant::now();
    // How soon the stalled server is chosen for a call that is waited for, chance decides.
    let enough = |number: u32| number >= 400 && log.count("Hedged") > 0;
    for number in (0..).take_while(|number| !enough(*number) && since.elapsed() < PATIENT) {
        if number.is_multiple_of(4) {
            // A caller that gives up at once.
            let call = sign(&pool);
            let _ = tokio::time::timeout(Duration::from_micros(50), call).await;
        }
        let begun = Instant::now();
        sign(&pool).await.unwrap();
        assert!(begun.elapsed() < PATIENT / 4);
    }
    assert!(log.count("Hedged") > 0);
    assert_eq!(log.count("Failed"), 0);
}

#[tokio::test]
async fn decryptions_are_sent_once() {
    let (first, second) = two(|frame| (frame.opcode == 1).then(|| vec![Act::Cut])).await;
    let pool = builder(&[&first, &second]).connect().await.unwrap();
    let key = KeyId::from_ski(KEY);
    let (mut failed, mut answered) = (0, 0);
    for _ in 0..20 {
        match pool.decrypt(&key, &[1; 256]).await {
            Ok(_) => answered += 1,
            Err(error) => {
                assert!(matches!(error, Error::Network(_)), "{error}");
                failed += 1;
            }
        }
    }
    let frames = [first.frames(), second.frames()].concat();
    let sent = frames.iter().filter(|frame| frame.opcode == 1).count();
    assert_eq!(sent, failed + answered);
}

#[tokio::test]
async fn the_operation_fits_what_the_server_can_do() {
    let scheme = SignatureScheme::from_u16(0x0403).unwrap();
    let string = [b' '; 130];
    let operation = Operation::sign_tls13(&KeyId::from_ski(KEY), scheme, &string);

    let stock = Server::stock().await;
    let pool = builder(&[&stock]).connect().await.unwrap();
    assert_eq!(pool.call(&operation).await.unwrap()[0], 0x15);
    let additions = |tag: &u8| (0x30..=0x3f).contains(tag);
    assert!(
        !stock
            .frames()
            .iter()
            .any(|frame| frame.tags.iter().any(additions))
    );

    let ours = Server::scripted(|frame| {
        let info = |text: &str| text.replace("[18,241]", "[18,64,241]");
        match frame.opcode {
            0x40 => Some(vec![Act::Send(crate::support::reply(
                frame.id, 0xf0, b"checked",
            ))]),
            0x47 => {
                let answer = info(crate::support::INFO);
                Some(vec![Act::Send(crate::support::reply(
                    frame.id,
                    0xf0,
                    answer.as_bytes(),
                ))])
            }
            _ => None,
        }
    })
    .await;
    let pool = builder(&[&ours]).connect().await.unwrap();
    assert_eq!(pool.call(&operation).await.unwrap(), b"checked");
    let frames = ours.frames();
    let sign = frames.iter().find(|frame| frame.opcode == 0x40).unwrap();
    assert!(sign.tags.contains(&0x31), "the signature scheme");
    assert_eq!(sign.payload, string);
}

#[tokio::test]
async fn refusals_and_settings_are_told_at_once() {
    let (first, second) =
        two(|frame| is_sign(frame).then(|| vec![Act::Send(refusal(frame.id, 0x22))])).await;
    let pool = builder(&[&first]).connect().await.unwrap();
    assert!(matches!(sign(&pool).await, Err(Error::Refused(_))));
    drop(second);

    let pki = Pki::new();
    let pool = Pool::builder("localhost", pki.identity()).server(NOBODY);
    let error = pool.deadline(PATIENT).connect().await.unwrap_err();
    assert_eq!(error.fault(), Fault::Network);
    assert!(error.to_string().contains(NOBODY), "{error}");
    let error = Pool::builder("localhost", pki.identity())
        .connect()
        .await
        .unwrap_err();
    assert!(error.to_string().contains("no server"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_that_no_clock_has_is_a_long_one() {
    let server = Server::extended().await;
    let client = Client::builder(server.address(), "localhost", server.identity());
    let client = client.deadline(Duration::MAX).silence(Duration::MAX);
    let client = client.connect_limit(Duration::MAX).connect().await;
    client.unwrap().ping(b"x").await.unwrap();
    let pool = builder(&[&server]).deadline(Duration::MAX);
    let pool = pool.silence(Duration::MAX).connect_limit(Duration::MAX);
    let pool = pool.connect().await.unwrap();
    pool.call(&Operation::ping(b"x")).await.unwrap();
    let client = blocking::Client::builder("localhost", server.identity());
    let client = client.server(server.address()).deadline(Duration::MAX);
    let client = client.silence(Duration::MAX).connect_limit(Duration::MAX);
    let client = client.build().unwrap();
    let pinged = tokio::task::spawn_blocking(move || client.ping(b"x").map(drop));
    pinged.await.unwrap().unwrap();
}
