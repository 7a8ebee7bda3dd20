//! A client for code that waits: C libraries, PKCS#11 modules, TLS stacks with synchronous signers.
//!
//! [`Client`] takes the same decisions about servers as the async [`crate::Pool`] and needs no
//! runtime. It has no thread either, until something is submitted with a callback: whoever waits for
//! an answer does the input and output meanwhile, for all who wait. It connects with its first call.
//!
//! # Forks
//!
//! A client may be used on both sides of a `fork`. The child drops the sockets it inherited without a
//! TLS close, since they are the parent's, and connects anew with its next call. Calls that other
//! threads of the parent were making at that moment go on in the parent only.

mod core;
mod line;
mod resolving;
mod seat;
mod waiter;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use keyless_protocol::{ErrorCode, KeyEntry, ServerInfo};
use mio::{Poll, Token, Waker};

use self::core::Core;
use self::line::Setting;
use self::seat::{Seat, WAKE};
use crate::algorithm::SignatureAlgorithm;
use crate::error::{ConfigError, Error};
use crate::fleet::Fleet;
use crate::key::KeyId;
use crate::key_pages::KeyPages;
use crate::operation::Operation;
use crate::settings::{Settings, setters};
use crate::tls::TlsIdentity;

/// Names a call within one client. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct CallId(u64);

/// Told of the outcome of a submitted call.
type Callback = Box<dyn FnOnce(Result<Vec<u8>, Error>) + Send>;

/// The settings of a [`Client`], each with a default that suits a TLS terminator.
#[derive(Clone, Debug)]
#[must_use]
pub struct ClientBuilder {
    settings: Settings,
}

impl ClientBuilder {
    setters!();

    /// Calls on their way at once. With more, calls fail with [`Error::Overloaded`] at once.
    /// Default 4,096.
    pub fn queue(mut self, calls: usize) -> Self {
        self.settings.queue = calls;
        self
    }

    /// The client. Nothing is connected yet.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] without a server, for an address without a port, or for a server name that is
    /// none.
    pub fn build(self) -> Result<Client, ConfigError> {
        self.settings.check()?;
        let deadline = self.settings.deadline;
        Ok(Client {
            handle: Arc::new(Handle {
                builder: self,
                seat: ArcSwapOption::empty(),
            }),
            deadline,
        })
    }

    /// The parts of a client in this process.
    fn open(&self) -> Result<Arc<Seat>, Error> {
        let failed = |error: io::Error| Error::network("setting up the client", error);
        let now = Instant::now();
        let poll = Poll::new().map_err(failed)?;
        let registry = poll.registry().try_clone().map_err(failed)?;
        let waker = Arc::new(Waker::new(&registry, Token(WAKE)).map_err(failed)?);
        let settings = &self.settings;
        let setting = Setting {
            // Its own store of TLS sessions: processes do not share tickets.
            identity: settings.identity.clone().resumption(true),
            server_name: settings.server_name.clone(),
            connect_limit: settings.connect_limit,
            silence: settings.silence,
        };
        let fleet = Fleet::new(settings.hedging, Arc::clone(&settings.observer), now);
        let (servers, queue) = (&settings.servers, settings.queue);
        let core = Core::new(setting, fleet, servers, queue, registry, waker, now);
        Ok(Arc::new(Seat::new(poll, core)))
    }
}

/// A client of one or more key servers that all hold the same keys.
///
/// Clones share connections, and any number of threads may call at once. When the last clone is
/// dropped, the connections are closed and the client's thread, if it had one, has ended.
///
/// ```no_run
/// use keyserver_client::{KeyId, SignatureAlgorithm, TlsIdentity, blocking::Client};
///
/// let identity = TlsIdentity::from_files("ca.pem", "edge-1.pem", "edge-1-key.pem")?;
/// let client = Client::builder("keys.internal", identity)
///     .server("keys-1.internal:2407")
///     .server("keys-2.internal:2407")
///     .build()?;
///
/// let key = KeyId::from_certificate(&std::fs::read("shop.pem")?)?;
/// let hash = [0x11; 32]; // SHA-256 of what is to be signed
/// let signature = client.sign(&key, SignatureAlgorithm::EcdsaSha256, &hash)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// The documentation of [`Client::submit`] has an example of calls with callbacks.
#[derive(Clone)]
pub struct Client {
    handle: Arc<Handle>,
    deadline: Duration,
}

/// What clones share.
struct Handle {
    builder: ClientBuilder,
    /// Made with the first call, and again in a forked process. Swapped and never locked: a lock that
    /// another thread of the parent holds at the moment of the fork stays locked in the child for ever.
    seat: ArcSwapOption<Seat>,
}

impl Handle {
    /// The seat of this process. Threads whose first calls come at once may make one each. The first to
    /// put its own in place wins, and the others take that one: they have connected to nothing yet.
    fn seat(&self) -> Result<Arc<Seat>, Error> {
        loop {
            let before = match self.seat.load_full() {
                Some(seat) if seat.is_own() => return Ok(seat),
                before => before,
            };
            let seat = self.builder.open()?;
            let found = self.seat.compare_and_swap(&before, Some(Arc::clone(&seat)));
            let is_first = match (found.as_ref(), before.as_ref()) {
                (None, None) => true,
                (Some(found), Some(before)) => Arc::ptr_eq(found, before),
                _ => false,
            };
            if is_first {
                if let Some(inherited) = before {
                    inherited.abandon();
                }
                return Ok(seat);
            }
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let Some(seat) = self.seat.swap(None) else {
            return;
        };
        if seat.is_own() {
            seat.close();
        } else {
            seat.abandon();
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("deadline", &self.deadline)
            .field("servers", &self.handle.builder.settings.servers)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Starts the description of a client. `server_name` is the name that the servers' certificates
    /// must be for.
    pub fn builder(server_name: impl Into<String>, identity: TlsIdentity) -> ClientBuilder {
        ClientBuilder {
            settings: Settings::new(server_name.into(), identity),
        }
    }

    /// The same client with another deadline for its calls.
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self {
            handle: Arc::clone(&self.handle),
            deadline,
        }
    }

    /// The deadline of calls made through this handle.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// What the client was built with, for what needs a connection of its own.
    pub(crate) fn settings(&self) -> &Settings {
        &self.handle.builder.settings
    }

    /// Makes a call and waits for its outcome, at most until the deadline. Without any server to
    /// connect to it fails as soon as all have been tried.
    ///
    /// # Errors
    ///
    /// Any [`Error`].
    pub fn call(&self, operation: Operation) -> Result<Vec<u8>, Error> {
        self.handle.seat()?.call(operation, self.deadline)
    }

    /// Makes a call and returns at once. `done` gets the outcome, exactly once, on a thread of the
    /// client's or of another caller: it must not block, and may submit further calls. A call that
    /// fails here is not begun, and `done` is dropped.
    ///
    /// The first call of this method starts the client's thread.
    ///
    /// ```
    /// # mod support { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/behaviour/support.rs")); }
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = support::Server::extended().await;
    /// # let (address, identity) = (server.address(), server.identity());
    /// use keyserver_client::{Operation, blocking::Client};
    ///
    /// let client = Client::builder("localhost", identity).server(address).build()?;
    /// let (sender, receiver) = std::sync::mpsc::channel();
    /// client.submit(Operation::ping(b"hello"), move |outcome| {
    ///     let _ = sender.send(outcome);
    /// })?;
    /// # tokio::task::spawn_blocking(move || {
    /// assert_eq!(receiver.recv().unwrap().unwrap(), b"hello");
    /// # drop(client) }).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Overloaded`] when as many calls as the client may hold are on their way.
    pub fn submit(
        &self,
        operation: Operation,
        done: impl FnOnce(Result<Vec<u8>, Error>) + Send + 'static,
    ) -> Result<(), Error> {
        let seat = self.handle.seat()?;
        seat.submit(operation, self.deadline, Box::new(done))
    }

    /// Calls of this process that are on their way now.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        let seat = self.handle.seat.load();
        let own = seat.as_ref().filter(|seat| seat.is_own());
        own.map_or(0, |seat| seat.in_flight())
    }

    /// Signs a hash (with [`SignatureAlgorithm::Ed25519`] a message).
    ///
    /// # Errors
    ///
    /// [`Error::Input`] for a hash of the wrong length; [`Error::Refused`] when the server does not
    /// have the key, does not grant its use, or the algorithm does not fit it; any other [`Error`].
    pub fn sign(
        &self,
        key: &KeyId,
        algorithm: SignatureAlgorithm,
        hash_or_message: &[u8],
    ) -> Result<Vec<u8>, Error> {
        self.call(Operation::sign(key, algorithm, hash_or_message)?)
    }

    /// RSA-decrypts and returns the whole block with its padding still on (opcode 0x01).
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] when the server does not grant it or the input does not fit the key; any
    /// other [`Error`].
    pub fn decrypt(&self, key: &KeyId, ciphertext: &[u8]) -> Result<Vec<u8>, Error> {
        self.call(Operation::decrypt(key, ciphertext))
    }

    /// Sends bytes to one of the servers and returns what came back, which is the same bytes.
    ///
    /// # Errors
    ///
    /// Any [`Error`]; [`Error::Protocol`] when other bytes come back.
    pub fn ping(&self, payload: &[u8]) -> Result<Vec<u8>, Error> {
        let echo = self.call(Operation::ping(payload))?;
        if echo != payload {
            return Err(Error::protocol("the answer to a ping is not what was sent"));
        }
        Ok(echo)
    }

    /// What one of the servers says about itself; `None` from a stock server.
    ///
    /// # Errors
    ///
    /// Any [`Error`]; [`Error::Protocol`] when the answer cannot be read.
    pub fn server_info(&self) -> Result<Option<ServerInfo>, Error> {
        match self.call(Operation::server_info()) {
            Ok(document) => ServerInfo::decode(&document)
                .map(Some)
                .map_err(Error::protocol),
            Err(Error::Refused(ErrorCode::BadOpcode)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The keys that this client may use, over as many pages as the server has.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] with [`ErrorCode::BadOpcode`] from a stock server, which does not know
    /// the question; any other [`Error`].
    pub fn keys(&self) -> Result<Vec<KeyEntry>, Error> {
        let mut pages = KeyPages::default();
        loop {
            let page = self.call(pages.question())?;
            if let Some(keys) = pages.take(&page)? {
                return Ok(keys);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::thread;

    /// Who a client of a test is.
    pub(super) fn identity() -> TlsIdentity {
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = rcgen::CertificateParams::new(vec!["edge".to_owned()])
            .and_then(|params| params.self_signed(&key))
            .expect("a certificate");
        let certificate = certificate.pem();
        let identity = TlsIdentity::from_pem(
            certificate.as_bytes(),
            certificate.as_bytes(),
            key.serialize_pem().as_bytes(),
        );
        identity.expect("an identity")
    }

    #[test]
    fn first_calls_at_once_end_up_with_one_seat_that_lives() {
        const THREADS: usize = 4;
        let builder = Client::builder("keys", identity()).server("127.0.0.1:1");
        for round in 0..40 {
            let client = builder.clone().build().expect("builds");
            let handle = &client.handle;
            // Every other round as in a child, whose parent had made calls.
            let inherited = (round % 2 == 1).then(|| {
                let seat = handle.builder.open().expect("opens");
                let mut seat = Arc::into_inner(seat).expect("one owner");
                seat.pid = 0;
                Arc::new(seat)
            });
            handle.seat.store(inherited.clone());
            let at_once = Barrier::new(THREADS);
            let first_call = || {
                at_once.wait();
                handle.seat().expect("a seat")
            };
            let seats: Vec<_> = thread::scope(|scope| {
                let threads = [(); THREADS].map(|()| scope.spawn(first_call));
                threads.map(|thread| thread.join().expect("ends")).into()
            });
            for seat in &seats {
                assert!(seat.is_own() && !seat.is_closed(), "round {round}");
                assert!(Arc::ptr_eq(seat, &seats[0]), "round {round}");
            }
            assert!(inherited.is_none_or(|seat| seat.is_closed()), "abandoned");
        }
    }
}
