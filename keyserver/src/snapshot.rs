//! Everything a decision depends on, loaded together and replaced together.

use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use accel::{EngineError, Key, KeyFileError, KeyIndex, KeyTable, LoadRules, LoadedKey};

use crate::clock;
use crate::config::{Config, ConfigError, KeyLocation, KeySource};
use crate::policy::Policy;
use crate::policy::rules::KeyName;
use crate::tls::ServerConfig;
use crate::tls::certs::{self, CertificateError};

/// A certificate with fewer days left is worth a warning.
const CERTIFICATE_DAYS_MIN: i64 = 14;

/// Keys, policy, certificates and the configuration they came from. Immutable.
#[derive(Debug)]
pub struct Snapshot {
    /// 1 at start, one more with every reload that took effect.
    pub generation: u64,
    /// The configuration it was built from.
    pub config: Arc<Config>,
    /// The private keys.
    pub keys: KeyTable,
    /// Who may use them.
    pub policy: Policy,
    /// The server's certificate and TLS rules, for new connections.
    pub tls: Arc<ServerConfig>,
    /// End of validity of the server's certificate, seconds since 1970.
    pub certificate_expiry: i64,
}

/// Why a snapshot could not be built or used. Whatever was in use before stays in use.
#[derive(Debug)]
#[non_exhaustive]
pub enum LoadError {
    /// The configuration cannot be read or is wrong.
    Config(ConfigError),
    /// A key file cannot be used.
    Key(KeyFileError),
    /// The server's certificate, its key, or the client CA cannot be used.
    Certificate(CertificateError),
    /// The engine cannot be used on this machine.
    Engine(EngineError),
    /// A key was loaded, but a signature made with it does not verify.
    SelfTest {
        /// The label of the key.
        label: String,
        /// What the engine said.
        reason: String,
    },
}

impl Snapshot {
    /// Loads what `config` names.
    ///
    /// # Errors
    ///
    /// [`LoadError`] for the first file that cannot be used, with its name and the way out.
    pub fn load(config: Config, generation: u64) -> Result<Self, LoadError> {
        let mut loaded = Vec::new();
        for source in &config.keys {
            load_source(source, &mut loaded)?;
        }
        let keys = KeyTable::new(loaded).map_err(LoadError::Key)?;
        let server = certs::load(&config.tls).map_err(LoadError::Certificate)?;
        let names: Vec<KeyName<'_>> = keys
            .iter()
            .map(|(index, entry)| KeyName {
                index: index.0,
                label: &entry.label,
                ski: entry.key.ski(),
            })
            .collect();
        let policy = Policy::compile(&config.clients, &names, generation);
        Ok(Self {
            generation,
            config: Arc::new(config),
            keys,
            policy,
            tls: server.config,
            certificate_expiry: server.not_after,
        })
    }

    /// What the operator should know: about the grants, and about settings that are allowed but
    /// rarely meant.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.config.warnings();
        if self.keys.is_empty() {
            warnings
                .push("no key is loaded: only pings can be answered; add one to [[keys]]".into());
        }
        let days =
            (self.certificate_expiry - certs::unix_seconds(clock::wall())).div_euclid(86_400);
        let certificate = self.config.tls.certificate.display();
        if days < 0 {
            warnings.push(format!(
                "{certificate}: the server's certificate has expired: clients will refuse it; replace it and reload"
            ));
        } else if days < CERTIFICATE_DAYS_MIN {
            warnings.push(format!(
                "{certificate}: the server's certificate ends in {days} days; replace it and reload"
            ));
        }
        if let Some(mode) = open_to_others(&self.config.tls.private_key) {
            warnings.push(format!(
                "{}: others than the owner may use this private key (mode {mode:o}); chmod 600 it",
                self.config.tls.private_key.display()
            ));
        }
        warnings.extend(self.policy.warnings().iter().cloned());
        warnings
    }

    /// The key at `position` of the key table, and its label.
    #[must_use]
    pub fn key_at(&self, position: u32) -> Option<(&Arc<Key>, &str)> {
        let entry = self.keys.get(KeyIndex(position))?;
        Some((&entry.key, &entry.label))
    }
}

/// The permissions of a file that its group or everybody may read or write.
fn open_to_others(path: &Path) -> Option<u32> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o777;
    (mode & 0o077 != 0).then_some(mode)
}

fn load_source(source: &KeySource, into: &mut Vec<LoadedKey>) -> Result<(), LoadError> {
    let rules = LoadRules {
        allow_exponents: source.allow_exponents.clone(),
        allow_weak_permissions: source.allow_weak_permissions.clone(),
    };
    match &source.location {
        KeyLocation::Directory(path) => {
            into.extend(accel::load_directory(path, &rules).map_err(LoadError::Key)?);
        }
        KeyLocation::File(path) => {
            let mut key = accel::load_file(path, &rules).map_err(LoadError::Key)?;
            if let Some(label) = &source.label {
                key.label.clone_from(label);
            }
            if let Some(certificate) = &source.certificate {
                certs::check_belongs(certificate, path, key.key.spki_der())
                    .map_err(LoadError::Certificate)?;
            }
            into.push(key);
        }
    }
    Ok(())
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Key(error) => error.fmt(f),
            Self::Certificate(error) => error.fmt(f),
            Self::Engine(error) => error.fmt(f),
            Self::SelfTest { label, reason } => write!(
                f,
                "key \"{label}\": a signature made with it for a test is not right ({reason}); \
                 the file may be damaged: restore it from its backup, or remove it"
            ),
        }
    }
}

impl std::error::Error for LoadError {}

impl From<ConfigError> for LoadError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}
