//! One connection to a key server, without I/O and without a clock.
//!
//! ```text
//!  submit(request) -> [gathered frames] -> transmit(out) ---> socket
//!  next_reply()   <- [plaintext buffer] <- receive(bytes) <--- socket
//! ```
//!
//! Whoever owns the socket drives it: read, [`Connection::receive`], take every
//! [`Connection::next_reply`], [`Connection::submit`] what is to be asked, [`Connection::transmit`]
//! once, write. Everything gathered between two calls of `transmit` leaves as few TLS records in one
//! buffer, which is what makes a connection fast: a record of its own for every request costs
//! several times as much on both sides.
//!
//! Requests and replies are encoded and decoded in place. In steady state a connection reuses its
//! buffers and allocates nothing of its own for a request or a reply.
//!
//! The async client in [`crate::Client`] is one such driver; a load generator or a blocking client
//! is another.

use keyless_protocol::{ErrorCode, Reply, ReplyError, ReplyFault, Request, split_frame};
use zeroize::Zeroize;

use crate::error::Error;
use crate::tls::{TlsIdentity, TlsSession, tls_error};

/// Most bytes of encoded requests that wait for a [`Connection::transmit`].
pub const GATHERED_MAX: usize = 16 * 1024 * 1024;

/// Most bytes of replies that wait for [`Connection::next_reply`].
pub const UNREAD_MAX: usize = 16 * 1024 * 1024;

/// One connection: TLS, frames in, frames out.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let ca = rcgen::generate_simple_self_signed(["ca".to_owned()])?;
/// # let (ca, key) = (ca.cert.pem(), ca.signing_key.serialize_pem());
/// use keyserver_client::{Connection, Opcode, Request, TlsIdentity};
///
/// let identity = TlsIdentity::from_pem(ca.as_bytes(), ca.as_bytes(), key.as_bytes())?;
/// let mut connection = Connection::new(&identity, "keys.example")?;
/// connection.submit(&Request { payload: b"hello", ..Request::new(1, Opcode::Ping) })?;
///
/// let mut out = Vec::new();
/// connection.transmit(&mut out)?;
/// // The first bytes are the client hello; the ping waits for the end of the handshake.
/// assert!(connection.is_handshaking());
/// assert_eq!(out[0], 22);
/// assert_eq!(connection.gathered_bytes(), 1024);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Connection {
    tls: TlsSession,
    buffers: Buffers,
    /// Where in `buffers.received` the first frame not yet handed out begins.
    head: usize,
    failure: Option<Error>,
}

/// Plaintext both ways. Replies may hold decrypted secrets, so it is wiped when dropped.
#[derive(Default)]
struct Buffers {
    received: Vec<u8>,
    gathered: Vec<u8>,
}

impl std::fmt::Debug for Buffers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buffers")
            .field("received_bytes", &self.received.len())
            .field("gathered_bytes", &self.gathered.len())
            .finish()
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        self.received.zeroize();
        self.gathered.zeroize();
    }
}

impl Connection {
    /// A connection that has sent nothing yet. `server_name` is the DNS name or IP address that the
    /// server's certificate must be for.
    ///
    /// # Errors
    ///
    /// [`Error::Configuration`] for a name that is none.
    pub fn new(identity: &TlsIdentity, server_name: &str) -> Result<Self, Error> {
        let name = TlsIdentity::server_name(server_name)?;
        let tls = TlsSession::new(identity.config(), name).map_err(tls_error)?;
        Ok(Self {
            tls,
            buffers: Buffers::default(),
            head: 0,
            failure: None,
        })
    }

    /// Whether the TLS handshake still runs. Requests may be submitted meanwhile; they wait.
    ///
    /// With TLS 1.3 the server judges the client's certificate after the handshake has ended on
    /// this side: a refusal comes as an error of a later [`Connection::receive`].
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    /// Encodes a request onto those that wait for [`Connection::transmit`]. The caller picks the
    /// id, and must not use one that is still unanswered.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] when the request does not fit one frame, [`Error::Overloaded`] when
    /// [`GATHERED_MAX`] bytes wait already, or the error that ended the connection.
    pub fn submit(&mut self, request: &Request<'_>) -> Result<(), Error> {
        self.check()?;
        if self.buffers.gathered.len() >= GATHERED_MAX {
            return Err(Error::Overloaded);
        }
        request
            .encode(&mut self.buffers.gathered)
            .map_err(Error::input)
    }

    /// Bytes of encoded requests that wait for [`Connection::transmit`].
    #[must_use]
    pub fn gathered_bytes(&self) -> usize {
        self.buffers.gathered.len()
    }

    /// Takes over frames that were encoded elsewhere, leaving `frames` empty with the capacity of
    /// an earlier buffer.
    pub(crate) fn submit_frames(&mut self, frames: &mut Vec<u8>) {
        if self.buffers.gathered.is_empty() {
            std::mem::swap(&mut self.buffers.gathered, frames);
        } else {
            self.buffers.gathered.append(frames);
        }
    }

    /// Feeds bytes that the socket gave, any number of them. Take every
    /// [`Connection::next_reply`] before feeding more.
    ///
    /// # Errors
    ///
    /// [`Error::Tls`] or [`Error::Protocol`] when the peer's bytes cannot be what a server sends:
    /// the connection is then finished, a last [`Connection::transmit`] tells the peer, and every
    /// later call gives the same error. [`Error::Overloaded`] when [`UNREAD_MAX`] bytes of replies
    /// have not been taken.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let space = self.read_space();
            let (now, later) = rest.split_at(rest.len().min(space.len()));
            if let Some(room) = space.get_mut(..now.len()) {
                room.copy_from_slice(now);
            }
            self.received(now.len())?;
            rest = later;
        }
        self.check()
    }

    /// Room to read into directly, which saves the copy of [`Connection::receive`]. At least 8 KiB;
    /// after reads that fill it up to 64 KiB.
    pub fn read_space(&mut self) -> &mut [u8] {
        self.tls.read_space()
    }

    /// Takes the first `length` bytes of [`Connection::read_space`] as received.
    ///
    /// # Errors
    ///
    /// As [`Connection::receive`].
    pub fn received(&mut self, length: usize) -> Result<(), Error> {
        self.check()?;
        if self.head > 0 {
            self.buffers.received.drain(..self.head);
            self.head = 0;
        }
        if self.buffers.received.len() >= UNREAD_MAX {
            return Err(Error::Overloaded);
        }
        self.tls
            .commit(length, &mut self.buffers.received)
            .map_err(|error| self.fail(tls_error(error)))
    }

    /// The next whole reply, borrowed from the receive buffer.
    ///
    /// `None` means that more bytes are needed, or that the server sent a frame that no server may
    /// send: then [`Connection::failure`] says so, and so does every later call. An error code
    /// that this version does not know is given as [`ErrorCode::Internal`].
    pub fn next_reply(&mut self) -> Option<Reply<'_>> {
        if self.failure.is_some() {
            return None;
        }
        let unread = self.buffers.received.get(self.head..)?;
        let (frame, length) = split_frame(unread)?;
        match Reply::decode(frame) {
            Ok(reply) => {
                self.head += length;
                Some(reply)
            }
            Err(ReplyError {
                id,
                fault: ReplyFault::UnknownError(_),
            }) => {
                self.head += length;
                Some(Reply::failure(id, ErrorCode::Internal))
            }
            Err(error) => {
                self.failure = Some(Error::protocol(error));
                None
            }
        }
    }

    /// Seals all gathered requests and whatever TLS itself has to say, and appends the records to
    /// `out`. Returns how many bytes were appended; 0 means that there is nothing to send.
    ///
    /// Call it also after an error of [`Connection::receive`]: it then yields the alert that tells
    /// the peer why.
    ///
    /// # Errors
    ///
    /// [`Error::Tls`] when the keys of the connection are used up and cannot be renewed.
    pub fn transmit(&mut self, out: &mut Vec<u8>) -> Result<usize, Error> {
        let before = out.len();
        let plaintext: &[u8] = if self.failure.is_some() {
            &[]
        } else {
            &self.buffers.gathered
        };
        match self.tls.seal(plaintext, out) {
            Ok(true) => self.buffers.gathered.clear(),
            Ok(false) => {}
            Err(error) => {
                self.fail(tls_error(error));
                self.check()?;
            }
        }
        Ok(out.len().saturating_sub(before))
    }

    /// Whether [`Connection::transmit`] would yield something.
    #[must_use]
    pub fn wants_transmit(&self) -> bool {
        self.tls.has_control() || (!self.is_handshaking() && self.gathered_bytes() > 0)
    }

    /// Asks for a TLS close alert behind whatever the next [`Connection::transmit`] seals. Replies
    /// may still be received after it.
    pub fn close_notify(&mut self) {
        self.tls.close();
    }

    /// Whether the server has closed its side in an orderly way: no reply will follow.
    #[must_use]
    pub fn peer_has_closed(&self) -> bool {
        self.tls.peer_closed()
    }

    /// The error that ended this connection, if one did.
    #[must_use]
    pub fn failure(&self) -> Option<&Error> {
        self.failure.as_ref()
    }

    /// `TLSv1_2` or `TLSv1_3`; `None` until the handshake has settled it.
    #[must_use]
    pub fn tls_version(&self) -> Option<&'static str> {
        self.tls.version()
    }

    /// The key exchange group, `X25519MLKEM768` for one; `None` until the handshake has settled it.
    #[must_use]
    pub fn key_exchange(&self) -> Option<&'static str> {
        self.tls.key_exchange()
    }

    fn check(&self) -> Result<(), Error> {
        self.failure.clone().map_or(Ok(()), Err)
    }

    fn fail(&mut self, error: Error) -> Error {
        self.failure.get_or_insert(error).clone()
    }
}
