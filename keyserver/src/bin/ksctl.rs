//! `ksctl`: asks a running server how it is, to load its configuration again, and to stop.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};
use keyserver::admin::engine::ReleaseRequest;
use keyserver::admin::ledger::DropRequest;
use keyserver::admin::protocol::{Command as Ask, ControlReply, ControlRequest};
use keyserver::admin::status::Status;
use keyserver::admin::stopping::{RevokeRequest, StopRequest, Target};
use keyserver::commands::acl::ExplainArguments;
use keyserver::commands::{docs, output};
use keyserver::state::ReloadReport;

/// Where the unit of the packages puts the socket.
const DEFAULT_SOCKET: &str = "/run/keyserver/admin.sock";

/// Time for an answer. A reload signs once with every new key.
const DEADLINE: Duration = Duration::from_secs(300);

/// Talks to a running key server over its control socket.
#[derive(Debug, Parser)]
#[command(name = "ksctl", version, max_term_width = 100, after_help = EXIT_CODES)]
struct Cli {
    /// The control socket: `admin.socket` of the server's configuration
    #[arg(long, global = true, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 yes or done; 1 no, or the server could not do it; 2 wrong arguments; 3 no server
answers on the socket.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what the server is doing
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Load configuration, keys and certificates again
    Reload {
        /// Wait for the outcome, show what changed, and fail if it did not take effect
        #[arg(long)]
        wait: bool,
    },
    /// Succeed if the server takes requests
    Ready,
    /// Stop the use of a key, or let it go on
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Stop a client's use of keys, or let it go on
    #[command(subcommand)]
    Clients(ClientsCommand),
    /// Ask the server what its configuration allows
    #[command(subcommand)]
    Acl(AclCommand),
    /// Make what edges can resume sessions with worth nothing
    #[command(subcommand)]
    Tickets(TicketsCommand),
    /// Stop every use of every key
    Seal {
        #[command(flatten)]
        why: Why,
    },
    /// Let a sealed server go on
    Unseal {
        #[command(flatten)]
        why: Why,
    },
    /// What the server remembers of answered ciphertexts
    #[command(subcommand)]
    Ledger(LedgerCommand),
    /// How the engine computes
    #[command(subcommand)]
    Engine(EngineCommand),
    /// Print shell completions
    Completions {
        /// The shell they are for
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write those of all commands to a directory
    Man {
        /// Directory for ksctl.1, ksctl-status.1 and so on
        directory: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Stop the use of a key: no signature leaves from then on, also after a restart
    Disable {
        /// Its label or SKI
        key: String,
        #[command(flatten)]
        why: Why,
    },
    /// Let it be used again
    Enable {
        /// Its label or SKI
        key: String,
        #[command(flatten)]
        why: Why,
    },
}

#[derive(Debug, Subcommand)]
enum AclCommand {
    /// Say yes or no, and which line of the configuration decides; fails if the answer is no
    Explain {
        #[command(flatten)]
        arguments: ExplainArguments,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
enum ClientsCommand {
    /// Stop a client's use of all keys
    Block {
        /// Its name in the configuration
        client: String,
        #[command(flatten)]
        why: Why,
    },
    /// Let it use keys again
    Unblock {
        /// Its name in the configuration
        client: String,
        #[command(flatten)]
        why: Why,
    },
}

#[derive(Debug, Subcommand)]
enum TicketsCommand {
    /// Derive new ticket keys from now on: edges that ask again resume no older session
    RevokeEpoch {
        /// Label or SKI of the key whose certificate is meant
        #[arg(required_unless_present = "all")]
        key: Option<String>,
        /// Those of all keys
        #[arg(long, conflicts_with = "key")]
        all: bool,
        /// Reach this generation at least, as `ksctl status` shows it, to make servers with one master agree
        #[arg(long, value_name = "GENERATION", default_value_t = 0)]
        to: u32,
        #[command(flatten)]
        why: Why,
    },
}

#[derive(Debug, Subcommand)]
enum LedgerCommand {
    /// Drop what a key has opened, for good: for a key that was destroyed and will never be used again. Should it come
    /// back all the same, nothing is decrypted with it
    Drop {
        /// Its SKI; the key must not be loaded
        key: String,
        #[command(flatten)]
        why: Why,
    },
}

#[derive(Debug, Subcommand)]
enum EngineCommand {
    /// Use all of the engine again for a class whose results were wrong: proves it first, and fails if a result of the
    /// proof is wrong
    Release {
        /// As `ksctl status` names it: rsa2048
        #[arg(long)]
        class: String,
        #[command(flatten)]
        why: Why,
    },
}

#[derive(Debug, clap::Args)]
struct Why {
    /// One line for the server's log
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

/// Why the answer is not "done".
struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    fn refused(text: impl Into<String>) -> Self {
        Self {
            code: 1,
            text: text.into(),
        }
    }

    fn unreachable_server(socket: &Path, error: &io::Error) -> Self {
        let next = match error.kind() {
            io::ErrorKind::NotFound => {
                "is the server running, and is this its [admin] socket? Name another with --socket PATH"
            }
            io::ErrorKind::PermissionDenied => "be root or a member of the socket's group",
            io::ErrorKind::ConnectionRefused => "the server that made it is gone: start it again",
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                "the server is stuck: see its log"
            }
            _ => "see the server's log",
        };
        Self {
            code: 3,
            text: format!("{}: {error}; {next}", socket.display()),
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match execute(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.text.is_empty() {
                output::error("ksctl", &failure.text);
            }
            ExitCode::from(failure.code)
        }
    }
}

fn execute(cli: &Cli) -> Result<(), Failure> {
    match &cli.command {
        Command::Status { json } => {
            let status = status(&cli.socket)?;
            output::print(&if *json {
                to_json(&status)?
            } else {
                status.to_string()
            });
            Ok(())
        }
        Command::Ready => ready(&cli.socket),
        Command::Reload { wait: false } => {
            send(&cli.socket, Ask::Reload)
                .map_err(|error| Failure::unreachable_server(&cli.socket, &error))?;
            output::line("asked for; `ksctl status` shows the outcome");
            Ok(())
        }
        Command::Reload { wait: true } => {
            let reply = ask(&cli.socket, Ask::Reload)?;
            let report = reply
                .reload
                .ok_or_else(|| Failure::refused("the server gave no report"))?;
            output::print(&describe(&report));
            Ok(())
        }
        Command::Keys(KeysCommand::Disable { key, why }) => {
            change(&cli.socket, Target::Key(key.clone()), true, why)
        }
        Command::Keys(KeysCommand::Enable { key, why }) => {
            change(&cli.socket, Target::Key(key.clone()), false, why)
        }
        Command::Clients(ClientsCommand::Block { client, why }) => {
            change(&cli.socket, Target::Client(client.clone()), true, why)
        }
        Command::Clients(ClientsCommand::Unblock { client, why }) => {
            change(&cli.socket, Target::Client(client.clone()), false, why)
        }
        Command::Acl(AclCommand::Explain { arguments, json }) => {
            explain(&cli.socket, arguments, *json)
        }
        Command::Tickets(command) => revoke(&cli.socket, command),
        Command::Seal { why } => change(&cli.socket, Target::All, true, why),
        Command::Unseal { why } => change(&cli.socket, Target::All, false, why),
        Command::Ledger(LedgerCommand::Drop { key, why }) => drop_key(&cli.socket, key, why),
        Command::Engine(EngineCommand::Release { class, why }) => release(&cli.socket, class, why),
        Command::Completions { shell } => {
            output::print(&docs::completions(*shell, &mut Cli::command()));
            Ok(())
        }
        Command::Man { directory } => docs::man(&Cli::command(), directory.as_deref())
            .map_err(|failure| Failure::refused(failure.to_string())),
    }
}

/// Shows why a client may, or may not; fails if it may not.
fn explain(socket: &Path, arguments: &ExplainArguments, json: bool) -> Result<(), Failure> {
    let reply = ask(socket, Ask::Explain(arguments.question()))?;
    let explanation =
        (reply.explained).ok_or_else(|| Failure::refused("the server gave no answer"))?;
    output::print(&if json {
        to_json(&explanation)?
    } else {
        explanation.to_string()
    });
    // It has been said: no further word.
    if explanation.allowed {
        Ok(())
    } else {
        Err(Failure::refused(""))
    }
}

fn ready(socket: &Path) -> Result<(), Failure> {
    let status = status(socket)?;
    if status.is_ready() {
        output::line("ready");
        return Ok(());
    }
    let why = if !status.stuck.is_empty() {
        ", and threads do not turn"
    } else if status.refuses_all {
        ", but no key can be served: results were wrong"
    } else if status.state == "serving" {
        ", but no key can be served: every slot is down"
    } else {
        ""
    };
    Err(Failure::refused(format!(
        "the server is {}{why}",
        status.state
    )))
}

/// Ends the quarantine of a class.
fn release(socket: &Path, class: &str, why: &Why) -> Result<(), Failure> {
    let request = ReleaseRequest {
        class: class.to_owned(),
        reason: why.reason.clone(),
    };
    if !ask(socket, Ask::Release(request))?.released {
        return Err(Failure::refused("the server gave no report"));
    }
    output::line("proved and released");
    Ok(())
}

/// Drops what a key has opened; done is done when it is on the server's disk.
fn drop_key(socket: &Path, key: &str, why: &Why) -> Result<(), Failure> {
    let request = DropRequest {
        key: key.to_owned(),
        reason: why.reason.clone(),
    };
    if !ask(socket, Ask::LedgerDrop(request))?.dropped {
        return Err(Failure::refused("the server gave no report"));
    }
    output::line("dropped");
    Ok(())
}

/// Stops something or lets it go on; done is done when it is on the server's disk.
fn change(socket: &Path, target: Target, stop: bool, why: &Why) -> Result<(), Failure> {
    let request = StopRequest {
        target,
        stop,
        reason: why.reason.clone(),
    };
    let report = ask(socket, Ask::Stop(request))?
        .stopped
        .ok_or_else(|| Failure::refused("the server gave no report"))?;
    output::line(match (stop, report.changed) {
        (true, true) if report.unloaded => "stopped, but no such key is loaded",
        (true, false) if report.unloaded => "it was stopped already, but no such key is loaded",
        (true, true) => "stopped",
        (true, false) => "it was stopped already, and is",
        (false, true) => "it goes on",
        (false, false) => "it was not stopped",
    });
    Ok(())
}

/// Revokes ticket keys; done is done when it is on the server's disk.
fn revoke(socket: &Path, command: &TicketsCommand) -> Result<(), Failure> {
    let TicketsCommand::RevokeEpoch { key, to, why, .. } = command;
    let request = RevokeRequest {
        target: key.clone().map_or(Target::All, Target::Key),
        least: *to,
        reason: why.reason.clone(),
    };
    let report = ask(socket, Ask::RevokeTickets(request))?
        .revoked
        .ok_or_else(|| Failure::refused("the server gave no report"))?;
    output::line(&format!(
        "revoked; generation {} counts now: servers with the same master need the same",
        report.generation
    ));
    Ok(())
}

fn status(socket: &Path) -> Result<Status, Failure> {
    let status = ask(socket, Ask::Status)?.status;
    status
        .map(|status| *status)
        .ok_or_else(|| Failure::refused("the server gave no status"))
}

fn to_json(document: &impl serde::Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(document);
    text.map(|text| text + "\n")
        .map_err(|error| Failure::refused(error.to_string()))
}

fn describe(report: &ReloadReport) -> String {
    let mut text = format!(
        "reloaded: generation {}, {} keys ({} new, {} gone), {} clients\n",
        report.generation, report.keys, report.added, report.removed, report.clients
    );
    for section in &report.needs_restart {
        text.push_str(&format!("[{section}] changed; it counts after a restart\n"));
    }
    for warning in &report.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    text
}

/// Sends a command and reads the answer; a refusal is an error.
fn ask(socket: &Path, command: Ask) -> Result<ControlReply, Failure> {
    let exchange = || {
        let stream = send(socket, command)?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        if line.is_empty() {
            return Err(io::Error::other("the server closed without an answer"));
        }
        serde_json::from_str(&line).map_err(io::Error::from)
    };
    let reply: ControlReply =
        exchange().map_err(|error| Failure::unreachable_server(socket, &error))?;
    match reply.error {
        Some(error) => Err(Failure::refused(error.message)),
        None => Ok(reply),
    }
}

fn send(socket: &Path, command: Ask) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    let mut line = serde_json::to_vec(&ControlRequest::new(command))?;
    line.push(b'\n');
    stream.write_all(&line)?;
    Ok(stream)
}
