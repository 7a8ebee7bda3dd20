//! Starts I/O threads on the backend that the kernel allows.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use tokio::sync::mpsc;

use super::{Command, Shard, ShardContext};
use crate::config::IoBackend;
use crate::door::Ticket;
use crate::{limits, os};

/// The kernel interface that moves the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    /// Completion: io_uring.
    #[cfg(feature = "uring")]
    Uring,
    /// Readiness: epoll.
    Epoll,
}

impl Backend {
    /// The word for logs and metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            #[cfg(feature = "uring")]
            Self::Uring => "uring",
            Self::Epoll => "epoll",
        }
    }
}

/// Settles which backend is used, and says so in one log line.
///
/// # Errors
///
/// `uring` was demanded and the kernel, or this build, does not have it.
pub(crate) fn choose_backend(wanted: IoBackend) -> io::Result<Backend> {
    let (backend, why) = match wanted {
        IoBackend::Epoll => (Backend::Epoll, "configured".to_owned()),
        IoBackend::Uring => (probe()?, "configured".to_owned()),
        IoBackend::Auto => match probe() {
            Ok(backend) => (backend, "the kernel allows it".to_owned()),
            Err(error) => (
                Backend::Epoll,
                format!("io_uring is not available: {error}"),
            ),
        },
    };
    tracing::info!(io_backend = backend.name(), configured = ?wanted, "I/O backend: {}, {why}", backend.name());
    Ok(backend)
}

/// Makes a ring once and throws it away. On a thread of its own: a ring belongs to its maker.
#[cfg(feature = "uring")]
fn probe() -> io::Result<Backend> {
    std::thread::spawn(|| super::uring::runtime().map(drop))
        .join()
        .map_err(|_| io::Error::other("the probe of io_uring panicked"))?
        .map(|()| Backend::Uring)
}

#[cfg(not(feature = "uring"))]
fn probe() -> io::Result<Backend> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "this build has no io_uring backend",
    ))
}

/// The control thread's end of an I/O thread.
#[derive(Debug)]
pub(crate) struct ShardHandle {
    commands: mpsc::Sender<Command>,
    load: Arc<AtomicUsize>,
}

impl ShardHandle {
    /// Connections handed over and not ended.
    pub(crate) fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    /// Whether the thread has taken over enough of the last ones to take one more.
    pub(crate) fn has_room(&self) -> bool {
        self.commands.capacity() > 0
    }

    /// Hands a connection over. `false`: the thread has no room for it, and it is closed.
    pub(crate) fn serve(
        &self,
        socket: std::net::TcpStream,
        peer: SocketAddr,
        ticket: Ticket,
    ) -> bool {
        self.load.fetch_add(1, Ordering::Relaxed);
        let command = Command::Serve(socket, peer, ticket);
        let handed = self.commands.try_send(command).is_ok();
        if !handed {
            self.load.fetch_sub(1, Ordering::Relaxed);
        }
        handed
    }

    /// Sends a command, waiting for room.
    pub(crate) async fn send(&self, command: Command) {
        // Fails only when the thread has ended, and then there is nobody to command.
        let _ = self.commands.send(command).await;
    }
}

/// Starts an I/O thread and waits until its runtime stands.
///
/// # Errors
///
/// The system refused the thread, or the kernel its ring or epoll instance.
pub(crate) fn spawn(
    backend: Backend,
    context: ShardContext,
) -> io::Result<(ShardHandle, JoinHandle<()>)> {
    let (commands, receiver) = mpsc::channel(limits::HANDOVERS_WAITING);
    let handle = ShardHandle {
        commands,
        load: Arc::clone(&context.load),
    };
    let (report, started) = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new()
        .name(format!("io-{}", context.index))
        .spawn(move || {
            os::settle_io_thread(context.cpu);
            match backend {
                #[cfg(feature = "uring")]
                Backend::Uring => run_uring(context, receiver, &report),
                Backend::Epoll => run_epoll(context, receiver, &report),
            }
        })?;
    started
        .recv()
        .map_err(|_| io::Error::other("the I/O thread ended before it began"))??;
    Ok((handle, thread))
}

type Report = std::sync::mpsc::Sender<io::Result<()>>;

fn run_epoll(context: ShardContext, commands: mpsc::Receiver<Command>, report: &Report) {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = report.send(Err(error));
            return;
        }
    };
    let _ = report.send(Ok(()));
    let shard = Rc::new(Shard::<super::epoll::Polled>::new(context));
    tokio::task::LocalSet::new().block_on(&runtime, shard.run(commands));
}

#[cfg(feature = "uring")]
fn run_uring(context: ShardContext, commands: mpsc::Receiver<Command>, report: &Report) {
    let runtime = match super::uring::runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = report.send(Err(error));
            return;
        }
    };
    let _ = report.send(Ok(()));
    let shard = Rc::new(Shard::<tokio_uring::net::TcpStream>::new(context));
    // tokio-uring runs its own LocalSet, so `spawn_local` works here as it does on epoll.
    runtime.block_on(shard.run(commands));
}
