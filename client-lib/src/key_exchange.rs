//! Opening the RSA key exchange of TLS 1.2 and older, without the private key (RFC 5246, section 7.4.7.1).
//!
//! Two ways, each with a right of its own. With [`Client::tls12_master`] the edge gets the master secret of one handshake and
//! nothing that opens another: prefer it. With [`Client::decrypt_premaster`] it gets the premaster secret, for TLS stacks that
//! can be given nothing later. Neither answer says whether a padding was good: there is always one. And no
//! ciphertext is answered twice, but for an honest retry within ten seconds, so neither is repeated or hedged here.

use keyless_protocol::key_exchange::MasterRequest;
use zeroize::Zeroizing;

use crate::blocking;
use crate::client::Client;
use crate::error::Error;
use crate::key::KeyId;
use crate::operation::Operation;
use crate::pool::Pool;

/// A premaster or master secret. Wiped when dropped.
pub type Secret = Zeroizing<[u8; 48]>;

/// The secret in an answer; what it came in is wiped.
fn secret(answer: Vec<u8>) -> Result<Secret, Error> {
    let answer = Zeroizing::new(answer);
    let mut secret = Zeroizing::new([0; 48]);
    if answer.len() != secret.len() {
        return Err(Error::protocol(
            "a secret of a key exchange is not 48 bytes long",
        ));
    }
    secret.copy_from_slice(&answer);
    Ok(secret)
}

impl Client {
    /// Turns an encrypted premaster secret into the master secret of one handshake (opcode 0x42, right
    /// `tls12-master`).
    ///
    /// ```no_run
    /// # async fn example(client: keyserver_client::Client, key: keyserver_client::KeyId) -> Result<(), keyserver_client::Error> {
    /// use keyserver_client::{MasterRequest, MasterSeed, PrfHash};
    ///
    /// # let (session_hash, encrypted_premaster) = ([0; 32], [0; 256]);
    /// let request = MasterRequest {
    ///     client_version: [3, 3], // what the ClientHello said
    ///     prf: PrfHash::Sha256,
    ///     seed: MasterSeed::SessionHash(&session_hash), // extended master secret, RFC 7627
    ///     ciphertext: &encrypted_premaster,
    /// };
    /// let master = client.tls12_master(&key, &request).await?;
    /// assert_eq!(master.len(), 48);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] when the server does not have the key, does not grant this, was asked for this ciphertext before, or
    /// does not know the operation; any other [`Error`].
    pub async fn tls12_master(
        &self,
        key: &KeyId,
        request: &MasterRequest<'_>,
    ) -> Result<Secret, Error> {
        let operation = Operation::tls12_master(key, request);
        self.perform(&operation).await.and_then(secret)
    }

    /// Turns an encrypted premaster secret into the premaster secret (opcode 0x01 in our form, right
    /// `decrypt-premaster`). `client_version` is what the ClientHello said.
    ///
    /// # Errors
    ///
    /// As [`Client::tls12_master`]. A stock server is never asked: it would take the request for another one.
    pub async fn decrypt_premaster(
        &self,
        key: &KeyId,
        client_version: [u8; 2],
        ciphertext: &[u8],
    ) -> Result<Secret, Error> {
        let operation = Operation::decrypt_premaster(key, client_version, ciphertext);
        self.perform(&operation).await.and_then(secret)
    }
}

impl Pool {
    /// As [`Client::tls12_master`], of one of the servers.
    ///
    /// # Errors
    ///
    /// As [`Client::tls12_master`].
    pub async fn tls12_master(
        &self,
        key: &KeyId,
        request: &MasterRequest<'_>,
    ) -> Result<Secret, Error> {
        let operation = Operation::tls12_master(key, request);
        self.call(&operation).await.and_then(secret)
    }

    /// As [`Client::decrypt_premaster`], of one of the servers.
    ///
    /// # Errors
    ///
    /// As [`Client::tls12_master`].
    pub async fn decrypt_premaster(
        &self,
        key: &KeyId,
        client_version: [u8; 2],
        ciphertext: &[u8],
    ) -> Result<Secret, Error> {
        let operation = Operation::decrypt_premaster(key, client_version, ciphertext);
        self.call(&operation).await.and_then(secret)
    }
}

impl blocking::Client {
    /// As [`Client::tls12_master`], for code that waits.
    ///
    /// # Errors
    ///
    /// As [`Client::tls12_master`].
    pub fn tls12_master(&self, key: &KeyId, request: &MasterRequest<'_>) -> Result<Secret, Error> {
        self.call(Operation::tls12_master(key, request))
            .and_then(secret)
    }

    /// As [`Client::decrypt_premaster`], for code that waits.
    ///
    /// # Errors
    ///
    /// As [`Client::tls12_master`].
    pub fn decrypt_premaster(
        &self,
        key: &KeyId,
        client_version: [u8; 2],
        ciphertext: &[u8],
    ) -> Result<Secret, Error> {
        self.call(Operation::decrypt_premaster(
            key,
            client_version,
            ciphertext,
        ))
        .and_then(secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_has_one_length() {
        assert_eq!(*secret(vec![7; 48]).unwrap(), [7; 48]);
        for length in [0, 47, 49, 256] {
            secret(vec![7; length]).unwrap_err();
        }
    }
}
