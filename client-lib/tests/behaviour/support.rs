// A scripted key server for the tests of the client, in the same process.
//
// It shares no code with the client or the codec: frames are taken apart and put together by hand
// here, from the description of the protocol alone. A script says, frame by frame, what goes back:
// the right answer, a late one, half of one, garbage, or nothing. The doc tests use it too, by
// `include!`, which is why this comment is a plain one.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use keyserver_client::{Client, ClientBuilder, TlsIdentity};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::io::{Read, Write};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;

/// The key that the scripted servers hold.
pub const KEY: [u8; 20] = [0x5a; 20];

/// An authority, and PEM of what it signed.
pub struct Pki {
    ca: Issuer<'static, KeyPair>,
    pub ca_pem: String,
}

impl Pki {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_pem = params.self_signed(&key).unwrap().pem();
        Self {
            ca: Issuer::new(params, key),
            ca_pem,
        }
    }

    /// Certificate and key, both PEM.
    pub fn issue(&self, name: &str, usage: ExtendedKeyUsagePurpose) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        (
            params.signed_by(&key, &self.ca).unwrap().pem(),
            key.serialize_pem(),
        )
    }

    pub fn identity(&self) -> TlsIdentity {
        let (chain, key) = self.issue("edge-1", ExtendedKeyUsagePurpose::ClientAuth);
        TlsIdentity::from_pem(self.ca_pem.as_bytes(), chain.as_bytes(), key.as_bytes()).unwrap()
    }

    pub fn server_config(
        &self,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> ServerConfig {
        use rustls_pki_types::CertificateDer;
        use rustls_pki_types::pem::PemObject;
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(self.ca_pem.as_bytes()).unwrap())
            .unwrap();
        let (chain, key) = self.issue("localhost", ExtendedKeyUsagePurpose::ServerAuth);
        let key = KeyPair::from_pem(&key).unwrap().serialize_der();
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.cipher_suites.retain(|suite| {
            use rustls::CipherSuite as Suite;
            suite.tls13().is_some()
                || matches!(
                    suite.suite(),
                    Suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
                        | Suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
                )
        });
        let provider = Arc::new(provider);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
        ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()],
                PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key)),
            )
            .unwrap()
    }
}

/// A request, taken apart by hand.
#[derive(Clone, Debug)]
pub struct Frame {
    pub connection: usize,
    pub id: u32,
    pub opcode: u8,
    pub payload: Vec<u8>,
    pub ski: Vec<u8>,
    pub tags: Vec<u8>,
    /// The whole frame's length, header included.
    pub length: usize,
}

impl Frame {
    /// The first whole frame of `bytes`.
    fn parse(connection: usize, bytes: &[u8]) -> Option<Self> {
        let body_len = usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().unwrap()));
        let id = u32::from_be_bytes(bytes.get(4..8)?.try_into().unwrap());
        let mut body = bytes.get(8..8 + body_len)?;
        assert_eq!(bytes[..2], [1, 0], "version");
        let length = 8 + body_len;
        let (mut opcode, mut payload, mut ski, mut tags) = (0, Vec::new(), Vec::new(), Vec::new());
        while let [tag, high, low, rest @ ..] = body {
            let (value, rest) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])));
            match tag {
                0x04 => ski = value.to_vec(),
                0x11 => opcode = value[0],
                0x12 => payload = value.to_vec(),
                _ => {}
            }
            tags.push(*tag);
            body = rest;
        }
        assert!(body.is_empty(), "trailing bytes");
        Some(Self {
            connection,
            id,
            opcode,
            payload,
            ski,
            tags,
            length,
        })
    }
}

/// A reply frame of at least `least` bytes.
pub fn reply_padded(id: u32, opcode: u8, payload: &[u8], least: usize) -> Vec<u8> {
    let mut body = vec![0x11, 0, 1, opcode];
    if !payload.is_empty() {
        body.push(0x12);
        body.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        body.extend(payload);
    }
    if 8 + body.len() < least {
        let padding = least.saturating_sub(8 + body.len() + 3);
        body.push(0x20);
        body.extend(u16::try_from(padding).unwrap().to_be_bytes());
        body.resize(body.len() + padding, 0);
    }
    let mut frame = vec![1, 0];
    frame.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    frame.extend(id.to_be_bytes());
    frame.extend(body);
    frame
}

pub fn reply(id: u32, opcode: u8, payload: &[u8]) -> Vec<u8> {
    reply_padded(id, opcode, payload, 1024)
}

pub fn refusal(id: u32, code: u8) -> Vec<u8> {
    reply(id, 0xff, &[code])
}

/// What a "signature" of the scripted servers looks like: everything that went into it.
pub fn signed(frame: &Frame) -> Vec<u8> {
    [&[frame.opcode], &frame.ski[..], &frame.payload[..]].concat()
}

/// One step of a script.
pub enum Act {
    /// Send this plaintext in one piece.
    Send(Vec<u8>),
    /// Send this plaintext a byte at a time, each in a record and a write of its own.
    Drip(Vec<u8>),
    /// Do nothing for a while.
    Wait(Duration),
    /// Send bytes past TLS.
    Raw(Vec<u8>),
    /// Close in an orderly way.
    Close,
    /// Cut the connection.
    Cut,
}

/// Decides what happens after a frame.
pub type Script = Arc<dyn Fn(&Frame) -> Vec<Act> + Send + Sync>;

/// The right answer of a stock server (the table's stock column), in frames of `least` bytes.
pub fn stock_answer(frame: &Frame, least: usize) -> Vec<u8> {
    let refusal = |code| reply_padded(frame.id, 0xff, &[code], least);
    match frame.opcode {
        0xf1 => reply_padded(frame.id, 0xf2, &frame.payload, least),
        0x01..=0x07 | 0x12..=0x18 | 0x35..=0x37 => {
            if frame.ski.len() != 20 {
                refusal(8)
            } else if frame.ski != KEY {
                refusal(2)
            } else {
                reply_padded(frame.id, 0xf0, &signed(frame), least)
            }
        }
        0x21..=0x23 => refusal(8),
        0xf0 | 0xff => refusal(6),
        _ => refusal(5),
    }
}

/// What a server that knows our additions says about itself.
pub const INFO: &str = r#"{"server":"keyserver","version":"9.9.9","protocol":"1.0",
    "capabilities":["deadline"],"opcodes":[18,241],"state":"serving","news":true,
    "limits":{"in_flight_per_connection":256,"body_bytes":65535}}"#;

/// The right answer of a server that knows our additions.
pub fn extended_answer(frame: &Frame) -> Vec<u8> {
    let key = |label: &str| {
        format!(
            r#"{{"ski":"{}","key_type":"p-256","spki":"","operations":["sign-digest"],
                "label":"{label}"}}"#,
            "5a".repeat(20)
        )
    };
    match frame.opcode {
        0x47 => reply(frame.id, 0xf0, INFO.as_bytes()),
        0x48 if frame.payload.is_empty() => {
            let page = format!(r#"{{"keys":[{}],"next":1}}"#, key("first"));
            reply(frame.id, 0xf0, page.as_bytes())
        }
        0x48 => {
            assert_eq!(frame.payload, [0, 0, 0, 1]);
            reply(
                frame.id,
                0xf0,
                format!(r#"{{"keys":[{}]}}"#, key("second")).as_bytes(),
            )
        }
        0x08 => reply(frame.id, 0xf0, &signed(frame)),
        _ => stock_answer(frame, 1024),
    }
}

/// Where nobody listens: tcpmux. A port that was just free may be another test's by now.
pub const NOBODY: &str = "127.0.0.1:1";

/// A socket that shares its address with others of this process.
fn socket_at(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseport(true).unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

/// A server that follows a script.
pub struct Server {
    pub pki: Arc<Pki>,
    address: SocketAddr,
    /// Has the address while the server is stopped: nobody else's server is found there.
    _reserved: TcpSocket,
    tls: Arc<ServerConfig>,
    script: Script,
    shared: Arc<Shared>,
    alive: watch::Sender<bool>,
}

#[derive(Default)]
struct Shared {
    connections: AtomicUsize,
    /// Connections that the client ended with a TLS close.
    goodbyes: AtomicUsize,
    frames: Mutex<Vec<Frame>>,
}

impl Server {
    pub async fn new(
        versions: &[&'static rustls::SupportedProtocolVersion],
        script: impl Fn(&Frame) -> Vec<Act> + Send + Sync + 'static,
    ) -> Self {
        Self::under(Arc::new(Pki::new()), versions, script).await
    }

    async fn under(
        pki: Arc<Pki>,
        versions: &[&'static rustls::SupportedProtocolVersion],
        script: impl Fn(&Frame) -> Vec<Act> + Send + Sync + 'static,
    ) -> Self {
        let tls = Arc::new(pki.server_config(versions));
        let reserved = socket_at("127.0.0.1:0".parse().unwrap());
        let address = reserved.local_addr().unwrap();
        let listener = socket_at(address).listen(1024).unwrap();
        let (alive, _) = watch::channel(true);
        let shared = Arc::default();
        let server = Self {
            pki,
            address,
            _reserved: reserved,
            tls,
            script: Arc::new(script),
            shared,
            alive,
        };
        server.listen(listener);
        server
    }

    /// TLS 1.2 with ECDHE and AES-256-GCM only, frames of at least 1027 bytes, nothing beyond
    /// version 1 of the protocol.
    pub async fn stock() -> Self {
        Self::new(&[&rustls::version::TLS12], |frame| {
            vec![Act::Send(stock_answer(frame, 1027))]
        })
        .await
    }

    /// Knows our additions, and speaks TLS 1.3.
    pub async fn extended() -> Self {
        Self::scripted(|_| None).await
    }

    /// Knows our additions; `script` may decide otherwise for single frames.
    pub async fn scripted(
        script: impl Fn(&Frame) -> Option<Vec<Act>> + Send + Sync + 'static,
    ) -> Self {
        Self::scripted_under(&Arc::new(Pki::new()), script).await
    }

    /// As [`Self::scripted`], with a certificate of the authority of another server.
    pub async fn scripted_under(
        pki: &Arc<Pki>,
        script: impl Fn(&Frame) -> Option<Vec<Act>> + Send + Sync + 'static,
    ) -> Self {
        Self::under(Arc::clone(pki), &[&rustls::version::TLS13], move |frame| {
            script(frame).unwrap_or_else(|| vec![Act::Send(extended_answer(frame))])
        })
        .await
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    pub fn identity(&self) -> TlsIdentity {
        self.pki.identity()
    }

    pub fn builder(&self) -> ClientBuilder {
        Client::builder(self.address(), "localhost", self.identity())
            .deadline(Duration::from_secs(20))
    }

    pub async fn client(&self) -> Client {
        self.builder().connect().await.unwrap()
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    pub fn goodbyes(&self) -> usize {
        self.shared.goodbyes.load(Ordering::SeqCst)
    }

    /// Every frame received so far.
    pub fn frames(&self) -> Vec<Frame> {
        self.shared.frames.lock().unwrap().clone()
    }

    /// Stops listening and cuts every connection.
    pub fn stop(&mut self) {
        self.alive.send_replace(false);
    }

    /// Listens again on the same address.
    pub async fn restart(&mut self) {
        // Whoever was told to stop has stopped: a call on a connection that is yet to be cut would be lost.
        if !*self.alive.borrow() {
            self.alive.closed().await;
        }
        self.alive = watch::channel(true).0;
        self.listen(socket_at(self.address).listen(1024).unwrap());
    }

    fn listen(&self, listener: TcpListener) {
        let (tls, script) = (self.tls.clone(), self.script.clone());
        let (shared, alive) = (self.shared.clone(), self.alive.subscribe());
        tokio::spawn(async move {
            let mut until = alive.clone();
            loop {
                let stream = tokio::select! {
                    accepted = listener.accept() => accepted.unwrap().0,
                    _ = until.changed() => break,
                };
                let number = shared.connections.fetch_add(1, Ordering::SeqCst);
                let (tls, script, shared) = (tls.clone(), script.clone(), shared.clone());
                let mut until = alive.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        () = serve(stream, tls, number, script, shared) => {}
                        _ = until.changed() => {}
                    }
                });
            }
            // In this order: whoever sees that all have stopped finds that nobody listens.
            drop(listener);
            drop((alive, until));
        });
    }
}

async fn serve(
    mut stream: TcpStream,
    tls: Arc<ServerConfig>,
    number: usize,
    script: Script,
    shared: Arc<Shared>,
) {
    let mut tls = ServerConnection::new(tls).unwrap();
    tls.set_buffer_limit(None);
    let (mut plain, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
    loop {
        if flush(&mut tls, &mut stream).await.is_err() {
            return;
        }
        let Ok(read @ 1..) = stream.read(&mut buffer).await else {
            return;
        };
        let mut rest = &buffer[..read];
        while !rest.is_empty() {
            tls.read_tls(&mut rest).unwrap();
            let Ok(state) = tls.process_new_packets() else {
                let _ = flush(&mut tls, &mut stream).await;
                return;
            };
            let start = plain.len();
            plain.resize(start + state.plaintext_bytes_to_read(), 0);
            tls.reader().read_exact(&mut plain[start..]).unwrap();
            if state.peer_has_closed() {
                shared.goodbyes.fetch_add(1, Ordering::SeqCst);
                return;
            }
        }
        let mut taken = 0;
        while let Some(frame) = Frame::parse(number, &plain[taken..]) {
            taken += frame.length;
            let acts = script(&frame);
            shared.frames.lock().unwrap().push(frame);
            for act in acts {
                if perform(act, &mut tls, &mut stream).await.is_err() {
                    return;
                }
            }
        }
        plain.drain(..taken);
    }
}

async fn perform(
    act: Act,
    tls: &mut ServerConnection,
    stream: &mut TcpStream,
) -> std::io::Result<()> {
    match act {
        Act::Send(bytes) => tls.writer().write_all(&bytes),
        Act::Drip(bytes) => {
            stream.set_nodelay(true)?;
            for byte in bytes {
                tls.writer().write_all(&[byte])?;
                flush(tls, stream).await?;
            }
            Ok(())
        }
        Act::Wait(time) => {
            flush(tls, stream).await?;
            tokio::time::sleep(time).await;
            Ok(())
        }
        Act::Raw(bytes) => {
            flush(tls, stream).await?;
            stream.write_all(&bytes).await
        }
        Act::Close => {
            tls.send_close_notify();
            flush(tls, stream).await?;
            stream.shutdown().await?;
            Err(std::io::ErrorKind::ConnectionAborted.into())
        }
        Act::Cut => {
            flush(tls, stream).await?;
            Err(std::io::ErrorKind::ConnectionAborted.into())
        }
    }
}

async fn flush(tls: &mut ServerConnection, stream: &mut TcpStream) -> std::io::Result<()> {
    let mut out = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut out)?;
    }
    stream.write_all(&out).await
}
