//! One connection: two halves that share a TLS session and never wait for each other.
//!
//! ```text
//!           read half                              write half
//!  socket -> TlsSession -> FrameBuffer -> requests    replies -> TlsSession -> socket
//!                              |                          ^
//!                              +-> ping, info: at once ---+
//!                              +-> jobs -> crypto threads -> completions (see super::run)
//! ```
//!
//! The read half takes what the socket has, up to 64 KiB, and turns it into requests. The write
//! half sleeps until somebody has left a reply in the outbox; then it seals all of them at once
//! and writes once. Replies that arrive while a write is under way gather for the next one: that
//! is the whole coalescing policy, and it is what a request's cost depends on most.
//!
//! A connection that is at a cap (requests in flight, bytes of replies) is not read from. It is
//! never refused for it.

use std::cell::{Cell, OnceCell, RefCell};
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::pin::pin;
use std::time::Instant;

use keyless_protocol::delegation::EXPORTER_LEN;
use keyless_protocol::{EncodeError, ErrorCode, Reply};

use super::Shard;
use super::drip::Drip;
use super::in_flight::InFlight;
use super::look_ahead::LookAhead;
use super::outbox::Outbox;
use super::pace::Reason;
use super::signal::Signal;
use super::stream::Stream;
use super::table::ConnectionId;
use super::turn::{Steps, Turn};
use crate::dispatch::Job;
use crate::door::Ticket;
use crate::framing::{FrameBuffer, Front};
use crate::policy::{ClientId, PeerIdentity};
use crate::snapshot::Snapshot;
use crate::tls::session::{Ingested, TlsSession};
use crate::{clock, limits, tls};

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The peer has not proved who it is.
    Handshaking,
    /// Requests are served.
    Open,
    /// No further request is served. Replies in flight go out, then our goodbye; what the peer
    /// still sends is thrown away until it closes too.
    Finishing,
    /// Nothing more can be delivered.
    Dead,
}

/// One accepted connection.
pub(crate) struct Connection<S> {
    pub(crate) id: ConnectionId,
    pub(crate) peer: SocketAddr,
    pub(crate) stream: S,
    tls: RefCell<TlsSession>,
    /// The generation whose authorities decide who may connect.
    rules_of: u64,
    /// The leave to be here, and whether it still counts as a handshake.
    ticket: RefCell<Ticket>,
    handshake_open: Cell<bool>,
    frames: RefCell<FrameBuffer>,
    outbox: RefCell<Outbox>,
    /// The request that is served holds a secret.
    request_is_secret: Cell<bool>,
    /// Sweeps since the last byte came.
    quiet_sweeps: Cell<u8>,
    in_flight: InFlight,
    /// When the last deadline passes of what was in flight.
    answers_by: Cell<Instant>,
    /// Requests refused for overload since the last pause, and as many for what else was done for nothing.
    refused: Cell<u32>,
    /// Not all of that was because the crypto threads had enough to do.
    refused_otherwise: Cell<bool>,
    turn: Turn,
    look_ahead: LookAhead,
    phase: Cell<Phase>,
    identity: OnceCell<PeerIdentity>,
    client: Cell<Option<ClientId>>,
    /// The snapshot that `client` was looked up in.
    generation: Cell<u64>,
    /// The peer has said that nothing more will come.
    input_ended: Cell<bool>,
    /// Past this the connection is cut: the handshake, or the peer's goodbye, took too long.
    deadline: Cell<Option<Instant>>,
    /// Past this the connection is cut: the peer does not take what it asked for.
    write_deadline: Cell<Option<Instant>>,
    /// Past this the connection says goodbye: it is being drained.
    leave_at: Cell<Option<Instant>>,
    to_write: Signal,
    may_read: Signal,
}

impl<S: Stream> Connection<S> {
    /// A connection whose handshake begins now, by the TLS rules of a generation.
    pub(crate) fn new(
        id: ConnectionId,
        peer: SocketAddr,
        stream: S,
        (tls, rules_of): (TlsSession, u64),
        ticket: Ticket,
        handshake_deadline: Instant,
    ) -> Self {
        Self {
            id,
            peer,
            stream,
            tls: RefCell::new(tls),
            rules_of,
            ticket: RefCell::new(ticket),
            handshake_open: Cell::new(true),
            frames: RefCell::default(),
            outbox: RefCell::default(),
            request_is_secret: Cell::new(false),
            quiet_sweeps: Cell::new(0),
            in_flight: InFlight::default(),
            answers_by: Cell::new(handshake_deadline),
            refused: Cell::new(0),
            refused_otherwise: Cell::new(false),
            turn: Turn::default(),
            look_ahead: LookAhead::default(),
            phase: Cell::new(Phase::Handshaking),
            identity: OnceCell::new(),
            client: Cell::new(None),
            generation: Cell::new(0),
            input_ended: Cell::new(false),
            deadline: Cell::new(Some(handshake_deadline)),
            write_deadline: Cell::new(None),
            leave_at: Cell::new(None),
            to_write: Signal::default(),
            may_read: Signal::default(),
        }
    }

    /// Serves the connection until both directions are closed.
    pub(crate) async fn serve(&self, shard: &Shard<S>) {
        tokio::join!(self.read_half(shard), self.write_half(shard));
    }

    async fn read_half(&self, shard: &Shard<S>) {
        // The buffer of short reads is the connection's own.
        let mut short = Vec::with_capacity(limits::SHORT_READ_BYTES);
        let mut last = 0;
        let mut drip = Drip::default();
        loop {
            self.take_frames(shard);
            if self.pause(shard).await {
                // Meanwhile there may have come to be room for what is left.
                continue;
            }
            if self.is_blocked(shard) {
                self.may_read.wait().await;
                continue;
            }
            if self.input_ended.get() {
                self.finish();
            }
            let long = last >= limits::SHORT_READ_BYTES;
            let buffer = if long {
                shard.buffers().take()
            } else {
                std::mem::take(&mut short)
            };
            let (result, buffer) = self.stream.read(buffer).await;
            last = *result.as_ref().unwrap_or(&0);
            match result {
                Ok(0) => break,
                Ok(_) if self.phase.get() == Phase::Handshaking => {
                    let step = || self.ingest(shard, &buffer);
                    shard.handshakes().take_turn(step).await;
                    if self.phase.get() == Phase::Handshaking {
                        drip.before_more(&self.stream, &buffer).await;
                    } else {
                        drip.end(&self.stream);
                    }
                }
                Ok(_) => self.ingest(shard, &buffer),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.phase.set(Phase::Dead);
                    break;
                }
            }
            if long {
                shard.buffers().give_back(buffer);
            } else {
                short = buffer;
            }
        }
        if self.phase.get() == Phase::Handshaking {
            shard.metrics().handshake_failed("closed");
            self.phase.set(Phase::Dead);
        }
        self.finish();
        self.to_write.raise();
        self.end_handshake(shard);
    }

    /// It counts as a handshake no longer: it is established, or it is gone.
    fn end_handshake(&self, shard: &Shard<S>) {
        if self.handshake_open.replace(false) {
            self.ticket.borrow_mut().established();
            shard.handshakes().end();
        }
    }

    /// Whether it takes the place of a handshake.
    pub(crate) fn is_handshaking(&self) -> bool {
        self.handshake_open.get()
    }

    /// Closes a handshake at once, counted under this reason.
    pub(crate) fn fail_handshake(&self, shard: &Shard<S>, reason: &'static str) {
        if self.phase.get() == Phase::Handshaking {
            shard.metrics().handshake_failed(reason);
        }
        self.kill();
    }

    /// Leaves what comes next where it is for a while, when requests were refused for overload or the turn was
    /// too long. Whether it did.
    async fn pause(&self, shard: &Shard<S>) -> bool {
        if self.phase.get() != Phase::Open {
            return false;
        }
        let refused = self.refused.take();
        if refused > 0 {
            let reason = if self.refused_otherwise.take() {
                Reason::Other
            } else {
                Reason::Queues
            };
            let pause = tokio::time::sleep(shard.pace().after(refused));
            let paused = shard.pace().pause(reason);
            let over = async {
                tokio::select! {
                    () = pause => {}
                    () = paused.until_room() => {}
                }
            };
            self.wait_while_open(over).await;
        } else if self.turn.is_over() {
            self.wait_while_open(shard.long_turns().another()).await;
        } else {
            return false;
        }
        true
    }

    /// Waits for `over`, and no longer than until the connection is to end.
    async fn wait_while_open(&self, over: impl Future<Output = ()>) {
        let mut over = pin!(over);
        while self.phase.get() == Phase::Open {
            tokio::select! {
                () = &mut over => return,
                // Raised for many reasons; what counts here is whether the connection is to end.
                () = self.may_read.wait() => {}
            }
        }
    }

    async fn write_half(&self, shard: &Shard<S>) {
        loop {
            self.to_write.wait().await;
            let mut buffer = shard.buffers().take();
            while self.phase.get() != Phase::Dead && self.seal(&mut buffer) {
                self.write_deadline
                    .set(Some(clock::now() + limits::WRITE_STALL));
                let (result, mut returned) = self.stream.write_all(buffer).await;
                self.write_deadline.set(None);
                returned.clear();
                buffer = returned;
                if result.is_err() {
                    self.kill();
                }
                self.may_read.raise();
            }
            match self.phase.get() {
                Phase::Dead => break,
                Phase::Finishing if !self.in_flight.is_any() => {
                    self.say_goodbye(buffer).await;
                    break;
                }
                Phase::Handshaking | Phase::Open | Phase::Finishing => {
                    shard.buffers().give_back(buffer);
                }
            }
        }
    }

    /// Seals all replies that wait and moves what TLS has for the socket to `buffer`.
    fn seal(&self, buffer: &mut Vec<u8>) -> bool {
        let mut tls = self.tls.borrow_mut();
        let mut outbox = self.outbox.borrow_mut();
        if !outbox.bytes().is_empty() {
            let sealed = tls.seal(outbox.bytes());
            debug_assert!(sealed.is_ok(), "sealing into memory fails never");
            outbox.clear();
        }
        let flushed = tls.flush(buffer);
        debug_assert!(flushed.is_ok(), "writing into memory fails never");
        !buffer.is_empty()
    }

    async fn say_goodbye(&self, mut buffer: Vec<u8>) {
        self.deadline.set(Some(clock::now() + limits::LINGER));
        self.tls.borrow_mut().close_notify();
        if self.seal(&mut buffer) && self.stream.write_all(buffer).await.0.is_err() {
            self.kill();
        }
        self.stream.shutdown(Shutdown::Write);
    }

    /// Feeds what a read brought into TLS and, when that ends the handshake, finds out who it is.
    fn ingest(&self, shard: &Shard<S>, bytes: &[u8]) {
        self.quiet_sweeps.set(0);
        if !matches!(self.phase.get(), Phase::Handshaking | Phase::Open) {
            return;
        }
        let mut frames = self.frames.borrow_mut();
        let ingested = (self.tls.borrow_mut()).ingest(bytes, |plain| frames.push(plain));
        drop(frames);
        match ingested {
            Ok(state) => {
                if self.phase.get() == Phase::Handshaking {
                    self.settle_identity(shard);
                }
                // Not the end yet: requests ahead of the goodbye may wait behind a cap.
                self.input_ended.set(state == Ingested::PeerClosed);
            }
            Err(error) => {
                if self.phase.get() == Phase::Handshaking {
                    shard
                        .metrics()
                        .handshake_failed(tls::failure_reason(&error));
                    tracing::debug!(peer = %self.peer, %error, "TLS handshake failed");
                }
                self.finish();
            }
        }
        if self.tls.borrow().wants_flush() {
            self.to_write.raise();
        }
    }

    fn settle_identity(&self, shard: &Shard<S>) {
        let tls = self.tls.borrow();
        if tls.is_handshaking() {
            return;
        }
        let identity = tls.peer_certificate().map(PeerIdentity::from_certificate);
        let Some(Ok(identity)) = identity else {
            shard.metrics().handshake_failed("identity");
            self.finish();
            return;
        };
        let snapshot = shard.snapshot();
        if self.rules_of < snapshot.roots_since {
            shard.metrics().handshake_failed("identity");
            self.finish();
            return;
        }
        shard.metrics().handshake(tls.resumed());
        self.client.set(snapshot.policy.client(&identity));
        self.generation.set(snapshot.generation);
        // Set once: there is one handshake, since renegotiation does not exist here.
        let _ = self.identity.set(identity);
        self.deadline.set(None);
        self.phase.set(Phase::Open);
        self.end_handshake(shard);
    }

    /// Serves the whole frames that are there, as long as the caps and the turn allow.
    fn take_frames(&self, shard: &Shard<S>) {
        if self.phase.get() != Phase::Open {
            return;
        }
        // One snapshot a turn: the client's rights and the keys must be of the same generation.
        let snapshot = shard.snapshot();
        self.follow_policy(&snapshot);
        let mut frames = self.frames.borrow_mut();
        let mut now = None;
        self.turn.begin();
        while self.phase.get() == Phase::Open && self.has_room(shard) && !self.turn.is_over() {
            match frames.front() {
                Front::Incomplete => break,
                Front::WrongVersion { id } => {
                    self.reply(&Reply::failure(id, ErrorCode::VersionMismatch));
                    self.finish();
                }
                Front::Frame(frame, len) => {
                    self.look_ahead
                        .before_next(&frames, &snapshot, self.client());
                    let now = *now.get_or_insert_with(clock::now);
                    self.turn.spend(1);
                    shard.serve_frame(self, &snapshot, frame, now);
                    if self.request_is_secret.take() {
                        frames.wipe(len);
                    }
                    frames.consume(len);
                }
            }
        }
        frames.compact();
        drop(frames);
        shard.submit_gathered();
        if !self.outbox.borrow().bytes().is_empty() {
            self.to_write.raise();
        }
    }

    /// Looks the client up again when keys or policy were replaced since.
    pub(crate) fn follow_policy(&self, snapshot: &Snapshot) {
        let Some(identity) = self.identity.get() else {
            return;
        };
        if snapshot.generation == self.generation.get() {
            return;
        }
        self.generation.set(snapshot.generation);
        let client = snapshot.policy.client(identity);
        if self.rules_of < snapshot.roots_since {
            tracing::info!(peer = %self.peer, "an authority of clients was taken away, closing");
            self.finish();
        }
        if self.client.replace(client).is_some() && client.is_none() {
            tracing::info!(peer = %self.peer, "client is no longer configured, closing");
            self.finish();
        }
    }

    /// Puts a reply into the outbox. The write half is woken by whoever ends the turn.
    pub(crate) fn reply(&self, reply: &Reply<'_>) {
        let pushed = self.outbox.borrow_mut().push(reply);
        self.check_pushed(reply.id, pushed);
    }

    /// The same for a reply that is a secret.
    pub(crate) fn reply_secret(&self, reply: &Reply<'_>) {
        let pushed = self.outbox.borrow_mut().push_secret(reply);
        self.check_pushed(reply.id, pushed);
    }

    fn check_pushed(&self, id: u32, pushed: Result<(), EncodeError>) {
        if let Err(error) = pushed {
            // Only a result that exceeds a frame could do that, and no operation has one.
            tracing::error!(%error, "a reply does not fit a frame");
            let failure = Reply::failure(id, ErrorCode::Internal);
            let _ = self.outbox.borrow_mut().push(&failure);
        }
    }

    /// Counts a request that was refused for overload.
    pub(crate) fn refused(&self, reason: Reason) {
        self.refused.set(self.refused.get().saturating_add(1));
        if reason == Reason::Other {
            self.refused_otherwise.set(true);
        }
    }

    /// Counts work of this turn beyond that of any frame.
    pub(crate) fn worked(&self, steps: Steps) {
        self.turn.spend(steps);
    }

    /// Counts work that was for nothing as if as many requests had been refused: who has it done again and again
    /// is read from less often.
    pub(crate) fn worked_in_vain(&self, steps: Steps) {
        self.turn.spend(steps);
        if steps > 0 {
            self.refused.set(self.refused.get().saturating_add(steps));
            self.refused_otherwise.set(true);
        }
    }

    /// What ties a proof to this connection, where its TLS version has such a thing.
    pub(crate) fn exporter(&self) -> Option<[u8; EXPORTER_LEN]> {
        self.tls.borrow().exporter()
    }

    /// Says that the request which is served holds a secret: it is wiped once it is answered.
    pub(crate) fn request_is_secret(&self) {
        self.request_is_secret.set(true);
    }

    /// Whether another of its requests may open a ciphertext. The rest of its room is for what needs no ledger.
    pub(crate) fn may_open(&self, shard: &Shard<S>) -> bool {
        self.in_flight
            .may_open(shard.limits().in_flight_per_connection)
    }

    /// Counts a request that waits for a crypto thread.
    pub(crate) fn job_started(&self, job: &Job) {
        self.in_flight.started(job);
        self.answers_by.set(self.answers_by.get().max(job.deadline));
    }

    /// Counts it back when its reply is in the outbox.
    pub(crate) fn job_ended(&self, job: &Job) {
        self.in_flight.ended(job);
        self.to_write.raise();
        self.may_read.raise();
    }

    fn has_room(&self, shard: &Shard<S>) -> bool {
        let most = shard.limits().in_flight_per_connection;
        self.in_flight.has_room(most, shard.window().size())
            && self.outbox.borrow().bytes().len() < shard.limits().output_bytes
    }

    /// Whether a cap keeps frames from being served. Reading on would only pile up more.
    fn is_blocked(&self, shard: &Shard<S>) -> bool {
        self.phase.get() == Phase::Open
            && (!self.has_room(shard) || self.frames.borrow().has_work())
    }

    /// Serves nothing more; delivers what is in flight, says goodbye, waits for the peer's.
    pub(crate) fn finish(&self) {
        if matches!(self.phase.get(), Phase::Handshaking | Phase::Open) {
            self.phase.set(Phase::Finishing);
        }
        self.to_write.raise();
        self.may_read.raise();
    }

    /// Gives the connection up at once. A read or write under way ends with an error.
    pub(crate) fn kill(&self) {
        self.phase.set(Phase::Dead);
        self.stream.shutdown(Shutdown::Both);
        self.to_write.raise();
        self.may_read.raise();
    }

    /// Marks the connection to say goodbye at `at`.
    pub(crate) fn leave_at(&self, at: Instant) {
        self.leave_at.set(Some(at));
    }

    /// Gives back what buffers have grown to when nothing came for a while.
    fn shrink_if_quiet(&self) {
        let sweeps = self.quiet_sweeps.get();
        if sweeps > limits::QUIET_SWEEPS {
            return;
        }
        self.quiet_sweeps.set(sweeps + 1);
        if sweeps == limits::QUIET_SWEEPS {
            self.frames.borrow_mut().shrink();
            self.outbox.borrow_mut().shrink();
        }
    }

    /// Acts on deadlines that have passed. Whether one had.
    pub(crate) fn sweep(&self, shard: &Shard<S>, now: Instant) -> bool {
        self.shrink_if_quiet();
        let leaves = self.leave_at.get().is_some_and(|at| at <= now);
        if leaves {
            self.leave_at.set(None);
            self.finish();
        }
        let over = |deadline: &Cell<Option<Instant>>| deadline.get().is_some_and(|at| at <= now);
        // A disk that hangs may keep an answer for ever; the peer has gone, or will go, elsewhere.
        let is_left_waiting = self.phase.get() == Phase::Finishing
            && self.in_flight.is_any()
            && self.answers_by.get() + limits::LINGER <= now;
        let is_late = over(&self.deadline) || over(&self.write_deadline) || is_left_waiting;
        if is_late {
            self.fail_handshake(shard, "deadline");
        }
        leaves || is_late
    }

    /// Who the peer is in the policy of the moment.
    pub(crate) fn client(&self) -> Option<ClientId> {
        self.client.get()
    }
}
