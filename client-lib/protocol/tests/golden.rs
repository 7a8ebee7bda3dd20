//! Frames written by hand, byte for byte, against what the codec reads and writes.
//!
//! `golden/*.hex` holds hexadecimal bytes; `#` starts a comment, and `00*937` stands for 937 times
//! the byte 00. Each file says where its bytes come from.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::string_slice,
    clippy::too_many_lines,
    clippy::unwrap_used,
    reason = "a test says where it failed by panicking there, and its tables are as long as they are"
)]

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use keyless_protocol::tickets::{EpochKey, TicketKeys};
use keyless_protocol::{
    ErrorCode, Opcode, Reply, ReplyFault, Request, RequestFault, Tag, delegation, split_frame,
};

const SKI: [u8; 20] = [0x5E; 20];

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// The bytes of one golden file.
fn golden(name: &str) -> Vec<u8> {
    let path = directory().join(name).with_extension("hex");
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let words = text
        .lines()
        .flat_map(|line| line.split('#').next().unwrap().split_whitespace());
    let mut bytes = Vec::new();
    for word in words {
        let (digits, times) = word.split_once('*').unwrap_or((word, "1"));
        let value: Vec<u8> = (0..digits.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
            .collect();
        bytes.extend(value.repeat(times.parse().unwrap()));
    }
    bytes
}

fn decode_request(bytes: &[u8]) -> Result<Request<'_>, keyless_protocol::RequestError> {
    let (frame, length) = split_frame(bytes).expect("a whole frame");
    assert_eq!(length, bytes.len(), "the header's length is the file's");
    Request::decode(frame)
}

fn decode_reply(bytes: &[u8]) -> Result<Reply<'_>, keyless_protocol::ReplyError> {
    let (frame, length) = split_frame(bytes).expect("a whole frame");
    assert_eq!(length, bytes.len(), "the header's length is the file's");
    Reply::decode(frame)
}

fn requests_both_ways() -> Vec<(&'static str, Request<'static>)> {
    let ski = [
        0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xAA, 0xBB, 0xCC, 0xDD, 0xEE,
        0xFF, 0x01, 0x02, 0x03, 0x04,
    ];
    let every_item = Request {
        payload: &[1, 2, 3],
        ski: Some(SKI),
        digest: Some([0xD1; 32]),
        sni: Some(b"shop.eu"),
        client_ip: Some(Ipv4Addr::new(192, 0, 2, 1).into()),
        server_ip: Some(Ipv6Addr::new(0x2001, 0xDB8, 0, 0, 0, 0, 0, 1).into()),
        certificate_id: Some(b"cert-7"),
        custom_function: Some(b"echo"),
        extra: Some(&[0xCA, 0xFE]),
        trace: Some(&[0xFF]),
        request_context: Some(b"null"),
        region: Some(7),
        deadline_us: Some(100_000),
        signature_scheme: Some(0x0403),
        extended: true,
        ..Request::new(0x0102_0304, Opcode::Custom)
    };
    vec![
        (
            "request-ping",
            Request {
                payload: b"hello",
                ..Request::new(0xDEAD_BEEF, Opcode::Ping)
            },
        ),
        (
            "request-ecdsa-sign-sha256",
            Request {
                payload: &[0xAB; 32],
                ski: Some(ski),
                ..Request::new(7, Opcode::EcdsaSignSha256)
            },
        ),
        ("request-every-item", every_item),
        (
            "request-1022-used",
            Request {
                payload: &[b'a'; 1007],
                ..Request::new(1, Opcode::Ping)
            },
        ),
        (
            "request-1024-used",
            Request {
                payload: &[b'a'; 1009],
                ..Request::new(1, Opcode::Ping)
            },
        ),
    ]
}

fn requests_decode_only() -> Vec<(&'static str, Request<'static>)> {
    vec![
        (
            "request-other-order",
            Request {
                ski: Some(SKI),
                ..Request::new(2, Opcode::RsaSignSha256)
            },
        ),
        (
            "request-lenient-lengths",
            Request::new(3, Opcode::RsaSignSha256),
        ),
        ("request-zero-ski", Request::new(4, Opcode::RsaSignSha256)),
    ]
}

/// File, id, code, whether the connection closes, and the fault.
fn refusals() -> Vec<(&'static str, u32, ErrorCode, bool, RequestFault)> {
    use RequestFault as F;
    let length = |tag, expected, found| F::Length {
        tag,
        expected,
        found,
    };
    vec![
        (
            "bad-version",
            0x10,
            ErrorCode::VersionMismatch,
            true,
            F::Version(2),
        ),
        ("bad-past-end", 0x11, ErrorCode::Format, true, F::PastEnd),
        (
            "bad-repeated-payload",
            0x12,
            ErrorCode::Format,
            true,
            F::Repeated(Tag::Payload),
        ),
        (
            "bad-repeated-padding",
            0x13,
            ErrorCode::Format,
            true,
            F::Repeated(Tag::Padding),
        ),
        (
            "bad-opcode-two-bytes",
            0x14,
            ErrorCode::Format,
            true,
            length(Tag::Opcode, 1, 2),
        ),
        (
            "bad-opcode-empty",
            0x15,
            ErrorCode::Format,
            true,
            length(Tag::Opcode, 1, 0),
        ),
        (
            "bad-deadline-length",
            0x16,
            ErrorCode::Format,
            true,
            length(Tag::Deadline, 4, 2),
        ),
        (
            "bad-no-opcode",
            0x17,
            ErrorCode::BadOpcode,
            false,
            F::NoOpcode,
        ),
        (
            "bad-empty-body",
            0x18,
            ErrorCode::BadOpcode,
            false,
            F::NoOpcode,
        ),
        (
            "bad-unknown-opcode",
            0x19,
            ErrorCode::BadOpcode,
            false,
            F::UnknownOpcode(0x99),
        ),
        (
            "bad-answer-opcode",
            0x1A,
            ErrorCode::UnexpectedOpcode,
            false,
            F::AnswerOpcode(Opcode::Pong),
        ),
    ]
}

fn replies_both_ways() -> Vec<(&'static str, Reply<'static>)> {
    vec![
        ("reply-pong", Reply::pong(0xDEAD_BEEF, b"hello")),
        ("reply-signature", Reply::success(7, &[0x5A; 256])),
        ("reply-empty", Reply::success(8, &[])),
        ("reply-error-2", Reply::failure(9, ErrorCode::KeyNotFound)),
        (
            "reply-busy",
            Reply {
                retry_after_ms: Some(250),
                ..Reply::failure(10, ErrorCode::Busy)
            },
        ),
        (
            "reply-receipt",
            Reply {
                audit_receipt: Some(&[1, 2, 3, 4]),
                ..Reply::success(11, &[0xBE, 0xEF])
            },
        ),
        ("reply-longest-pong", Reply::pong(12, &[b'x'; 65_528])),
    ]
}

#[test]
fn requests_read_and_write_as_written_by_hand() {
    for (name, request) in requests_both_ways() {
        let bytes = golden(name);
        assert_eq!(decode_request(&bytes), Ok(request), "{name}");
        let mut out = vec![0xEE; 3];
        request.encode(&mut out).unwrap();
        assert!(out[..3] == [0xEE; 3], "{name}: encoding appends");
        assert!(out[3..] == bytes, "{name}: encoded bytes differ");
    }
}

#[test]
fn requests_of_other_senders_are_understood() {
    for (name, request) in requests_decode_only() {
        assert_eq!(decode_request(&golden(name)), Ok(request), "{name}");
    }
}

#[test]
fn refused_frames_name_the_answer_they_deserve() {
    for (name, id, code, fatal, fault) in refusals() {
        let error = decode_request(&golden(name)).expect_err(name);
        assert_eq!(
            (error.id, error.code, error.fatal, error.fault),
            (id, code, fatal, fault)
        );
    }
}

#[test]
fn replies_read_and_write_as_written_by_hand() {
    for (name, reply) in replies_both_ways() {
        let bytes = golden(name);
        assert_eq!(decode_reply(&bytes), Ok(reply), "{name}");
        let mut out = Vec::new();
        reply.encode(&mut out).unwrap();
        assert!(out == bytes, "{name}: encoded bytes differ");
    }
}

#[test]
fn replies_of_other_servers_are_understood() {
    let expected = Reply::failure(13, ErrorCode::KeyNotFound);
    assert_eq!(decode_reply(&golden("reply-c-server")), Ok(expected));
    let error = decode_reply(&golden("reply-unknown-error")).unwrap_err();
    assert_eq!(
        (error.id, error.fault),
        (14, ReplyFault::UnknownError(0x7F))
    );
    assert!(!error.fault.is_fatal());
}

/// The payloads that hold more than bytes, in the files that [`PAYLOADS`] names.
#[test]
fn payloads_read_and_write_as_written_by_hand() {
    let bytes = golden("payload-delegation");
    let request = delegation::Request {
        lifetime: 3600,
        algorithm: 0x0403,
        spki: &[0xA5; 91],
        proof: &[0x5A; 70],
    };
    assert_eq!(delegation::Request::decode(&bytes), Ok(request));
    let mut out = vec![0xEE; 3];
    request.encode(&mut out);
    assert_eq!(out, [&[0xEE; 3], &bytes[..]].concat());

    let bytes = golden("payload-credential");
    let credential = delegation::Credential {
        valid_time: 0x0001_0203,
        algorithm: 0x0403,
        spki: &[0xA5; 91],
        scheme: 0x0804,
        signature: &[0x5A; 256],
    };
    assert_eq!(delegation::Credential::decode(&bytes), Ok(credential));
    let mut out = Vec::new();
    credential.encode(&mut out);
    assert_eq!(out, bytes);

    let bytes = golden("payload-ticket-keys");
    let key = |epoch, name, key| EpochKey {
        epoch,
        name: [name; 16],
        key: [key; 32],
    };
    let keys = TicketKeys {
        now: 1_800_000_000,
        epoch_seconds: 3600,
        keys: vec![key(500_001, 0x11, 0xA1), key(500_000, 0x22, 0xB2)],
    };
    assert_eq!(TicketKeys::decode(&bytes).as_ref(), Ok(&keys));
    let mut out = Vec::new();
    keys.encode(&mut out);
    assert_eq!(out, bytes);
}

const PAYLOADS: [&str; 3] = [
    "payload-delegation",
    "payload-credential",
    "payload-ticket-keys",
];

#[test]
fn every_golden_file_is_in_a_table_above() {
    let used: BTreeSet<&str> = requests_both_ways()
        .into_iter()
        .chain(requests_decode_only())
        .map(|(name, _)| name)
        .chain(refusals().into_iter().map(|(name, ..)| name))
        .chain(replies_both_ways().into_iter().map(|(name, _)| name))
        .chain(["reply-c-server", "reply-unknown-error"])
        .chain(PAYLOADS)
        .collect();
    let found: BTreeSet<String> = fs::read_dir(directory())
        .unwrap()
        .map(|entry| {
            entry
                .unwrap()
                .path()
                .file_stem()
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(found, used.into_iter().map(str::to_owned).collect());
}
