//! What goes over the wire with a server that knows our additions, and frames of every shape.

use std::sync::Mutex;
use std::time::Duration;

use keyserver_client::{
    Client, Connection, Error, ErrorCode, KeyId, Opcode, Reply, Request, SignatureAlgorithm,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Act, KEY, Server, extended_answer, refusal, reply};

#[tokio::test]
async fn deadline_and_extended_replies_are_asked_for() {
    let server = Server::extended().await;
    let client = server.client().await;
    client.ping(b"x").await.unwrap();
    let frames = server.frames();
    assert_eq!(frames[0].opcode, 0x47);
    assert!(
        !frames[0].tags.iter().any(|tag| (0x30..=0x3f).contains(tag)),
        "not yet known"
    );
    assert!(
        frames[1].tags.contains(&0x30) && frames[1].tags.contains(&0x32),
        "{:?}",
        frames[1]
    );
}

#[tokio::test]
async fn information_and_keys_over_several_pages() {
    let server = Server::extended().await;
    let client = server.client().await;
    let info = client.server_info().await.unwrap().unwrap();
    assert_eq!(
        (info.server.as_str(), info.version.as_str()),
        ("keyserver", "9.9.9")
    );
    let keys = client.keys().await.unwrap();
    let labels: Vec<&str> = keys.iter().map(|key| key.label.as_str()).collect();
    assert_eq!(labels, ["first", "second"]);
    assert_eq!(KeyId::try_from(&keys[0]).unwrap(), KeyId::from_ski(KEY));
}

#[tokio::test]
async fn a_key_list_that_never_ends_is_refused() {
    let server = Server::scripted(|frame| {
        (frame.opcode == 0x48)
            .then(|| vec![Act::Send(reply(frame.id, 0xf0, br#"{"keys":[],"next":1}"#))])
    })
    .await;
    let error = server.client().await.keys().await.unwrap_err();
    assert!(matches!(error, Error::Protocol(_)), "{error}");
}

#[tokio::test]
async fn answers_in_reverse_order_find_their_callers() {
    // The server holds everything back until it has 200 requests, and answers the last one first.
    let held = Mutex::new(Vec::new());
    let server = Server::scripted(move |frame| {
        (frame.opcode == 0x13).then(|| {
            let mut held = held.lock().unwrap();
            held.push(extended_answer(frame));
            if held.len() < 200 {
                return Vec::new();
            }
            held.drain(..).rev().map(Act::Send).collect()
        })
    })
    .await;
    let client = server.client().await;
    let calls: Vec<_> = (0..200_u8)
        .map(|number| {
            let client = client.clone();
            tokio::spawn(async move {
                let hash = [number; 20];
                let key = KeyId::from_ski(KEY);
                let result = client
                    .sign(&key, SignatureAlgorithm::EcdsaSha1, &hash)
                    .await;
                assert_eq!(result.unwrap()[21..], hash);
            })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
    assert_eq!(client.in_flight(), 0);
}

#[tokio::test]
async fn a_byte_at_a_time() {
    let server = Server::scripted(|frame| {
        (frame.opcode == 0xf1).then(|| vec![Act::Drip(extended_answer(frame))])
    })
    .await;
    let client = server.client().await;
    let payload = vec![7; 2000];
    assert_eq!(client.ping(&payload).await.unwrap(), payload);
}

#[tokio::test]
async fn the_largest_ping_and_one_byte_more() {
    for server in [Server::stock().await, Server::extended().await] {
        let client = server.client().await;
        let stock = client.server_info().await.unwrap().is_none();
        // The additions to a request take 10 bytes of the 65,528.
        let most = if stock { 65_528 } else { 65_518 };
        let payload: Vec<u8> = (0..most).map(|i| i as u8).collect();
        assert_eq!(client.ping(&payload).await.unwrap(), payload);
        let error = client.ping(&vec![0; most + 1]).await.unwrap_err();
        assert!(matches!(error, Error::Input(_)), "{error}");
        client.ping(b"and on").await.unwrap();
    }
}

#[tokio::test]
async fn busy_is_asked_again_once_and_others_are_final() {
    let asked = Mutex::new(0);
    let server = Server::scripted(move |frame| match frame.opcode {
        0x14 => {
            let mut asked = asked.lock().unwrap();
            *asked += 1;
            (*asked == 1).then(|| {
                // Busy, with 20 ms until the next try (tag 0x33).
                let mut busy = vec![1, 0, 0, 15];
                busy.extend(frame.id.to_be_bytes());
                busy.extend([0x11, 0, 1, 0xff, 0x12, 0, 1, 0x20, 0x33, 0, 4, 0, 0, 0, 20]);
                vec![Act::Send(busy)]
            })
        }
        0x15 => Some(vec![Act::Send(refusal(frame.id, 0x21))]),
        0x16 => Some(vec![Act::Send(refusal(frame.id, 0x99))]),
        _ => None,
    })
    .await;
    let client = server.client().await;
    let key = KeyId::from_ski(KEY);
    client
        .sign(&key, SignatureAlgorithm::EcdsaSha224, &[0; 28])
        .await
        .unwrap();
    let error = client
        .sign(&key, SignatureAlgorithm::EcdsaSha256, &[0; 32])
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::Refused(ErrorCode::Denied)),
        "{error}"
    );
    let error = client
        .sign(&key, SignatureAlgorithm::EcdsaSha384, &[0; 48])
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::Refused(ErrorCode::Internal)),
        "unknown code: {error}"
    );
    let count = |opcode| {
        server
            .frames()
            .iter()
            .filter(|frame| frame.opcode == opcode)
            .count()
    };
    assert_eq!((count(0x14), count(0x15), count(0x16)), (2, 1, 1));
}

/// The connection without the client: fed one byte at a time, many requests in one seal.
#[tokio::test]
async fn a_driver_of_ones_own() {
    let server = Server::extended().await;
    let mut connection = Connection::new(&server.identity(), "localhost").unwrap();
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    for id in 0..300_u32 {
        let payload = id.to_be_bytes();
        let request = Request {
            payload: &payload,
            ..Request::new(id, Opcode::Ping)
        };
        connection.submit(&request).unwrap();
    }
    let (mut out, mut buffer, mut seen) = (Vec::new(), vec![0; 64 * 1024], Vec::new());
    let mut largest = 0;
    while seen.len() < 300 {
        out.clear();
        largest = largest.max(connection.transmit(&mut out).unwrap());
        stream.write_all(&out).await.unwrap();
        let read = stream.read(&mut buffer).await.unwrap();
        assert_ne!(read, 0);
        for byte in &buffer[..read] {
            connection.receive(std::slice::from_ref(byte)).unwrap();
            while let Some(Reply { id, outcome, .. }) = connection.next_reply() {
                assert_eq!(outcome.unwrap(), id.to_be_bytes());
                seen.push(id);
            }
        }
    }
    // 300 frames of 1,024 bytes left in one seal, in records of 16 KiB.
    assert!(
        (300 * 1024..300 * 1024 + 2048).contains(&largest),
        "{largest}"
    );
    assert_eq!(connection.tls_version(), Some("TLSv1_3"));
    assert_eq!(connection.key_exchange(), Some("X25519MLKEM768"));
    seen.sort_unstable();
    assert_eq!(seen, (0..300).collect::<Vec<_>>());

    connection.close_notify();
    assert!(connection.wants_transmit());
    out.clear();
    assert!(connection.transmit(&mut out).unwrap() > 0);
    stream.write_all(&out).await.unwrap();
    assert_eq!(stream.read(&mut buffer).await.unwrap(), 0);
    assert_eq!(server.goodbyes(), 1);
}

#[tokio::test]
async fn tls_1_2_with_a_stock_server_and_resumption() {
    let server = Server::stock().await;
    let identity = server.identity();
    for _ in 0..2 {
        let client = Client::builder(server.address(), "localhost", identity.clone());
        let client = client.connect().await.unwrap();
        client.ping(b"x").await.unwrap();
        drop(client);
    }
    // The task says goodbye on its own time.
    for _ in 0..200 {
        if server.goodbyes() == 2 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} goodbyes", server.goodbyes());
}
