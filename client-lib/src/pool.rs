//! The async client of several servers.
//!
//! ```text
//!   Pool::call -- Attempts: what to do --> Calls of one server --> its task: driver::run
//!       ^--- answer, failure, time ---'        '-- link up, link down --> Fleet
//! ```

use std::collections::HashMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use keyless_protocol::{KeyEntry, Request};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::algorithm::SignatureAlgorithm;
use crate::backoff::Backoff;
use crate::calls::{Calls, Link, Patience};
use crate::capabilities::Capabilities;
use crate::discovery::{self, Known, Roster, Source};
use crate::driver;
use crate::error::Error;
use crate::fleet::{Attempts, Fleet, Place, ServerId, Step};
use crate::key::KeyId;
use crate::key_pages::KeyPages;
use crate::link::Target;
use crate::operation::Operation;
use crate::settings::{Settings, setters};
use crate::tls::TlsIdentity;

/// How often a connected server is asked how it is, and how long the answer may take.
const QUESTION_EVERY: Duration = Duration::from_secs(1);
/// How often a server that has left is looked at, whether its calls have ended.
const GLANCE: Duration = Duration::from_millis(50);
/// The longest wait between two attempts to connect.
const WAIT_LONGEST: Duration = Duration::from_millis(500);

/// The settings of a [`Pool`], each with a default that suits a TLS terminator.
#[derive(Clone, Debug)]
#[must_use]
pub struct PoolBuilder {
    settings: Settings,
    in_flight: usize,
}

impl PoolBuilder {
    setters!();

    /// Calls on their way to one server at once, 1 to 32,768. Default 256, which is what servers
    /// take from one connection before they stop reading.
    pub fn in_flight(mut self, calls: usize) -> Self {
        self.in_flight = calls;
        self
    }

    /// Calls that may wait for one of those places, for each server. Default 4,096.
    pub fn queue(mut self, calls: usize) -> Self {
        self.settings.queue = calls;
        self
    }

    /// Connects to all servers, and is done when the first of them has let us in. Needs a tokio
    /// runtime with I/O and time; each connection is kept by a task of its own.
    ///
    /// # Errors
    ///
    /// [`Error::Configuration`] for settings that cannot be used; when no server lets us in, why.
    pub async fn connect(self) -> Result<Pool, Error> {
        let settings = self.settings;
        settings.check()?;
        let now = Instant::now().into_std();
        let shared = Arc::new(Shared {
            fleet: Mutex::new(Fleet::new(settings.hedging, settings.observer, now)),
            links: Mutex::default(),
            changed: Notify::new(),
            target: Target {
                address: String::new(),
                server_name: settings.server_name,
                identity: settings.identity,
                connect_limit: settings.connect_limit,
                silence: settings.silence,
                wait_longest: WAIT_LONGEST.min(Backoff::LONGEST),
            },
            in_flight: self.in_flight,
            queue: settings.queue,
        });
        for (address, place) in settings.servers.list() {
            shared.add(address, *place);
        }
        let handle = Arc::new(Handle { shared });
        let mut not_found = None;
        for source in settings.servers.sources() {
            let name_servers = settings.servers.name_servers().to_vec();
            let mut watch = Watch::new(source.clone(), name_servers, &handle);
            let wait = watch.look(&handle.shared).await.unwrap_or_else(|error| {
                not_found = Some(error);
                discovery::RETRY
            });
            tokio::spawn(watch.run(wait));
        }
        if let Some(error) = not_found
            && handle.shared.links().is_empty()
        {
            return Err(error);
        }
        let pool = Pool {
            handle,
            deadline: settings.deadline,
        };
        // The attempts are made meanwhile; a ping is the shortest call that waits for one.
        pool.call(&Operation::ping(&[])).await?;
        Ok(pool)
    }
}

/// What the pool's calls and the tasks of its connections share.
struct Shared {
    fleet: Mutex<Fleet>,
    links: Mutex<HashMap<ServerId, Arc<Calls>>>,
    /// Told when a server has come or gone.
    changed: Notify,
    target: Target,
    in_flight: usize,
    queue: usize,
}

impl Shared {
    fn fleet(&self) -> MutexGuard<'_, Fleet> {
        self.fleet.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn links(&self) -> MutexGuard<'_, HashMap<ServerId, Arc<Calls>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a server and begins to connect to it.
    fn add(self: &Arc<Self>, address: &str, place: Place) -> ServerId {
        let id = self.fleet().join(address, place, std_now());
        let calls = Arc::new(Calls::new(self.in_flight, self.queue));
        self.links().insert(id, Arc::clone(&calls));
        let target = Target {
            address: address.to_owned(),
            ..self.target.clone()
        };
        let watched = Arc::clone(self);
        let watch = move |link: &Link| watched.linked(id, link);
        tokio::spawn(driver::run(Arc::clone(&calls), target, None, watch));
        tokio::spawn(question(Arc::clone(self), id, calls));
        id
    }

    /// A connection was made or lost.
    fn linked(&self, id: ServerId, link: &Link) {
        match link {
            Link::Up { capabilities } => {
                let draining = capabilities.draining;
                self.fleet().connected(id, draining, std_now());
            }
            Link::Down { last: Some(error) } => self.fleet().lost(id, error, std_now()),
            Link::Down { last: None } | Link::Closed => {}
        }
        self.changed.notify_waiters();
    }
}

impl Roster for Arc<Shared> {
    fn join(&mut self, address: &str, place: Place) -> ServerId {
        self.add(address, place)
    }

    fn moved(&mut self, id: ServerId, place: Place) {
        self.fleet().moved(id, place);
        self.changed.notify_waiters();
    }

    /// Its connection is closed when the calls on it have ended.
    fn leave(&mut self, id: ServerId) {
        self.fleet().leave(id);
        let Some(calls) = self.links().remove(&id) else {
            return;
        };
        tokio::spawn(async move {
            while !calls.close_if_idle() {
                tokio::time::sleep(GLANCE).await;
            }
        });
    }
}

/// A name behind which there are servers, as long as the pool is there.
struct Watch {
    source: Source,
    name_servers: Vec<SocketAddr>,
    known: Known,
    pool: Weak<Handle>,
}

impl Watch {
    fn new(source: Source, name_servers: Vec<SocketAddr>, pool: &Arc<Handle>) -> Self {
        Self {
            source,
            name_servers,
            known: Known::default(),
            pool: Arc::downgrade(pool),
        }
    }

    async fn run(mut self, mut wait: Duration) {
        loop {
            tokio::time::sleep(wait).await;
            let Some(pool) = self.pool.upgrade() else {
                return;
            };
            // While that fails, the servers stay as they are.
            let looked = self.look(&pool.shared).await;
            wait = looked.unwrap_or(discovery::RETRY);
        }
    }

    /// Looks the name up, and lets servers join and leave. Returns when to look again.
    async fn look(&mut self, shared: &Arc<Shared>) -> Result<Duration, Error> {
        let (source, name_servers) = (self.source.clone(), self.name_servers.clone());
        let looked = tokio::task::spawn_blocking(move || source.look_up(&name_servers)).await;
        let looked = looked.unwrap_or_else(|_| Err(std::io::Error::other("it was given up")));
        let found = looked.map_err(|error| {
            let error = Error::network("looking up servers", error);
            shared.fleet().not_found(error.clone(), std_now());
            shared.changed.notify_waiters();
            error
        })?;
        let good_for = found.good_for;
        self.known.update(found, &mut Arc::clone(shared));
        Ok(good_for)
    }
}

/// Asks a server how it is, for as long as it belongs to the pool.
async fn question(shared: Arc<Shared>, id: ServerId, calls: Arc<Calls>) {
    let ask = |capabilities: &Capabilities| Ok(Request::new(0, capabilities.question()));
    loop {
        tokio::select! {
            () = tokio::time::sleep(QUESTION_EVERY) => {}
            () = calls.closed() => return,
        }
        let deadline = Instant::now() + QUESTION_EVERY;
        let asked = calls.call(&ask, Patience::None, deadline);
        match tokio::time::timeout_at(deadline, asked).await {
            Ok(Ok(document)) => {
                if Capabilities::of_document(&document).draining {
                    shared.fleet().drains(id);
                }
            }
            // A lost connection is known already, and a refusal is a sign of life.
            Ok(Err(_)) => {}
            Err(_) => shared.fleet().unanswered(id, std_now()),
        }
    }
}

fn std_now() -> std::time::Instant {
    Instant::now().into_std()
}

/// A client of several key servers that all hold the same keys.
///
/// Each server has one TLS connection, over which any number of calls run at once. A call goes to
/// the better of two servers drawn at random, by latency and calls in flight. It goes elsewhere when
/// a server is gone, broken or busy, and a signature that is slow to come is asked of a second
/// server as well; both within a budget of a tenth of all calls. Servers that fail repeatedly, or
/// say that they drain, are left alone. `denied`, `disabled` and `sealed` are final. Decryptions are
/// sent once and never repeated.
///
/// Clones share everything. When the last one is dropped, the connections are closed.
///
/// ```
/// # mod support { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/behaviour/support.rs")); }
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let one = support::Server::extended().await;
/// # let two = support::Server::scripted_under(&one.pki, |_| None).await;
/// # let (first, second, identity) = (one.address(), two.address(), one.identity());
/// # let key = keyserver_client::KeyId::from_ski(support::KEY);
/// use keyserver_client::{Pool, SignatureAlgorithm};
///
/// let pool = Pool::builder("localhost", identity)
///     .server(first)
///     .server(second)
///     .connect()
///     .await?;
/// let hash = [0x11; 32]; // SHA-256 of what is to be signed
/// let signature = pool.sign(&key, SignatureAlgorithm::EcdsaSha256, &hash).await?;
/// # assert!(!signature.is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Pool {
    handle: Arc<Handle>,
    deadline: Duration,
}

/// Closes the connections when the last pool goes.
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        for (_, calls) in self.shared.links().drain() {
            calls.set_link(Link::Closed);
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("deadline", &self.deadline)
            .field("fleet", &*self.handle.shared.fleet())
            .finish_non_exhaustive()
    }
}

impl Pool {
    /// Starts the description of a pool. `server_name` is the name that the servers' certificates
    /// must be for.
    pub fn builder(server_name: impl Into<String>, identity: TlsIdentity) -> PoolBuilder {
        PoolBuilder {
            settings: Settings::new(server_name.into(), identity),
            in_flight: 256,
        }
    }

    /// The same pool with another deadline for its calls.
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self {
            handle: Arc::clone(&self.handle),
            deadline,
        }
    }

    /// Signs a hash (with [`SignatureAlgorithm::Ed25519`] a message).
    ///
    /// # Errors
    ///
    /// [`Error::Input`] for a hash of the wrong length; [`Error::Refused`] when the server does not
    /// have the key, does not grant its use, or the algorithm does not fit it; any other [`Error`].
    pub async fn sign(
        &self,
        key: &KeyId,
        algorithm: SignatureAlgorithm,
        hash_or_message: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let operation = Operation::sign(key, algorithm, hash_or_message)?;
        self.call(&operation).await
    }

    /// RSA-decrypts and returns the whole block with its padding still on (opcode 0x01).
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] when the server does not grant it or the input does not fit the key; any
    /// other [`Error`].
    pub async fn decrypt(&self, key: &KeyId, ciphertext: &[u8]) -> Result<Vec<u8>, Error> {
        self.call(&Operation::decrypt(key, ciphertext)).await
    }

    /// The keys that this client may use, over as many pages as the server has.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] from a stock server, which does not know the question; any other
    /// [`Error`].
    pub async fn keys(&self) -> Result<Vec<KeyEntry>, Error> {
        let mut pages = KeyPages::default();
        loop {
            let page = self.call(&pages.question()).await?;
            if let Some(keys) = pages.take(&page)? {
                return Ok(keys);
            }
        }
    }

    /// Does any operation. The future may be dropped at any moment; the answer is then ignored.
    ///
    /// # Errors
    ///
    /// Any [`Error`].
    pub async fn call(&self, operation: &Operation) -> Result<Vec<u8>, Error> {
        let shared = &*self.handle.shared;
        let attempts = Attempts::new(operation.is_repeatable(), self.deadline, std_now());
        let mut call = Call {
            shared,
            attempts,
            running: Vec::with_capacity(2),
        };
        let mut step = call.attempts.begin(&mut shared.fleet(), std_now());
        loop {
            step = match step {
                Step::Send(server) => call.send(server, operation),
                Step::Done(outcome) => return outcome,
                Step::Wait => call.wait().await,
            };
        }
    }
}

/// One call under way. Dropping it gives up what is still running.
struct Call<'p> {
    shared: &'p Shared,
    attempts: Attempts,
    running: Vec<(ServerId, Asked<'p>)>,
}

/// The answer of one server, when it comes.
type Asked<'p> = Pin<Box<dyn Future<Output = Result<Vec<u8>, Error>> + Send + 'p>>;

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.running.clear();
        self.attempts.give_up(&mut self.shared.fleet(), std_now());
    }
}

impl<'p> Call<'p> {
    fn send(&mut self, server: ServerId, operation: &'p Operation) -> Step {
        let deadline = Instant::from_std(self.attempts.deadline());
        let calls = self.shared.links().get(&server).cloned();
        let asked = async move {
            let left = || Error::lost("sending requests", "the server has just left");
            let calls = calls.ok_or_else(|| left().before_sending())?;
            let ask = |capabilities: &Capabilities| operation.request(capabilities);
            calls.call(&ask, Patience::None, deadline).await
        };
        self.running.push((server, Box::pin(asked)));
        Step::Wait
    }

    /// Waits for an answer, for time, or, when no server is up, for one that is.
    async fn wait(&mut self) -> Step {
        let shared = self.shared;
        let changed = shared.changed.notified();
        tokio::pin!(changed);
        let parked = self.attempts.is_parked();
        if parked {
            // Listen first and look again: a server may have come up in between.
            changed.as_mut().enable();
            let step = self.attempts.woken(&mut shared.fleet(), std_now());
            if !matches!(step, Step::Wait) {
                return step;
            }
        }
        let wake_at = Instant::from_std(self.attempts.wake_at());
        tokio::select! {
            biased;
            (server, result) = poll_fn(|cx| self.poll_running(cx)) => {
                self.attempts.answered(&mut shared.fleet(), server, result, std_now())
            }
            () = changed, if parked => self.attempts.woken(&mut shared.fleet(), std_now()),
            () = tokio::time::sleep_until(wake_at) => {
                self.attempts.woken(&mut shared.fleet(), std_now())
            }
        }
    }

    fn poll_running(&mut self, cx: &mut Context<'_>) -> Poll<(ServerId, Result<Vec<u8>, Error>)> {
        for index in 0..self.running.len() {
            if let Some((server, asked)) = self.running.get_mut(index)
                && let Poll::Ready(result) = asked.as_mut().poll(cx)
            {
                let server = *server;
                drop(self.running.swap_remove(index));
                return Poll::Ready((server, result));
            }
        }
        Poll::Pending
    }
}
