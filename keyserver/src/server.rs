//! The server as a whole: what starts in which order, and ends in the reverse.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::admin::AdminThreads;
use crate::config::{self, Config};
use crate::delegation::{self, Keeper};
use crate::dispatch::scheduler::{Bounds, Times};
use crate::dispatch::{CompletionRing, Dispatcher, WorkerContext, spawn_workers};
use crate::ledger::{self, Ledger, LedgerError, Opened};
use crate::placement::{Cell, Placement};
use crate::shard::{self, Backend, ShardContext, ShardHandle};
use crate::shutdown::Draining;
use crate::snapshot::LoadError;
use crate::state::{ReloadReport, ServerState};
use crate::{acceptor, alarm, engine, limits, meters};

/// How often the end looks whether a thread that writes has ended, or its disk hangs.
const WRITER_CHECK: Duration = Duration::from_millis(2);

/// A running server.
#[derive(Debug)]
pub struct Server {
    state: Arc<ServerState>,
    draining: Draining,
    address: SocketAddr,
    admin: AdminThreads,
    control: JoinHandle<()>,
    io_threads: Vec<JoinHandle<()>>,
    crypto_threads: Vec<JoinHandle<()>>,
    dispatchers: Vec<Arc<Dispatcher>>,
    ledger: Option<JoinHandle<()>>,
    keeper: Option<JoinHandle<()>>,
    meters: meters::Thread,
}

/// Why the server did not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// Keys, certificates or policy cannot be used.
    Load(LoadError),
    /// The ledger of ciphertexts cannot be used.
    Ledger(LedgerError),
    /// The engine is not available on this machine.
    Engine(accel::EngineError),
    /// A socket or thread could not be had.
    System {
        /// What for.
        what: String,
        /// What the system said.
        error: io::Error,
    },
}

impl Server {
    /// Loads everything that `config` names and starts to serve.
    ///
    /// # Errors
    ///
    /// [`StartError`]. The process is expected to end then: a thread that had started may still run.
    pub fn start(config: Config) -> Result<Self, StartError> {
        let engine = engine::build(&config.accel).map_err(StartError::Engine)?;
        Self::start_on(config, engine)
    }

    /// The same over an engine of the caller's: how a test puts a fault into the arithmetic.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn start_on(config: Config, engine: accel::Engine) -> Result<Self, StartError> {
        let state = ServerState::load(config, Arc::new(engine)).map_err(StartError::Load)?;
        let config = Arc::clone(&state.snapshot.load().config);
        let state_of = config.admin.state.as_deref();
        let ledger = (config
            .ledger
            .as_deref()
            .map(|at| ledger::open(at, state_of)))
        .transpose();
        let ledger = ledger.map_err(StartError::Ledger)?;
        // The sockets before the threads: a port that is taken is the commonest reason to fail.
        let listener = acceptor::listen(config.listen.address, config.listen.backlog)
            .map_err(not_listening(config.listen.address))?;
        let address = listener
            .local_addr()
            .map_err(not_listening(config.listen.address))?;
        let admin = AdminThreads::start(&state, &config).map_err(system("cannot serve admin"))?;

        let backend =
            shard::choose_backend(config.io.backend).map_err(system("cannot use io_uring"))?;
        state
            .health
            .set_backends(backend.name(), state.engine().backend_name());
        state
            .metrics
            .set_build_info(backend.name(), state.engine().backend_name());
        let placement = Placement::detect(config.io.threads, config.accel.threads);
        let threads = Threads::start(&state, backend, &placement, listener, ledger)
            .map_err(system("cannot start threads"))?;
        // Before anybody is told: who reads the line may ask at once.
        state.health.set_ready();
        tracing::info!(
            %address,
            keys = state.snapshot.load().keys.len(),
            cells = placement.cells.len(),
            io_threads = placement.io_threads(),
            crypto_threads = placement.crypto_threads(),
            engine = state.engine().backend_name(),
            "serving"
        );
        Ok(Self {
            state,
            draining: threads.draining,
            address,
            admin,
            control: threads.control,
            io_threads: threads.io,
            crypto_threads: threads.crypto,
            dispatchers: threads.dispatchers,
            ledger: threads.ledger,
            keeper: threads.keeper,
            meters: threads.meters,
        })
    }

    /// Where clients connect.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Where metrics are served, if they are.
    #[must_use]
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.admin.metrics_addr()
    }

    /// What the threads share.
    #[must_use]
    pub fn state(&self) -> &Arc<ServerState> {
        &self.state
    }

    /// Loads keys, policy and certificates again; see [`ServerState::reload`].
    ///
    /// # Errors
    ///
    /// [`LoadError`]; the old ones stay in force.
    pub fn reload(&self) -> Result<ReloadReport, LoadError> {
        self.state.reload()
    }

    /// Begins to drain, as configured. Returns at once; [`Self::join`] waits for the end.
    pub fn drain(&self) {
        let how = self.state.snapshot.load().config.shutdown;
        self.begin_drain(how);
    }

    fn begin_drain(&self, how: config::Shutdown) {
        self.state.health.set_draining();
        self.draining.begin(how);
    }

    /// Waits until the drain is complete and every thread has ended, except those that a disk keeps waiting.
    pub fn join(self) {
        // A thread that panicked has said so; the others are ended all the same.
        let _ = self.control.join();
        for thread in self.io_threads {
            let _ = thread.join();
        }
        // It ended when the last of them let go of it.
        if let Some(keeper) = self.keeper {
            join_writer(keeper, "credentials", || self.state.credentials.is_hung());
        }
        let meters = self.meters.stop();
        join_writer(meters, "meters", || self.state.meters.health().is_hung());
        for dispatcher in &self.dispatchers {
            dispatcher.stop();
        }
        for thread in self.crypto_threads {
            let _ = thread.join();
        }
        // It ends when the last of the threads above has let go of it.
        if let Some(ledger) = self.ledger {
            join_writer(ledger, "ledger", || self.state.ledger.is_hung());
        }
        self.state.tokens.stop();
        // What failed in the last second.
        alarm::report(self.state.engine());
        self.admin.stop();
    }

    /// Stops without waiting for clients: connections are cut.
    pub fn stop(self) {
        self.begin_drain(config::Shutdown {
            spread: Duration::ZERO,
            limit: Duration::ZERO,
        });
        self.join();
    }
}

struct Threads {
    draining: Draining,
    control: JoinHandle<()>,
    io: Vec<JoinHandle<()>>,
    crypto: Vec<JoinHandle<()>>,
    dispatchers: Vec<Arc<Dispatcher>>,
    ledger: Option<JoinHandle<()>>,
    keeper: Option<JoinHandle<()>>,
    meters: meters::Thread,
}

impl Threads {
    fn start(
        state: &Arc<ServerState>,
        backend: Backend,
        placement: &Placement,
        listener: std::net::TcpListener,
        ledger: Option<Opened>,
    ) -> io::Result<Self> {
        let completions: Arc<[_]> = (0..placement.io_threads())
            .map(|_| Arc::new(CompletionRing::new(limits::JOBS_PER_SHARD)))
            .collect();
        let (keeper, keeper_thread) = delegation::start_keeper(state, &completions)?;
        let mut cells = Cells {
            ledger: ledger.as_ref().map(Opened::handle).unwrap_or_default(),
            keeper,
            ..Cells::default()
        };
        for cell in &placement.cells {
            cells.start(state, backend, cell, placement.spin, &completions)?;
        }
        state
            .metrics
            .watch_queues(cells.dispatchers.iter().map(Arc::clone).collect());
        let Cells {
            dispatchers,
            handles,
            io,
            crypto,
            ledger: ledger_handle,
            keeper: keeper_handle,
        } = cells;
        // The other threads have their own by now; ledger and keeper end with the last of them.
        drop((ledger_handle, keeper_handle));
        let ledger = ledger.map(|opened| opened.start(Arc::clone(state), completions));
        let draining = Draining::new();
        let accepting = acceptor::run(listener, handles, Arc::clone(state), draining.clone());
        let control = spawn_control(Arc::clone(state), accepting)?;
        Ok(Self {
            draining,
            control,
            io,
            crypto,
            dispatchers,
            ledger: ledger.transpose()?,
            keeper: keeper_thread,
            meters: meters::start(state)?,
        })
    }
}

/// The threads of the cells that have been started.
#[derive(Default)]
struct Cells {
    dispatchers: Vec<Arc<Dispatcher>>,
    handles: Vec<ShardHandle>,
    io: Vec<JoinHandle<()>>,
    crypto: Vec<JoinHandle<()>>,
    ledger: Ledger,
    keeper: Keeper,
}

impl Cells {
    /// Starts one more. Threads are numbered through all cells.
    fn start(
        &mut self,
        state: &Arc<ServerState>,
        backend: Backend,
        cell: &Cell,
        spin: Duration,
        completions: &Arc<[Arc<CompletionRing>]>,
    ) -> io::Result<()> {
        let limits = state.snapshot.load().config.limits;
        let bounds = Bounds {
            threads: cell.crypto_threads,
            queue_time: limits.queue_time,
            jobs_min: limits.in_flight_per_connection,
            jobs_max: cell.io_threads * limits::JOBS_PER_SHARD,
        };
        let times = Times::measured(state.engine().costs());
        let dispatcher = Arc::new(Dispatcher::new(times, bounds, spin));
        let first = self.io.len();
        let rings = completions.iter().skip(first).take(cell.io_threads);
        for (in_cell, ring) in rings.enumerate() {
            let context = ShardContext {
                index: first + in_cell,
                io_threads: completions.len(),
                cpu: cell.cpu_of_io_thread(in_cell),
                state: Arc::clone(state),
                dispatcher: Arc::clone(&dispatcher),
                ledger: self.ledger.clone(),
                keeper: self.keeper.clone(),
                completions: Arc::clone(ring),
                load: Arc::new(AtomicUsize::new(0)),
            };
            let (handle, thread) = shard::spawn(backend, context)?;
            self.handles.push(handle);
            self.io.push(thread);
        }
        let workers = WorkerContext {
            dispatcher: Arc::clone(&dispatcher),
            state: Arc::clone(state),
            completions: Arc::clone(completions),
            gives_way: cell.io_cpus.is_empty(),
            ledger: self.ledger.clone(),
        };
        let crypto = spawn_workers(&workers, cell, self.crypto.len())?;
        self.crypto.extend(crypto);
        self.dispatchers.push(dispatcher);
        Ok(())
    }
}

/// The control thread: takes connections until the drain, and tells of alarms.
fn spawn_control(
    state: Arc<ServerState>,
    accepting: impl Future<Output = io::Result<()>> + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || {
            let ended = runtime.block_on(async {
                tokio::select! {
                    ended = accepting => ended,
                    never = alarm::watch(&state) => never,
                }
            });
            if let Err(error) = ended {
                tracing::error!(%error, "the acceptor ended");
            }
        })
}

/// Waits for the end of a thread that writes to a disk. One that the disk keeps waiting is left behind, and ends with the
/// process: nothing is lost, for what is not on disk was not released.
fn join_writer(thread: JoinHandle<()>, name: &str, is_hung: impl Fn() -> bool) {
    while !thread.is_finished() {
        if is_hung() {
            tracing::error!(
                thread = name,
                "its disk does not answer: the server ends without it"
            );
            return;
        }
        std::thread::sleep(WRITER_CHECK);
    }
    // If it panicked it has said so.
    let _ = thread.join();
}

fn system(what: &str) -> impl Fn(io::Error) -> StartError {
    move |error| StartError::System {
        what: what.to_owned(),
        error,
    }
}

/// The commonest reason not to start, with the way out.
fn not_listening(address: SocketAddr) -> impl Fn(io::Error) -> StartError {
    move |error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => "another program has the port: `ss -ltnp` names it",
            io::ErrorKind::AddrNotAvailable => "no interface of this machine has the address",
            io::ErrorKind::PermissionDenied => "ports below 1024 need a socket unit",
            _ => "see [listen] address in the configuration",
        };
        StartError::System {
            what: format!("cannot listen on {address} for clients ({hint})"),
            error,
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Load(error) => error.fmt(f),
            Self::Ledger(error) => error.fmt(f),
            Self::Engine(error) => error.fmt(f),
            Self::System { what, error } => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Load(error) => Some(error),
            Self::Ledger(error) => Some(error),
            Self::Engine(error) => Some(error),
            Self::System { error, .. } => Some(error),
        }
    }
}
