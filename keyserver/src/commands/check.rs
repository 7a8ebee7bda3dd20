//! `keyserver check`: everything that `run` would find, and what this machine lacks.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit};

use super::{Failure, output};
use crate::config::{Config, IoBackend};
use crate::selftest::Prover;
use crate::snapshot::{LoadError, Snapshot};
use crate::tokens::Tokens;
use crate::{clock, shard};

/// Listeners, rings, event descriptors, log and libraries of the largest machine.
const DESCRIPTORS_BESIDE_CONNECTIONS: u64 = 256;

/// Checks the configuration at `path`; warnings do not make it fail. Tokens are left alone, unless
/// `online` says to use each of their keys.
pub(crate) fn check(path: &Path, online: bool) -> Result<(), Failure> {
    let config = Config::load(path).map_err(Failure::start)?;
    report("ok", "configuration", &path.display().to_string());
    let prover =
        Prover::new(&config.accel).map_err(|error| Failure::start(LoadError::Engine(error)))?;
    let tokens = if online {
        Tokens::new(&config.pkcs11)
    } else {
        Tokens::untouched()
    };
    let snapshot = Snapshot::load(config, &tokens, None).map_err(|error| Failure::load(&error))?;
    prover
        .prove(&snapshot, None)
        .map_err(|error| Failure::load(&error))?;
    report("ok", "keys", &key_types(&snapshot));
    in_tokens(&snapshot, &tokens, online);
    tokens.stop();
    report("ok", "certificate", &certificate(&snapshot));
    report("ok", "clients", &snapshot.policy.client_count().to_string());
    machine(&snapshot.config);
    let warnings = snapshot.warnings();
    for warning in &warnings {
        report("warning", "", warning);
    }
    output::line(&match warnings.len() {
        0 => "The configuration can be used.".to_owned(),
        1 => "The configuration can be used; read the warning.".to_owned(),
        count => format!("The configuration can be used; read the {count} warnings."),
    });
    Ok(())
}

fn report(mark: &str, what: &str, text: &str) {
    let colour = match mark {
        "ok" => "32",
        "warning" => "33;1",
        _ => "36",
    };
    // Padding before colour: escape sequences have no width.
    let mark = output::paint_out(colour, &format!("{mark:<8}"));
    let gap = if what.is_empty() {
        String::new()
    } else {
        format!("{what:<14} ")
    };
    output::line(&format!("{mark} {gap}{text}"));
}

/// `7: 2 p-256, 5 rsa-2048; each has signed once for a test`.
fn key_types(snapshot: &Snapshot) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for (_, entry) in snapshot.keys.iter() {
        *counts.entry(entry.key.key_type().name()).or_default() += 1;
    }
    let mut text = snapshot.keys.len().to_string();
    for (position, (name, count)) in counts.iter().enumerate() {
        let separator = if position == 0 { ": " } else { ", " };
        // Writing to a string does not fail.
        let _ = write!(text, "{separator}{count} {name}");
    }
    if !snapshot.keys.is_empty() {
        text.push_str("; each has signed once for a test");
    }
    text
}

/// What was seen of the tokens, or that nobody looked.
fn in_tokens(snapshot: &Snapshot, tokens: &Tokens, online: bool) {
    if !online {
        let labels: Vec<&str> = (snapshot.absent.iter())
            .map(|key| key.label.as_str())
            .collect();
        if !labels.is_empty() {
            let text = format!(
                "not looked at: {}; `keyserver check --online` logs in and uses each once",
                labels.join(", ")
            );
            report("note", "tokens", &text);
        }
        return;
    }
    for (_, entry) in snapshot
        .keys
        .iter()
        .filter(|(_, key)| Tokens::holds(&key.key))
    {
        let certificate = snapshot.config.keys.iter().any(|source| {
            source.certificate.is_some() && source.label.as_deref() == Some(&entry.label)
        });
        let certificate = if certificate {
            "belongs to its certificate, "
        } else {
            ""
        };
        let kind = entry.key.key_type().name();
        let text = format!("\"{}\": {kind}, {certificate}has signed", entry.label);
        report("ok", "key in token", &text);
    }
    for slot in tokens.slots() {
        report(
            if slot.is_up() { "ok" } else { "warning" },
            "slot",
            &slot.name(),
        );
    }
}

fn certificate(snapshot: &Snapshot) -> String {
    let now = crate::tls::certs::unix_seconds(clock::wall());
    let days = (snapshot.certificate_expiry - now).div_euclid(86_400);
    let file = snapshot.config.tls.certificate.display();
    format!("{file}, belongs to its key, ends in {days} days")
}

/// What this machine offers. Nothing of it keeps the server from running.
fn machine(config: &Config) {
    match (shard::choose_backend(IoBackend::Uring), config.io.backend) {
        (Ok(_), _) => report("ok", "io_uring", "allowed by the kernel"),
        (Err(_), IoBackend::Epoll) => report("ok", "io_uring", "not available, and not configured"),
        (Err(error), IoBackend::Auto) => report(
            "note",
            "io_uring",
            &format!(
                "not available ({error}), epoll is used instead; to have it, set the sysctl \
                 kernel.io_uring_disabled to 0, or to 1 with kernel.io_uring_group, and allow the \
                 io_uring_* calls in the container's seccomp profile"
            ),
        ),
        (Err(error), IoBackend::Uring) => report(
            "warning",
            "io_uring",
            &format!(
                "not available ({error}), so the server will not start; set [io] backend = \"auto\""
            ),
        ),
    }
    if has_ifma() {
        report(
            "ok",
            "AVX-512 IFMA",
            "the CPU has it: eight operations at a time",
        );
    } else {
        let text =
            "the CPU does not have it: operations run one by one, at a third of the rate or less";
        report("note", "AVX-512 IFMA", text);
    }
    descriptors(config);
    memory_lock();
}

fn has_ifma() -> bool {
    #[cfg(target_arch = "x86_64")]
    let found = std::arch::is_x86_feature_detected!("avx512ifma");
    #[cfg(not(target_arch = "x86_64"))]
    let found = false;
    found
}

fn descriptors(config: &Config) {
    let Ok((soft, _)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return;
    };
    let connections = u64::try_from(config.limits.connections).unwrap_or(u64::MAX);
    let needed = connections.saturating_add(DESCRIPTORS_BESIDE_CONNECTIONS);
    if soft < needed {
        let text = format!(
            "the limit is {soft}, but {connections} connections need {needed}; \
             raise LimitNOFILE= of the unit or lower [limits] connections"
        );
        report("note", "descriptors", &text);
    } else {
        report("ok", "descriptors", &format!("the limit is {soft}"));
    }
}

fn memory_lock() {
    /// The rings of 64 I/O threads fit; kernels before 5.12 count them.
    const ENOUGH: u64 = 8 << 20;
    let Ok((soft, _)) = getrlimit(Resource::RLIMIT_MEMLOCK) else {
        return;
    };
    if soft < ENOUGH {
        let text = format!(
            "the limit is {} KiB; kernels before 5.12 count io_uring against it: \
             set LimitMEMLOCK=64M in the unit",
            soft / 1024
        );
        report("note", "locked memory", &text);
    } else {
        report("ok", "locked memory", "the limit is high enough");
    }
}
