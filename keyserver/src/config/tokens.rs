//! Keys that stay in a token: the `[pkcs11]` table, and the `[[keys]]` entries with `uri` or `uris`.

use std::time::Duration;

#[cfg(feature = "pkcs11")]
use accel::pkcs11::{PinSource, SlotChoice, SlotSettings, TokenUri};

use super::build::{count, period};
use super::paths::{Kind, Paths};
use super::raw::Section;
#[cfg(feature = "pkcs11")]
use super::raw::Value;
use crate::limits;

/// How the slots of tokens are used. The same for every slot; each has sessions, threads and a queue
/// of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pkcs11 {
    /// The module of URIs that name none.
    pub module: Option<std::path::PathBuf>,
    /// Sessions of a slot, each with a thread: the most that is asked of it at one time.
    pub sessions: usize,
    /// How many sessions are used at one time to begin with. None: all. What is best is then found.
    pub start_limit: Option<usize>,
    /// Requests of a slot that may wait for a session. Past it, "busy". None: four for each session, and with few
    /// sessions of a quick device more, see [`limits::SLOT_WAITING_PER_SESSION`].
    pub queue: Option<usize>,
    /// Time that a request may take from its admission to its answer; a client may ask for less.
    pub deadline: Duration,
    /// A call into the module that takes longer counts as hung: its thread is given up.
    pub call_timeout: Duration,
    /// How often an idle slot is talked to, so that the device does not reclaim its sessions.
    pub keepalive: Duration,
}

impl Default for Pkcs11 {
    fn default() -> Self {
        Self {
            module: None,
            sessions: limits::SLOT_SESSIONS,
            start_limit: None,
            queue: None,
            deadline: limits::JOB_DEADLINE,
            call_timeout: limits::SLOT_CALL_TIMEOUT,
            keepalive: limits::SLOT_KEEPALIVE,
        }
    }
}

#[cfg(feature = "pkcs11")]
impl Pkcs11 {
    /// The part of it that the pools of the slots go by.
    #[must_use]
    pub fn slot_settings(&self) -> SlotSettings {
        SlotSettings {
            sessions: self.sessions,
            start_limit: self.start_limit,
            queue: self.queue,
            keepalive: self.keepalive,
            call_timeout: self.call_timeout,
            ..SlotSettings::default()
        }
    }
}

/// Reads `[pkcs11]`.
pub(super) fn settings(section: &Section<'_>, paths: &Paths) -> Pkcs11 {
    let defaults = Pkcs11::default();
    let module = section
        .optional("module")
        .and_then(|value| paths.read(&value, Kind::File));
    let sessions = count(section, "sessions", 257).unwrap_or(defaults.sessions);
    let queue_max = u64::try_from(limits::SLOT_WAITING_MAX).unwrap_or(u64::MAX);
    let settings = Pkcs11 {
        module,
        sessions,
        start_limit: count(section, "start_limit", 257),
        queue: count(section, "queue", queue_max + 1),
        deadline: period(section, "deadline", 60).unwrap_or(defaults.deadline),
        call_timeout: period(section, "call_timeout", 60).unwrap_or(defaults.call_timeout),
        keepalive: period(section, "keepalive", 30).unwrap_or(defaults.keepalive),
    };
    section.finish();
    settings
}

/// A key in one slot, or in several that hold the same key.
#[cfg(feature = "pkcs11")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenKeySource {
    /// Where it is, most wanted first. Each names its module.
    pub uris: Vec<TokenUri>,
    /// Which slot gets the next request.
    pub choice: SlotChoice,
    /// Where the PIN is, for URIs that do not say so themselves. None: no login.
    pub pin: Option<PinSource>,
    /// Whether the server refuses to start while no slot with the key can be reached.
    pub required: bool,
}

/// Reads the parts of a `[[keys]]` entry that only tokens have. `None` when they are wrong, which has
/// then been reported.
#[cfg(feature = "pkcs11")]
pub(super) fn location(
    entry: &Section<'_>,
    values: &[Value<'_>],
    paths: &Paths,
    settings: &Pkcs11,
) -> Option<TokenKeySource> {
    let pin = pin(entry, paths);
    let uris: Vec<_> = values
        .iter()
        .map(|value| uri(value, paths, settings))
        .collect();
    let choice = entry.optional("choice").map(|value| {
        value.text("\"ordered\" or \"least-loaded\"", |text| match text {
            "ordered" => Some(SlotChoice::Ordered),
            "least-loaded" => Some(SlotChoice::LeastLoaded),
            _ => None,
        })
    });
    let required = entry.optional("required").map(|value| value.boolean());
    Some(TokenKeySource {
        uris: uris.into_iter().collect::<Option<_>>()?,
        choice: choice.unwrap_or(Some(SlotChoice::Ordered))?,
        pin: pin?,
        required: required.unwrap_or(Some(true))?,
    })
}

/// The label of a key that is given none: the name of its object.
#[cfg(feature = "pkcs11")]
pub(super) fn default_label(entry: &Section<'_>, source: &TokenKeySource) -> Option<String> {
    let label = source.uris.iter().find_map(TokenUri::object);
    if label.is_none() {
        entry.problem(
            "this key has no label: its URI has an `id` but no `object`".to_owned(),
            "add `label = \"shop\"`; grants and logs name the key by it".to_owned(),
        );
    }
    label.map(str::to_owned)
}

#[cfg(feature = "pkcs11")]
fn uri(value: &Value<'_>, paths: &Paths, settings: &Pkcs11) -> Option<TokenUri> {
    let text = value.string("a URI in quotes, like \"pkcs11:token=bank;object=shop\"")?;
    let mut uri: TokenUri = match text.parse() {
        Ok(uri) => uri,
        Err(error) => {
            let what = format!("`{}` is not a URI of a key in a token", value.name());
            value.problem(what, format!("{error}"));
            return None;
        }
    };
    let wrong = |what: &str, fix: &str| value.problem(format!("this URI {what}"), fix);
    if uri.object().is_none() && uri.id().is_none() {
        wrong(
            "does not say which key of the token it means",
            "add `object=LABEL` or `id=%01`; `keyserver hsm list --module PATH` prints whole URIs",
        );
        return None;
    }
    if uri.token().is_none() && uri.serial().is_none() && uri.slot_id().is_none() {
        wrong(
            "does not say in which token the key is",
            "add `token=LABEL` or `serial=NUMBER`; `keyserver hsm list --module PATH` prints whole URIs",
        );
        return None;
    }
    match (uri.module_path(), &settings.module) {
        (Some(module), _) => paths.expect(value, module.to_owned(), Kind::File),
        // Whether that file is there has been noted where it is named.
        (None, Some(module)) => uri = uri.with_module_path(module.clone()),
        (None, None) => {
            wrong(
                "names no module",
                "add `?module-path=/usr/lib/.../lib.so` to it, or [pkcs11] `module = \"...\"`",
            );
            return None;
        }
    }
    Some(uri)
}

/// `pin_source`. The value is never shown: somebody may have written the PIN itself.
#[cfg(feature = "pkcs11")]
#[expect(
    clippy::option_option,
    reason = "outside: was it right; inside: was it given"
)]
fn pin(entry: &Section<'_>, paths: &Paths) -> Option<Option<PinSource>> {
    const SOURCES: &str = "write where the PIN is: `pin_source = \"credential:NAME\"` (LoadCredential= of \
                           the unit), \"file:PATH\" or \"env:NAME\"";
    if let Some(value) = entry.optional("pin") {
        value.problem("a PIN does not belong in this file".to_owned(), SOURCES);
        return None;
    }
    let Some(value) = entry.optional("pin_source") else {
        return Some(None);
    };
    let text = value.string("the place of the PIN in quotes, like \"credential:hsm-pin\"")?;
    let source = match text.strip_prefix("file:").filter(|path| !path.is_empty()) {
        Some(path) => {
            let path = paths.resolve(path);
            paths.expect(&value, path.clone(), Kind::File);
            Some(PinSource::File(path))
        }
        None => text.parse().ok(),
    };
    if source.is_none() {
        let what = format!("`{}` does not name a place", value.name());
        value.problem(what, SOURCES);
    }
    source.map(Some)
}
