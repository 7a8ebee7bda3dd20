//! `keyserver demo`: the whole product in one command. A certificate authority, a server and a
//! client certificate, one key of each kind, a real server on the loopback address, and every key
//! used once through the client library, each answer verified.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{KeyPair, RsaKeySize, SignatureAlgorithm as KeyKind};
use tokio::signal::unix::{SignalKind, signal};

use super::exercise::use_every_key;
use super::init::LOCAL_NAMES;
use super::trial::{self, CLIENT, Pki};
use super::{Failure, output};
use crate::config::{Config, Date};
use crate::{Server, clock};

/// The arguments of `keyserver demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// End when every key has been used, instead of serving until Ctrl-C
    #[arg(long)]
    once: bool,
    /// Keep everything in this directory, which must be new or empty
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Port for clients; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    port: u16,
    /// Port for metrics; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    metrics_port: u16,
}

/// How long the permission to decrypt lasts. It is the one that `check` warns about, so the demo
/// shows how to bound it.
const DECRYPT_FOR: Duration = Duration::from_secs(7 * 86_400);

pub(crate) fn demo(arguments: &Arguments) -> Result<(), Failure> {
    let began = clock::now();
    // Removed when dropped, at the end of this function; kept with --dir.
    let temporary = match &arguments.dir {
        Some(_) => None,
        None => Some(
            tempfile::Builder::new()
                .prefix("keyserver-demo-")
                .tempdir()
                .map_err(|error| {
                    Failure::start(format!("no temporary directory: {error}; use --dir DIR"))
                })?,
        ),
    };
    let directory = match (&arguments.dir, &temporary) {
        (Some(directory), _) => own_directory(directory)?,
        (None, Some(temporary)) => temporary.path().to_owned(),
        (None, None) => return Err(Failure::start("no directory")),
    };
    let pki = prepare(&directory, arguments)?;
    output::line(&format!(
        "Wrote keys, certificates and keyserver.toml to {}",
        directory.display()
    ));

    let config = Config::load(&directory.join("keyserver.toml")).map_err(Failure::start)?;
    let server = Server::start(config).map_err(Failure::start)?;
    let [io, engine] = server.state().health.backends();
    output::line(&format!(
        "Serving on {} ({io}, engine {engine})\n",
        server.local_addr()
    ));

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::run(format!("the system gives no event loop: {error}")))?;
    let address = server.local_addr().to_string();
    let outcome = runtime.block_on(use_every_key(&address, &pki));
    let outcome = outcome.and_then(|count| {
        let spent = clock::now().saturating_duration_since(began);
        output::line(&format!(
            "\nAll {count} operations verified, {:.1} s after the start.",
            spent.as_secs_f64()
        ));
        if arguments.once {
            return Ok(());
        }
        output::print(&invitation(&server, &pki));
        runtime.block_on(interrupted())
    });
    server.stop();
    outcome
}

/// `--dir`: a directory of the demo's own, so that nothing of value is ever overwritten.
fn own_directory(directory: &Path) -> Result<PathBuf, Failure> {
    trial::private_directory(directory)?;
    let unreadable = |error: std::io::Error| {
        Failure::start(format!("{} cannot be read: {error}", directory.display()))
    };
    if directory.read_dir().map_err(unreadable)?.next().is_some() {
        return Err(Failure::start(format!(
            "{} is not empty; the demo wants a directory of its own: name a new one",
            directory.display()
        )));
    }
    // Absolute, so that the printed commands work from anywhere.
    directory.canonicalize().map_err(unreadable)
}

fn prepare(directory: &Path, arguments: &Arguments) -> Result<Pki, Failure> {
    let pki = Pki::in_directory(directory);
    let keys = directory.join("keys");
    trial::private_directory(&directory.join("pki"))?;
    trial::private_directory(&keys)?;
    trial::write_pki(&pki, &LOCAL_NAMES.map(str::to_owned))?;
    for (name, pem) in make_keys()? {
        trial::private_file(&keys.join(format!("{name}.key")), &pem)?;
    }
    let until = Date::of(clock::wall() + DECRYPT_FOR);
    let (port, metrics_port) = (arguments.port, arguments.metrics_port);
    let config = format!(
        r#"# Written by `keyserver demo`. For trials only.
[listen]
address = "127.0.0.1:{port}"

[tls]
certificate = "pki/server.pem"
private_key = "pki/server-key.pem"
client_ca   = "pki/ca.pem"

[admin]
socket = "run/admin.sock"

[metrics]
address = "127.0.0.1:{metrics_port}"

[[keys]]
directory = "keys"
dual_use_until = {until}     # the RSA keys of the demo both sign and decrypt; yours should not

[[clients]]
name  = "{CLIENT}"
match = "dns:{CLIENT}"

[[clients.grants]]
keys  = ["*"]
allow = ["sign-digest"]

[[clients.grants]]
keys    = ["demo-rsa-*"]
allow   = ["decrypt-raw"]  # full use of the key: always with an end
expires = {until}
"#
    );
    trial::public_file(&directory.join("keyserver.toml"), &config)?;
    Ok(pki)
}

/// One key of each kind, made at the same time: finding the primes of RSA-4096 takes a while.
fn make_keys() -> Result<Vec<(&'static str, String)>, Failure> {
    type Make = fn() -> Result<KeyPair, rcgen::Error>;
    fn curve(kind: &'static KeyKind) -> Result<KeyPair, rcgen::Error> {
        KeyPair::generate_for(kind)
    }
    fn rsa(size: RsaKeySize) -> Result<KeyPair, rcgen::Error> {
        KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size)
    }
    let kinds: [(&'static str, Make); 7] = [
        ("demo-rsa-4096", || rsa(RsaKeySize::_4096)),
        ("demo-rsa-3072", || rsa(RsaKeySize::_3072)),
        ("demo-rsa-2048", || rsa(RsaKeySize::_2048)),
        ("demo-p521", || curve(&rcgen::PKCS_ECDSA_P521_SHA512)),
        ("demo-p384", || curve(&rcgen::PKCS_ECDSA_P384_SHA384)),
        ("demo-p256", || curve(&rcgen::PKCS_ECDSA_P256_SHA256)),
        ("demo-ed25519", || curve(&rcgen::PKCS_ED25519)),
    ];
    std::thread::scope(|scope| {
        let threads = kinds.map(|(name, make)| (name, scope.spawn(make)));
        let mut keys = Vec::new();
        for (name, thread) in threads {
            let key = thread
                .join()
                .map_err(|_| Failure::run("making a key panicked"))?;
            let key =
                key.map_err(|error| Failure::run(format!("{name} cannot be made: {error}")))?;
            keys.push((name, key.serialize_pem()));
        }
        Ok(keys)
    })
}

/// What to try next.
fn invitation(server: &Server, pki: &Pki) -> String {
    let address = server.local_addr();
    let mut text = String::new();
    if let Some(metrics) = server.metrics_addr() {
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "\nMetrics and health\n  curl http://{metrics}/metrics"
        );
    }
    let _ = write!(
        text,
        "\nPut load on it\n  loadgen run --target {address} --server-name localhost \\\n    \
         --ca {} \\\n    --cert {} \\\n    --key {} \\\n    \
         --mix rsa2048=65,p256=30,ping=5 --rate 500\n\nServing until Ctrl-C.\n",
        pki.ca.display(),
        pki.client.display(),
        pki.client_key.display()
    );
    text
}

/// Waits for Ctrl-C or SIGTERM.
async fn interrupted() -> Result<(), Failure> {
    let fault = |error| Failure::run(format!("signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(fault)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(fault)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    output::line("\nStopped.");
    Ok(())
}
