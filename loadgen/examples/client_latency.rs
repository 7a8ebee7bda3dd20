//! What the clients of the library add to the time that a server and the network take.
//!
//! ```text
//! cargo run --release -p loadgen --example client_latency -- ADDRESS:PORT NAME CA.pem EDGE.pem EDGE-KEY.pem
//! ```
//!
//! The floor is a connection driven by hand over a blocking socket: one write, one read, nothing
//! else. The clients take turns with it, in one run against one server, so that what else the machine
//! does falls on all alike. Signs with the first P-256 key of the server, and prints one line, medians in
//! microseconds: `{"by hand": …, "Client": …, "Pool": …, "blocking::Client": …}`.
//! `tests/perf/edges.py` uses it.
#![expect(clippy::print_stdout, reason = "a program whose output is a result")]

use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use keyserver_client::{
    Client, Connection, KeyId, Opcode, Pool, Request, SignatureAlgorithm, TlsIdentity, blocking,
};

/// Turns, and calls of each way in a turn.
const TURNS: usize = 40;
const CALLS: usize = 100;

const HASH: [u8; 32] = [7; 32];
const P256: SignatureAlgorithm = SignatureAlgorithm::EcdsaSha256;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// A connection driven by hand.
struct Floor {
    stream: TcpStream,
    connection: Connection,
    out: Vec<u8>,
    id: u32,
}

impl Floor {
    fn new(address: &str, name: &str, identity: &TlsIdentity) -> Outcome<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            connection: Connection::new(identity, name)?,
            out: Vec::new(),
            id: 0,
        })
    }

    fn sign(&mut self, key: KeyId) -> Outcome<()> {
        self.id += 1;
        let request = Request {
            ski: Some(key.ski()),
            payload: &HASH,
            ..Request::new(self.id, Opcode::EcdsaSignSha256)
        };
        self.connection.submit(&request)?;
        loop {
            self.out.clear();
            self.connection.transmit(&mut self.out)?;
            self.stream.write_all(&self.out)?;
            let read = self.stream.read(self.connection.read_space())?;
            self.connection.received(read)?;
            if let Some(reply) = self.connection.next_reply() {
                return match reply.outcome {
                    Ok(_) if reply.id == self.id => Ok(()),
                    other => Err(format!("an answer to {}: {other:?}", reply.id).into()),
                };
            }
        }
    }
}

/// How long something takes, `CALLS` times.
fn timed(taken: &mut Vec<Duration>, mut call: impl FnMut() -> Outcome<()>) -> Outcome<()> {
    for _ in 0..CALLS {
        let begun = Instant::now();
        call()?;
        taken.push(begun.elapsed());
    }
    Ok(())
}

fn median_us(mut taken: Vec<Duration>) -> u128 {
    taken.sort_unstable();
    taken
        .get(taken.len() / 2)
        .map_or(0, |median| median.as_micros())
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, name, ca, edge, edge_key] = arguments.as_slice() else {
        return Err("five arguments, please; the source's first lines name them".into());
    };
    let identity = TlsIdentity::from_files(ca, edge, edge_key)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let pool = Pool::builder(name, identity.clone()).server(address);
    let pool = runtime.block_on(pool.connect())?;
    let client = runtime.block_on(Client::builder(address, name, identity.clone()).connect())?;
    let blocking = blocking::Client::builder(name, identity.clone()).server(address);
    let blocking = blocking.build()?;
    let mut floor = Floor::new(address, name, &identity)?;
    let keys = runtime.block_on(pool.keys())?;
    let key = KeyId::try_from(keys.first().ok_or("the server grants no key")?)?;

    let mut taken: [Vec<Duration>; 4] = Default::default();
    for _ in 0..TURNS {
        let [by_hand, by_client, by_pool, by_blocking] = &mut taken;
        timed(by_hand, || floor.sign(key))?;
        timed(by_client, || {
            drop(runtime.block_on(client.sign(&key, P256, &HASH))?);
            Ok(())
        })?;
        timed(by_pool, || {
            drop(runtime.block_on(pool.sign(&key, P256, &HASH))?);
            Ok(())
        })?;
        timed(by_blocking, || {
            drop(blocking.sign(&key, P256, &HASH)?);
            Ok(())
        })?;
    }
    let [by_hand, client, pool, blocking] = taken.map(median_us);
    println!(
        "{{\"by hand\": {by_hand}, \"Client\": {client}, \"Pool\": {pool}, \
         \"blocking::Client\": {blocking}}}"
    );
    Ok(())
}
