//! Servers that are found by name: dnsmasq answers, servers come and go, and no signature fails.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use keyserver_client::{Event, KeyId, Observer, Pool, SignatureAlgorithm, blocking};
use keyserver_tests::fixture::free_address;
use keyserver_tests::parts;

use crate::failover::Site;

const SERVICE: &str = "_keyserver._tcp.keys.example";
const PATIENCE: Duration = Duration::from_secs(60);

/// A name server that knows what it is told on its command line, for a second. Killed when dropped.
struct NameServer(Child);

impl NameServer {
    fn start(address: SocketAddr, records: &[String]) -> Option<Self> {
        let program = parts::program_of("dnsmasq-base", "dnsmasq")?;
        let mut command = Command::new(program);
        command
            .args([
                "--keep-in-foreground",
                "--no-resolv",
                "--no-hosts",
                "--bind-interfaces",
            ])
            .args([
                "--conf-file=/dev/null",
                "--pid-file=",
                "--local-ttl=1",
                "--user=",
            ])
            .arg(format!("--listen-address={}", address.ip()))
            .arg(format!("--port={}", address.port()))
            .args(records)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let deadline = Instant::now() + PATIENCE;
        while std::net::TcpStream::connect(address).is_err() {
            assert!(Instant::now() < deadline, "dnsmasq does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(Self(child))
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A record for a service on this machine.
fn service(port: u16, priority: u16) -> String {
    weighed(port, priority, 5)
}

fn weighed(port: u16, priority: u16, weight: u16) -> String {
    format!("--srv-host={SERVICE},localhost,{port},{priority},{weight}")
}

/// Answers by server, and connections.
#[derive(Default)]
struct Watch(Mutex<HashMap<String, u32>>, AtomicU32);

impl Observer for Watch {
    fn observe(&self, event: Event<'_>) {
        match event {
            Event::Answered { server, .. } => {
                *self.0.lock().unwrap().entry(server.to_owned()).or_default() += 1;
            }
            Event::Connected { .. } => {
                self.1.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
    }
}

impl Watch {
    /// The ports of the servers that have answered since the last call, sorted.
    fn take(&self) -> Vec<u16> {
        let mut counts = self.0.lock().unwrap();
        let port = |(server, _): (String, u32)| server.rsplit_once(':').unwrap().1.parse().unwrap();
        let mut ports: Vec<u16> = counts.drain().map(port).collect();
        ports.sort_unstable();
        ports
    }

    /// How many of a hundred answers came from this port since the last call.
    fn share(&self, port: u16) -> u32 {
        let mut counts = self.0.lock().unwrap();
        let (mut own, mut all) = (0, 0);
        for (server, count) in counts.drain() {
            all += count;
            if server.ends_with(&format!(":{port}")) {
                own += count;
            }
        }
        100 * own / all
    }
}

/// One signature by each client; neither may fail.
struct Clients {
    runtime: tokio::runtime::Runtime,
    pool: (Pool, Arc<Watch>),
    blocking: (blocking::Client, Arc<Watch>),
}

impl Clients {
    fn sign(&self, key: &KeyId) {
        let (algorithm, hash) = (SignatureAlgorithm::EcdsaSha256, [7; 32]);
        let signed = self
            .runtime
            .block_on(self.pool.0.sign(key, algorithm, &hash));
        signed.unwrap_or_else(|error| panic!("Pool: {error}"));
        let signed = self.blocking.0.sign(key, algorithm, &hash);
        signed.unwrap_or_else(|error| panic!("blocking::Client: {error}"));
    }

    /// Signs until each client is served by these ports alone, all of them.
    fn sign_until_served_by(&self, key: &KeyId, ports: &[u16]) {
        let deadline = Instant::now() + PATIENCE;
        for watch in [&self.pool.1, &self.blocking.1] {
            let mut wanted = ports.to_vec();
            wanted.sort_unstable();
            watch.take();
            loop {
                let until = Instant::now() + Duration::from_millis(500);
                while Instant::now() < until {
                    self.sign(key);
                }
                let served_by = watch.take();
                if served_by == wanted {
                    break;
                }
                assert!(Instant::now() < deadline, "{served_by:?}, not {wanted:?}");
            }
        }
    }
}

/// Clients with the settings that `name` adds to both builders.
macro_rules! clients {
    ($site:expr, $name_server:expr, $method:ident, $name:expr) => {{
        let (one, other) = (Arc::new(Watch::default()), Arc::new(Watch::default()));
        let (pool, single) = (one.clone(), other.clone());
        let runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = { runtime }.worker_threads(1).enable_all().build().unwrap();
        let builder = Pool::builder("localhost", $site.identity()).observer(one);
        let builder = builder.$method($name).name_server($name_server);
        let connected = builder.deadline(Duration::from_secs(20)).connect();
        let connected = runtime.block_on(connected).unwrap();
        let builder = blocking::Client::builder("localhost", $site.identity());
        let builder = builder
            .observer(other)
            .$method($name)
            .name_server($name_server);
        let blocking = builder.deadline(Duration::from_secs(20)).build().unwrap();
        Clients {
            runtime,
            pool: (connected, pool),
            blocking: (blocking, single),
        }
    }};
}

#[test]
fn services_come_and_go_with_their_records() {
    let mut site = Site::new(3);
    for config in &mut site.configs {
        config.extra = "[shutdown]\nspread = \"0s\"\nlimit = \"5s\"\n".into();
    }
    let ports = [0, 1, 2].map(|index: usize| site.configs[index].address.port());
    let [first, second, third] = [0, 1, 2].map(|index| site.start(index));
    let name_server = free_address();
    // The third is of a lower rank than the others.
    let records = [
        service(ports[0], 1),
        service(ports[1], 1),
        service(ports[2], 9),
    ];
    let Some(dns) = NameServer::start(name_server, &records) else {
        return;
    };
    let clients = clients!(site, name_server, service, SERVICE);
    clients.sign_until_served_by(&site.key, &ports[..2]);

    // The first is taken out of the records, and stopped once nobody uses it.
    drop(dns);
    let dns = NameServer::start(name_server, &records[1..]);
    clients.sign_until_served_by(&site.key, &ports[1..2]);
    assert!(first.stop().success());
    clients.sign(&site.key);

    // Without a name server everything stays as it is; and the one of a lower rank is there.
    drop(dns);
    clients.sign_until_served_by(&site.key, &ports[1..2]);
    assert!(second.stop().success());
    clients.sign_until_served_by(&site.key, &ports[2..]);
    drop(third);
}

/// RFC 2782. Other weights change shares and no connection.
#[test]
fn calls_are_shared_by_the_weights_of_the_records() {
    let site = Site::new(2);
    let _servers = [site.start(0), site.start(1)];
    let ports = [0, 1].map(|index: usize| site.configs[index].address.port());
    let name_server = free_address();
    let records = |one, two| [weighed(ports[0], 1, one), weighed(ports[1], 1, two)];
    let Some(dns) = NameServer::start(name_server, &records(9, 1)) else {
        return;
    };
    let clients = clients!(site, name_server, service, SERVICE);
    let until_the_first_has = |shares: std::ops::Range<u32>| {
        let deadline = Instant::now() + PATIENCE;
        let watches = [&clients.pool.1, &clients.blocking.1];
        loop {
            watches.iter().for_each(|watch| drop(watch.take()));
            for _ in 0..400 {
                clients.sign(&site.key);
            }
            let found = watches.map(|watch| watch.share(ports[0]));
            if found.iter().all(|share| shares.contains(share)) {
                return;
            }
            assert!(Instant::now() < deadline, "{found:?}, not {shares:?}");
        }
    };
    until_the_first_has(82..97);
    drop(dns);
    let _dns = NameServer::start(name_server, &records(1, 4));
    until_the_first_has(12..28);
    for watch in [&clients.pool.1, &clients.blocking.1] {
        assert_eq!(watch.1.load(Ordering::Relaxed), 2);
    }
}

/// Sixty records do not fit a packet, so the answer comes over TCP.
#[test]
fn a_long_answer_comes_over_tcp() {
    let site = Site::new(1);
    let _server = site.start(0);
    let address = site.configs[0].address;
    let name_server = free_address();
    let others = (0..60).map(|_| service(free_address().port(), 1));
    let records: Vec<String> = others.chain([service(address.port(), 1)]).collect();
    let Some(_dns) = NameServer::start(name_server, &records) else {
        return;
    };
    let clients = clients!(site, name_server, service, SERVICE);
    clients.sign_until_served_by(&site.key, &[address.port()]);
}

#[test]
fn every_address_of_a_name_is_a_server() {
    let mut site = Site::new(2);
    let one = site.configs[0].address;
    site.configs[1].address = SocketAddr::new([127, 0, 0, 2].into(), one.port());
    let _servers = [site.start(0), site.start(1)];
    let name_server = free_address();
    let records = [
        "--host-record=keys.example,127.0.0.1",
        "--host-record=keys.example,127.0.0.2",
    ];
    let Some(_dns) = NameServer::start(name_server, &records.map(String::from)) else {
        return;
    };
    let name = format!("keys.example:{}", one.port());
    let clients = clients!(site, name_server, every_address, &name);
    // Both have the same port, and are told apart by their address.
    let deadline = Instant::now() + PATIENCE;
    loop {
        clients.sign(&site.key);
        let both = |watch: &Watch| watch.0.lock().unwrap().len() == 2;
        if both(&clients.pool.1) && both(&clients.blocking.1) {
            break;
        }
        assert!(
            Instant::now() < deadline,
            "one of two servers is never asked"
        );
    }
}

#[test]
fn a_name_that_does_not_exist_is_an_error_at_once() {
    let site = Site::new(1);
    let name_server = free_address();
    let Some(_dns) = NameServer::start(name_server, &["--local=/example/".into()]) else {
        return;
    };
    let begun = Instant::now();
    let client = blocking::Client::builder("localhost", site.identity())
        .service(SERVICE)
        .name_server(name_server)
        .deadline(PATIENCE)
        .build()
        .unwrap();
    let error = client.ping(b"x").unwrap_err();
    assert!(error.to_string().contains(SERVICE), "{error}");
    assert!(begun.elapsed() < PATIENCE / 2, "{:?}", begun.elapsed());
}

/// In whichever order they are given, and although the other does not exist.
#[test]
fn one_service_of_two_is_enough_to_begin() {
    let site = Site::new(1);
    let _server = site.start(0);
    let name_server = free_address();
    let records = [service(site.configs[0].address.port(), 1)];
    let Some(_dns) = NameServer::start(name_server, &records) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let absent = "_absent._tcp.keys.example";
    for [first, second] in [[absent, SERVICE], [SERVICE, absent]] {
        let builder = Pool::builder("localhost", site.identity()).deadline(PATIENCE);
        let builder = builder.service(first).service(second);
        let connected = runtime.block_on(builder.name_server(name_server).connect());
        let pool = connected.unwrap_or_else(|error| panic!("{first} first: {error}"));
        assert_eq!(runtime.block_on(pool.keys()).unwrap().len(), 1);
    }
}
