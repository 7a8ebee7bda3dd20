//! No request allocates memory once the server is warm: not on its I/O thread, and not on its
//! crypto thread.
//!
//! A real server, in this process, under an allocator that counts. One client sends turns of
//! requests, each turn in one record of TLS, and waits for its answers. rustls, which opens and
//! seals the records, allocates for each of them:
//!
//! - the plaintext of a record that came is a vector;
//! - the buffer that a record is gathered in grows by 4 KiB at a time, and shrinks after it;
//! - the ciphertext of a record that goes is a vector.
//!
//! That is per record and its length, and it is all there may be: nothing per request.

#![cfg(feature = "trial")]
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    reason = "test helpers fail the test; the lints exempt only the test functions themselves"
)]

#[path = "../common/mod.rs"]
mod common;
mod counting;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::{fs, time::Duration};

use common::{MINIMAL, Site, params};
use counting::allocations_of;
use keyless_protocol::Ski;
use keyserver::config::Config;
use keyserver::{Server, clock};
use keyserver_client::{Connection, KeyId, Opcode, Request, TlsIdentity};
use rcgen::{ExtendedKeyUsagePurpose, SanType};

const RSA: &str = include_str!("../../../accel/tests/keys/rsa2048.pkcs8.pem");

/// Requests of a small and of a large turn. Frames have 1,024 bytes, so the large one, too, fits
/// one record, which holds 16 KiB, and one read.
const TURNS_OF: [u32; 2] = [1, 14];
const FRAME_BYTES: u64 = 1024;

/// What rustls takes from a read at a time.
const STEP_BYTES: u64 = 4096;

/// Turns before anything is counted: buffers grow to their size, jobs are made.
const WARM_UP: u32 = 50;
const TURNS: u32 = 200;

/// Allocations that have nothing to do with requests.
const SLACK: u64 = 40;

/// What an I/O thread does by the clock allocates this often: a look at every connection.
const BY_THE_CLOCK: Duration = keyserver::limits::SWEEP_INTERVAL;

/// A client that works as a test wants: a turn at a time.
struct Edge {
    connection: Connection,
    stream: TcpStream,
    out: Vec<u8>,
    records: Records,
}

/// Counts the records in a stream of TLS: a type, a version, a length of two bytes, and so many
/// bytes (RFC 8446, section 5.1).
#[derive(Default)]
struct Records {
    count: u64,
    header: Vec<u8>,
    left: usize,
}

impl Records {
    fn see(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let body = self.left.min(bytes.len());
            self.left -= body;
            bytes = &bytes[body..];
            let header = bytes.len().min(5 - self.header.len());
            self.header.extend_from_slice(&bytes[..header]);
            bytes = &bytes[header..];
            if let [_, _, _, high, low] = self.header[..] {
                self.left = usize::from(u16::from_be_bytes([high, low]));
                self.count += 1;
                self.header.clear();
            }
        }
    }
}

impl Edge {
    fn connect(site: &Site, address: SocketAddr) -> Self {
        let mut edge = params("edge-1");
        edge.subject_alt_names = vec![SanType::DnsName("edge-1".try_into().unwrap())];
        edge.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let (certificate, key) = site.issue(edge);
        site.write("edge.pem", &certificate.pem());
        site.write_private("edge-key.pem", &key.serialize_pem());
        let identity = TlsIdentity::from_files(
            site.path("pki/ca.pem"),
            site.path("edge.pem"),
            site.path("edge-key.pem"),
        );
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        let limit = Some(Duration::from_secs(30));
        stream.set_read_timeout(limit).unwrap();
        Self {
            connection: Connection::new(&identity.unwrap(), "localhost").unwrap(),
            stream,
            out: Vec::new(),
            records: Records::default(),
        }
    }

    /// Asks `count` times in one write and waits until every answer is there and right.
    fn turn(&mut self, count: u32, ask: Ask) {
        for id in 0..count {
            self.connection.submit(&ask.request(id)).unwrap();
        }
        let mut answered = 0;
        while answered < count {
            self.out.clear();
            self.connection.transmit(&mut self.out).unwrap();
            self.stream.write_all(&self.out).unwrap();
            let space = self.connection.read_space();
            let length = self.stream.read(space).unwrap();
            assert_ne!(length, 0, "the server has closed");
            self.records.see(&space[..length]);
            self.connection.received(length).unwrap();
            while let Some(reply) = self.connection.next_reply() {
                let answer = reply.outcome.unwrap();
                assert!(!answer.is_empty());
                answered += 1;
            }
        }
    }
}

/// What a turn asks for.
#[derive(Clone, Copy)]
struct Ask {
    name: &'static str,
    opcode: Opcode,
    ski: Option<Ski>,
}

impl Ask {
    fn request(&self, id: u32) -> Request<'static> {
        Request {
            ski: self.ski,
            payload: &[7; 32],
            extended: true,
            deadline_us: Some(60_000_000),
            ..Request::new(id, self.opcode)
        }
    }
}

/// The thread of this process with this name. A thread names itself when it begins to run.
fn thread(name: &str) -> i32 {
    let began = clock::now();
    loop {
        let tasks = fs::read_dir("/proc/self/task").unwrap();
        let named = tasks.map(|task| task.unwrap().path()).find(|task| {
            // A thread may have ended since the directory was read.
            fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim_end() == name)
        });
        if let Some(task) = named {
            return task.file_name().unwrap().to_str().unwrap().parse().unwrap();
        }
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "no thread {name}"
        );
    }
}

/// What `TURNS` turns of `count` requests cost.
#[derive(Debug)]
struct Cost {
    /// Allocations on the I/O thread.
    io: u64,
    /// Allocations on the crypto thread.
    crypto: u64,
    /// Records that carried the answers.
    records: u64,
    /// Looks at the clock meanwhile: many on a machine that is busy with something else.
    looks: u64,
}

fn cost(edge: &mut Edge, [io, crypto]: [i32; 2], count: u32, ask: Ask) -> Cost {
    (0..WARM_UP).for_each(|_| edge.turn(count, ask));
    let began = clock::now();
    let looks = || began.elapsed().as_nanos() / BY_THE_CLOCK.as_nanos();
    let so_far = |edge: &Edge| Cost {
        looks: u64::try_from(looks()).unwrap(),
        io: allocations_of(io),
        crypto: allocations_of(crypto),
        records: edge.records.count,
    };
    let before = so_far(edge);
    (0..TURNS).for_each(|_| edge.turn(count, ask));
    let after = so_far(edge);
    Cost {
        io: after.io - before.io,
        crypto: after.crypto - before.crypto,
        records: after.records - before.records,
        looks: after.looks,
    }
}

/// One test in this file: a second server in this process would have threads of the same names.
#[test]
fn a_request_allocates_nothing() {
    for backend in ["epoll", "uring"] {
        let site = Site::new();
        let p256 = site.add_key("p256");
        site.write_private("keys/rsa.key", RSA);
        site.configure(&format!(
            "{MINIMAL}\n[io]\nbackend = \"{backend}\"\nthreads = 1\n[accel]\nthreads = 1\n\
             [limits]\njob_deadline = \"60s\"\nqueue_time = \"60s\"\n"
        ));
        let server = Server::start(Config::load(&site.config()).unwrap()).unwrap();
        let threads = [thread("io-0"), thread("crypto-0")];
        let mut edge = Edge::connect(&site, server.local_addr());
        let rsa = accel::Key::from_bytes(RSA.as_bytes()).unwrap();
        let p256 = rcgen::PublicKeyData::subject_public_key_info(&p256);
        let ask = |name, opcode, ski| Ask { name, opcode, ski };
        let asks = [
            ask("ping", Opcode::Ping, None),
            ask(
                "P-256",
                Opcode::EcdsaSignSha256,
                Some(KeyId::from_public_key(&p256).unwrap().ski()),
            ),
            ask("RSA-2048", Opcode::RsaPssSignSha256, Some(rsa.ski())),
        ];
        for ask in asks {
            for count in TURNS_OF {
                let cost = cost(&mut edge, threads, count, ask);
                let what = format!("{backend}, {TURNS} turns of {count} x {}", ask.name);
                println!("{what}: {cost:?}");
                // The plaintext of the requests' record, and the steps it comes in; the
                // ciphertext of each record of answers.
                let opened = 1 + u64::from(count) * FRAME_BYTES / STEP_BYTES;
                let allowed = u64::from(TURNS) * opened + cost.records + cost.looks + SLACK;
                assert!(
                    cost.io <= allowed,
                    "{what}: {cost:?}, allowed are {allowed}"
                );
                assert!(cost.crypto <= SLACK, "{what}: {cost:?}");
            }
        }
        server.stop();
    }
}
