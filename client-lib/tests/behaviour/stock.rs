//! Against a stock server: TLS 1.2, version 1 of the protocol and nothing else.

use aws_lc_rs::digest::{SHA256, SHA384, digest};
use keyserver_client::{
    Error, ErrorCode, KeyId, Opcode, Request, SignatureAlgorithm, SignatureScheme,
};

use crate::support::{KEY, Server};

const ADDITIONS: std::ops::RangeInclusive<u8> = 0x30..=0x3f;

#[tokio::test]
async fn every_signature_algorithm() {
    let server = Server::stock().await;
    let client = server.client().await;
    let key = KeyId::from_ski(KEY);
    for algorithm in SignatureAlgorithm::ALL {
        let input: Vec<u8> = (0..algorithm.hash_len().unwrap_or(100))
            .map(|i| i as u8)
            .collect();
        let signature = client.sign(&key, algorithm, &input).await.unwrap();
        let expected = [&[algorithm.opcode().as_byte()], &KEY[..], &input[..]].concat();
        assert_eq!(signature, expected, "{algorithm:?}");
    }
}

#[tokio::test]
async fn nothing_beyond_version_1_is_sent() {
    let server = Server::stock().await;
    let client = server.client().await;
    client.ping(b"x").await.unwrap();
    let request = Request {
        signature_scheme: Some(0x0403),
        deadline_us: Some(1),
        extended: true,
        ..Request::new(0, Opcode::Ping)
    };
    client.call(request).await.unwrap();
    let frames = server.frames();
    // The one question that tells a stock server from ours, and then only what it knows.
    assert_eq!(frames[0].opcode, 0x47);
    assert_eq!(
        frames.iter().filter(|frame| frame.opcode == 0x47).count(),
        1
    );
    for frame in frames {
        assert!(
            !frame.tags.iter().any(|tag| ADDITIONS.contains(tag)),
            "{frame:?}"
        );
        assert_eq!(frame.length, 1024, "padded");
    }
}

/// The operations that check what they sign become those that do not, and nothing about it shows.
#[tokio::test]
async fn tls_signatures_are_asked_for_by_digest() {
    let server = Server::stock().await;
    let client = server.client().await;
    let key = KeyId::from_ski(KEY);
    let string = [7; 130];
    let sha256 = digest(&SHA256, &string);
    let sha384 = digest(&SHA384, &string);
    for (scheme, opcode, input) in [
        (SignatureScheme::EcdsaP256Sha256, 0x15, sha256.as_ref()),
        (SignatureScheme::RsaPssSha384, 0x36, sha384.as_ref()),
        (SignatureScheme::Ed25519, 0x18, &string[..]),
    ] {
        let expected = [&[opcode], &KEY[..], input].concat();
        let signature = client.sign_tls13(&key, scheme, &string).await.unwrap();
        assert_eq!(signature, expected, "{scheme}");
        let signature = client.sign_tls12(&key, scheme, &string).await.unwrap();
        assert_eq!(signature, expected, "{scheme}");
    }
    // What no digest operation can do is refused without asking.
    let asked = server.frames().len();
    let scheme = SignatureScheme::MlDsa65;
    for refusal in [
        client.sign_tls13(&key, scheme, &string).await,
        client
            .sign_tls13_handshake(&key, SignatureScheme::Ed25519, &string)
            .await,
    ] {
        assert!(
            matches!(refusal, Err(Error::Refused(ErrorCode::BadOpcode))),
            "{refusal:?}"
        );
    }
    assert_eq!(server.frames().len(), asked);
}

#[tokio::test]
async fn refusals_keep_their_code() {
    let server = Server::stock().await;
    let client = server.client().await;
    let unknown = KeyId::from_ski([9; 20]);
    let hash = [1; 32];
    let error = client
        .sign(&unknown, SignatureAlgorithm::EcdsaSha256, &hash)
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::Refused(ErrorCode::KeyNotFound)),
        "{error}"
    );
    assert!(
        error.to_string().contains("does not hold the key"),
        "{error}"
    );

    let key = KeyId::from_ski(KEY);
    let error = client.decrypt_raw(&key, &[1; 256]).await.unwrap_err();
    assert!(
        matches!(error, Error::Refused(ErrorCode::BadOpcode)),
        "{error}"
    );
    let block = client.decrypt(&key, &[1; 256]).await.unwrap();
    assert_eq!(block.len(), 1 + 20 + 256);

    assert_eq!(client.server_info().await.unwrap(), None);
    let error = client.keys().await.unwrap_err();
    assert!(
        matches!(error, Error::Refused(ErrorCode::BadOpcode)),
        "{error}"
    );
    // A refusal is about one call; the connection goes on.
    client.ping(b"still here").await.unwrap();
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_wrong_hash_is_the_callers_fault_and_never_sent() {
    let server = Server::stock().await;
    let client = server.client().await;
    let key = KeyId::from_ski(KEY);
    let error = client
        .sign(&key, SignatureAlgorithm::RsaPssSha384, &[0; 32])
        .await
        .unwrap_err();
    assert_eq!(error.fault(), keyserver_client::Fault::Caller);
    assert!(
        error.to_string().contains("48 bytes and was given 32"),
        "{error}"
    );
    assert_eq!(server.frames().len(), 1);
}

/// A stock server would take our form of a key exchange for a ciphertext that is too long, and knows none of the other operations:
/// it is asked for none of them.
#[tokio::test]
async fn a_key_exchange_of_ours_is_not_sent() {
    use keyserver_client::{MasterRequest, MasterSeed, PrfHash};

    let server = Server::stock().await;
    let client = server.client().await;
    let key = KeyId::from_ski(KEY);
    let asked = server.frames().len();
    let request = MasterRequest {
        client_version: [3, 3],
        prf: PrfHash::Sha256,
        seed: MasterSeed::Randoms(&[7; 64]),
        ciphertext: &[9; 256],
    };
    let refusals = [
        client.tls12_master(&key, &request).await.map(|_| ()),
        client
            .decrypt_premaster(&key, [3, 3], &[9; 256])
            .await
            .map(|_| ()),
        client.ticket_keys(&key).await.map(|_| ()),
    ];
    for refusal in refusals {
        let is_final = matches!(refusal, Err(Error::Refused(ErrorCode::BadOpcode)));
        assert!(is_final, "{refusal:?}");
    }
    assert_eq!(server.frames().len(), asked);
    // Sealing is an operation of stock servers too, which mostly do not serve it.
    let refusal = client.seal(&key, b"session").await.unwrap_err();
    assert!(
        matches!(refusal, Error::Refused(ErrorCode::Internal)),
        "{refusal}"
    );
    assert_eq!(server.frames().last().unwrap().opcode, 0x21);
}
