//! Everything a decision depends on, loaded together and replaced together.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

#[cfg(feature = "pkcs11")]
use accel::pkcs11::TokenError;
use accel::{EngineError, Key, KeyFileError, KeyIndex, KeyTable, LoadRules, LoadedKey};

use crate::clock;
use crate::config::{Config, ConfigError, KeyLocation, KeySource};
use crate::delegation::Certificates;
use crate::policy::{KeyName, KeyUse, Moment, Policy, Right};
use crate::stops::StateError;
use crate::tickets;
use crate::tls::ServerConfig;
use crate::tls::certs::{self, CertificateError};
#[cfg(feature = "pkcs11")]
use crate::tokens::Found;
use crate::tokens::{AbsentKey, Tokens};

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
    /// Keys that are configured, but whose token could not be reached.
    pub absent: Vec<AbsentKey>,
    /// The keys in tokens, each with its entry in the configuration.
    #[cfg(feature = "pkcs11")]
    pub(crate) in_tokens: Vec<(KeySource, Arc<Key>)>,
    /// The certificates of the keys, where they are known.
    pub certificates: Certificates,
    /// What the keys of session tickets come from.
    pub tickets: Option<tickets::Master>,
    /// Who may use them.
    pub policy: Policy,
    /// The server's certificate and TLS rules, for new connections.
    pub tls: Arc<ServerConfig>,
    /// End of validity of the server's certificate, seconds since 1970.
    pub certificate_expiry: i64,
    /// What the operator should know about the certificates of keys. Every client is looked at for every key, so
    /// this is found once.
    undelegated: Vec<String>,
    /// The certificates of the client authorities, as DER.
    roots: BTreeSet<Vec<u8>>,
    /// The generation that was the last to take an authority away. Whoever was let in before it may be of that one.
    pub(crate) roots_since: u64,
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
    /// The master of the session tickets cannot be used.
    Tickets(tickets::MasterError),
    /// The stops of the state directory cannot be read.
    State(StateError),
    /// Grants ask of keys what they are not for. Each with its place and the way out.
    Purpose(Vec<String>),
    /// The engine cannot be used on this machine.
    Engine(EngineError),
    /// A key in a token cannot be used.
    #[cfg(feature = "pkcs11")]
    Token {
        /// The label of the key.
        label: String,
        /// What is wrong.
        error: TokenError,
    },
    /// A key was loaded by its certificate, but no slot that holds it can be used.
    #[cfg(feature = "pkcs11")]
    TokenDown {
        /// The label of the key.
        label: String,
    },
    /// A key was loaded, but a signature made with it does not verify.
    SelfTest {
        /// The label of the key.
        label: String,
        /// What the engine said.
        reason: String,
    },
}

impl Snapshot {
    /// Loads what `config` names, in the place of `old` if there is one.
    ///
    /// # Errors
    ///
    /// [`LoadError`] for the first file or key that cannot be used, with its name and the way out.
    pub fn load(config: Config, tokens: &Tokens, old: Option<&Self>) -> Result<Self, LoadError> {
        let generation = old.map_or(1, |old| old.generation + 1);
        let mut loaded = Loaded::default();
        for source in &config.keys {
            loaded.add(source, tokens, old)?;
        }
        let keys = KeyTable::new(loaded.keys).map_err(LoadError::Key)?;
        let server = certs::load(&config.tls).map_err(LoadError::Certificate)?;
        let names = names(&keys, &loaded.absent, &loaded.usages);
        let policy = Policy::compile(&config.clients, &names, generation);
        if !policy.conflicts().is_empty() {
            return Err(LoadError::Purpose(policy.conflicts().to_vec()));
        }
        let certificates =
            Certificates::find(&config.keys, &keys).map_err(LoadError::Certificate)?;
        let roots_since = match old {
            Some(old) if old.roots.is_subset(&server.roots) => old.roots_since,
            _ => generation,
        };
        let tickets = (config.tickets.as_deref().map(tickets::Master::load))
            .transpose()
            .map_err(LoadError::Tickets)?;
        let undelegated = undelegated(&keys, &certificates, &policy);
        Ok(Self {
            generation,
            config: Arc::new(config),
            keys,
            absent: loaded.absent,
            #[cfg(feature = "pkcs11")]
            in_tokens: loaded.in_tokens,
            certificates,
            tickets,
            policy,
            tls: server.config,
            certificate_expiry: server.not_after,
            undelegated,
            roots: server.roots,
            roots_since,
        })
    }

    /// What the operator should know: about the grants, and about settings that are allowed but
    /// rarely meant.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.config.warnings();
        if self.keys.is_empty() && self.absent.is_empty() {
            warnings
                .push("no key is loaded: only pings can be answered; add one to [[keys]]".into());
        }
        for key in self.absent.iter().filter(|key| !key.reason.is_empty()) {
            warnings.push(format!(
                "key \"{}\" is not served: {}; reload when its token is back",
                key.label, key.reason
            ));
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
        warnings.extend(self.policy.warnings().iter().cloned());
        warnings.extend(self.undelegated.iter().cloned());
        warnings
    }

    /// How many keys cannot be served now, because every slot that holds them is down.
    #[must_use]
    pub fn keys_down(&self) -> usize {
        let down = |(_, entry): &(KeyIndex, &LoadedKey)| !Tokens::can_serve(&entry.key);
        self.keys.iter().filter(down).count()
    }

    /// Whether any key can be served now. Also when none is configured: pings are answered.
    #[must_use]
    pub fn can_serve(&self) -> bool {
        let nothing_to_serve = self.keys.is_empty() && self.absent.is_empty();
        nothing_to_serve
            || self
                .keys
                .iter()
                .any(|(_, entry)| Tokens::can_serve(&entry.key))
    }

    /// The key at `position` of the key table, and its label.
    #[must_use]
    pub fn key_at(&self, position: u32) -> Option<(&Arc<Key>, &str)> {
        let entry = self.keys.get(KeyIndex(position))?;
        Some((&entry.key, &entry.label))
    }
}

/// Keys that somebody may have delegated, and whose certificates do not let that happen.
fn undelegated(keys: &KeyTable, certificates: &Certificates, policy: &Policy) -> Vec<String> {
    let now = Moment::now();
    let warning = |(index, entry): (KeyIndex, &LoadedKey)| {
        let why = certificates.of(&entry.key.ski()).err()?;
        let is_granted = policy.is_granted(Right::Delegate, index.0, now);
        is_granted.then(|| {
            let label = &entry.label;
            format!("key \"{label}\": delegate is granted, but no credential can be issued: {why}")
        })
    };
    keys.iter().filter_map(warning).collect()
}

/// What the sources of keys have yielded so far.
#[derive(Default)]
struct Loaded {
    keys: Vec<LoadedKey>,
    absent: Vec<AbsentKey>,
    #[cfg(feature = "pkcs11")]
    in_tokens: Vec<(KeySource, Arc<Key>)>,
    /// What each of `keys` is for.
    usages: Vec<Arc<KeyUse>>,
}

impl Loaded {
    fn add(
        &mut self,
        source: &KeySource,
        tokens: &Tokens,
        old: Option<&Snapshot>,
    ) -> Result<(), LoadError> {
        match &source.location {
            KeyLocation::Directory(_) | KeyLocation::File(_) => {
                let _only_for_tokens = (tokens, old);
                load_files(source, &mut self.keys)?;
            }
            #[cfg(feature = "pkcs11")]
            KeyLocation::Token(token) => match tokens.find(source, token, old)? {
                Found::Key(key) => {
                    self.in_tokens.push((source.clone(), Arc::clone(&key.key)));
                    self.keys.push(key);
                }
                Found::Absent(key) => self.absent.push(key),
            },
        }
        self.usages
            .resize(self.keys.len(), Arc::clone(&source.usage));
        Ok(())
    }
}

/// The names that grants may use. Those of absent keys are among them, so that nobody is told that
/// there is no such key; their places are behind the table, where nothing is looked up.
fn names<'a>(
    keys: &'a KeyTable,
    absent: &'a [AbsentKey],
    usages: &'a [Arc<KeyUse>],
) -> Vec<KeyName<'a>> {
    let present = (keys.iter().zip(usages)).map(|((index, entry), usage)| KeyName {
        index: index.0,
        label: &entry.label,
        ski: entry.key.ski(),
        usage,
    });
    let behind = u32::try_from(keys.len()).unwrap_or(u32::MAX)..;
    let absent = behind.zip(absent).map(|(index, key)| KeyName {
        index,
        label: &key.label,
        ski: [0; 20],
        usage: &key.usage,
    });
    present.chain(absent).collect()
}

fn load_files(source: &KeySource, into: &mut Vec<LoadedKey>) -> Result<(), LoadError> {
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
        #[cfg(feature = "pkcs11")]
        KeyLocation::Token(_) => {}
    }
    Ok(())
}

impl LoadError {
    /// Whether a token refused the PIN. Whoever goes on trying locks the token for good.
    #[must_use]
    pub fn is_refused_pin(&self) -> bool {
        #[cfg(feature = "pkcs11")]
        return matches!(
            self,
            Self::Token {
                error: TokenError::PinRefused { .. },
                ..
            }
        );
        #[cfg(not(feature = "pkcs11"))]
        false
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Key(error) => error.fmt(f),
            Self::Certificate(error) => error.fmt(f),
            Self::Purpose(conflicts) => f.write_str(&conflicts.join("\n")),
            Self::Engine(error) => error.fmt(f),
            Self::Tickets(error) => error.fmt(f),
            #[cfg(feature = "pkcs11")]
            Self::Token { label, error } => write!(f, "key \"{label}\": {error}"),
            #[cfg(feature = "pkcs11")]
            Self::TokenDown { label } => write!(
                f,
                "key \"{label}\": no slot that holds it can be used now; look at the device and the way \
                 to it, or set `required = false` to serve the other keys meanwhile"
            ),
            Self::State(error) => error.fmt(f),
            Self::SelfTest { label, reason } => write!(
                f,
                "key \"{label}\": a signature made with it for a test is not right ({reason}); \
                 the key may be damaged: restore it from its backup, or remove it"
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
