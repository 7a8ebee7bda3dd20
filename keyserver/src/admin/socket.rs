//! The control socket of `ksctl`: a UNIX socket with mode 0660, JSON lines ([`super::protocol`]).
//!
//! The file's mode decides who can connect; the peer's credentials, which the kernel vouches for,
//! are checked again and logged with every command that changes something.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{UnixCredentials, getsockopt, sockopt};
use nix::unistd::{Gid, Uid, User, getgrouplist};
use socket2::{Domain, SockAddr, Socket, Type};

use super::accept::AcceptThread;
use super::acl;
use super::engine;
use super::ledger;
use super::protocol::{Command, ControlReply, ControlRequest, REQUEST_BYTES_MAX, VERSION};
use super::status::Status;
use super::stopping;
use crate::state::ServerState;

/// Commands of its owner and group; the owner is the server's user.
const MODE: u32 = 0o660;

/// Mode of the directory, where it has to be made.
const DIRECTORY_MODE: u32 = 0o750;

/// Time a peer may take for its next command, and to read an answer.
const DEADLINE: Duration = Duration::from_secs(10);

/// Connections that the kernel keeps waiting.
const BACKLOG: i32 = 16;

/// The socket and its thread.
#[derive(Debug)]
pub struct ControlSocket {
    path: PathBuf,
    inode: (u64, u64),
    thread: AcceptThread,
}

impl ControlSocket {
    /// Makes the socket at `path`, and its directory if there is none. A socket that a server
    /// left behind when it was killed is replaced; one that still answers is not.
    ///
    /// # Errors
    ///
    /// The path cannot be used; the error names it and says why.
    pub fn start(path: &Path, state: &Arc<ServerState>) -> io::Result<Self> {
        let named = |error: io::Error| {
            io::Error::new(
                error.kind(),
                format!("[admin] socket {}: {error}", path.display()),
            )
        };
        let listener = bind(path).map_err(named)?;
        let metadata = fs::metadata(path).map_err(named)?;
        let group = metadata.gid();
        let state = Arc::clone(state);
        let thread = AcceptThread::spawn(
            "admin",
            listener,
            |listener: &UnixListener| listener.accept().map(|(stream, _)| stream),
            move |stream| {
                if let Err(error) = serve(&stream, group, &state) {
                    tracing::debug!(%error, "admin: connection ended");
                }
            },
        )?;
        let inode = (metadata.dev(), metadata.ino());
        Ok(Self {
            path: path.to_owned(),
            inode,
            thread,
        })
    }

    /// Ends the listener and removes the socket file.
    pub fn stop(self) {
        self.thread.stop();
        // Only ours: a successor may have put its own in the same place.
        let ours = fs::metadata(&self.path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.inode);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, "admin: the socket file stays behind");
        }
    }
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = path
        .parent()
        .filter(|directory| !directory.as_os_str().is_empty())
    {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(directory)?;
    }
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // Before listen: until then nobody can connect, whatever the umask made of the mode.
    fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn remove_stale(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::other(
            "something that is not a socket is in its place; move it away",
        ));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another server answers on it; stop that one, or give this one a path of its own",
        )),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
    }
}

fn serve(stream: &UnixStream, group: u32, state: &ServerState) -> io::Result<()> {
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    let peer = getsockopt(stream, sockopt::PeerCredentials)?;
    if !may_command(&peer, Gid::from_raw(group)) {
        tracing::warn!(
            uid = peer.uid(),
            "admin: refused, not the server's user, root or group"
        );
        let message = "your user is not allowed to command this server; \
                       be root, the server's user, or a member of the socket's group";
        return send(stream, &ControlReply::error(message));
    }
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        let limit = u64::try_from(REQUEST_BYTES_MAX).unwrap_or(u64::MAX);
        let count = (&mut reader).take(limit).read_until(b'\n', &mut line)?;
        if count == 0 {
            return Ok(());
        }
        match parse(&line) {
            Ok(command) => send(stream, &execute(&command, &peer, state))?,
            Err(message) => return send(stream, &ControlReply::error(message)),
        }
    }
}

fn parse(line: &[u8]) -> Result<Command, String> {
    #[derive(serde::Deserialize)]
    struct Versioned {
        v: u32,
    }
    let version = serde_json::from_slice::<Versioned>(line)
        .map_err(|error| format!("this is not a command: {error}"))?;
    if version.v != VERSION {
        return Err(format!(
            "this server speaks version {VERSION} of the control protocol, not {}; \
             use the ksctl that came with it",
            version.v
        ));
    }
    serde_json::from_slice::<ControlRequest>(line)
        .map(|request| request.command)
        .map_err(|error| format!("this server does not know the command: {error}"))
}

fn execute(command: &Command, peer: &UnixCredentials, state: &ServerState) -> ControlReply {
    match command {
        Command::Status => ControlReply::status(Status::of(state)),
        Command::Reload => {
            tracing::info!(
                uid = peer.uid(),
                pid = peer.pid(),
                "admin: reload asked for"
            );
            match state.reload() {
                Ok(report) => ControlReply::reload(report),
                Err(error) => ControlReply::error(error.to_string()),
            }
        }
        Command::Explain(question) => {
            let (snapshot, stops) = (state.snapshot.load(), state.stops.current());
            acl::explain(question, &snapshot, Some(&stops))
                .map_or_else(ControlReply::error, ControlReply::explained)
        }
        Command::Stop(request) => stopping::execute(request, peer, state),
        Command::RevokeTickets(request) => stopping::revoke(request, peer, state),
        Command::Release(request) => engine::execute(request, peer, state),
        Command::LedgerDrop(request) => ledger::execute(request, peer, state),
    }
}

/// Root, the server's own user, and members of the group that owns the socket.
fn may_command(peer: &UnixCredentials, group: Gid) -> bool {
    let uid = Uid::from_raw(peer.uid());
    if uid.is_root() || uid == Uid::effective() || peer.gid() == group.as_raw() {
        return true;
    }
    let Ok(Some(user)) = User::from_uid(uid) else {
        return false;
    };
    let Ok(name) = std::ffi::CString::new(user.name) else {
        return false;
    };
    getgrouplist(&name, user.gid).is_ok_and(|groups| groups.contains(&group))
}

fn send(mut stream: &UnixStream, reply: &ControlReply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    stream.write_all(&line)
}
