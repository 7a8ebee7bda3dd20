//! One connection's TLS state, without I/O.
//!
//! ```text
//!   socket -> read_space / commit -> [records, decrypted in place] -> plaintext
//!   plaintext -> seal -> records -> socket
//! ```
//!
//! It drives rustls through its unbuffered interface: records are decrypted where they were read,
//! and sealed straight into the caller's output buffer. The buffered interface takes 4 KiB a call
//! and copies each record twice more, which shows at a million requests a second.

use std::fmt;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{ClientConfig, Error};
use rustls_pki_types::ServerName;

/// First size of the read space; a read that fills it doubles it up to [`READ_MAX`].
const READ_MIN: usize = 8 * 1024;
/// The most that one read is offered.
const READ_MAX: usize = 64 * 1024;
/// The most that may lie unprocessed: one handshake message of the largest size TLS allows here
/// (64 KiB) and one record. Whoever sends more without completing anything is not speaking TLS.
const UNPROCESSED_MAX: usize = 96 * 1024;
/// Most plaintext in one record (RFC 8446, section 5.1).
const RECORD_PLAINTEXT: usize = 16 * 1024;
/// More than any record adds to its plaintext: header 5, explicit nonce 8, tag 16, inner type 1.
const RECORD_OVERHEAD: usize = 32;
/// Room for a key update or an alert that has to go out before the data.
const CONTROL_ROOM: usize = 256;

/// The TLS half of a connection.
pub(crate) struct TlsSession {
    tls: UnbufferedClientConnection,
    /// Initialised storage for what the socket gave; `start..end` is not yet processed.
    incoming: Vec<u8>,
    start: usize,
    end: usize,
    read_size: usize,
    /// Handshake messages, key updates and alerts that wait for the next [`TlsSession::seal`].
    control: Vec<u8>,
    phase: Phase,
    peer_closed: bool,
    closing: Closing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Handshaking,
    Open,
    /// The TLS library gave an error. Its state is undefined from then on and must not be run.
    Failed,
}

/// How far our own close alert has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Closing {
    NotAsked,
    Asked,
    Sent,
}

impl fmt::Debug for TlsSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsSession")
            .field("phase", &self.phase)
            .field("peer_closed", &self.peer_closed)
            .finish_non_exhaustive()
    }
}

impl TlsSession {
    /// Starts a handshake; the first [`TlsSession::seal`] yields the client hello.
    pub(crate) fn new(
        config: Arc<ClientConfig>,
        server_name: ServerName<'static>,
    ) -> Result<Self, Error> {
        let mut session = Self {
            tls: UnbufferedClientConnection::new(config, server_name)?,
            incoming: Vec::new(),
            start: 0,
            end: 0,
            read_size: READ_MIN,
            control: Vec::new(),
            phase: Phase::Handshaking,
            peer_closed: false,
            closing: Closing::NotAsked,
        };
        session.run(&mut Vec::new(), None)?;
        Ok(session)
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.phase == Phase::Handshaking
    }

    pub(crate) fn peer_closed(&self) -> bool {
        self.peer_closed
    }

    /// `TLSv1_3` or `TLSv1_2`, once the handshake has settled it.
    pub(crate) fn version(&self) -> Option<&'static str> {
        self.tls.protocol_version()?.as_str()
    }

    /// Name of the key exchange group, once the handshake has settled it.
    pub(crate) fn key_exchange(&self) -> Option<&'static str> {
        self.tls.negotiated_key_exchange_group()?.name().as_str()
    }

    /// Whether something waits to be sent besides plaintext.
    pub(crate) fn has_control(&self) -> bool {
        !self.control.is_empty() || self.closing == Closing::Asked
    }

    /// Room for the next read: between 8 and 64 KiB, more when reads come back full.
    pub(crate) fn read_space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        } else if self.start > 0 {
            self.incoming.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let wanted = self.end.saturating_add(self.read_size);
        if self.incoming.len() < wanted {
            self.incoming.resize(wanted, 0);
        }
        self.incoming.get_mut(self.end..wanted).unwrap_or_default()
    }

    /// Takes the first `read` bytes of the read space as received and appends what they decrypt to
    /// onto `plaintext`.
    pub(crate) fn commit(&mut self, read: usize, plaintext: &mut Vec<u8>) -> Result<(), Error> {
        if read >= self.read_size && self.read_size < READ_MAX {
            self.read_size *= 2;
        }
        self.end = self.end.saturating_add(read).min(self.incoming.len());
        self.run(plaintext, None)?;
        if self.end - self.start > UNPROCESSED_MAX {
            self.phase = Phase::Failed;
            return Err(Error::General(
                "a message larger than TLS allows here".to_owned(),
            ));
        }
        Ok(())
    }

    /// Appends to `out` whatever has to be sent: control messages first, then `plaintext` sealed
    /// into as few records as will hold it, then the close alert if it was asked for. Plaintext
    /// waits while the handshake runs; the result says whether it was taken.
    pub(crate) fn seal(&mut self, plaintext: &[u8], out: &mut Vec<u8>) -> Result<bool, Error> {
        out.append(&mut self.control);
        if self.phase != Phase::Open || (plaintext.is_empty() && !self.has_control()) {
            return Ok(false);
        }
        // Everything decrypted so far has been handed out, so no plaintext can appear here.
        let taken = self.run(&mut Vec::new(), Some((plaintext, out)))?;
        Ok(taken)
    }

    /// Asks for a close alert after whatever is sealed next.
    pub(crate) fn close(&mut self) {
        if self.closing == Closing::NotAsked {
            self.closing = Closing::Asked;
        }
    }

    /// Runs the state machine until it needs bytes, or until it has sealed what it was given.
    fn run(
        &mut self,
        received: &mut Vec<u8>,
        mut sealing: Option<(&[u8], &mut Vec<u8>)>,
    ) -> Result<bool, Error> {
        loop {
            let pending = self
                .incoming
                .get_mut(self.start..self.end)
                .unwrap_or_default();
            let UnbufferedStatus { mut discard, state } = self.tls.process_tls_records(pending);
            let mut done = None;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        received.extend_from_slice(record.payload);
                        discard += record.discard;
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut message)) => {
                    append(&mut self.control, CONTROL_ROOM, |room| {
                        match message.encode(room) {
                            Ok(length) => Ok(length),
                            Err(EncodeError::InsufficientSize(size)) => {
                                Err(Some(size.required_size))
                            }
                            Err(EncodeError::AlreadyEncoded) => Err(None),
                        }
                    })?;
                }
                Ok(ConnectionState::TransmitTlsData(transmit)) => transmit.done(),
                Ok(ConnectionState::PeerClosed) => self.peer_closed = true,
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    self.phase = Phase::Open;
                    let mut taken = false;
                    if let Some((plaintext, out)) = sealing.take() {
                        out.append(&mut self.control);
                        encrypt(&mut traffic, plaintext, out)?;
                        taken = !plaintext.is_empty();
                        if self.closing == Closing::Asked {
                            self.closing = Closing::Sent;
                            append(out, CONTROL_ROOM, |room| {
                                sized(traffic.queue_close_notify(room))
                            })?;
                        }
                    }
                    done = Some(taken);
                }
                Ok(_) => done = Some(false),
                Err(error) => {
                    self.phase = Phase::Failed;
                    self.collect_alert();
                    return Err(error);
                }
            }
            self.start = self.start.saturating_add(discard).min(self.end);
            if let Some(taken) = done {
                return Ok(taken);
            }
        }
    }

    /// After a failure: the alert that tells the peer why, so that `seal` can still deliver it.
    ///
    /// `wants_write` says that messages are waiting, and those come out before the library looks
    /// at its input; it must not look at any more of that.
    fn collect_alert(&mut self) {
        while self.tls.wants_write() {
            let Ok(ConnectionState::EncodeTlsData(mut message)) =
                self.tls.process_tls_records(&mut []).state
            else {
                return;
            };
            let encoded = append(&mut self.control, CONTROL_ROOM, |room| {
                message.encode(room).map_err(|_| None)
            });
            if encoded.is_err() {
                return;
            }
        }
    }
}

fn encrypt(
    traffic: &mut rustls::unbuffered::WriteTraffic<'_, rustls::client::ClientConnectionData>,
    plaintext: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    if plaintext.is_empty() {
        return Ok(());
    }
    let records = plaintext.len() / RECORD_PLAINTEXT + 1;
    let room = plaintext.len() + records * RECORD_OVERHEAD + CONTROL_ROOM;
    append(out, room, |space| sized(traffic.encrypt(plaintext, space)))
}

/// The shape that [`append`] wants of an encryption result.
fn sized(result: Result<usize, EncryptError>) -> Result<usize, Option<usize>> {
    result.map_err(|error| match error {
        EncryptError::InsufficientSize(size) => Some(size.required_size),
        EncryptError::EncryptExhausted => None,
    })
}

/// Grows `out` by `room` bytes, lets `write` fill them, and keeps what was written. `write` says
/// `Err(Some(size))` when it needs more room, and `Err(None)` when it cannot go on.
fn append(
    out: &mut Vec<u8>,
    mut room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Option<usize>>,
) -> Result<(), Error> {
    let before = out.len();
    for _ in 0..2 {
        out.resize(before + room, 0);
        match write(out.get_mut(before..).unwrap_or_default()) {
            Ok(written) => {
                out.truncate(before + written);
                return Ok(());
            }
            Err(Some(required)) => room = required,
            Err(None) => break,
        }
    }
    out.truncate(before);
    Err(Error::EncryptError)
}
