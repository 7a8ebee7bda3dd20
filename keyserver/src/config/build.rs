//! From TOML to [`Config`]: which keys there are, what they mean, and what they may hold.
//!
//! Nothing here stops at the first mistake: everything that is wrong is reported at once.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use accel::VerifyRate;

use super::checked::{
    Accel, Admin, Config, EngineChoice, Io, IoBackend, Limits, Listen, Metrics, Shutdown, Tls,
    TlsVersion,
};
use super::paths::{Kind, Paths};
use super::problem::{ConfigError, Problem};
use super::raw::{Problems, Section, Source, Value};
use super::{clients, keys, tokens, units};
use crate::config::Client;
use crate::limits;
use crate::policy::rights::Right;

/// Bytes of one configuration file. The largest estate needs a few megabytes.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

impl Config {
    /// Reads `path` and, in name order, every `*.toml` in the directory `conf.d` beside it.
    ///
    /// Relative paths in any of them are relative to the directory of `path`. A path may be
    /// written as `${credential:NAME}`: the file NAME in the directory that systemd passes in
    /// `CREDENTIALS_DIRECTORY`.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] with everything that is wrong, files that do not exist included.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let mut sources = vec![read(path)?];
        for fragment in fragments(path)? {
            sources.push(read(&fragment)?);
        }
        let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        let paths = Paths::new(base_of(path), credentials);
        let (config, mut problems) = build(&sources, &paths);
        problems.extend(paths.missing());
        finish(config, problems, path)
    }

    /// Builds a configuration from the text of one file, without a look at the file system.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] with everything that is wrong with the text.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let source = Source::new(path.to_owned(), text.to_owned());
        let paths = Paths::new(base_of(path), None);
        let (config, problems) = build(&[source], &paths);
        finish(config, problems, path)
    }
}

fn finish(
    config: Option<Config>,
    problems: Vec<Problem>,
    path: &Path,
) -> Result<Config, ConfigError> {
    ConfigError::from_problems(problems)?;
    // Without a problem there is a configuration; the message is for the one who breaks that.
    config.ok_or_else(|| {
        let incomplete = std::io::Error::other("it is incomplete in a way that was not reported");
        ConfigError::unreadable(path, &incomplete, "compare it with systemd/keyserver.toml")
    })
}

fn base_of(path: &Path) -> PathBuf {
    path.parent().map(Path::to_owned).unwrap_or_default()
}

fn read(path: &Path) -> Result<Source, ConfigError> {
    let fix = if cfg!(feature = "trial") {
        "create it with `keyserver init DIR`, or name another file with --config FILE"
    } else {
        "create it, or name another file with --config FILE"
    };
    let unreadable = |error| ConfigError::unreadable(path, &error, fix);
    let length = fs::metadata(path).map_err(unreadable)?.len();
    if length > FILE_BYTES_MAX {
        return Err(unreadable(std::io::Error::other(
            "it is larger than 64 MiB",
        )));
    }
    let text = fs::read_to_string(path).map_err(unreadable)?;
    Ok(Source::new(path.to_owned(), text))
}

/// The `*.toml` files of `conf.d` beside `path`, in name order.
fn fragments(path: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let directory = base_of(path).join("conf.d");
    if !directory.is_dir() {
        return Ok(Vec::new());
    }
    let fix = "let the server's user read it, or remove it";
    let unreadable = |error| ConfigError::unreadable(&directory, &error, fix);
    let mut files = Vec::new();
    for entry in fs::read_dir(&directory).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        if file
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

fn build(sources: &[Source], paths: &Paths) -> (Option<Config>, Vec<Problem>) {
    let problems = Problems::default();
    let mut parsed = Vec::new();
    for source in sources {
        match source.parse() {
            Ok(table) => parsed.push((source, table)),
            Err(problem) => problems.add(problem),
        }
    }
    let config = sources
        .first()
        .filter(|_| parsed.len() == sources.len())
        .and_then(|main| {
            let files = parsed.iter().map(|(source, table)| (*source, table));
            document(&Section::root(files, main, &problems), &main.path, paths)
        });
    (config, problems.into_inner())
}

fn document(root: &Section<'_>, path: &Path, paths: &Paths) -> Option<Config> {
    let listen = listen(&root.section("listen"));
    let tls = tls(&root.section("tls"), paths);
    let admin = admin(&root.section("admin"), paths);
    let metrics = metrics(&root.section("metrics"));
    let io = io(&root.section("io"));
    let accel = accel(&root.section("accel"));
    let limits = limits(&root.section("limits"));
    let shutdown = shutdown(&root.section("shutdown"));
    let pkcs11 = tokens::settings(&root.section("pkcs11"), paths);
    let keys = keys::read(&root.list("keys"), paths, &pkcs11);
    let clients = clients::read(&root.list("clients"));
    let ledger = ledger(&root.section("ledger"), paths, &clients);
    needs_state(root, &admin, &clients);
    let tickets = tickets(&root.section("tickets"), paths, &clients);
    root.finish();
    Some(Config {
        path: path.to_owned(),
        listen: listen?,
        tls: tls?,
        admin,
        metrics,
        ledger,
        tickets,
        io,
        accel,
        limits,
        shutdown,
        pkcs11,
        keys,
        clients,
    })
}

fn address(value: &Value<'_>) -> Option<SocketAddr> {
    value.text(
        "an IP address and a port, like \"127.0.0.1:2407\" or \"[::]:2407\"",
        |text| text.parse().ok(),
    )
}

fn listen(section: &Section<'_>) -> Option<Listen> {
    let address = section
        .required("address", "\"127.0.0.1:2407\"")
        .and_then(|value| address(&value));
    let backlog = section
        .optional("backlog")
        .and_then(|value| value.integer(1..65_536));
    section.finish();
    let backlog = backlog.and_then(|backlog| u32::try_from(backlog).ok());
    Some(Listen {
        address: address?,
        backlog: backlog.unwrap_or(limits::LISTEN_BACKLOG),
    })
}

fn tls(section: &Section<'_>, paths: &Paths) -> Option<Tls> {
    let file = |key, example| paths.read(&section.required(key, example)?, Kind::File);
    let certificate = file("certificate", "\"pki/server.pem\"");
    let private_key = file("private_key", "\"pki/server-key.pem\"");
    let client_ca = file("client_ca", "\"pki/ca.pem\"");
    let minimum_value = section.optional("minimum");
    let minimum = minimum_value.as_ref().and_then(|value| {
        value.text("\"1.2\" or \"1.3\"", |text| match text {
            "1.2" => Some(TlsVersion::V1_2),
            "1.3" => Some(TlsVersion::V1_3),
            _ => None,
        })
    });
    let require_post_quantum = section
        .optional("require_post_quantum")
        .and_then(|value| value.boolean());
    if let (Some(value), Some(TlsVersion::V1_2), Some(true)) =
        (&minimum_value, minimum, require_post_quantum)
    {
        value.problem(
            "TLS 1.2 has no post-quantum key exchange, but `tls.require_post_quantum` is true"
                .into(),
            "set `minimum = \"1.3\"`, or `require_post_quantum = false`",
        );
    }
    section.finish();
    Some(Tls {
        certificate: certificate?,
        private_key: private_key?,
        client_ca: client_ca?,
        minimum: minimum.unwrap_or(TlsVersion::V1_2),
        require_post_quantum: require_post_quantum.unwrap_or(false),
    })
}

fn admin(section: &Section<'_>, paths: &Paths) -> Admin {
    let socket = section.optional("socket");
    let state = section.optional("state");
    let admin = Admin {
        socket: socket.and_then(|value| paths.read(&value, Kind::NewSocket)),
        state: state.and_then(|value| paths.read(&value, Kind::State)),
    };
    section.finish();
    admin
}

/// A number of uses a day that a restart would begin anew is none.
fn needs_state(root: &Section<'_>, admin: &Admin, clients: &[Client]) {
    let counted = (clients.iter().flat_map(|client| &client.grants))
        .any(|grant| grant.limits.daily.is_some());
    if admin.state.is_none() && counted {
        root.section("admin").problem(
            "`admin.state` is missing, and a grant has `daily`: what was used is remembered there"
                .to_owned(),
            "add [admin] `state = \"/var/lib/keyserver\"`".to_owned(),
        );
    }
}

/// The directory of the ledger. Whoever may open ciphertexts needs one.
fn ledger(section: &Section<'_>, paths: &Paths, clients: &[Client]) -> Option<PathBuf> {
    let needed = (clients.iter().flat_map(|client| &client.grants))
        .any(|grant| grant.allow.iter().any(Right::is_key_exchange));
    let directory = if needed {
        section.required("directory", "\"/var/lib/keyserver/ledger\"")
    } else {
        section.optional("directory")
    };
    let directory = directory.and_then(|value| paths.read(&value, Kind::NewDirectory));
    section.finish();
    directory
}

/// The master of the session tickets. Whoever may have their keys, or have them sealed, needs one.
fn tickets(section: &Section<'_>, paths: &Paths, clients: &[Client]) -> Option<PathBuf> {
    let needed = (clients.iter().flat_map(|client| &client.grants)).any(|grant| {
        [Right::Tickets, Right::Seal]
            .iter()
            .any(|right| grant.allow.contains(*right))
    });
    let master = if needed {
        section.required("master", "\"tickets.master\"")
    } else {
        section.optional("master")
    };
    let master = master.and_then(|value| paths.read(&value, Kind::File));
    section.finish();
    master
}

fn metrics(section: &Section<'_>) -> Metrics {
    let metrics = Metrics {
        address: section
            .optional("address")
            .and_then(|value| address(&value)),
    };
    section.finish();
    metrics
}

fn io(section: &Section<'_>) -> Io {
    let backend = section.optional("backend").and_then(|value| {
        value.text("\"auto\", \"uring\" or \"epoll\"", |text| match text {
            "auto" => Some(IoBackend::Auto),
            "uring" => Some(IoBackend::Uring),
            "epoll" => Some(IoBackend::Epoll),
            _ => None,
        })
    });
    let threads = count(section, "threads", 65);
    section.finish();
    Io {
        backend: backend.unwrap_or_default(),
        threads,
    }
}

fn accel(section: &Section<'_>) -> Accel {
    let engine = section.optional("engine").and_then(|value| {
        value.text("\"auto\", \"lanes\" or \"single\"", |text| match text {
            "auto" => Some(EngineChoice::Auto),
            "lanes" => Some(EngineChoice::Lanes),
            "single" => Some(EngineChoice::Single),
            _ => None,
        })
    });
    let threads = count(section, "threads", 1025);
    let verify = section.optional("verify_ecdsa").and_then(|value| {
        value.text(
            "\"all\", \"none\" or a share like \"1%\"",
            |text| match text {
                "all" => Some(VerifyRate::ALWAYS),
                "none" => Some(VerifyRate::NEVER),
                share => units::permille(share).map(VerifyRate::permille),
            },
        )
    });
    let precompute = (section.optional("precompute_ecdsa")).and_then(|value| value.boolean());
    section.finish();
    let defaults = Accel::default();
    Accel {
        engine: engine.unwrap_or_default(),
        threads,
        verify_ecdsa: verify.unwrap_or(defaults.verify_ecdsa),
        precompute_ecdsa: precompute.unwrap_or(defaults.precompute_ecdsa),
    }
}

fn limits(section: &Section<'_>) -> Limits {
    let defaults = Limits::default();
    // A connection must be able to fill a batch and must not take all places of its I/O thread.
    let in_flight_max = u64::try_from(limits::JOBS_PER_SHARD / 4).unwrap_or(u64::MAX);
    let bound = |name, default| count(section, name, 1_000_001).unwrap_or(default);
    let read = Limits {
        connections: bound("connections", defaults.connections),
        connections_per_source: bound("connections_per_source", defaults.connections_per_source),
        handshakes: bound("handshakes", defaults.handshakes),
        handshakes_per_source: bound("handshakes_per_source", defaults.handshakes_per_source),
        handshake_rate_per_source: bound(
            "handshake_rate_per_source",
            defaults.handshake_rate_per_source,
        ),
        in_flight_per_connection: count(section, "in_flight_per_connection", in_flight_max + 1)
            .unwrap_or(defaults.in_flight_per_connection),
        output_bytes: output_bytes(section).unwrap_or(defaults.output_bytes),
        handshake_deadline: period(section, "handshake_deadline", 60)
            .unwrap_or(defaults.handshake_deadline),
        job_deadline: period(section, "job_deadline", 60).unwrap_or(defaults.job_deadline),
        queue_time: period(section, "queue_time", 60).unwrap_or(defaults.queue_time),
        live_credentials: bound("live_credentials", defaults.live_credentials),
    };
    section.finish();
    read
}

fn output_bytes(section: &Section<'_>) -> Option<usize> {
    let value = section.optional("output_per_connection")?;
    let bytes = value.text("a size with a unit, like \"256KiB\"", units::size)?;
    let least = keyless_protocol::HEADER_LEN + keyless_protocol::MAX_BODY;
    if (least..=1 << 30).contains(&bytes) {
        return Some(bytes);
    }
    value.problem(
        format!("`{}` is out of bounds", value.name()),
        "give at least \"65KiB\" (one reply of the largest size) and at most \"1GiB\"",
    );
    None
}

fn shutdown(section: &Section<'_>) -> Shutdown {
    let defaults = Shutdown::default();
    let spread = time(section, "spread", Duration::ZERO, 600);
    let limit = period(section, "limit", 3600);
    section.finish();
    if let (Some(spread), Some(limit)) = (spread, limit)
        && limit < spread
    {
        section.problem(
            format!("`shutdown.limit` ({limit:?}) is shorter than `shutdown.spread` ({spread:?})"),
            "raise the limit: connections are closed politely during the spread, cut at the limit"
                .to_owned(),
        );
    }
    // With one of the two given, the other's default gives way.
    let spread =
        spread.unwrap_or_else(|| limit.map_or(defaults.spread, |limit| limit.min(defaults.spread)));
    Shutdown {
        spread,
        limit: limit.unwrap_or_else(|| defaults.limit.max(spread)),
    }
}

/// A whole number from 1 to below `end`.
pub(super) fn count(section: &Section<'_>, key: &'static str, end: u64) -> Option<usize> {
    let number = section.optional(key)?.integer(1..end)?;
    usize::try_from(number).ok()
}

/// A duration from a millisecond to `most` seconds.
pub(super) fn period(section: &Section<'_>, key: &'static str, most: u64) -> Option<Duration> {
    time(section, key, Duration::from_millis(1), most)
}

fn time(section: &Section<'_>, key: &'static str, least: Duration, most: u64) -> Option<Duration> {
    let value = section.optional(key)?;
    let time = value.text(
        "a time with a unit, like \"500ms\" or \"10s\"",
        units::duration,
    )?;
    let most = Duration::from_secs(most);
    if (least..=most).contains(&time) {
        return Some(time);
    }
    let what = format!("`{}` is out of bounds", value.name());
    value.problem(what, format!("give a time from {least:?} to {most:?}"));
    None
}
