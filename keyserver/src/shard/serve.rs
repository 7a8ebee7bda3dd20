//! What happens to one frame: decode, decide, answer or queue; and to one finished job: answer.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use accel::{Operation, WARMED_AT_ONCE};
use keyless_protocol::info::KeyListRequest;
use keyless_protocol::{ErrorCode, Frame, MAX_PAYLOAD, Opcode, Reply, Request};
use smallvec::SmallVec;

use super::Shard;
use super::conn::Connection;
use super::pace::Reason;
use super::stream::Stream;
use super::turn;
use crate::admin::metrics::Stage;
use crate::clock;
use crate::dispatch::scheduler::{Client, Overload};
#[cfg(feature = "pkcs11")]
use crate::dispatch::submit_to_slot;
use crate::dispatch::{Job, Outcome, Pending, Task, client_of, translate};
use crate::info;
use crate::policy::{self, Admitted, Peer, Refusal, RefusalReason, Right};
use crate::snapshot::Snapshot;
use crate::stops::{Stopped, Stops};
use crate::tokens::Tokens;

impl<S: Stream> Shard<S> {
    /// Serves one whole frame of an established connection, under the snapshot that its client was
    /// looked up in.
    pub(super) fn serve_frame(
        &self,
        connection: &Connection<S>,
        snapshot: &Arc<Snapshot>,
        frame: Frame<'_>,
        now: Instant,
    ) {
        let request = match Request::decode(frame) {
            Ok(request) => request,
            Err(error) => {
                self.metrics().rejected("malformed");
                connection.reply(&Reply::failure(error.id, error.code));
                if error.fatal {
                    tracing::debug!(peer = %connection.peer, %error, "closing the connection");
                    connection.finish();
                }
                return;
            }
        };
        if request.opcode == Opcode::Seal {
            // The secrets of a session.
            connection.request_is_secret();
        }
        match request.opcode {
            Opcode::Ping => {
                connection.reply(&Reply::pong(request.id, request.payload));
                self.metrics().request(Opcode::Ping, None, "ok");
            }
            Opcode::ServerInfo => {
                connection.worked(turn::SERVER_INFO);
                let document =
                    info::server_info(&self.context.state, snapshot, connection.client());
                self.answer(connection, &request, document.as_deref());
            }
            Opcode::KeyList => {
                let document = key_list(connection, snapshot, request.payload);
                self.answer(connection, &request, document.as_deref());
            }
            Opcode::Seal | Opcode::Unseal | Opcode::TicketKeys if snapshot.tickets.is_none() => {
                self.without_tickets(connection, &request);
            }
            _ => self.use_key(connection, snapshot, &request, now),
        }
    }

    fn answer(&self, connection: &Connection<S>, request: &Request<'_>, document: Option<&[u8]>) {
        let (reply, result) = match document {
            Some(document) => (Reply::success(request.id, document), "ok"),
            None => (Reply::failure(request.id, ErrorCode::Format), "bad-request"),
        };
        connection.reply(&reply);
        self.metrics().request(request.opcode, None, result);
    }

    fn use_key(
        &self,
        connection: &Connection<S>,
        snapshot: &Arc<Snapshot>,
        request: &Request<'_>,
        now: Instant,
    ) {
        let peer = Peer {
            client: connection.client(),
            address: connection.peer.ip(),
        };
        match policy::admit(snapshot, &peer, request, now) {
            Ok(admitted) => {
                let stops = self.context.state.stops.current();
                match stops.forbid(&admitted) {
                    None => self.use_admitted(connection, request, admitted, &stops, now),
                    Some(stopped) => {
                        let refusal = RefusalReason::Stopped(stopped).refusal();
                        self.refuse(connection, snapshot, request, refusal, now);
                    }
                }
            }
            Err(refusal) => self.refuse(connection, snapshot, request, refusal, now),
        }
    }

    /// Carries out what may be: what needs no private key at once, all else as a job. `stops` are those under which it
    /// may be: whoever was blocked since must not get ticket keys of the generation that this began.
    fn use_admitted(
        &self,
        connection: &Connection<S>,
        request: &Request<'_>,
        admitted: Admitted,
        stops: &Stops,
        now: Instant,
    ) {
        match admitted.right() {
            Right::Tickets | Right::Seal => {
                let generation = stops.generation(&admitted.key().ski());
                self.serve_tickets(connection, request, &admitted, generation);
            }
            Right::Delegate => self.delegate(connection, request, admitted, now),
            _ => match translate(&admitted, request.payload) {
                Ok(task) => self.gather(connection, request, admitted, &task, None, now),
                Err(code) => self.untranslatable(connection, request, &admitted, code),
            },
        }
    }

    /// Answers what does not fit its key.
    pub(super) fn untranslatable(
        &self,
        connection: &Connection<S>,
        request: &Request<'_>,
        admitted: &Admitted,
        code: ErrorCode,
    ) {
        let class = Some(admitted.key().class());
        (self.metrics()).request(request.opcode, class, "crypto-failure");
        self.fail(connection, request, code);
    }

    pub(super) fn refuse(
        &self,
        connection: &Connection<S>,
        snapshot: &Snapshot,
        request: &Request<'_>,
        refusal: Refusal,
        now: Instant,
    ) {
        let client = connection
            .client()
            .map(|client| snapshot.policy.client_name(client));
        self.refusals.record(
            now,
            connection.peer,
            client,
            request.opcode,
            request.ski,
            refusal.reason,
        );
        self.metrics().rejected(refusal.reason.name());
        if let Some(retry_after) = refusal.reason.retry_after() {
            // As for any work that does not fit: who floods is read from less often.
            connection.refused(Reason::Other);
            self.metrics().request(request.opcode, None, "busy");
            connection.reply(&busy(request.id, retry_after, request.extended));
            return;
        }
        self.metrics().request(request.opcode, None, "refused");
        self.fail(connection, request, refusal.code);
    }

    /// Makes a job of an admitted request; [`Self::submit_gathered`] queues it with the others of
    /// its turn.
    pub(super) fn gather(
        &self,
        connection: &Connection<S>,
        request: &Request<'_>,
        admitted: Admitted,
        task: &Task<'_>,
        credential: Option<Box<Pending>>,
        now: Instant,
    ) {
        let client = client_of(&admitted);
        let Some(mut job) = self.take_job(connection, client, task.exchange.is_some(), now) else {
            // The class may have room, but the client has its share of the thread's jobs.
            self.metrics().rejected("overload");
            let class = Some(admitted.key().class());
            self.metrics().request(request.opcode, class, "busy");
            connection.refused(Reason::Other);
            let retry_after = self.limits.queue_time;
            connection.reply(&busy(request.id, retry_after, request.extended));
            return;
        };
        let bound = if Tokens::holds(admitted.key()) {
            admitted.snapshot().config.pkcs11.deadline
        } else {
            self.limits.job_deadline
        };
        let asked = request
            .deadline_us
            .map(|us| Duration::from_micros(us.into()));
        let patience = asked.map_or(bound, |asked| asked.min(bound));
        job.connection = connection.id;
        job.request_id = request.id;
        job.extended = request.extended;
        job.class = admitted.key().class();
        job.operation = task.operation;
        job.exchange = task.exchange;
        job.credential = credential;
        job.is_recorded = false;
        // Tokens and disks take their own time.
        job.in_window =
            job.exchange.is_none() && job.credential.is_none() && !Tokens::holds(admitted.key());
        job.input.extend_from_slice(task.input.as_ref());
        job.admitted = Some(admitted);
        job.admitted_at = now;
        job.deadline = now + patience;
        connection.job_started(&job);
        self.metrics().inflight(1);
        if job.exchange.is_some() && !self.context.state.ledger.is_writable() {
            // It could not be answered: it is not opened either.
            job.outcome = Outcome::NoLedger;
            self.conclude(&mut job);
            self.pool.borrow_mut().release(job);
            return;
        }
        if job.credential.is_some() && self.context.state.credentials.is_hung() {
            // It would be signed, and then wait for the disk with its place among what is in flight.
            job.outcome = Outcome::Unwritten;
            self.conclude(&mut job);
            self.pool.borrow_mut().release(job);
            return;
        }
        // A job for a token goes its own way: the class queues are for keys of this process.
        #[cfg(feature = "pkcs11")]
        let Some(job) = submit_to_slot(job, &self.context.completions) else {
            return;
        };
        self.gathered.borrow_mut().push(job);
    }

    /// A job for a request of a client, if it may have another.
    fn take_job(
        &self,
        connection: &Connection<S>,
        client: Client,
        opens: bool,
        now: Instant,
    ) -> Option<Box<Job>> {
        let mut pool = self.pool.borrow_mut();
        // Where the disk of the ledger hangs, those would keep all the room that there is, until that is known.
        let is_open = self.context.state.ledger.is_writable();
        if opens && is_open && !(connection.may_open(self) && pool.may_open(client)) {
            return None;
        }
        let job = pool.take(now, client)?;
        if opens {
            pool.opens(client);
        }
        Some(job)
    }

    /// Queues the jobs of this turn, under one lock. Those that may not wait are refused.
    pub(super) fn submit_gathered(&self) {
        let mut gathered = self.gathered.borrow_mut();
        if gathered.is_empty() {
            return;
        }
        self.context.dispatcher.submit(&mut gathered);
        for mut job in gathered.drain(..) {
            self.conclude(&mut job);
            self.pool.borrow_mut().release(job);
        }
    }

    /// Answers finished jobs, a few at once; `false` if there are none.
    pub(super) fn deliver_some(&self) -> bool {
        let finished = std::iter::from_fn(|| self.context.completions.pop());
        let jobs: SmallVec<[Box<Job>; WARMED_AT_ONCE]> = finished.take(WARMED_AT_ONCE).collect();
        // Each lets go of its key. Of very many keys they are in no cache any more: see `look_ahead.rs`.
        for admitted in jobs.iter().filter_map(|job| job.admitted.as_ref()) {
            black_box(Arc::strong_count(admitted.key()));
        }
        let any = !jobs.is_empty();
        jobs.into_iter().for_each(|job| self.deliver(job));
        any
    }

    /// Answers a finished job and keeps its box for the next. A credential, or a ciphertext that a token has opened,
    /// is recorded first, and comes here again; crypto threads have their ciphertexts recorded themselves.
    fn deliver(&self, job: Box<Job>) {
        let Some(mut job) = self.record(job) else {
            return;
        };
        self.conclude(&mut job);
        let now = clock::now();
        let total = now.saturating_duration_since(job.admitted_at);
        self.metrics().observe_stage(Stage::Total, total);
        let mut pool = self.pool.borrow_mut();
        if job.outcome == Outcome::Done && job.in_window {
            self.window()
                .answered(job.class, total, pool.under_way(), now);
        }
        pool.release(job);
    }

    /// Sends on what has to be on disk before it is answered: an opened ciphertext to the ledger, a credential to
    /// its keeper. Gives any other job back.
    fn record(&self, mut job: Box<Job>) -> Option<Box<Job>> {
        if !(job.awaits_ledger() || job.awaits_keeper()) {
            return Some(job);
        }
        if self.connections.borrow().find(job.connection).is_none() {
            // Nobody waits for it, so it takes none of its tries.
            job.outcome = Outcome::TooLate;
            return Some(job);
        }
        if let Some(stopped) = self.stopped(&job) {
            // For good: should that end before the answer leaves, it would leave unrecorded.
            job.outcome = Outcome::Stopped(stopped);
            return Some(job);
        }
        let sent = if job.awaits_ledger() {
            self.context.ledger.submit(job)
        } else {
            self.context.keeper.submit(job)
        };
        sent.err()
    }

    /// Whether the result of a job must not leave any more, because it was stopped while it was computed.
    fn stopped(&self, job: &Job) -> Option<Stopped> {
        let admitted = job.admitted.as_ref()?;
        self.context.state.stops.current().forbid(admitted)
    }

    /// Answers a job whose outcome is known.
    fn conclude(&self, job: &mut Job) {
        let id = job.request_id;
        // The last look before the result leaves.
        let stopped = match job.outcome {
            Outcome::Done => self.stopped(job),
            _ => None,
        };
        let outcome = job.final_outcome(stopped);
        if outcome == Outcome::Done {
            self.complete_credential(job);
        }
        let (reply, result) = match outcome {
            Outcome::Stopped(stopped) => {
                self.metrics().rejected("stopped");
                (failure(id, stopped.code(), job.extended), "refused")
            }
            Outcome::Done => (Reply::success(id, &job.output), "ok"),
            Outcome::Failed(error) => (failure(id, code_of(error), job.extended), result_of(error)),
            #[cfg(feature = "pkcs11")]
            Outcome::Unavailable => {
                self.metrics().rejected("slot-down");
                let code = ErrorCode::Internal;
                (failure(id, code, job.extended), "internal")
            }
            Outcome::TooLate | Outcome::Refused(Overload::TooLate) => (
                failure(id, ErrorCode::DeadlineExceeded, job.extended),
                "deadline",
            ),
            Outcome::Refused(Overload::Busy { retry_after }) => {
                self.metrics().rejected("overload");
                (busy(id, retry_after, job.extended), "busy")
            }
            Outcome::Replayed => {
                self.metrics().rejected("replay");
                (failure(id, ErrorCode::Denied, job.extended), "refused")
            }
            Outcome::NoLedger => {
                self.metrics().rejected("no-ledger");
                (failure(id, ErrorCode::Internal, job.extended), "internal")
            }
            Outcome::Unwritten => {
                self.metrics().rejected("no-state");
                (failure(id, ErrorCode::Internal, job.extended), "internal")
            }
        };
        self.reply_to(job, &reply, result);
    }

    fn reply_to(&self, job: &Job, reply: &Reply<'_>, result: &'static str) {
        self.metrics().inflight(-1);
        if let Some(admitted) = &job.admitted {
            self.metrics()
                .request(admitted.opcode(), Some(job.class), result);
        }
        let connections = self.connections.borrow();
        let Some(connection) = connections.find(job.connection) else {
            self.metrics().rejected("peer-gone");
            return;
        };
        if job.operation == Operation::RsaPrivate {
            connection.reply_secret(reply);
        } else {
            connection.reply(reply);
        }
        if let Outcome::Refused(overload) = job.outcome {
            // Tokens have queues of their own, and credentials one for the disk.
            let elsewhere = job.credential.is_some() || is_in_token(job);
            let reason = match overload {
                Overload::Busy { .. } if !elsewhere => Reason::Queues,
                Overload::Busy { .. } | Overload::TooLate => Reason::Other,
            };
            connection.refused(reason);
        }
        connection.job_ended(job);
    }

    pub(super) fn fail(&self, connection: &Connection<S>, request: &Request<'_>, code: ErrorCode) {
        connection.reply(&failure(request.id, code, request.extended));
    }
}

/// Whether the key of a job is in a token.
fn is_in_token(job: &Job) -> bool {
    (job.admitted.as_ref()).is_some_and(|admitted| Tokens::holds(admitted.key()))
}

/// A page of the key list, if it was asked for in the right form.
fn key_list<S: Stream>(
    connection: &Connection<S>,
    snapshot: &Snapshot,
    payload: &[u8],
) -> Option<Vec<u8>> {
    let wanted = KeyListRequest::decode(payload).ok()?;
    let page = policy::key_list(snapshot, connection.client(), wanted.first, MAX_PAYLOAD);
    let listed = u32::try_from(page.list.keys.len()).unwrap_or(u32::MAX);
    connection.worked(turn::LISTED_KEY.saturating_mul(listed));
    connection.worked_in_vain(turn::looking_at(page.passed_over));
    page.list.encode().ok()
}

/// An error reply in the words the client understands.
fn failure(id: u32, code: ErrorCode, extended: bool) -> Reply<'static> {
    let reply = Reply::failure(id, code);
    if extended { reply } else { reply.for_stock() }
}

/// "Busy": whoever understands is told when to try again, in whole milliseconds and at least one.
fn busy(id: u32, retry_after: Duration, extended: bool) -> Reply<'static> {
    let mut reply = Reply::failure(id, ErrorCode::Busy);
    let millis = u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX);
    reply.retry_after_ms = Some(millis.saturating_add(1));
    if extended { reply } else { reply.for_stock() }
}

fn code_of(error: accel::JobError) -> ErrorCode {
    match error {
        accel::JobError::Input | accel::JobError::WrongKey => ErrorCode::CryptoFailure,
        accel::JobError::Failed | accel::JobError::CheckFailed | accel::JobError::Quarantined => {
            ErrorCode::Internal
        }
    }
}

fn result_of(error: accel::JobError) -> &'static str {
    match error {
        accel::JobError::Input | accel::JobError::WrongKey => "crypto-failure",
        accel::JobError::Failed | accel::JobError::CheckFailed | accel::JobError::Quarantined => {
            "internal"
        }
    }
}
