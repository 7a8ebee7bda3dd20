//! Servers that are wrong, slow, mute or gone: what the caller is told, and how the client recovers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use keyserver_client::{Client, Error, Fault, KeyId, Operation, Pool, SignatureAlgorithm};
use rcgen::ExtendedKeyUsagePurpose;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::support::{Act, Frame, KEY, NOBODY, Pki, Server, extended_answer, reply};

const HASH: [u8; 32] = [3; 32];

async fn sign(client: &Client) -> Result<Vec<u8>, Error> {
    client
        .sign(
            &KeyId::from_ski(KEY),
            SignatureAlgorithm::EcdsaSha256,
            &HASH,
        )
        .await
}

fn is_sign(frame: &Frame) -> bool {
    frame.opcode == 0x15
}

/// Does `act` for the first `times` requests to sign, and answers rightly after that.
fn spoil(times: usize, act: impl Fn(&Frame) -> Vec<Act>) -> impl Fn(&Frame) -> Option<Vec<Act>> {
    let left = AtomicUsize::new(times);
    move |frame| {
        let spoil = is_sign(frame)
            && left
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
                .is_ok();
        spoil.then(|| act(frame))
    }
}

#[tokio::test]
async fn nobody_listens() {
    let pki = Pki::new();
    let error = Client::builder(NOBODY, "localhost", pki.identity())
        .connect()
        .await
        .unwrap_err();
    assert_eq!(error.fault(), Fault::Network);
    assert!(error.is_retryable());
    assert!(error.to_string().contains(NOBODY), "{error}");
}

#[tokio::test]
async fn what_answers_is_no_tls_server() {
    let pki = Pki::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
        stream.shutdown().await.unwrap();
    });
    let error = Client::builder(address, "localhost", pki.identity())
        .connect()
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Tls(_)), "{error}");
    assert!(error.to_string().contains("does not speak TLS"), "{error}");
}

#[tokio::test]
async fn a_mute_server_is_not_waited_for_beyond_the_limit() {
    let pki = Pki::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let error = Client::builder(address, "localhost", pki.identity())
        .connect_limit(Duration::from_millis(100))
        .connect()
        .await
        .unwrap_err();
    assert_eq!(error.fault(), Fault::Network);
    assert!(error.to_string().contains("within 100 ms"), "{error}");
}

#[tokio::test]
async fn certificates_that_do_not_match_are_explained() {
    let server = Server::extended().await;
    let connect =
        |name: &str, identity| Client::builder(server.address(), name, identity).connect();

    let error = connect("other.example", server.identity())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("`server_name`"), "{error}");
    assert_eq!(error.fault(), Fault::Configuration);

    let stranger = Pki::new();
    let error = connect("localhost", stranger.identity()).await.unwrap_err();
    assert!(
        error.to_string().contains("not signed by the authority"),
        "{error}"
    );

    // Trusts the server, but is signed by somebody whom the server does not know. With TLS 1.3 the
    // handshake is over before the server looks: connect finds out all the same.
    let (chain, key) = stranger.issue("edge-1", ExtendedKeyUsagePurpose::ClientAuth);
    let identity = keyserver_client::TlsIdentity::from_pem(
        server.pki.ca_pem.as_bytes(),
        chain.as_bytes(),
        key.as_bytes(),
    )
    .unwrap();
    let error = connect("localhost", identity).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("does not accept this client's certificate"),
        "{error}"
    );
    assert_eq!(error.fault(), Fault::Configuration);
}

#[tokio::test]
async fn impossible_settings_are_refused() {
    let server = Server::extended().await;
    let error = server.builder().in_flight(0).connect().await.unwrap_err();
    assert!(matches!(error, Error::Configuration(_)), "{error}");
    let error = Client::builder(server.address(), "no name", server.identity())
        .connect()
        .await;
    assert!(matches!(error, Err(Error::Configuration(_))));
}

#[tokio::test]
async fn a_deadline_passes_and_the_late_answer_finds_nobody() {
    let server = Server::scripted(|frame| {
        (frame.payload == b"slow").then(|| {
            vec![
                Act::Wait(Duration::from_millis(300)),
                Act::Send(extended_answer(frame)),
            ]
        })
    })
    .await;
    let client = server.builder().in_flight(1).connect().await.unwrap();
    let hasty = client.with_deadline(Duration::from_millis(50));
    let start = Instant::now();
    let error = hasty.ping(b"slow").await.unwrap_err();
    assert!(matches!(error, Error::Deadline { .. }), "{error}");
    assert!(start.elapsed() >= Duration::from_millis(50));
    assert_eq!(client.in_flight(), 0);
    // With one slot, this call takes the very slot that the late answer was meant for.
    assert_eq!(client.ping(b"mine").await.unwrap(), b"mine");
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn answers_to_nobody_are_ignored() {
    let server = Server::scripted(|frame| {
        is_sign(frame).then(|| {
            let right = extended_answer(frame);
            let stray = |id| Act::Send(reply(id, 0xf0, b"stray"));
            vec![
                stray(u32::MAX),
                stray(frame.id ^ 1),
                stray(frame.id.wrapping_add(1 << 20)),
                Act::Send(right.clone()),
                Act::Send(right),
            ]
        })
    })
    .await;
    let client = server.client().await;
    for _ in 0..10 {
        assert_eq!(sign(&client).await.unwrap()[21..], HASH);
    }
}

#[tokio::test]
async fn a_signature_is_asked_for_again_when_the_connection_is_lost() {
    for end in [|_: &Frame| vec![Act::Close], |_: &Frame| vec![Act::Cut]] {
        let server = Server::scripted(spoil(1, end)).await;
        let client = server.client().await;
        assert_eq!(sign(&client).await.unwrap()[21..], HASH);
        let asked: Vec<usize> = server
            .frames()
            .iter()
            .filter(|f| is_sign(f))
            .map(|f| f.connection)
            .collect();
        assert_eq!(asked, [0, 1], "once on each of two connections");
    }
}

#[tokio::test]
async fn a_signature_is_asked_for_twice_at_most() {
    let server = Server::scripted(spoil(usize::MAX, |_| vec![Act::Cut])).await;
    let client = server.client().await;
    let error = sign(&client).await.unwrap_err();
    assert!(matches!(error, Error::Network(_)), "{error}");
    assert_eq!(
        server
            .frames()
            .iter()
            .filter(|frame| is_sign(frame))
            .count(),
        2
    );
}

#[tokio::test]
async fn a_decryption_is_never_repeated() {
    let server = Server::scripted(|frame| (frame.opcode == 1).then(|| vec![Act::Cut])).await;
    let client = server.client().await;
    let error = client
        .decrypt(&KeyId::from_ski(KEY), &[1; 256])
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::Network(_)) && error.is_retryable(),
        "{error}"
    );
    client.ping(b"and on").await.unwrap();
    assert_eq!(
        server
            .frames()
            .iter()
            .filter(|frame| frame.opcode == 1)
            .count(),
        1
    );
}

/// The end of a connection lies in the socket, and the runtime has not come to look at it, when a decryption is asked
/// for. It waits for the next connection; of `Client` and `Pool` alike.
#[test]
fn a_decryption_does_not_leave_on_a_connection_that_was_cut() {
    let servers = tokio::runtime::Runtime::new().unwrap();
    let mut server = servers.block_on(Server::extended());
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().unwrap();
    let key = KeyId::from_ski(KEY);
    let limit = Duration::from_secs(20);
    // The runtime stands still between the calls, and with it an attempt to connect.
    let builder = server.builder().deadline(limit).connect_limit(limit);
    let client = runtime.block_on(builder.connect()).unwrap();
    let builder = Pool::builder("localhost", server.identity()).server(server.address());
    let builder = builder.deadline(limit).connect_limit(limit);
    let pool = runtime.block_on(builder.connect()).unwrap();
    // Not often: the waits before the next attempt grow.
    for _ in 0..2 {
        server.stop();
        servers.block_on(server.restart());
        let opened = runtime.block_on(async { client.decrypt(&key, &[1; 256]).await });
        assert_eq!(opened.unwrap().len(), 1 + 20 + 256);
        runtime.block_on(async { pool.call(&Operation::ping(b"up")).await.unwrap() });

        server.stop();
        servers.block_on(server.restart());
        let opened = runtime.block_on(async { pool.decrypt(&key, &[1; 256]).await });
        assert_eq!(opened.unwrap().len(), 1 + 20 + 256);
        runtime.block_on(async { client.ping(b"up").await.unwrap() });
    }
}

#[tokio::test]
async fn every_call_in_flight_fails_when_the_connection_is_lost() {
    // 50 decryptions are held; then one asks for the end.
    let server = Server::scripted(|frame| match frame.opcode {
        1 if frame.payload == [9; 256] => Some(vec![Act::Cut]),
        1 => Some(Vec::new()),
        _ => None,
    })
    .await;
    let client = server.client().await;
    let calls: Vec<_> = (0..50)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.decrypt(&KeyId::from_ski(KEY), &[1; 256]).await })
        })
        .collect();
    while server.frames().len() < 51 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    client
        .decrypt(&KeyId::from_ski(KEY), &[9; 256])
        .await
        .unwrap_err();
    for call in calls {
        let error = call.await.unwrap().unwrap_err();
        assert!(matches!(error, Error::Network(_)), "{error}");
    }
    assert_eq!(client.in_flight(), 0);
    client.ping(b"and on").await.unwrap();
}

#[tokio::test]
async fn answers_before_an_orderly_close_are_delivered() {
    let server = Server::scripted(|frame| {
        (frame.opcode == 1).then(|| vec![Act::Send(extended_answer(frame)), Act::Close])
    })
    .await;
    let client = server.client().await;
    client
        .decrypt(&KeyId::from_ski(KEY), &[1; 256])
        .await
        .unwrap();
}

#[tokio::test]
async fn frames_that_no_server_may_send_end_the_connection() {
    type Make = fn(&Frame) -> Vec<u8>;
    let garbage: [(&str, Make); 5] = [
        ("version 2", |f| {
            [&[2, 0][..], &reply(f.id, 0xf0, b"x")[2..]].concat()
        }),
        ("past the end", |f| {
            let id = f.id.to_be_bytes();
            vec![1, 0, 0, 4, id[0], id[1], id[2], id[3], 0x12, 0xff, 0xff, 0]
        }),
        ("none that a server sends", |f| reply(f.id, 0x12, b"x")),
        ("no opcode", |f| {
            [&[1, 0, 0, 0][..], &f.id.to_be_bytes()].concat()
        }),
        ("version", |_| {
            (0..70_000_u32).map(|i| (i * 167 + 13) as u8).collect()
        }),
    ];
    for (expected, make) in garbage {
        // Twice, because the first time the client asks again.
        let server = Server::scripted(spoil(2, move |frame| vec![Act::Send(make(frame))])).await;
        let client = server.client().await;
        for _ in 0..2 {
            let error = sign(&client).await.unwrap_err();
            assert!(matches!(error, Error::Protocol(_)), "{error}");
            assert_eq!(error.fault(), Fault::Server);
            assert!(error.to_string().contains(expected), "{expected}: {error}");
        }
        sign(&client).await.unwrap();
        assert_eq!(server.connections(), 3);
    }
}

#[tokio::test]
async fn bytes_outside_tls_end_the_connection() {
    let server = Server::scripted(spoil(1, |_| vec![Act::Raw(b"junk junk junk".to_vec())])).await;
    let client = server.client().await;
    let error = sign(&client).await.unwrap_err();
    assert!(matches!(error, Error::Tls(_)), "{error}");
    sign(&client).await.unwrap();
}

#[tokio::test]
async fn a_server_that_falls_silent_is_left() {
    let server = Server::scripted(spoil(1, |_| vec![Act::Wait(Duration::from_secs(60))])).await;
    let client = server
        .builder()
        .silence(Duration::from_millis(500))
        .connect()
        .await
        .unwrap();
    // The first answer never comes; the second attempt goes over a new connection.
    sign(&client).await.unwrap();
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn a_slow_answer_is_not_silence_while_the_server_answers_pings() {
    let held = std::sync::Mutex::new(Vec::new());
    let server = Server::scripted(move |frame| {
        let mut held = held.lock().unwrap();
        match frame.opcode {
            0x15 => {
                held.push(extended_answer(frame));
                Some(Vec::new())
            }
            // The client's question after signs of life: the third one brings the answer along.
            0xf1 => {
                held.push(extended_answer(frame));
                (held.len() < 4)
                    .then(|| vec![Act::Send(extended_answer(frame))])
                    .or_else(|| Some(held.drain(..).map(Act::Send).collect()))
            }
            _ => None,
        }
    })
    .await;
    let client = server
        .builder()
        .silence(Duration::from_secs(1))
        .connect()
        .await
        .unwrap();
    sign(&client).await.unwrap();
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_restart_of_the_server_is_survived() {
    let mut server = Server::extended().await;
    let client = server.client().await;
    client.ping(b"before").await.unwrap();
    server.stop();

    // While it is away, a call waits; at its deadline it is told why.
    let hasty = client.with_deadline(Duration::from_millis(300));
    let error = hasty.ping(b"during").await.unwrap_err();
    assert!(matches!(error, Error::Network(_)), "{error}");

    // A call that has time is answered as soon as the server is back.
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.ping(b"after").await }
    });
    server.restart().await;
    assert_eq!(waiting.await.unwrap().unwrap(), b"after");
}

#[tokio::test]
async fn closing_ends_every_call_and_says_goodbye() {
    let server = Server::scripted(|frame| is_sign(frame).then(Vec::new)).await;
    let client = server.client().await;
    let call = tokio::spawn({
        let client = client.clone();
        async move { sign(&client).await }
    });
    while server.frames().len() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    client.close();
    assert!(matches!(call.await.unwrap(), Err(Error::Closed)));
    assert!(matches!(client.ping(b"x").await, Err(Error::Closed)));
    let goodbye = async {
        while server.goodbyes() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), goodbye)
        .await
        .unwrap();
}

#[tokio::test]
async fn dropping_the_last_clone_closes_even_without_a_server() {
    let mut server = Server::extended().await;
    let client = server.client().await;
    server.stop();
    drop(client);
    // The task ends although it is between two connections; nothing connects after a restart.
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.restart().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(server.connections(), 1);
}
