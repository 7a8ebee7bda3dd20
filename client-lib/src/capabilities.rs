//! What one server can do, asked once per connection (opcode 0x47).
//!
//! The first question has three uses at once. With TLS 1.3 a server judges the client's certificate
//! after the handshake is over for the client, so only an answer proves that it was let in. Error 5
//! marks a stock server: nothing beyond version 1 of the protocol is sent to it. And a server that
//! drains says so, and is left alone.

use keyless_protocol::info::STATE_DRAINING;
use keyless_protocol::{ErrorCode, Opcode, Reply, ServerInfo};

use crate::error::Error;

/// The answer to the first question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Capabilities {
    /// The server understands our additions to the protocol.
    pub(crate) extended: bool,
    /// It finishes what it has and wants nothing new.
    pub(crate) draining: bool,
    opcodes: Vec<u8>,
}

impl Capabilities {
    /// A server of which nothing is known beyond version 1.
    pub(crate) fn stock() -> Self {
        Self::default()
    }

    /// What a reply to the question tells. A server that cannot answer now (busy, broken) is treated
    /// as a stock one: nothing is known, and nothing extra will be sent.
    pub(crate) fn of(reply: &Reply<'_>) -> Self {
        reply
            .outcome
            .map_or_else(|_| Self::stock(), Self::of_document)
    }

    /// As [`Self::of`], of a reply's payload.
    pub(crate) fn of_document(document: &[u8]) -> Self {
        ServerInfo::decode(document).map_or_else(
            |_| Self::stock(),
            |info| Self {
                extended: true,
                draining: info.state == STATE_DRAINING,
                opcodes: info.opcodes,
            },
        )
    }

    /// What to ask this server to learn how it is.
    pub(crate) fn question(&self) -> Opcode {
        if self.extended {
            Opcode::ServerInfo
        } else {
            Opcode::Ping
        }
    }

    /// Refuses an operation of ours for a server that does not know our additions: it is answered
    /// as a stock server would, were it sent what it does not know.
    pub(crate) fn check(&self, opcode: Opcode) -> Result<(), Error> {
        let is_ours =
            (Opcode::SignTls13..=Opcode::TicketKeys).contains(&opcode) || opcode == Opcode::KeyList;
        if is_ours && !self.extended {
            return Err(Error::Refused(ErrorCode::BadOpcode));
        }
        Ok(())
    }

    /// Whether the server serves an opcode that stock servers do not.
    pub(crate) fn offers(&self, opcode: Opcode) -> bool {
        self.opcodes.contains(&opcode.as_byte())
    }

    #[cfg(test)]
    pub(crate) fn offering(opcodes: &[Opcode]) -> Self {
        Self {
            extended: true,
            draining: false,
            opcodes: opcodes.iter().map(|opcode| opcode.as_byte()).collect(),
        }
    }
}
