//! One TLS session, without I/O: bytes from the socket in, plaintext out; plaintext in, bytes for
//! the socket out.
//!
//! rustls is driven by hand because the one thing that decides the cost of a request is how many
//! replies share a record and a write. This file is the only one that knows rustls's connection
//! type; a new major version of it touches nothing else.

use std::io::{self, BufRead, Write};
use std::sync::Arc;

use keyless_protocol::delegation::{EXPORTER_LABEL, EXPORTER_LEN};
use rustls::{CommonState, ProtocolVersion, ServerConfig, ServerConnection};
use rustls_pki_types::CertificateDer;

/// The server's side of one TLS connection.
#[derive(Debug)]
pub(crate) struct TlsSession {
    tls: ServerConnection,
}

/// What [`TlsSession::ingest`] found besides plaintext.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ingested {
    /// The session goes on.
    Open,
    /// The peer sent close_notify: nothing more will come from it.
    PeerClosed,
}

impl TlsSession {
    /// Starts a session that waits for a ClientHello.
    ///
    /// # Errors
    ///
    /// Fails when `config` cannot serve any connection.
    pub(crate) fn new(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        let mut tls = ServerConnection::new(config)?;
        // What may wait for the peer is bounded by the connection's output cap. A second limit
        // here would turn a long pipeline into a short write.
        tls.set_buffer_limit(None);
        Ok(Self { tls })
    }

    /// Feeds bytes read from the socket, and gives the plaintext they carry to `plain`, piece by piece.
    ///
    /// # Errors
    ///
    /// A violation of TLS by the peer. An alert for it is then waiting in [`Self::flush`].
    pub(crate) fn ingest(
        &mut self,
        mut bytes: &[u8],
        mut plain: impl FnMut(&[u8]),
    ) -> Result<Ingested, rustls::Error> {
        let mut state = Ingested::Open;
        while !bytes.is_empty() {
            // rustls takes at most 4 KiB a call, and nothing after close_notify.
            match self.tls.read_tls(&mut bytes) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => return Err(rustls::Error::General(error.to_string())),
            }
            let io_state = self.tls.process_new_packets()?;
            self.take_plain(&mut plain);
            if io_state.peer_has_closed() {
                state = Ingested::PeerClosed;
            }
        }
        Ok(state)
    }

    fn take_plain(&mut self, plain: &mut impl FnMut(&[u8])) {
        let mut reader = self.tls.reader();
        // An error here says only that there is no plaintext now.
        while let Ok(chunk) = reader.fill_buf() {
            if chunk.is_empty() {
                break;
            }
            plain(chunk);
            let taken = chunk.len();
            reader.consume(taken);
        }
    }

    /// Seals `plain` as application data, in as few records as the protocol allows.
    ///
    /// # Errors
    ///
    /// Never in practice: the buffer limit is lifted, and rustls buffers in memory.
    pub(crate) fn seal(&mut self, plain: &[u8]) -> io::Result<()> {
        self.tls.writer().write_all(plain)
    }

    /// Queues close_notify behind everything sealed so far.
    pub(crate) fn close_notify(&mut self) {
        self.tls.send_close_notify();
    }

    /// Moves everything that waits for the socket to the end of `out`.
    ///
    /// # Errors
    ///
    /// Never in practice: writing to a vector does not fail.
    pub(crate) fn flush(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(out)?;
        }
        Ok(())
    }

    /// Whether anything waits for the socket.
    pub(crate) fn wants_flush(&self) -> bool {
        self.tls.wants_write()
    }

    /// Whether the peer has not proved who it is yet.
    pub(crate) fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    /// Whether the finished handshake resumed an earlier session.
    pub(crate) fn resumed(&self) -> bool {
        self.tls.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    }

    /// What ties a proof to this connection: both sides can compute it, and nobody between them. Only with TLS 1.3: in
    /// TLS 1.2 two connections can be made to share it (RFC 7627, section 1).
    pub(crate) fn exporter(&self) -> Option<[u8; EXPORTER_LEN]> {
        if self.tls.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
            return None;
        }
        let output = [0; EXPORTER_LEN];
        (self
            .tls
            .export_keying_material(output, EXPORTER_LABEL, None))
        .ok()
    }

    /// The leaf certificate that the peer proved to own, once the handshake is complete.
    pub(crate) fn peer_certificate(&self) -> Option<&CertificateDer<'static>> {
        let common: &CommonState = &self.tls;
        common.peer_certificates().and_then(|chain| chain.first())
    }
}
