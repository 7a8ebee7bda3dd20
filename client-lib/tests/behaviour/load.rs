//! Many calls at once: nothing is lost, mixed up or leaked, and nothing grows without bound.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use keyserver_client::{Error, KeyId, SignatureAlgorithm};

use crate::support::{Act, KEY, Server};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_mixed_calls_from_many_tasks() {
    for server in [Server::stock().await, Server::extended().await] {
        let client = server.builder().queue(10_000).connect().await.unwrap();
        let calls: Vec<_> = (0..5000_u32)
            .map(|number| {
                let client = client.clone();
                tokio::spawn(async move {
                    let mut input = number.to_be_bytes().repeat(8);
                    let key = KeyId::from_ski(KEY);
                    match number % 3 {
                        0 => {
                            input.resize(number as usize % 3000, 1);
                            assert_eq!(client.ping(&input).await.unwrap(), input);
                        }
                        1 => {
                            let algorithm = SignatureAlgorithm::EcdsaSha256;
                            let output = client.sign(&key, algorithm, &input).await.unwrap();
                            assert_eq!(output[21..], input);
                        }
                        _ => {
                            let output = client.decrypt(&key, &input).await.unwrap();
                            assert_eq!(output[21..], input);
                        }
                    }
                })
            })
            .collect();
        for call in calls {
            call.await.unwrap();
        }
        assert_eq!(client.in_flight(), 0);
        assert_eq!(server.connections(), 1);
        assert_eq!(server.frames().len(), 5001, "none was asked twice");
    }
}

#[tokio::test]
async fn ten_thousand_dropped_calls_leak_nothing() {
    // Half of the requests are never answered.
    let server = Server::scripted(|frame| (frame.payload == b"never").then(Vec::new)).await;
    let client = server.builder().in_flight(64).connect().await.unwrap();
    for number in 0..10_000 {
        let payload: &[u8] = if number % 2 == 0 { b"never" } else { b"later" };
        {
            let mut call = pin!(client.ping(payload));
            let mut cx = Context::from_waker(Waker::noop());
            assert!(call.as_mut().poll(&mut cx).is_pending());
            assert_eq!(client.in_flight(), 1);
            if number % 3 == 0 {
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(client.in_flight(), 0);
    }
    assert_eq!(client.ping(b"and on").await.unwrap(), b"and on");
    assert_eq!(server.connections(), 1);
    assert_eq!(server.frames().len(), 10_002);
}

#[tokio::test]
async fn the_queue_is_bounded_and_served_in_order() {
    let server = Server::scripted(|frame| {
        (frame.payload == b"hold").then(|| {
            vec![
                Act::Wait(Duration::from_millis(200)),
                Act::Send(crate::support::extended_answer(frame)),
            ]
        })
    })
    .await;
    let client = server
        .builder()
        .in_flight(1)
        .queue(2)
        .connect()
        .await
        .unwrap();
    let ping = |payload: &'static [u8]| {
        let client = client.clone();
        async move { client.ping(payload).await }
    };
    let (hold, first, second, third) = tokio::join!(
        ping(b"hold"),
        ping(b"first"),
        ping(b"second"),
        ping(b"third")
    );
    hold.unwrap();
    first.unwrap();
    second.unwrap();
    let error = third.unwrap_err();
    assert!(
        matches!(error, Error::Overloaded) && error.is_retryable(),
        "{error}"
    );
    let order: Vec<Vec<u8>> = server
        .frames()
        .into_iter()
        .map(|frame| frame.payload)
        .collect();
    assert_eq!(order[1..], [&b"hold"[..], b"first", b"second"]);
}

#[tokio::test]
async fn a_waiting_call_that_is_dropped_leaves_the_queue() {
    let server = Server::scripted(|frame| (frame.payload == b"never").then(Vec::new)).await;
    let client = server
        .builder()
        .in_flight(1)
        .queue(1)
        .connect()
        .await
        .unwrap();
    let mut cx = Context::from_waker(Waker::noop());
    let mut holder = Box::pin(client.ping(b"never"));
    assert!(holder.as_mut().poll(&mut cx).is_pending());
    for _ in 0..100 {
        let mut waiting = pin!(client.ping(b"waiting"));
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        assert!(matches!(
            client.ping(b"third").await,
            Err(Error::Overloaded)
        ));
    }
    drop(holder);
    client.ping(b"and on").await.unwrap();
}

#[tokio::test]
async fn a_server_that_does_not_read_cannot_make_the_client_grow() {
    // The server sleeps over the first request; the calls behind it are given up by the thousand.
    let server = Server::scripted(|frame| {
        (frame.payload == b"sleep").then(|| vec![Act::Wait(Duration::from_secs(3))])
    })
    .await;
    let client = server.client().await;
    let mut cx = Context::from_waker(Waker::noop());
    let big = vec![0; 60_000];
    let mut sleeper = Box::pin(client.ping(b"sleep"));
    assert!(sleeper.as_mut().poll(&mut cx).is_pending());
    let mut overloaded = 0;
    for _ in 0..1000 {
        let result = pin!(client.ping(&big)).as_mut().poll(&mut cx);
        overloaded += usize::from(matches!(
            result,
            std::task::Poll::Ready(Err(Error::Overloaded))
        ));
        tokio::task::yield_now().await;
    }
    // 60 MB were offered; what neither the sockets nor 4 MiB of frames hold was refused.
    assert!(overloaded > 500, "{overloaded}");
    drop(sleeper);
    // When the server reads again, everything flows again.
    let recovered = async {
        while let Err(error) = client.ping(b"and on").await {
            assert!(matches!(error, Error::Overloaded), "{error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), recovered)
        .await
        .unwrap();
    assert_eq!(server.connections(), 1);
}
