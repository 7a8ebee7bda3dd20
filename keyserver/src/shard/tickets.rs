//! Keys of session tickets, and tickets sealed with keys that stay here. Symmetric and brief: done at once.

use keyless_protocol::{ErrorCode, Opcode, Reply, Request};
use zeroize::Zeroizing;

use super::Shard;
use super::conn::Connection;
use super::stream::Stream;
use super::turn;
use crate::ending::Now;
use crate::policy::Admitted;
use crate::tickets::{self, SealError};

impl<S: Stream> Shard<S> {
    /// Answers as a server does that has no master of tickets: as a stock one.
    pub(super) fn without_tickets(&self, connection: &Connection<S>, request: &Request<'_>) {
        let code = match request.opcode {
            Opcode::TicketKeys => ErrorCode::BadOpcode,
            _ => ErrorCode::Internal,
        };
        self.metrics().rejected("not-served");
        (self.metrics()).request(request.opcode, None, "refused");
        self.fail(connection, request, code);
    }

    /// Carries out what the rights `tickets` and `seal` allow, with the keys of this generation.
    pub(super) fn serve_tickets(
        &self,
        connection: &Connection<S>,
        request: &Request<'_>,
        admitted: &Admitted,
        generation: u32,
    ) {
        connection.worked(turn::TICKETS);
        match self.ticket_answer(request, admitted, generation) {
            Ok(answer) => {
                connection.reply_secret(&Reply::success(request.id, &answer));
                (self.metrics()).request(request.opcode, None, "ok");
            }
            Err(code) => {
                let result = match code {
                    ErrorCode::Internal => "internal",
                    _ => "crypto-failure",
                };
                (self.metrics()).request(request.opcode, None, result);
                self.fail(connection, request, code);
            }
        }
    }

    fn ticket_answer(
        &self,
        request: &Request<'_>,
        admitted: &Admitted,
        generation: u32,
    ) -> Result<Zeroizing<Vec<u8>>, ErrorCode> {
        let state = &self.context.state;
        let master = (admitted.snapshot().tickets.as_ref()).ok_or(ErrorCode::Internal)?;
        let ski = admitted.key().ski();
        let now = Now::read();
        let answer = match request.opcode {
            Opcode::Seal => tickets::seal(master, &ski, generation, now.wall, request.payload),
            Opcode::Unseal => tickets::unseal(master, &ski, generation, now.wall, request.payload),
            _ if !request.payload.is_empty() => Err(SealError::Input),
            _ => tickets::handed_out(master, &ski, generation, now.wall)
                .map(|(keys, end)| {
                    let policy = &admitted.snapshot().policy;
                    let client = policy.client_name(admitted.client());
                    state.ticket_ends.handed_out(client, ski, end, now);
                    let mut answer = Vec::with_capacity(keys.encoded_len());
                    keys.encode(&mut answer);
                    answer
                })
                .ok_or(SealError::Failed),
        };
        answer.map(Zeroizing::new).map_err(|error| match error {
            SealError::Input => ErrorCode::CryptoFailure,
            SealError::Expired => ErrorCode::SealingKeyExpired,
            SealError::Failed => ErrorCode::Internal,
        })
    }
}
