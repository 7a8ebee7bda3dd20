//! An HTTPS server whose private key is elsewhere.
//!
//! ```text
//! cargo run -p keyserver-client --example https_edge -- \
//!     LISTEN CHAIN.pem KEY-SERVER SERVER-NAME CA.pem EDGE.pem EDGE-KEY.pem [shared|sealed]
//! cargo run -p keyserver-client --example https_edge -- \
//!     127.0.0.1:8443 shop.pem keys.internal:2407 keys.internal ca.pem edge-1.pem edge-1-key.pem
//! ```
//!
//! The edge holds the site's certificate chain, and credentials of its own for the key server:
//! everything but the site's key. `KEY-SERVER` may be several addresses with commas between them.
//! It needs the rights `tls13-sign` and `tls12-sign` for the key, and no other.
//!
//! The last argument is about resumption. Without it, sessions are resumed at the edge where they began only. With `shared`, every
//! edge with the same key server resumes them, under keys it gets from there (right `tickets`). With `sealed`, the key server seals
//! and opens the tickets itself (right `seal`).
//!
//! The signer waits for the key server, so every connection has a thread here. An async server runs
//! its handshakes inside `tokio::task::block_in_place`, or on a pool of threads.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that shows itself; it says where it listens and what failed"
)]

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use keyserver_client::{
    KeyId, RemoteKey, SealedTickets, SharedTickets, TlsIdentity, blocking::Client,
};
use rustls::server::ProducesTickets;
use rustls::sign::SingleCertAndKey;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// How often the edge asks whether its ticket keys still count: how long a revocation takes.
const REFRESH: Duration = Duration::from_secs(5);

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [
        listen,
        chain,
        servers,
        server_name,
        ca,
        edge,
        edge_key,
        resumption @ ..,
    ] = arguments.as_slice()
    else {
        return Err("seven arguments, please; the source's first lines name them".into());
    };
    let identity = TlsIdentity::from_files(ca, edge, edge_key)?;
    let builder = Client::builder(server_name, identity);
    let client = servers
        .split(',')
        .fold(builder, keyserver_client::blocking::ClientBuilder::server)
        .build()?;

    // The one line that differs from a server with its key in a file.
    let chain = std::fs::read(chain)?;
    let certified = RemoteKey::certified(client.clone(), &chain)?;

    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    if let Some(tickets) = tickets(resumption, client, KeyId::from_certificate(&chain)?)? {
        config.ticketer = tickets;
    }
    let config = Arc::new(config);

    let listener = TcpListener::bind(listen)?;
    println!("listening on {}", listener.local_addr()?);
    for stream in listener.incoming() {
        let (stream, config) = (stream?, Arc::clone(&config));
        thread::spawn(move || {
            if let Err(error) = serve(stream, config) {
                eprintln!("a connection failed: {error}");
            }
        });
    }
    Ok(())
}

/// What sessions are resumed with, if anything was said about it.
fn tickets(
    resumption: &[String],
    client: Client,
    key: KeyId,
) -> Result<Option<Arc<dyn ProducesTickets>>, Box<dyn Error>> {
    Ok(match resumption {
        [] => None,
        [how] if how == "shared" => Some(SharedTickets::start(client, key, REFRESH)?),
        [how] if how == "sealed" => Some(SealedTickets::new(client, key)),
        _ => return Err("the eighth argument is `shared` or `sealed`".into()),
    })
}

/// Answers one request and closes.
fn serve(stream: TcpStream, config: Arc<ServerConfig>) -> Result<(), Box<dyn Error>> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let connection = ServerConnection::new(config)?;
    let mut tls = BufReader::new(StreamOwned::new(connection, stream));
    let mut line = String::new();
    while tls.read_line(&mut line)? > 2 {
        line.clear();
    }
    let body = "Hello. The private key of this site is on another machine.\n";
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length:";
    let tls = tls.get_mut();
    write!(tls, "{head} {}\r\n\r\n{body}", body.len())?;
    tls.conn.send_close_notify();
    tls.flush()?;
    Ok(())
}
