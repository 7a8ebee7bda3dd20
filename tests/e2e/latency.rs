//! What the clients add to the time that the server and the loopback take.
//!
//! The floor is a connection driven by hand over a blocking socket: one write, one read, nothing
//! else. The clients are measured in turns with it, in one run against one server, so that what else
//! the machine does falls on all alike. The test prints the figures; with `KEYSERVER_TIMING=1` it
//! asserts the published one:
//!
//! ```text
//! KEYSERVER_TIMING=1 cargo nextest run --release -p keyserver-tests --test e2e latency --no-capture
//! ```

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use keyserver_client::{
    Client, Connection, KeyId, Opcode, Pool, Request, SignatureAlgorithm, TlsIdentity, blocking,
};
use keyserver_tests::KeyKind;

use crate::World;

/// Turns, and calls of each way in a turn.
const TURNS: usize = 20;
const CALLS: usize = 50;
/// What a client may add to the floor, at the median.
const ADDED_MAX: Duration = Duration::from_micros(60);

const HASH: [u8; 32] = [7; 32];
const P256: SignatureAlgorithm = SignatureAlgorithm::EcdsaSha256;

/// A connection driven by hand.
struct Floor {
    stream: TcpStream,
    connection: Connection,
    out: Vec<u8>,
    id: u32,
}

impl Floor {
    fn new(world: &World) -> Self {
        let stream = TcpStream::connect(world.server.address()).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            connection: Connection::new(&world.identity(), "localhost").unwrap(),
            out: Vec::new(),
            id: 0,
        }
    }

    fn sign(&mut self, key: KeyId) {
        self.id += 1;
        let request = Request {
            ski: Some(key.ski()),
            payload: &HASH,
            ..Request::new(self.id, Opcode::EcdsaSignSha256)
        };
        self.connection.submit(&request).unwrap();
        loop {
            self.out.clear();
            self.connection.transmit(&mut self.out).unwrap();
            self.stream.write_all(&self.out).unwrap();
            let read = self.stream.read(self.connection.read_space()).unwrap();
            self.connection.received(read).unwrap();
            if let Some(reply) = self.connection.next_reply() {
                assert_eq!(reply.id, self.id);
                reply.outcome.unwrap();
                return;
            }
        }
    }
}

/// How long something takes, `CALLS` times.
fn timed(taken: &mut Vec<Duration>, mut call: impl FnMut()) {
    for _ in 0..CALLS {
        let begun = Instant::now();
        call();
        taken.push(begun.elapsed());
    }
}

fn median(mut taken: Vec<Duration>) -> Duration {
    taken.sort_unstable();
    taken[taken.len() / 2]
}

async fn clients(world: &World, identity: &TlsIdentity) -> (Client, Pool, blocking::Client) {
    let address = world.server.address().to_string();
    let single = world.client().await;
    let pool = Pool::builder("localhost", identity.clone()).server(&address);
    let blocking = blocking::Client::builder("localhost", identity.clone()).server(&address);
    let deadline = Duration::from_secs(30);
    let pool = pool.deadline(deadline).connect().await.unwrap();
    (single, pool, blocking.deadline(deadline).build().unwrap())
}

#[test]
fn the_clients_add_little_to_the_latency() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let world = World::new("epoll", &[KeyKind::P256]);
    let identity = world.identity();
    let (single, pool, blocking) = runtime.block_on(clients(&world, &identity));
    let key = runtime.block_on(pool.keys()).unwrap();
    let key = KeyId::try_from(&key[0]).unwrap();
    let mut floor = Floor::new(&world);
    let mut taken: [Vec<Duration>; 4] = Default::default();
    for _ in 0..TURNS {
        let [by_hand, by_client, by_pool, by_blocking] = &mut taken;
        timed(by_hand, || floor.sign(key));
        timed(by_client, || {
            drop(runtime.block_on(single.sign(&key, P256, &HASH)).unwrap())
        });
        timed(by_pool, || {
            drop(runtime.block_on(pool.sign(&key, P256, &HASH)).unwrap())
        });
        timed(by_blocking, || {
            drop(blocking.sign(&key, P256, &HASH).unwrap())
        });
    }
    let [floor, client, pool, blocking] = taken.map(median);
    println!("median of a P-256 signature: {floor:?} by hand");
    for (name, median) in [
        ("Client", client),
        ("Pool", pool),
        ("blocking::Client", blocking),
    ] {
        let added = median.saturating_sub(floor);
        println!("{name}: {median:?}, {added:?} more");
        let asserted = std::env::var_os("KEYSERVER_TIMING").is_some();
        assert!(!asserted || added <= ADDED_MAX, "{name} adds {added:?}");
    }
}
