//! Session tickets that any edge can resume: the keys for them, or the tickets themselves, from the key server.

use keyless_protocol::tickets::TicketKeys;
use zeroize::Zeroizing;

use crate::blocking;
use crate::client::Client;
use crate::error::Error;
use crate::key::KeyId;
use crate::operation::Operation;

fn keys(answer: Vec<u8>) -> Result<TicketKeys, Error> {
    let answer = Zeroizing::new(answer);
    TicketKeys::decode(&answer).map_err(Error::protocol)
}

impl Client {
    /// The keys with which all edges of a certificate seal session tickets now (opcode 0x46, right `tickets`). Whoever gets them
    /// keeps these and forgets all others; [`crate::SharedTickets`] does that for rustls.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] when the server does not have the key, does not grant this, or hands out no ticket keys; any other
    /// [`Error`].
    pub async fn ticket_keys(&self, key: &KeyId) -> Result<TicketKeys, Error> {
        self.perform(&Operation::ticket_keys(key))
            .await
            .and_then(keys)
    }

    /// Seals a session with a key that stays on the server (opcode 0x21, right `seal`): 1 to 16,384 bytes.
    ///
    /// # Errors
    ///
    /// As [`Client::ticket_keys`].
    pub async fn seal(&self, key: &KeyId, session: &[u8]) -> Result<Vec<u8>, Error> {
        self.perform(&Operation::seal(key, session)).await
    }

    /// Opens what [`Client::seal`] made, at any server with the same master (opcode 0x22, right `seal`).
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] with [`SealingKeyExpired`](crate::ErrorCode::SealingKeyExpired) when its time is over, or it was
    /// revoked; with [`CryptoFailure`](crate::ErrorCode::CryptoFailure) for anything that was not sealed for this key; otherwise
    /// as [`Client::ticket_keys`].
    pub async fn unseal(&self, key: &KeyId, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        let session = self.perform(&Operation::unseal(key, sealed)).await;
        session.map(Zeroizing::new)
    }
}

impl blocking::Client {
    /// As [`Client::ticket_keys`], for code that waits.
    ///
    /// # Errors
    ///
    /// As [`Client::ticket_keys`].
    pub fn ticket_keys(&self, key: &KeyId) -> Result<TicketKeys, Error> {
        self.call(Operation::ticket_keys(key)).and_then(keys)
    }

    /// As [`Client::seal`], for code that waits.
    ///
    /// # Errors
    ///
    /// As [`Client::ticket_keys`].
    pub fn seal(&self, key: &KeyId, session: &[u8]) -> Result<Vec<u8>, Error> {
        self.call(Operation::seal(key, session))
    }

    /// As [`Client::unseal`], for code that waits.
    ///
    /// # Errors
    ///
    /// As [`Client::unseal`].
    pub fn unseal(&self, key: &KeyId, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        self.call(Operation::unseal(key, sealed))
            .map(Zeroizing::new)
    }
}
