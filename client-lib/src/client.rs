//! The async client: typed operations over one multiplexed connection.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use keyless_protocol::{ErrorCode, KeyEntry, Opcode, Request, ServerInfo, SignatureScheme};
use tokio::time::Instant;

use crate::algorithm::SignatureAlgorithm;
use crate::builder::ClientBuilder;
use crate::calls::{Ask, Calls, Link, Patience};
use crate::capabilities::Capabilities;
use crate::error::Error;
use crate::key::KeyId;
use crate::key_pages::KeyPages;
use crate::operation::Operation;
use crate::settings::LONGEST;
use crate::tls::TlsIdentity;

/// A client of one key server.
///
/// All clones share one TLS connection, over which any number of calls run at once; answers may come
/// in any order. The connection is made by [`ClientBuilder::connect`] and made again, with growing
/// waits, whenever it is lost. When the last clone is dropped, it is closed.
///
/// Every call has a deadline (see [`Client::with_deadline`]), which covers everything: waiting for a
/// free slot, waiting for the connection, the server's work, one retry. A call may be dropped at any
/// moment; its answer is then ignored.
///
/// # Retries
///
/// A signature, a ping and the questions about the server may be asked for twice without harm. So
/// when the connection is lost while one of them is in flight, or the server answers that it is
/// busy, the client asks once more within the deadline, after the wait that the server named.
/// Decryptions and [`Client::call`] are never repeated.
///
/// # Example
///
/// ```
/// # mod support { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/behaviour/support.rs")); }
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = support::Server::extended().await;
/// # let (address, identity) = (server.address(), server.identity());
/// use std::time::Duration;
/// use keyserver_client::{Client, KeyId, SignatureAlgorithm};
///
/// let client = Client::builder(address, "localhost", identity)
///     .deadline(Duration::from_millis(500))
///     .connect()
///     .await?;
///
/// assert_eq!(client.ping(b"are you there?").await?, b"are you there?");
///
/// // Find the keys this client may use, and sign with each.
/// for entry in client.keys().await? {
///     let key = KeyId::try_from(&entry)?;
///     let hash = [0x11; 32]; // SHA-256 of what is to be signed
///     let signature = client.sign(&key, SignatureAlgorithm::EcdsaSha256, &hash).await?;
///     assert!(!signature.is_empty());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    handle: Arc<Handle>,
    deadline: Duration,
}

/// Closes the connection when the last client goes.
struct Handle {
    calls: Arc<Calls>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.calls.set_link(Link::Closed);
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("deadline", &self.deadline)
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Starts the description of a client: `address` is `host:port`, `server_name` the name that
    /// the server's certificate must be for.
    pub fn builder(
        address: impl Into<String>,
        server_name: impl Into<String>,
        identity: TlsIdentity,
    ) -> ClientBuilder {
        ClientBuilder::new(address.into(), server_name.into(), identity)
    }

    pub(crate) fn new(calls: Arc<Calls>, deadline: Duration) -> Self {
        Self {
            handle: Arc::new(Handle { calls }),
            deadline,
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

    /// Sends `payload` (up to 65,528 bytes) and returns what came back, which is the same bytes.
    /// Open to every client that the server accepts at all.
    ///
    /// # Errors
    ///
    /// Any [`Error`]; [`Error::Protocol`] when other bytes come back.
    pub async fn ping(&self, payload: &[u8]) -> Result<Vec<u8>, Error> {
        let request = Request {
            payload,
            ..Request::new(0, Opcode::Ping)
        };
        let echo = self.repeatable(request).await?;
        if echo != payload {
            return Err(Error::protocol("the answer to a ping is not what was sent"));
        }
        Ok(echo)
    }

    /// Signs a hash (with [`SignatureAlgorithm::Ed25519`] a message) with a key of the server.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] for a hash of the wrong length, before anything is sent;
    /// [`Error::Refused`] when the server does not have the key, does not grant its use, or the
    /// algorithm does not fit it; any other [`Error`].
    pub async fn sign(
        &self,
        key: &KeyId,
        algorithm: SignatureAlgorithm,
        hash_or_message: &[u8],
    ) -> Result<Vec<u8>, Error> {
        algorithm.check(hash_or_message)?;
        let request = Request {
            ski: Some(key.ski()),
            payload: hash_or_message,
            ..Request::new(0, algorithm.opcode())
        };
        self.repeatable(request).await
    }

    /// Signs the string of a TLS 1.3 `CertificateVerify` (opcode 0x40): 64 spaces, the context
    /// string, a zero byte and the transcript hash (RFC 8446, section 4.4.3). It is what a TLS
    /// stack hands to a remote signer; the server checks that it is one, so that it needs to grant
    /// nothing else.
    ///
    /// A server that does not know the operation, a stock one first of all, is asked to sign the
    /// string's hash instead, which it checks nothing about. A refusal is never tried another way.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] with [`ErrorCode::Denied`] when the server does not have the key, does not
    /// grant this use of it, the scheme does not fit it, or the string is another one; with
    /// [`ErrorCode::BadOpcode`] for ML-DSA, when the server does not know the operation; any other
    /// [`Error`].
    pub async fn sign_tls13(
        &self,
        key: &KeyId,
        scheme: SignatureScheme,
        string: &[u8],
    ) -> Result<Vec<u8>, Error> {
        self.sign_checked(Opcode::SignTls13, key, scheme, string)
            .await
    }

    /// Signs a TLS 1.3 handshake (opcode 0x40): its messages from the `ClientHello` to the server's
    /// `Certificate`, with their heads, one after the other. The server reads them, holds them
    /// against its rules, and makes the string of [`Client::sign_tls13`] from them itself.
    ///
    /// # Errors
    ///
    /// As [`Client::sign_tls13`]; there is no other way to ask a server that does not know the
    /// operation.
    pub async fn sign_tls13_handshake(
        &self,
        key: &KeyId,
        scheme: SignatureScheme,
        handshake: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let request = signing(Opcode::SignTls13, key, scheme, handshake);
        self.repeatable(request).await
    }

    /// Signs the string of a TLS 1.2 `ServerKeyExchange` (opcode 0x41): both randoms and the ECDHE
    /// parameters (RFC 8422, section 5.4). Otherwise as [`Client::sign_tls13`].
    ///
    /// # Errors
    ///
    /// As [`Client::sign_tls13`].
    pub async fn sign_tls12(
        &self,
        key: &KeyId,
        scheme: SignatureScheme,
        string: &[u8],
    ) -> Result<Vec<u8>, Error> {
        self.sign_checked(Opcode::SignTls12, key, scheme, string)
            .await
    }

    async fn sign_checked(
        &self,
        opcode: Opcode,
        key: &KeyId,
        scheme: SignatureScheme,
        string: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let request = signing(opcode, key, scheme, string);
        let refusal = match self.repeatable(request).await {
            Err(refusal @ Error::Refused(ErrorCode::BadOpcode)) => refusal,
            result => return result,
        };
        match SignatureAlgorithm::instead_of(scheme, string) {
            Some((algorithm, input)) => self.sign(key, algorithm, &input).await,
            None => Err(refusal),
        }
    }

    /// RSA-decrypts `ciphertext` (as long as the modulus) and returns the whole block with its
    /// padding still on (opcode 0x01). Removing the padding without telling an attacker whether it
    /// was right is the caller's duty (RFC 8446 has no such step; RFC 5246, section 7.4.7.1).
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] when the server does not grant it or the input does not fit the key; any
    /// other [`Error`].
    pub async fn decrypt(&self, key: &KeyId, ciphertext: &[u8]) -> Result<Vec<u8>, Error> {
        self.decrypt_as(Opcode::RsaDecrypt, key, ciphertext).await
    }

    /// The RSA private-key operation on `ciphertext` (opcode 0x08). Whoever may do this may also
    /// forge any signature of the key, so servers offer it under a right of its own, and a stock
    /// server not at all.
    ///
    /// # Errors
    ///
    /// As [`Client::decrypt`].
    pub async fn decrypt_raw(&self, key: &KeyId, ciphertext: &[u8]) -> Result<Vec<u8>, Error> {
        self.decrypt_as(Opcode::RsaDecryptRaw, key, ciphertext)
            .await
    }

    async fn decrypt_as(
        &self,
        opcode: Opcode,
        key: &KeyId,
        ciphertext: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let request = Request {
            ski: Some(key.ski()),
            payload: ciphertext,
            ..Request::new(0, opcode)
        };
        self.once(request, self.until()).await
    }

    /// What the server says about itself; `None` from a stock server, which does not know the
    /// question.
    ///
    /// # Errors
    ///
    /// Any [`Error`]; [`Error::Protocol`] when the answer cannot be read.
    pub async fn server_info(&self) -> Result<Option<ServerInfo>, Error> {
        match self.repeatable(Request::new(0, Opcode::ServerInfo)).await {
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
    pub async fn keys(&self) -> Result<Vec<KeyEntry>, Error> {
        let mut pages = KeyPages::default();
        loop {
            let question = pages.question();
            let ask = |capabilities: &Capabilities| question.request(capabilities);
            let deadline = self.until();
            let page = self.with_second_try(&ask, deadline).await?;
            if let Some(keys) = pages.take(&page)? {
                return Ok(keys);
            }
        }
    }

    /// Makes any request and returns the output of the answer. The id is chosen by the client, and
    /// the additions to the protocol (deadline, signature scheme, extended replies) are set or left
    /// out to suit the server. It is sent once and never repeated.
    ///
    /// ```
    /// # mod support { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/behaviour/support.rs")); }
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = support::Server::stock().await;
    /// # let client = server.client().await;
    /// use keyserver_client::{Error, ErrorCode, Opcode, Request};
    ///
    /// let request = Request { payload: b"blob", ..Request::new(0, Opcode::Seal) };
    /// let refusal = client.call(request).await.unwrap_err();
    /// assert!(matches!(refusal, Error::Refused(ErrorCode::Internal)));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Any [`Error`].
    pub async fn call(&self, request: Request<'_>) -> Result<Vec<u8>, Error> {
        self.once(request, self.until()).await
    }

    /// Does an operation: again if that is harmless and may help.
    pub(crate) async fn perform(&self, operation: &Operation) -> Result<Vec<u8>, Error> {
        let deadline = self.until();
        let ask = |capabilities: &Capabilities| operation.request(capabilities);
        if operation.is_repeatable() {
            self.with_second_try(&ask, deadline).await
        } else {
            self.put(&ask, deadline).await
        }
    }

    /// Calls that are on their way now.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.handle.calls.in_flight()
    }

    /// Closes the connection for all clones of this client. Calls in flight, and later ones, fail
    /// with [`Error::Closed`].
    pub fn close(&self) {
        self.handle.calls.set_link(Link::Closed);
    }

    /// When a call that begins now has to be over.
    fn until(&self) -> Instant {
        Instant::now() + self.deadline.min(LONGEST)
    }

    async fn once(&self, request: Request<'_>, deadline: Instant) -> Result<Vec<u8>, Error> {
        let ask = |_: &Capabilities| Ok(request);
        self.put(&ask, deadline).await
    }

    async fn put(&self, ask: Ask<'_, '_>, deadline: Instant) -> Result<Vec<u8>, Error> {
        let calls = &self.handle.calls;
        loop {
            let call = calls.call(ask, Patience::Wait, deadline);
            return match tokio::time::timeout_at(deadline, call).await {
                // The connection ended before the request left: it waits for the next one.
                Ok(Err(error)) if error.is_unsent() => continue,
                Ok(result) => result,
                Err(_) => Err(calls.too_late(self.deadline)),
            };
        }
    }

    /// A request that may be made twice, and is when that may help.
    async fn repeatable(&self, request: Request<'_>) -> Result<Vec<u8>, Error> {
        let ask = |_: &Capabilities| Ok(request);
        let deadline = self.until();
        self.with_second_try(&ask, deadline).await
    }

    async fn with_second_try(&self, ask: Ask<'_, '_>, deadline: Instant) -> Result<Vec<u8>, Error> {
        let wait = match self.put(ask, deadline).await {
            Err(Error::Network(_)) => Duration::ZERO,
            Err(Error::Busy {
                retry_after: Some(wait),
            }) => wait,
            result => return result,
        };
        let again = Instant::now() + wait;
        if again >= deadline {
            return self.no_time_left(wait);
        }
        tokio::time::sleep_until(again).await;
        self.put(ask, deadline).await
    }

    fn no_time_left(&self, wait: Duration) -> Result<Vec<u8>, Error> {
        if wait.is_zero() {
            Err(self.handle.calls.too_late(self.deadline))
        } else {
            Err(Error::Busy {
                retry_after: Some(wait),
            })
        }
    }
}

/// A request for a signature that the server checks the reason of.
fn signing<'a>(
    opcode: Opcode,
    key: &KeyId,
    scheme: SignatureScheme,
    payload: &'a [u8],
) -> Request<'a> {
    Request {
        ski: Some(key.ski()),
        signature_scheme: Some(scheme.as_u16()),
        payload,
        ..Request::new(0, opcode)
    }
}
