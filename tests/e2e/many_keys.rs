//! Where there are very many keys, requests are looked at before they are served. Nothing else changes by that.

use std::collections::HashMap;
use std::iter;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use keyless_protocol::{ErrorCode, Opcode, Reply, Request, split_frame};
use keyserver_tests::{Fixture, KeyKind, KeyServer, ServerConfig, Wire};

use crate::on_both_backends;

on_both_backends!(a_pipeline_over_many_keys_is_answered_one_by_one);

/// More than are served without looking ahead.
const KEYS: usize = 300;
/// More than are looked at together, several times.
const REQUESTS: u32 = 100;
/// Of the header and the bits around the key in a `SubjectPublicKeyInfo` of RFC 8410.
const ED25519_PREFIX: usize = 12;

async fn a_pipeline_over_many_keys_is_answered_one_by_one(backend: &str) {
    let fixture = Fixture::new();
    for number in 0..KEYS {
        fixture.add_key(&format!("key-{number:03}"), KeyKind::Ed25519);
    }
    let config = ServerConfig::default().io_backend(backend);
    let server = KeyServer::start(&fixture, &config);
    let rules = accel::LoadRules::default();
    let keys = accel::load_directory(&fixture.path("keys"), &rules).unwrap();
    let key_of = |id: u32| &keys[usize::try_from(id).unwrap() * 7 % KEYS].key;
    let requests: Vec<_> = (0..REQUESTS)
        .map(|id| match id % 5 {
            0 => Request::new(id, Opcode::Ping),
            // No server has this key.
            1 => Request {
                ski: Some([0x11; 20]),
                payload: b"message",
                ..Request::new(id, Opcode::Ed25519Sign)
            },
            // Of an operation that does not exist: nothing can be read ahead in it.
            2 => Request::new(id, Opcode::Pong),
            _ => Request {
                ski: Some(key_of(id).ski()),
                payload: b"message",
                ..Request::new(id, Opcode::Ed25519Sign)
            },
        })
        .collect();

    let mut wire = Wire::connect(&fixture, server.address(), "edge-1");
    wire.send(&requests);
    let answers: HashMap<_, _> = iter::repeat_with(|| {
        let (frame, _) = split_frame(wire.receive()).unwrap();
        let reply = Reply::decode(frame).unwrap();
        (reply.id, reply.outcome.map(<[u8]>::to_vec))
    })
    .take(requests.len())
    .collect();

    for id in 0..REQUESTS {
        let answer = &answers[&id];
        match id % 5 {
            0 => assert!(answer.is_ok(), "{answer:?}"),
            1 => assert_eq!(*answer, Err(ErrorCode::KeyNotFound)),
            2 => assert_eq!(*answer, Err(ErrorCode::UnexpectedOpcode)),
            _ => {
                let public = &key_of(id).spki_der()[ED25519_PREFIX..];
                let verified = UnparsedPublicKey::new(&ED25519, public)
                    .verify(b"message", answer.as_ref().unwrap());
                assert!(verified.is_ok(), "request {id}");
            }
        }
    }
}
