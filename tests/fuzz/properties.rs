//! What must hold for any bytes, on the wire. Each function is one fuzz target's body, and panics
//! when its property does not hold; an ordinary test includes this file and calls them with every
//! file of the kept corpus.
#![allow(
    dead_code,
    clippy::allow_attributes,
    clippy::expect_used,
    unreachable_pub,
    reason = "each program that includes this file calls some of it, and all of it is test code"
)]

use keyless_protocol::item::Items;
use keyless_protocol::key_exchange::{MasterRequest, PremasterRequest};
use keyless_protocol::tickets::TicketKeys;
use keyless_protocol::{
    HEADER_LEN, Header, KeyList, KeyListRequest, MAX_FRAME, MIN_FRAME, Reply, Request, ServerInfo,
    delegation, split_frame,
};

/// A stream of frames: splitting makes progress, loses no byte, and writes back what it read.
pub fn frame(data: &[u8]) {
    let mut rest = data;
    while let Some((frame, length)) = split_frame(rest) {
        assert!((HEADER_LEN..=MAX_FRAME).contains(&length));
        let (whole, after) = rest.split_at(length);
        let (head, body) = whole.split_first_chunk().expect("a header");
        assert_eq!(frame.body, body);
        assert_eq!(frame.header.encode(), *head);
        // No item reaches outside the body.
        let inside: usize = Items::new(body)
            .flatten()
            .map(|item| 3 + item.value.len())
            .sum();
        assert!(inside <= body.len());
        rest = after;
    }
    if let Some((head, body)) = rest.split_first_chunk() {
        assert!(usize::from(Header::decode(head).body_len) > body.len());
    }
}

/// The body of a request: decoding does not panic and echoes the id; what decodes means the same
/// after it was encoded.
pub fn request(data: &[u8]) {
    with_frame(data, |frame| match Request::decode(frame) {
        Err(error) => {
            assert_eq!(error.id, frame.header.id);
            assert!(!error.to_string().is_empty());
        }
        Ok(request) => {
            assert!(!request.opcode.is_answer());
            let mut wire = Vec::new();
            request
                .encode(&mut wire)
                .expect("no longer than what was decoded");
            check_length(&wire);
            let (again, _) = split_frame(&wire).expect("a whole frame");
            assert_eq!(Request::decode(again), Ok(request));
        }
    });
}

/// The body of a reply: as [`request()`].
pub fn reply(data: &[u8]) {
    with_frame(data, |frame| match Reply::decode(frame) {
        Err(error) => {
            assert_eq!(error.id, frame.header.id);
            assert!(!error.to_string().is_empty());
        }
        Ok(reply) => {
            let mut wire = Vec::new();
            reply
                .encode(&mut wire)
                .expect("no longer than what was decoded");
            check_length(&wire);
            let (again, _) = split_frame(&wire).expect("a whole frame");
            assert_eq!(Reply::decode(again), Ok(reply));
        }
    });
}

/// The JSON documents: reading does not panic, and what was read reads the same after writing.
pub fn info(data: &[u8]) {
    if let Ok(info) = ServerInfo::decode(data)
        && let Ok(text) = info.encode()
    {
        assert_eq!(ServerInfo::decode(&text), Ok(info));
    }
    if let Ok(list) = KeyList::decode(data) {
        if let Ok(text) = list.encode() {
            assert_eq!(KeyList::decode(&text).as_ref(), Ok(&list));
        }
        for key in &list.keys {
            if let Some(ski) = key.ski_bytes() {
                let text = keyless_protocol::info::ski_to_hex(&ski);
                assert!(text.eq_ignore_ascii_case(&key.ski));
            }
        }
    }
    if let Ok(request) = KeyListRequest::decode(data) {
        assert_eq!(KeyListRequest::decode(&request.encode()), Ok(request));
    }
}

/// The payloads that hold more than bytes: what is read means the same after writing, byte for byte, so that nothing of the
/// input goes unread.
pub fn payload(data: &[u8]) {
    let mut written = Vec::new();
    if let Ok(request) = delegation::Request::decode(data) {
        request.encode(&mut written);
        assert_eq!(written, data);
        let string = request.proven(&[1; 32], &[2; 20]);
        let asked = data.len() - 2 - request.proof.len();
        assert!(string.ends_with(&data[..asked]));
    }
    written.clear();
    if let Ok(credential) = delegation::Credential::decode(data) {
        credential.encode(&mut written);
        assert_eq!(written, data);
        let mut signed = Vec::new();
        credential.encode_signed(&mut signed);
        assert!(data.starts_with(&signed));
    }
    written.clear();
    if let Ok(keys) = TicketKeys::decode(data) {
        assert_eq!(keys.encoded_len(), data.len());
        keys.encode(&mut written);
        assert_eq!(written, data);
    }
    written.clear();
    if let Ok(request) = MasterRequest::decode(data) {
        request.encode(&mut written);
        assert_eq!(written, data);
    }
    written.clear();
    if let Ok(request) = PremasterRequest::decode(data) {
        request.encode(&mut written);
        assert_eq!(written, data);
    }
}

/// Treats all of `data` as one body, with a version the decoder takes; then the first frame in it
/// as it stands.
fn with_frame(data: &[u8], check: impl Fn(keyless_protocol::Frame<'_>)) {
    if let Ok(body_len) = u16::try_from(data.len()) {
        check(keyless_protocol::Frame {
            header: Header::new(body_len, 0x0102_0304),
            body: data,
        });
    }
    if let Some((frame, _)) = split_frame(data) {
        check(frame);
    }
}

fn check_length(wire: &[u8]) {
    assert!((MIN_FRAME..=MAX_FRAME).contains(&wire.len()));
}
