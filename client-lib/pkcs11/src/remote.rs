//! The key servers, through the client library's blocking client.
//!
//! That client starts no thread here: the thread that waits for a signature does the input and
//! output itself. It spreads calls over the servers, leaves those that fail, asks again elsewhere
//! within the deadline where that is harmless, and knows about forks.

use keyserver_client::blocking::Client;
use keyserver_client::{Error, ErrorCode, KeyEntry, KeyId, SignatureAlgorithm, TlsIdentity};
use zeroize::Zeroizing;

use crate::config::Config;
use crate::failure::Failure;

/// The keys that the servers grant this client.
#[derive(Debug)]
pub(crate) enum Keys {
    Listed(Vec<KeyEntry>),
    /// A stock server does not know the question.
    NotTold,
}

/// See the module's own text.
#[derive(Clone)]
pub(crate) struct Remote {
    client: Client,
}

impl Remote {
    /// Reads the credentials. Connects to nothing.
    pub(crate) fn new(config: &Config) -> Result<Self, Failure> {
        let wrong =
            |error: keyserver_client::ConfigError| Failure::configuration(error.to_string());
        let identity =
            TlsIdentity::from_files(&config.ca, &config.certificate, &config.private_key)
                .map_err(wrong)?;
        let mut builder = Client::builder(config.server_name.as_str(), identity)
            .deadline(config.deadline)
            .connect_limit(config.deadline);
        for server in &config.servers {
            builder = builder.server(server.as_str());
        }
        if let Some(service) = &config.service {
            builder = builder.service(service.as_str());
        }
        if let Some(name_server) = config.name_server {
            builder = builder.name_server(name_server);
        }
        let client = builder.build().map_err(wrong)?;
        Ok(Self { client })
    }

    /// A signature of this key: `k` bytes, a DER `ECDSA-Sig-Value`, or 64 bytes.
    pub(crate) fn sign(
        &self,
        key: &KeyId,
        algorithm: SignatureAlgorithm,
        input: &[u8],
    ) -> Result<Vec<u8>, Failure> {
        let signature = self.client.sign(key, algorithm, input);
        signature.map_err(|error| Failure::signing(&error))
    }

    /// The whole decrypted block, `k` bytes.
    pub(crate) fn decrypt(
        &self,
        key: &KeyId,
        ciphertext: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let block = self.client.decrypt(key, ciphertext).map(Zeroizing::new);
        block.map_err(|error| Failure::decrypting(&error))
    }

    /// The premaster secret of an RSA key exchange, 48 bytes. It begins with the version that TLS 1.2 and 1.3 clients
    /// offer. A host sets the one that it was offered, as RFC 5246 has it (section 7.4.7.1).
    pub(crate) fn decrypt_premaster(
        &self,
        key: &KeyId,
        ciphertext: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let secret = self.client.decrypt_premaster(key, [3, 3], ciphertext);
        match secret {
            Ok(secret) => Ok(Zeroizing::new(secret.to_vec())),
            Err(error) => Err(Failure::decrypting(&error)),
        }
    }

    /// The keys that this client may use.
    pub(crate) fn keys(&self) -> Result<Keys, Failure> {
        match self.client.keys() {
            Ok(keys) => Ok(Keys::Listed(keys)),
            Err(Error::Refused(ErrorCode::BadOpcode)) => Ok(Keys::NotTold),
            Err(error) => Err(Failure::signing(&error)),
        }
    }
}
