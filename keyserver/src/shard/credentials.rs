//! Delegated credentials on their way: checked here, signed by a crypto thread like anything else, completed here.
//!
//! Checking a proof takes up to 200 us. Clients that hold the right need it once an hour for each of their keys, so it stays on
//! this thread; who has more of them checked has turns of its own for that, and pauses for those that fail.

use std::time::Instant;

use keyless_protocol::info::ski_to_hex;
use keyless_protocol::{ErrorCode, Request};

use super::Shard;
use super::conn::Connection;
use super::stream::Stream;
use super::turn;
use crate::delegation::{Ask, prepare};
use crate::dispatch::{Job, Pending, signing_of};
use crate::ending::Now;
use crate::policy::{Admitted, RefusalReason};

impl<S: Stream> Shard<S> {
    /// Makes a job of a request for a credential.
    pub(super) fn delegate(
        &self,
        connection: &Connection<S>,
        request: &Request<'_>,
        admitted: Admitted,
        now: Instant,
    ) {
        let exporter = connection.exporter();
        let ask = Ask {
            payload: request.payload,
            scheme: request.signature_scheme,
            exporter: exporter.as_ref(),
            now: Now::read(),
        };
        let issue = match prepare(&admitted, &self.context.state.credentials, &ask) {
            Ok(issue) => {
                connection.worked(turn::PROOF);
                issue
            }
            Err(fault) => {
                connection.worked_in_vain(turn::PROOF);
                let refusal = RefusalReason::Credential(fault).refusal();
                let snapshot = admitted.snapshot();
                self.refuse(connection, snapshot, request, refusal, now);
                return;
            }
        };
        let Some(task) = signing_of(issue.scheme, &issue.message) else {
            self.untranslatable(connection, request, &admitted, ErrorCode::CryptoFailure);
            return;
        };
        let pending = Pending {
            head: issue.head,
            reservation: issue.reservation,
        };
        let pending = Some(Box::new(pending));
        self.gather(connection, request, admitted, &task, pending, now);
    }

    /// Makes a credential of the signature in a job's output, and says in the log that it is about.
    pub(super) fn complete_credential(&self, job: &mut Job) {
        let Some(mut pending) = job.credential.take() else {
            return;
        };
        let length = u16::try_from(job.output.len()).unwrap_or(u16::MAX);
        let mut whole = std::mem::take(&mut pending.head);
        whole.extend_from_slice(&length.to_be_bytes());
        whole.extend_from_slice(&job.output);
        job.output = whole;
        pending.reservation.keep();
        let account = pending.reservation.account();
        tracing::info!(
            target: "keyserver::audit",
            client = account.client,
            key = ski_to_hex(&account.ski),
            until = pending.reservation.end(),
            "delegated credential issued"
        );
    }
}
