//! A server that does nothing but answer: the Keyless protocol over mutual TLS, with faults to order.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "what fails here fails the test"
)]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyless_protocol::{
    ErrorCode, InfoLimits, KeyEntry, KeyList, Opcode, Reply, Request, ServerInfo, split_frame,
};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection};
use serde_json::Value;

/// What the server does wrong.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// From this long after the first ping with a payload, hold everything back for so long, once.
    pub stall: Option<(Duration, Duration)>,
    /// Time taken for every request with a payload.
    pub delay: Option<Duration>,
    /// Every n-th signature is over something else.
    pub wrong_signature_every: Option<u64>,
    /// Every n-th pong carries something else.
    pub wrong_pong_every: Option<u64>,
    /// Every n-th request with a payload is refused as busy.
    pub busy_every: Option<u64>,
    /// Refuses every request with a payload that does not carry this deadline.
    pub deadline_us: Option<u32>,
    /// Every n-th request with a payload ends the connection.
    pub hang_up_every: Option<u64>,
    /// Counts here what it has answered.
    pub answered: Option<&'static AtomicUsize>,
    /// Knows nothing of the added opcodes.
    pub stock: bool,
}

/// A running server and the files a client needs. It serves until the test's process ends.
pub(crate) struct NullServer {
    pub address: SocketAddr,
    pub files: tempfile::TempDir,
}

/// The key that signs: its public half is in the key list.
struct Signer {
    pair: rcgen::KeyPair,
    key: EcdsaKeyPair,
}

impl NullServer {
    pub(crate) fn start(faults: Faults) -> Self {
        let files = tempfile::tempdir().unwrap();
        let config = tls(&files);
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        std::fs::create_dir(files.path().join("public")).unwrap();
        std::fs::write(files.path().join("public/key.pem"), pair.public_key_pem()).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &pair.serialize_der())
            .unwrap();
        let signer = Arc::new(Signer { pair, key });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let began = Arc::new(std::sync::OnceLock::new());
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let (config, signer, began) =
                    (Arc::clone(&config), Arc::clone(&signer), Arc::clone(&began));
                std::thread::spawn(move || serve(socket, config, &signer, faults, &began));
            }
        });
        Self { address, files }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// `loadgen run` against this server, with more arguments between spaces.
    pub(crate) fn loadgen(&self, more: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
        command.args([
            "run",
            "--target",
            &self.address.to_string(),
            "--server-name",
            "localhost",
        ]);
        for (option, file) in [
            ("--ca", "ca.pem"),
            ("--cert", "client.pem"),
            ("--key", "client.key"),
        ] {
            command.arg(option).arg(self.path(file));
        }
        command.args(more.split_whitespace());
        command
    }

    /// Runs it and reads the result document.
    pub(crate) fn run_json(&self, more: &str) -> (i32, Value) {
        let output = self
            .loadgen(more)
            .args(["--format", "json", "--no-progress"])
            .output()
            .unwrap();
        let status = output.status.code().unwrap();
        let value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}; status {status}; {}", text_of(&output)));
        (status, value)
    }
}

pub(crate) fn text_of(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Makes an authority, a server certificate in use and a client certificate on disk.
fn tls(files: &tempfile::TempDir) -> Arc<ServerConfig> {
    let mut ca = rcgen::CertificateParams::new([]).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let issuer =
        rcgen::CertifiedIssuer::self_signed(ca, rcgen::KeyPair::generate().unwrap()).unwrap();
    let certificate = |name: &str, purpose| {
        let mut params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
        params.extended_key_usages = vec![purpose];
        let key = rcgen::KeyPair::generate().unwrap();
        (params.signed_by(&key, &issuer).unwrap(), key)
    };
    let (server, server_key) = certificate("localhost", rcgen::ExtendedKeyUsagePurpose::ServerAuth);
    let (client, client_key) = certificate("client", rcgen::ExtendedKeyUsagePurpose::ClientAuth);
    let write = |name: &str, text: String| std::fs::write(files.path().join(name), text).unwrap();
    write("ca.pem", issuer.pem());
    write("client.pem", client.pem());
    write("client.key", client_key.serialize_pem());

    let mut roots = RootCertStore::empty();
    roots.add(issuer.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(vec![server.der().clone()], server_key.into())
        .unwrap();
    Arc::new(config)
}

fn serve(
    mut socket: TcpStream,
    config: Arc<ServerConfig>,
    signer: &Signer,
    faults: Faults,
    began: &std::sync::OnceLock<Instant>,
) -> Option<()> {
    socket.set_nodelay(true).ok()?;
    let mut tls = ServerConnection::new(config).ok()?;
    tls.set_buffer_limit(None);
    let (mut plain, mut out, mut asked) = (Vec::new(), Vec::new(), 0);
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let length = socket.read(&mut bytes).ok().filter(|length| *length > 0)?;
        let mut rest = &bytes[..length];
        while !rest.is_empty() {
            tls.read_tls(&mut rest).ok()?;
            let state = tls.process_new_packets();
            if state.is_err() {
                let _ = tls.write_tls(&mut socket);
                return None;
            }
            let _ = tls.reader().read_to_end(&mut plain);
        }
        let (mut used, mut answered) = (0, 0);
        while let Some((frame, size)) = split_frame(&plain[used..]) {
            let request = Request::decode(frame).ok()?;
            used += size;
            if !request.payload.is_empty() {
                asked += 1;
                stall(faults, *began.get_or_init(Instant::now));
                faults.delay.into_iter().for_each(std::thread::sleep);
            }
            if is_nth(faults.hang_up_every, asked) && !request.payload.is_empty() {
                return None;
            }
            answer(&request, signer, faults, asked, &mut out);
            answered += 1;
        }
        plain.drain(..used);
        tls.writer().write_all(&out).ok()?;
        out.clear();
        while tls.wants_write() {
            tls.write_tls(&mut socket).ok()?;
        }
        if let Some(count) = faults.answered {
            count.fetch_add(answered, Ordering::Relaxed);
        }
    }
}

/// All connections stand still together, as they would behind one stuck engine.
fn stall(faults: Faults, began: Instant) {
    if let Some((after, length)) = faults.stall {
        let since = began.elapsed();
        if since >= after && since < after + length {
            std::thread::sleep(after + length - since);
        }
    }
}

fn is_nth(every: Option<u64>, asked: u64) -> bool {
    every.is_some_and(|every| asked.is_multiple_of(every))
}

fn answer(request: &Request<'_>, signer: &Signer, faults: Faults, asked: u64, out: &mut Vec<u8>) {
    let (id, payload) = (request.id, request.payload);
    let mut send = |reply: Reply<'_>| reply.encode(out).unwrap();
    if is_nth(faults.busy_every, asked) && !payload.is_empty() {
        let mut busy = Reply::failure(id, ErrorCode::Busy);
        busy.retry_after_ms = request.extended.then_some(50);
        return send(busy);
    }
    if faults.deadline_us.is_some()
        && !payload.is_empty()
        && request.deadline_us != faults.deadline_us
    {
        return send(Reply::failure(id, ErrorCode::DeadlineExceeded));
    }
    match request.opcode {
        Opcode::Ping if is_nth(faults.wrong_pong_every, asked) && !payload.is_empty() => {
            send(Reply::pong(id, b"something else"));
        }
        Opcode::Ping => send(Reply::pong(id, payload)),
        Opcode::ServerInfo if !faults.stock => send(Reply::success(id, &info().encode().unwrap())),
        Opcode::KeyList if !faults.stock => {
            send(Reply::success(id, &list(&signer.pair).encode().unwrap()))
        }
        Opcode::EcdsaSignSha256 => {
            let digest = digest(payload);
            let message = if is_nth(faults.wrong_signature_every, asked) {
                [7; 32]
            } else {
                digest
            };
            send(Reply::success(id, &sign(&signer.key, &message)));
        }
        _ => send(Reply::failure(id, ErrorCode::BadOpcode)),
    }
}

fn digest(payload: &[u8]) -> [u8; 32] {
    payload.try_into().expect("a SHA-256 hash")
}

/// Signs a hash that was made elsewhere.
fn sign(key: &EcdsaKeyPair, hash: &[u8; 32]) -> Vec<u8> {
    let digest =
        aws_lc_rs::digest::Digest::import_less_safe(hash, &aws_lc_rs::digest::SHA256).unwrap();
    key.sign_digest(&digest).unwrap().as_ref().to_vec()
}

fn info() -> ServerInfo {
    ServerInfo {
        server: "null".into(),
        version: "0".into(),
        protocol: "1.0".into(),
        capabilities: vec!["deadline".into(), "extended-replies".into()],
        opcodes: vec![0x15, 0x47, 0x48, 0xF1],
        limits: InfoLimits {
            in_flight_per_connection: 1024,
            body_bytes: 65_535,
        },
        state: "serving".into(),
        client: None,
    }
}

fn list(pair: &rcgen::KeyPair) -> KeyList {
    let spki = rcgen::PublicKeyData::subject_public_key_info(pair);
    let key = loadgen::keys::PublicKey::from_spki(&spki, "null server")
        .unwrap()
        .unwrap();
    let entry = KeyEntry {
        ski: keyless_protocol::info::ski_to_hex(&key.ski),
        key_type: "p-256".into(),
        spki: STANDARD.encode(&spki),
        operations: vec!["sign-digest".into()],
        label: "null".into(),
        ..KeyEntry::default()
    };
    KeyList {
        keys: vec![entry],
        next: None,
    }
}
