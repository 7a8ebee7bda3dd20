//! What the server writes about itself: one line an event, to standard error.
//!
//! Text for a terminal, JSON lines for a collector. Never a payload, a key or a credential; names
//! that peers choose are escaped by the formatter. `KEYSERVER_LOG` sets the level: `error`, `warn`,
//! `info` (the default), `debug`, `trace`, or a filter such as `info,keyserver::shard=debug`.

mod writer;

use std::fmt;
use std::io::{self, IsTerminal};
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// The environment variable with the level.
pub const LEVEL_VARIABLE: &str = "KEYSERVER_LOG";

/// At the end of the process, how long the last lines may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// Words, for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The log cannot be set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggingError(String);

impl fmt::Display for LoggingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LoggingError {}

/// Starts the log of this process. `default_level` counts where `KEYSERVER_LOG` is not set.
///
/// Colours are used on a terminal only, and not where `NO_COLOR` is set.
///
/// # Errors
///
/// `KEYSERVER_LOG` holds something that is not a level or filter, or the log runs already.
pub fn init(default_level: &str, format: Format) -> Result<(), LoggingError> {
    init_to(default_level, format, io::stderr)
}

/// The log of a server: written by a thread of its own, so that a reader that stands still keeps nobody waiting.
#[derive(Debug)]
pub struct Log(writer::Lines);

impl Log {
    /// Starts it, as [`init`] does.
    ///
    /// # Errors
    ///
    /// As [`init`], or the system gives no thread.
    pub fn start(default_level: &str, format: Format) -> Result<Self, LoggingError> {
        let lines = writer::Lines::to(io::stderr())
            .map_err(|error| LoggingError(format!("no thread to write the log: {error}")))?;
        init_to(default_level, format, lines.clone())?;
        Ok(Self(lines))
    }
}

/// The last words get out, unless nobody reads them.
impl Drop for Log {
    fn drop(&mut self) {
        self.0.flush(LAST_WORDS);
    }
}

/// The same to another place than standard error, for tests.
///
/// # Errors
///
/// As [`init`].
pub fn init_to<W>(default_level: &str, format: Format, writer: W) -> Result<(), LoggingError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let wanted = std::env::var(LEVEL_VARIABLE).unwrap_or_else(|_| default_level.to_owned());
    let filter = EnvFilter::builder().parse(&wanted).map_err(|error| {
        LoggingError(format!(
            "{LEVEL_VARIABLE}={wanted}: {error}; use error, warn, info, debug, trace, \
             or a filter such as info,keyserver::shard=debug"
        ))
    })?;
    let terminal = io::stderr().is_terminal();
    let json = match format {
        Format::Auto => !terminal,
        Format::Text => false,
        Format::Json => true,
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer);
    let started = if json {
        builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .try_init()
    } else {
        let colours = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        builder.with_target(false).with_ansi(colours).try_init()
    };
    started.map_err(|error| LoggingError(format!("the log cannot be started: {error}")))
}
