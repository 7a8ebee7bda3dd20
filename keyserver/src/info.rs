//! Server information (0x47): what this server is and can do, for any authenticated client.

use keyless_protocol::info::{InfoLimits, STATE_DRAINING, STATE_SEALED, STATE_SERVING, ServerInfo};
use keyless_protocol::{MAX_BODY, Opcode};

use crate::policy::{ClientId, Right};
use crate::snapshot::Snapshot;
use crate::state::ServerState;
use crate::stops::Subject;

/// The document for a client, or nothing if it does not fit a frame.
pub(crate) fn server_info(
    state: &ServerState,
    snapshot: &Snapshot,
    client: Option<ClientId>,
) -> Option<Vec<u8>> {
    let limits = snapshot.config.limits;
    let has_tickets = snapshot.tickets.is_some();
    let draining = state.health.is_draining();
    ServerInfo {
        server: "keyserver".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        protocol: "1.0".to_owned(),
        capabilities: [
            "deadline",
            "delegated-credentials",
            "extended-replies",
            "decrypt-once",
            "retry-after",
            "tls12-master",
            "tls12-sign",
            "tls13-sign",
            "tls13-transcript",
        ]
        .map(str::to_owned)
        .to_vec(),
        opcodes: served(has_tickets).map(Opcode::as_byte).collect(),
        limits: InfoLimits {
            in_flight_per_connection: u32::try_from(limits.in_flight_per_connection)
                .unwrap_or(u32::MAX),
            body_bytes: u32::try_from(MAX_BODY).unwrap_or(u32::MAX),
        },
        state: if draining {
            STATE_DRAINING
        } else if state.stops.current().stops(&Subject::All) {
            STATE_SEALED
        } else {
            STATE_SERVING
        }
        .to_owned(),
        client: client.map(|client| snapshot.policy.client_info(client)),
    }
    .encode()
    .ok()
}

/// The opcodes that are answered with something else than "bad opcode".
fn served(has_tickets: bool) -> impl Iterator<Item = Opcode> {
    Opcode::ALL.into_iter().filter(move |opcode| match opcode {
        Opcode::Seal | Opcode::Unseal | Opcode::TicketKeys => has_tickets,
        _ => {
            matches!(opcode, Opcode::Ping | Opcode::ServerInfo | Opcode::KeyList)
                || Right::required_by(*opcode).is_some_and(Right::is_served)
        }
    })
}
