//! What holds for every value, not only for the ones somebody thought of.
#![expect(
    clippy::unwrap_used,
    reason = "a test says where it failed by panicking there"
)]

use std::net::IpAddr;

use keyless_protocol::{
    ErrorCode, HEADER_LEN, Header, InfoError, KeyEntry, KeyList, KeyListRequest, MAX_FRAME,
    MAX_PAYLOAD, MIN_FRAME, Opcode, Reply, Request, split_frame,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::sample::select;

/// The values of a request, owned.
#[derive(Clone, Debug)]
struct Values {
    id: u32,
    opcode: Opcode,
    payload: Vec<u8>,
    ski: Option<[u8; 20]>,
    digest: Option<[u8; 32]>,
    addresses: (Option<IpAddr>, Option<IpAddr>),
    texts: [Option<Vec<u8>>; 6],
    region: Option<u8>,
    deadline_us: Option<u32>,
    signature_scheme: Option<u16>,
    extended: bool,
}

impl Values {
    fn request(&self) -> Request<'_> {
        let [
            sni,
            certificate_id,
            custom_function,
            extra,
            trace,
            request_context,
        ] = self.texts.each_ref().map(Option::as_deref);
        Request {
            id: self.id,
            opcode: self.opcode,
            payload: &self.payload,
            ski: self.ski,
            digest: self.digest,
            sni,
            client_ip: self.addresses.0,
            server_ip: self.addresses.1,
            certificate_id,
            custom_function,
            extra,
            trace,
            request_context,
            region: self.region,
            deadline_us: self.deadline_us,
            signature_scheme: self.signature_scheme,
            extended: self.extended,
        }
    }
}

fn opcode() -> impl Strategy<Value = Opcode> {
    let requests: Vec<_> = Opcode::ALL.into_iter().filter(|o| !o.is_answer()).collect();
    select(requests)
}

/// Lengths around the padding rule's edges, and anything short.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 0..600),
        vec(any::<u8>(), 990..1030),
        vec(any::<u8>(), 0..9000)
    ]
}

fn values() -> impl Strategy<Value = Values> {
    let text = || option::of(vec(any::<u8>(), 0..40));
    let texts = [text(), text(), text(), text(), text(), text()];
    let ski = any::<[u8; 20]>().prop_filter("zeros count as missing", |ski| *ski != [0; 20]);
    let head = (
        any::<u32>(),
        opcode(),
        payload(),
        option::of(ski),
        any::<Option<[u8; 32]>>(),
    );
    let tail = (
        any::<Option<u8>>(),
        any::<Option<u32>>(),
        any::<Option<u16>>(),
        any::<bool>(),
    );
    let addresses = any::<(Option<IpAddr>, Option<IpAddr>)>();
    (head, addresses, texts, tail).prop_map(|(head, addresses, texts, tail)| {
        let (id, opcode, payload, ski, digest) = head;
        let (region, deadline_us, signature_scheme, extended) = tail;
        Values {
            id,
            opcode,
            payload,
            ski,
            digest,
            addresses,
            texts,
            region,
            deadline_us,
            signature_scheme,
            extended,
        }
    })
}

/// A body in the shape of items, so that most get past the first few checks.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let tag = prop_oneof![
        any::<u8>(),
        select(vec![
            0x01, 0x02, 0x03, 0x04, 0x11, 0x11, 0x12, 0x17, 0x20, 0x30, 0x31, 0x32, 0x33
        ]),
    ];
    let value = prop_oneof![
        vec(any::<u8>(), 0..5),
        vec(any::<u8>(), 20),
        vec(any::<u8>(), 32)
    ];
    let item = (tag, value, prop_oneof![9 => Just(0_u8), 1 => any::<u8>()]).prop_map(
        |(tag, value, wrong)| {
            let length = u8::try_from(value.len()).unwrap() ^ wrong;
            [vec![tag, 0, length], value].concat()
        },
    );
    (vec(item, 0..8), vec(any::<u8>(), 0..3)).prop_map(|(items, tail)| {
        let mut body = items.concat();
        body.extend(tail);
        body
    })
}

fn frame_of(id: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = Header::new(u16::try_from(body.len()).unwrap(), id)
        .encode()
        .to_vec();
    bytes.extend(body);
    bytes
}

proptest! {
    #[test]
    fn headers_survive_the_wire(bytes in any::<[u8; HEADER_LEN]>()) {
        prop_assert_eq!(Header::decode(&bytes).encode(), bytes);
    }

    #[test]
    fn requests_survive_the_wire(values in values()) {
        let request = values.request();
        let mut wire = Vec::new();
        request.encode(&mut wire).unwrap();
        prop_assert!(wire.len() >= MIN_FRAME && wire.len() <= MAX_FRAME);
        let (frame, length) = split_frame(&wire).unwrap();
        prop_assert_eq!(length, wire.len());
        prop_assert_eq!(Request::decode(frame), Ok(request));
    }

    #[test]
    fn replies_survive_the_wire(
        id in any::<u32>(),
        output in payload(),
        code in option::of(select(ErrorCode::ALL.to_vec())),
        retry_after_ms in any::<Option<u32>>(),
        receipt in option::of(vec(any::<u8>(), 0..200)),
        pong in any::<bool>(),
    ) {
        let reply = Reply {
            id,
            outcome: code.map_or(Ok(output.as_slice()), Err),
            retry_after_ms,
            audit_receipt: receipt.as_deref(),
            pong: pong && code.is_none(),
        };
        let mut wire = Vec::new();
        reply.encode(&mut wire).unwrap();
        prop_assert!(wire.len() >= MIN_FRAME && wire.len() <= MAX_FRAME);
        let (frame, length) = split_frame(&wire).unwrap();
        prop_assert_eq!(length, wire.len());
        prop_assert_eq!(Reply::decode(frame), Ok(reply));
    }

    #[test]
    fn a_stock_client_sees_nothing_it_does_not_know(
        code in select(ErrorCode::ALL.to_vec()),
        retry_after_ms in any::<Option<u32>>(),
    ) {
        let reply = Reply { retry_after_ms, ..Reply::failure(1, code) }.for_stock();
        prop_assert!(reply.outcome.unwrap_err().as_byte() <= 11);
        let mut wire = Vec::new();
        reply.encode(&mut wire).unwrap();
        let (frame, _) = split_frame(&wire).unwrap();
        let tags: Vec<u8> =
            keyless_protocol::item::Items::new(frame.body).map(|item| item.unwrap().tag).collect();
        prop_assert_eq!(tags, vec![0x11, 0x12, 0x20]);
    }

    #[test]
    fn decoding_never_panics_and_always_echoes_the_id(id in any::<u32>(), body in body()) {
        let bytes = frame_of(id, &body);
        let (frame, _) = split_frame(&bytes).unwrap();
        let request_id = Request::decode(frame).map_or_else(|e| e.id, |r| r.id);
        let reply_id = Reply::decode(frame).map_or_else(|e| e.id, |r| r.id);
        prop_assert_eq!((request_id, reply_id), (id, id));
    }

    #[test]
    fn what_decodes_encodes_to_the_same_meaning(id in any::<u32>(), body in body()) {
        let bytes = frame_of(id, &body);
        let (frame, _) = split_frame(&bytes).unwrap();
        if let Ok(request) = Request::decode(frame) {
            let mut wire = Vec::new();
            request.encode(&mut wire).unwrap();
            prop_assert_eq!(Request::decode(split_frame(&wire).unwrap().0), Ok(request));
        }
    }

    #[test]
    fn a_stream_splits_the_same_however_it_arrives(
        bodies in vec(vec(any::<u8>(), 0..50), 0..6),
        cut in any::<proptest::sample::Index>(),
    ) {
        let stream: Vec<u8> = bodies.iter().flat_map(|body| frame_of(5, body)).collect();
        let mut found = Vec::new();
        let mut buffer = Vec::new();
        let (first, second) = stream.split_at(cut.index(stream.len() + 1));
        for part in [first, second] {
            buffer.extend_from_slice(part);
            while let Some((frame, length)) = split_frame(&buffer) {
                found.push(frame.body.to_vec());
                buffer.drain(..length);
            }
        }
        prop_assert_eq!(found, bodies);
        prop_assert!(buffer.is_empty());
    }

    #[test]
    fn key_lists_survive_the_wire(
        labels in vec(any::<String>(), 0..12),
        next in any::<Option<u32>>(),
        first in any::<u32>(),
    ) {
        let list = KeyList { keys: labels.into_iter().map(entry).collect(), next };
        prop_assert_eq!(KeyList::decode(&list.encode().unwrap()), Ok(list));
        let request = KeyListRequest { first };
        prop_assert_eq!(KeyListRequest::decode(&request.encode()), Ok(request));
    }
}

fn entry(label: String) -> KeyEntry {
    KeyEntry {
        ski: "5e".repeat(20),
        key_type: "p-256".into(),
        spki: "MFkw".into(),
        operations: vec!["sign-digest".into()],
        label,
        ..KeyEntry::default()
    }
}

#[test]
fn a_document_that_does_not_fit_a_frame_is_not_written() {
    let list = KeyList {
        keys: vec![entry("x".repeat(MAX_PAYLOAD))],
        next: None,
    };
    let error = list.encode().unwrap_err();
    assert!(matches!(error, InfoError::TooLong { bytes } if bytes > MAX_PAYLOAD));
}

#[test]
fn payloads_up_to_the_limit_fit_and_no_longer_ones() {
    for length in [
        0,
        1,
        1006,
        1007,
        1008,
        1009,
        1010,
        MAX_PAYLOAD - 1,
        MAX_PAYLOAD,
    ] {
        let payload = vec![7; length];
        let mut wire = Vec::new();
        Reply::pong(1, &payload).encode(&mut wire).unwrap();
        let used = if length == 0 { 12 } else { 15 + length };
        let expected = if used < MIN_FRAME {
            MIN_FRAME.max(used + 3)
        } else {
            used
        };
        assert_eq!(wire.len(), expected, "a payload of {length} bytes");
        let (frame, _) = split_frame(&wire).unwrap();
        assert_eq!(Reply::decode(frame).unwrap().outcome, Ok(&payload[..]));
    }
    let payload = vec![7; MAX_PAYLOAD + 1];
    let mut wire = vec![1, 2, 3];
    let error = Reply::pong(1, &payload).encode(&mut wire).unwrap_err();
    assert_eq!(error.body_bytes, 65_536);
    let error = Request {
        payload: &payload,
        ..Request::new(1, Opcode::Ping)
    }
    .encode(&mut wire)
    .unwrap_err();
    assert_eq!(error.body_bytes, 65_536);
    assert_eq!(wire, [1, 2, 3], "nothing is written when it does not fit");
}

#[test]
fn debug_output_shows_no_payload() {
    let secret = [0x53; 40];
    let request = Request {
        payload: &secret,
        extra: Some(&secret),
        ..Request::new(1, Opcode::Ping)
    };
    let reply = Reply {
        audit_receipt: Some(&secret),
        ..Reply::success(1, &secret)
    };
    let mut wire = Vec::new();
    reply.encode(&mut wire).unwrap();
    let frame = split_frame(&wire).unwrap().0;
    for text in [
        format!("{request:?}"),
        format!("{reply:?}"),
        format!("{frame:?}"),
    ] {
        assert!(!text.contains("83, 83") && !text.contains("SSS"), "{text}");
        assert!(
            text.contains("40") || text.contains("1016"),
            "sizes are shown: {text}"
        );
    }
}
