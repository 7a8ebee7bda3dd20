//! The command line of `keyserver`.

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};

use crate::logging;
use crate::snapshot::LoadError;

pub mod acl;
#[cfg(feature = "trial")]
mod attack;
mod check;
#[cfg(feature = "trial")]
mod demo;
pub mod docs;
#[cfg(feature = "trial")]
mod exercise;
#[cfg(feature = "pkcs11")]
mod hsm;
#[cfg(feature = "trial")]
mod init;
mod notify;
pub mod output;
mod run;
mod speed;
mod tickets;
#[cfg(feature = "trial")]
mod trial;

/// Where the packages put the configuration.
const DEFAULT_CONFIG: &str = "/etc/keyserver/keyserver.toml";

/// Holds TLS private keys and does, for edges that prove who they are, the one step of a handshake
/// that needs them.
#[derive(Debug, Parser)]
#[command(name = "keyserver", version, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 it failed while running; 2 it did not start: wrong arguments, configuration,
keys or certificates; 3 a token refused the PIN, which must not be tried again by itself.
KEYSERVER_LOG sets the log level: error, warn, info, debug, trace.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until SIGTERM; SIGHUP loads keys, certificates and grants again
    Run {
        #[command(flatten)]
        config: ConfigArgument,
        /// How log lines look
        #[arg(long, value_enum, default_value_t = LogFormat::Auto, value_name = "FORMAT")]
        log_format: LogFormat,
    },
    /// Say what is wrong with a configuration, its keys and certificates, and this machine
    Check {
        #[command(flatten)]
        config: ConfigArgument,
        /// Also log in to every token, find each key, compare it with its certificate and sign once
        #[arg(long)]
        online: bool,
    },
    /// Ask a configuration what it allows
    #[command(subcommand)]
    Acl(AclCommand),
    /// Look at hardware security modules
    #[cfg(feature = "pkcs11")]
    #[command(subcommand)]
    Hsm(hsm::Command),
    /// Write a configuration to start from, with certificates for trials
    #[cfg(feature = "trial")]
    Init(init::Arguments),
    /// Start a server with throw-away keys, use each of them once, and keep serving
    #[cfg(feature = "trial")]
    Demo(demo::Arguments),
    /// Attack a running server with the rights of one client, and say what held
    #[cfg(feature = "trial")]
    Selftest(attack::Arguments),
    /// Make what the session tickets of all edges come from
    #[command(subcommand)]
    Tickets(tickets::Command),
    /// Measure what one core of this machine does, by class and batch fill
    Speed(speed::Arguments),
    /// Print shell completions
    Completions {
        /// The shell they are for
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write those of all commands to a directory
    Man {
        /// Directory for keyserver.1, keyserver-run.1 and so on
        directory: Option<PathBuf>,
    },
    /// Print the version and what was built in
    Version,
}

#[derive(Debug, Subcommand)]
enum AclCommand {
    /// Say whether a client may do something, and which line decides; `ksctl acl explain` asks a
    /// running server
    Explain {
        #[command(flatten)]
        config: ConfigArgument,
        #[command(flatten)]
        arguments: acl::ExplainArguments,
    },
}

#[derive(Debug, clap::Args)]
struct ConfigArgument {
    /// Configuration file; files in conf.d beside it are added
    #[arg(long, value_name = "FILE", env = "KEYSERVER_CONFIG", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    /// Text on a terminal, JSON otherwise
    Auto,
    /// Words for people
    Text,
    /// One JSON object a line
    Json,
}

/// A command did not do what it was asked to.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    /// It did not start: exit code 2.
    pub fn start(text: impl fmt::Display) -> Self {
        Self {
            code: 2,
            text: text.to_string(),
        }
    }

    /// The configuration, the keys or the certificates cannot be used: exit code 2; or 3, when a token
    /// refused the PIN, so that nobody tries again by itself.
    pub fn load(error: &LoadError) -> Self {
        Self {
            code: if error.is_refused_pin() { 3 } else { 2 },
            text: error.to_string(),
        }
    }

    /// A token refused a PIN: exit code 3.
    #[cfg(feature = "pkcs11")]
    pub fn refused_pin(text: impl fmt::Display) -> Self {
        Self {
            code: 3,
            text: text.to_string(),
        }
    }

    /// The answer is no, and has been printed: exit code 1.
    #[must_use]
    pub const fn said() -> Self {
        Self {
            code: 1,
            text: String::new(),
        }
    }

    /// It failed while running: exit code 1.
    pub fn run(text: impl fmt::Display) -> Self {
        Self {
            code: 1,
            text: text.to_string(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

/// Runs the command that the process was started with.
#[must_use]
pub fn main() -> ExitCode {
    match execute(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.text.is_empty() {
                output::error("keyserver", &failure.text);
            }
            ExitCode::from(failure.code)
        }
    }
}

fn execute(command: Command) -> Result<(), Failure> {
    match command {
        Command::Run { config, log_format } => {
            let format = match log_format {
                LogFormat::Auto => logging::Format::Auto,
                LogFormat::Text => logging::Format::Text,
                LogFormat::Json => logging::Format::Json,
            };
            let _log = logging::Log::start("info", format).map_err(Failure::start)?;
            run::run(&config.config)
        }
        Command::Check { config, online } => check::check(&config.config, online),
        Command::Acl(AclCommand::Explain { config, arguments }) => {
            acl::explain(&config.config, &arguments)
        }
        #[cfg(feature = "pkcs11")]
        Command::Hsm(command) => hsm::run(&command),
        #[cfg(feature = "trial")]
        Command::Init(arguments) => init::init(&arguments),
        #[cfg(feature = "trial")]
        Command::Demo(arguments) => {
            logging::init("warn", logging::Format::Text).map_err(Failure::start)?;
            demo::demo(&arguments)
        }
        #[cfg(feature = "trial")]
        Command::Selftest(arguments) => attack::run(&arguments),
        Command::Speed(arguments) => speed::run(&arguments),
        Command::Tickets(command) => tickets::run(&command),
        Command::Completions { shell } => {
            output::print(&docs::completions(shell, &mut Cli::command()));
            Ok(())
        }
        Command::Man { directory } => docs::man(&Cli::command(), directory.as_deref()),
        Command::Version => {
            output::print(&docs::version());
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
