//! Full TLS 1.3 handshakes with a server, as many as it makes: what a proxy can do in a second.
//!
//! ```text
//! cargo run --release -p loadgen --example handshakes -- CA.pem ADDRESS:PORT THREADS SECONDS
//! ```
//!
//! Each thread connects, shakes hands, checks the certificate for `localhost` and the signature, closes,
//! and begins again; no session is ever resumed. After a second of warm-up it prints `measuring`, and in
//! the end one line: `{"handshakes": …, "failed": …, "seconds": …}`. `tests/perf/edges.py` uses it.
#![expect(clippy::print_stdout, reason = "a program whose output is a result")]

use std::error::Error;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};

const WARM_UP: Duration = Duration::from_secs(1);
/// A server that does not answer for so long has failed the handshake.
const LIMIT: Duration = Duration::from_secs(10);

/// What the threads have counted so far.
#[derive(Default)]
struct Counts {
    handshakes: AtomicU64,
    failed: AtomicU64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [ca, address, threads, seconds] = arguments.as_slice() else {
        return Err("four arguments, please; the source's first lines name them".into());
    };
    let (address, threads) = (address.parse()?, threads.parse::<usize>()?);
    let seconds = Duration::from_secs(seconds.parse()?);
    let config = Arc::new(client_config(ca)?);

    let counts = Counts::default();
    let until = Instant::now() + WARM_UP + seconds;
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| work(address, &config, until, &counts));
        }
        thread::sleep(WARM_UP);
        let (begun, before) = (Instant::now(), counts.handshakes.load(Ordering::Relaxed));
        println!("measuring");
        thread::sleep(until.saturating_duration_since(begun));
        let made = counts.handshakes.load(Ordering::Relaxed) - before;
        let failed = counts.failed.load(Ordering::Relaxed);
        let took = begun.elapsed().as_secs_f64();
        println!("{{\"handshakes\": {made}, \"failed\": {failed}, \"seconds\": {took}}}");
    });
    Ok(())
}

/// Trusts `ca` alone, remembers no session, and offers the one group that servers of today all have,
/// so that every server does the same work.
fn client_config(ca: &str) -> Result<ClientConfig, Box<dyn Error>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca)?)?;
    let mut provider = default_provider();
    provider.kx_groups = vec![kx_group::X25519];
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn work(address: SocketAddr, config: &Arc<ClientConfig>, until: Instant, counts: &Counts) {
    while Instant::now() < until {
        let counter = match handshake(address, config) {
            Ok(()) => &counts.handshakes,
            Err(_) => &counts.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

fn handshake(address: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    let mut tls = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
    while tls.is_handshaking() || tls.wants_write() {
        tls.complete_io(&mut stream)?;
    }
    tls.send_close_notify();
    tls.complete_io(&mut stream).map(drop)
}
