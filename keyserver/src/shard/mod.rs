//! An I/O thread: it owns its connections, turns bytes into admitted jobs and finished jobs into
//! bytes. It never computes with a private key and never blocks.
//!
//! Everything here runs on one thread, so it is shared by `Rc` and `Cell`; the only doors to other
//! threads are the command channel (from the control thread), the class queues (to the crypto
//! threads) and the completion ring (from them).

mod buffers;
mod conn;
mod credentials;
mod drip;
mod epoll;
mod handshakes;
mod in_flight;
mod look_ahead;
mod outbox;
mod pace;
mod refusals;
mod serve;
mod signal;
mod stream;
mod table;
mod thread;
mod tickets;
mod turn;
#[cfg(feature = "uring")]
mod uring;
mod window;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use accel::Class;
use tokio::sync::mpsc;

use self::buffers::Buffers;
use self::conn::Connection;
use self::handshakes::Handshakes;
use self::pace::Pace;
use self::refusals::RefusalLog;
use self::stream::Stream;
pub use self::table::ConnectionId;
use self::table::Table;
pub(crate) use self::thread::{Backend, ShardHandle, choose_backend, spawn};
use self::turn::LongTurns;
use self::window::Window;
use crate::admin::metrics::Metrics;
use crate::config;
use crate::delegation::Keeper;
use crate::dispatch::{CompletionRing, Dispatcher, Job, JobPool};
use crate::door::Ticket;
use crate::ledger::Ledger;
use crate::snapshot::Snapshot;
use crate::state::ServerState;
use crate::tls::session::TlsSession;
use crate::{clock, limits};

/// What the control thread tells an I/O thread.
#[derive(Debug)]
pub(crate) enum Command {
    /// Serve this connection.
    Serve(std::net::TcpStream, SocketAddr, Ticket),
    /// Say goodbye to every connection, spread over `spread`; cut what is left after `limit`.
    Drain {
        /// Time over which the goodbyes are spread.
        spread: Duration,
        /// Time after which nobody is waited for.
        limit: Duration,
    },
}

/// What an I/O thread works with, besides its own connections.
#[derive(Debug, Clone)]
pub(crate) struct ShardContext {
    /// Which I/O thread this is.
    pub(crate) index: usize,
    /// How many there are.
    pub(crate) io_threads: usize,
    /// The CPU that it has for itself, if it has one.
    pub(crate) cpu: Option<usize>,
    /// Keys, policy, metrics, health.
    pub(crate) state: Arc<ServerState>,
    /// To the crypto threads.
    pub(crate) dispatcher: Arc<Dispatcher>,
    /// What opens a ciphertext goes there first.
    pub(crate) ledger: Ledger,
    /// What has signed a credential goes there first.
    pub(crate) keeper: Keeper,
    /// From them.
    pub(crate) completions: Arc<CompletionRing>,
    /// Connections handed to this thread and not ended yet, for the acceptor's choice.
    pub(crate) load: Arc<AtomicUsize>,
}

/// One I/O thread's state.
pub(crate) struct Shard<S> {
    context: ShardContext,
    limits: config::Limits,
    connections: RefCell<Table<Connection<S>>>,
    pool: RefCell<JobPool>,
    /// Jobs of this turn, queued together under one lock.
    gathered: RefCell<Vec<Box<Job>>>,
    buffers: Buffers,
    refusals: RefusalLog,
    pace: Pace,
    long_turns: LongTurns,
    window: Window,
    handshakes: Handshakes,
    draining: Cell<bool>,
    /// Past this, connections that are left are cut.
    cut_at: Cell<Option<Instant>>,
}

impl<S: Stream> Shard<S> {
    fn new(context: ShardContext) -> Self {
        let limits = context.state.snapshot.load().config.limits;
        let handshakes = limits.handshakes.div_ceil(context.io_threads.max(1));
        let briefest = context.state.engine().costs().class(Class::P256).per_job();
        Self {
            pool: RefCell::new(JobPool::new(context.index, limits::JOBS_PER_SHARD)),
            context,
            limits,
            connections: RefCell::default(),
            gathered: RefCell::default(),
            buffers: Buffers::default(),
            refusals: RefusalLog::default(),
            pace: Pace::default(),
            long_turns: LongTurns::default(),
            window: Window::new(limits.in_flight_per_connection, briefest, clock::now()),
            handshakes: Handshakes::new(handshakes),
            draining: Cell::new(false),
            cut_at: Cell::new(None),
        }
    }

    /// Runs until every sender of commands is gone and, when draining, the last connection too.
    async fn run(self: Rc<Self>, mut commands: mpsc::Receiver<Command>) {
        let completions = tokio::task::spawn_local(Rc::clone(&self).deliver_completions());
        let sweeper = tokio::task::spawn_local(Rc::clone(&self).sweep_deadlines());
        while let Some(command) = commands.recv().await {
            match command {
                Command::Serve(socket, peer, ticket) => {
                    self.open(socket, peer, ticket);
                    // Many come at once, and who is established does not wait for all of them.
                    tokio::task::yield_now().await;
                }
                Command::Drain { spread, limit } => self.drain(spread, limit),
            }
        }
        // The control thread has let go: it does so only to end the process.
        if self.draining.get() {
            let _ = sweeper.await;
        } else {
            sweeper.abort();
        }
        completions.abort();
    }

    fn open(self: &Rc<Self>, socket: std::net::TcpStream, peer: SocketAddr, ticket: Ticket) {
        let snapshot = self.snapshot();
        let (tls, rules_of) = (
            TlsSession::new(Arc::clone(&snapshot.tls)),
            snapshot.generation,
        );
        drop(snapshot);
        let connection = match (S::from_std(socket), tls) {
            (Ok(stream), Ok(tls)) => self.connections.borrow_mut().insert_with(|id| {
                let deadline = clock::now() + self.limits.handshake_deadline;
                let tls = (tls, rules_of);
                Rc::new(Connection::new(id, peer, stream, tls, ticket, deadline))
            }),
            (Err(error), _) => {
                tracing::warn!(%peer, %error, "cannot register the connection");
                self.context.load.fetch_sub(1, Ordering::Relaxed);
                return;
            }
            (_, Err(error)) => {
                tracing::error!(%peer, %error, "the TLS configuration serves nobody");
                self.context.load.fetch_sub(1, Ordering::Relaxed);
                return;
            }
        };
        self.metrics().connection_opened();
        self.handshakes.begin(connection.id);
        self.close_surplus();
        if self.draining.get() {
            connection.leave_at(clock::now());
        }
        let shard = Rc::clone(self);
        tokio::task::spawn_local(async move {
            connection.serve(&shard).await;
            shard.connections.borrow_mut().remove(connection.id);
            shard.metrics().connection_closed();
            shard.context.load.fetch_sub(1, Ordering::Relaxed);
        });
    }

    /// Closes the oldest handshake when there are too many.
    fn close_surplus(&self) {
        let connections = self.connections.borrow();
        let open = |id| connections.find(id).filter(|found| found.is_handshaking());
        let surplus = self.handshakes.surplus(|id| open(id).is_some());
        if let Some(connection) = surplus.and_then(open) {
            connection.fail_handshake(self, "surplus");
        }
    }

    /// Turns finished jobs into replies. A turn empties the ring before any connection writes, so
    /// replies that finished together leave together. Those of a slot with a queue are made to.
    async fn deliver_completions(self: Rc<Self>) -> ! {
        let completions = &self.context.completions;
        loop {
            completions.ready().await;
            loop {
                while self.deliver_some() {}
                if self.context.dispatcher.runs_low() {
                    self.pace.has_room();
                }
                let Some(patience) = completions.pause() else {
                    break;
                };
                // Ends early for whatever is not of such a slot.
                let _ = tokio::time::timeout(patience, completions.ready()).await;
                completions.resume();
            }
        }
    }

    /// Looks after deadlines, and after connections whose client a reload has removed: they are
    /// closed even if they never ask for anything again.
    ///
    /// Of ten thousand connections, or of a crowd of strangers whose time is over together, that is
    /// milliseconds of work. So it is done in stretches, with pauses between them: as long as this thread only yields
    /// to its other tasks it does not sleep, and a crypto thread on its CPU waits for the scheduler to take it away.
    async fn sweep_deadlines(self: Rc<Self>) {
        let heartbeat = self
            .context
            .state
            .health
            .watch(format!("io-{}", self.context.index));
        let mut generation = self.snapshot().generation;
        loop {
            tokio::time::sleep(limits::SWEEP_INTERVAL).await;
            heartbeat.tick();
            let now = clock::now();
            let reloaded = std::mem::replace(&mut generation, self.snapshot().generation);
            let cut = self.cut_at.get().is_some_and(|at| at <= now);
            let stretch = limits::SWEEP_STRETCH.max(self.connections.borrow().len() / 64);
            let (mut place, mut looked_at, mut closed) = (0, 0, 0);
            while let Some((at, connection)) = self.connection_from(place) {
                place = at + 1;
                looked_at += 1;
                let ended = connection.sweep(&self, now);
                if reloaded != generation {
                    connection.follow_policy(&self.snapshot());
                }
                if cut {
                    // All are closed, and nobody is left to be kept waiting.
                    connection.kill();
                    tokio::task::yield_now().await;
                    continue;
                }
                closed += usize::from(ended);
                if looked_at == stretch || closed == limits::SWEEP_CLOSED {
                    (looked_at, closed) = (0, 0);
                    tokio::time::sleep(limits::SWEEP_PAUSE).await;
                    // Many that end together make a sweep of seconds, which is no thread that is stuck.
                    heartbeat.tick();
                } else if ended {
                    tokio::task::yield_now().await;
                }
            }
            if self.draining.get() && self.connections.borrow().len() == 0 {
                self.context.state.health.unwatch(&heartbeat);
                return;
            }
        }
    }

    fn drain(&self, spread: Duration, limit: Duration) {
        if self.draining.replace(true) {
            return;
        }
        let now = clock::now();
        self.cut_at.set(Some(now + limit));
        let connections = self.live_connections();
        let count = u32::try_from(connections.len()).unwrap_or(u32::MAX).max(1);
        let step = spread.min(limit) / count;
        let mut at = now;
        for connection in connections {
            connection.leave_at(at);
            at += step;
        }
    }

    /// The connections of this moment.
    fn live_connections(&self) -> Vec<Rc<Connection<S>>> {
        self.connections.borrow().iter().map(Rc::clone).collect()
    }

    /// The first connection at this place of the table or behind it, and its place.
    fn connection_from(&self, place: usize) -> Option<(usize, Rc<Connection<S>>)> {
        let connections = self.connections.borrow();
        let (at, connection) = connections.next_from(place)?;
        Some((at, Rc::clone(connection)))
    }

    fn snapshot(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.context.state.snapshot.load()
    }

    fn metrics(&self) -> &Metrics {
        &self.context.state.metrics
    }

    fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    fn handshakes(&self) -> &Handshakes {
        &self.handshakes
    }

    fn pace(&self) -> &Pace {
        &self.pace
    }

    fn long_turns(&self) -> &LongTurns {
        &self.long_turns
    }

    fn window(&self) -> &Window {
        &self.window
    }

    fn limits(&self) -> &config::Limits {
        &self.limits
    }
}
