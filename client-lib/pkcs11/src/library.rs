//! The module between `C_Initialize` and `C_Finalize`: configuration, objects, sessions.
//!
//! A process has one, behind a pointer that is swapped and never locked, because a lock that another
//! thread holds at the moment of a fork stays locked in the child for ever. The process that made it
//! is part of it: to a child it does not exist, until the child calls `C_Initialize` as the standard
//! wants. Then it takes over what the parent has read: configuration, credentials, objects. So a worker
//! needs no right to read the files that its master could read. The connections stay the parent's.

use std::collections::HashMap;
use std::process;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use cryptoki_sys as ck;
use cryptoki_sys::{CK_FLAGS, CK_SESSION_HANDLE};
use keyserver_client::KeyEntry;

use crate::certificate::{self, Certificate};
use crate::config::Config;
use crate::failure::Failure;
use crate::object::{Object, Objects};
use crate::remote::{Keys, Remote};
use crate::session::Session;

/// Most sessions at once. A host has one for each thread that signs.
pub(crate) const SESSIONS_MAX: usize = 4096;

/// How long the server's list of keys is taken as it is before it is asked for again.
const LIST_GOOD: Duration = Duration::from_secs(60);
/// How long after a failed question the next is asked: hosts search often, and each search would
/// wait for the deadline.
const LIST_RETRY: Duration = Duration::from_secs(5);

/// The one of this process.
static CURRENT: ArcSwapOption<Library> = ArcSwapOption::const_empty();

/// See the module's own text.
pub(crate) struct Library {
    process: u32,
    pub(crate) config: Arc<Config>,
    survey: ArcSwap<Survey>,
    pub(crate) remote: Remote,
    sessions: Mutex<Sessions>,
}

#[derive(Default)]
struct Sessions {
    last: CK_SESSION_HANDLE,
    open: HashMap<CK_SESSION_HANDLE, Arc<Mutex<Session>>>,
}

/// What the last look at the certificates and at the server's list of keys found.
struct Survey {
    certificates: Arc<[Arc<Certificate>]>,
    /// The server's list; `None` as long as it has told none.
    keys: Option<Arc<[KeyEntry]>>,
    objects: Arc<Objects>,
    /// When to look again; `None` for now.
    again: Option<Instant>,
}

/// `C_Initialize`.
pub(crate) fn initialize() -> Result<(), Failure> {
    let before = CURRENT.load_full();
    if let Some(library) = &before
        && library.process == process::id()
    {
        return Err(Failure::new(
            ck::CKR_CRYPTOKI_ALREADY_INITIALIZED,
            "C_Initialize was called before",
        ));
    }
    let library = match &before {
        Some(parents) => Library::inherit(parents),
        None => Library::load()?,
    };
    let library = Arc::new(library);
    let found = CURRENT.compare_and_swap(&before, Some(library));
    let as_expected = match (found.as_ref(), before.as_ref()) {
        (None, None) => true,
        (Some(found), Some(before)) => Arc::ptr_eq(found, before),
        _ => false,
    };
    if !as_expected {
        return Err(Failure::new(
            ck::CKR_CRYPTOKI_ALREADY_INITIALIZED,
            "another thread called C_Initialize at the same time",
        ));
    }
    Ok(())
}

/// `C_Finalize`.
pub(crate) fn finalize() -> Result<(), Failure> {
    current()?;
    // Connections close when the last call that still runs has let go of the library.
    CURRENT.store(None);
    Ok(())
}

/// The library of this process.
pub(crate) fn current() -> Result<Arc<Library>, Failure> {
    CURRENT
        .load_full()
        .filter(|library| library.process == process::id())
        .ok_or_else(|| {
            Failure::new(
                ck::CKR_CRYPTOKI_NOT_INITIALIZED,
                "this process has not called C_Initialize",
            )
        })
}

impl Library {
    /// Reads the configuration and the certificates. Nothing is sent yet, and no thread started.
    fn load() -> Result<Self, Failure> {
        let config = Config::load()?;
        let certificates = read_certificates(&config)?;
        let remote = Remote::new(&config)?;
        let objects = Arc::new(Objects::new(&certificates, None));
        let survey = Survey {
            certificates,
            keys: None,
            objects,
            again: None,
        };
        Ok(Self::new(Arc::new(config), Arc::new(survey), remote))
    }

    /// What a child has of its parent.
    fn inherit(parents: &Self) -> Self {
        let (config, survey) = (Arc::clone(&parents.config), parents.survey.load_full());
        Self::new(config, survey, parents.remote.clone())
    }

    fn new(config: Arc<Config>, survey: Arc<Survey>, remote: Remote) -> Self {
        Self {
            process: process::id(),
            config,
            survey: ArcSwap::new(survey),
            remote,
            sessions: Mutex::default(),
        }
    }

    /// All objects, as far as they are known without asking the server.
    pub(crate) fn known_objects(&self) -> Arc<Objects> {
        Arc::clone(&self.survey.load().objects)
    }

    /// All objects. When the last look is old, the certificates are read again and the server is
    /// asked for its list of keys. What cannot be had counts on as it was known before.
    pub(crate) fn objects(&self) -> Result<Arc<Objects>, Failure> {
        let before = self.survey.load_full();
        if before.again.is_some_and(|again| Instant::now() < again) {
            return Ok(Arc::clone(&before.objects));
        }
        let certificates =
            read_certificates(&self.config).unwrap_or_else(|_| Arc::clone(&before.certificates));
        let (keys, wait, failure) = match self.remote.keys() {
            Ok(Keys::Listed(keys)) => (Some(Arc::from(keys)), LIST_GOOD, None),
            Ok(Keys::NotTold) => (None, LIST_GOOD, None),
            Err(failure) => (before.keys.clone(), LIST_RETRY, Some(failure)),
        };
        let objects = if failure.is_some() && certificates == before.certificates {
            Arc::clone(&before.objects)
        } else {
            Arc::new(Objects::new(&certificates, keys.as_deref()))
        };
        self.survey.store(Arc::new(Survey {
            certificates,
            keys,
            objects: Arc::clone(&objects),
            again: Instant::now().checked_add(wait),
        }));
        match failure {
            Some(failure) if objects.is_empty() => Err(failure),
            _ => Ok(objects),
        }
    }

    /// As [`Self::object`], with what the server says of its rights: its list is asked for first when
    /// that is due. A host that searches once would otherwise never learn of rights that could not be
    /// asked for at its start.
    pub(crate) fn object_with_rights(
        &self,
        handle: ck::CK_OBJECT_HANDLE,
    ) -> Result<Arc<Object>, Failure> {
        // What cannot be had counts on as it was known before.
        let _ = self.objects();
        self.object(handle)
    }

    /// The object with this handle. One that is not known yet may be new on the server.
    pub(crate) fn object(&self, handle: ck::CK_OBJECT_HANDLE) -> Result<Arc<Object>, Failure> {
        if let Some(object) = self.known_objects().with_handle(handle) {
            return Ok(Arc::clone(object));
        }
        let objects = self.objects()?;
        objects
            .with_handle(handle)
            .map(Arc::clone)
            .ok_or_else(|| Failure::new(ck::CKR_OBJECT_HANDLE_INVALID, "no object has this handle"))
    }

    pub(crate) fn open_session(&self, flags: CK_FLAGS) -> Result<CK_SESSION_HANDLE, Failure> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if sessions.open.len() >= SESSIONS_MAX {
            let why = format!("{SESSIONS_MAX} sessions are open");
            return Err(Failure::new(ck::CKR_SESSION_COUNT, why));
        }
        sessions.last += 1;
        let handle = sessions.last;
        let session = Arc::new(Mutex::new(Session::new(flags)));
        sessions.open.insert(handle, session);
        Ok(handle)
    }

    pub(crate) fn close_session(&self, handle: CK_SESSION_HANDLE) -> Result<(), Failure> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions
            .open
            .remove(&handle)
            .map(drop)
            .ok_or_else(no_session)
    }

    pub(crate) fn close_all_sessions(&self) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.open.clear();
    }

    /// How many sessions are open.
    pub(crate) fn session_count(&self) -> usize {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.open.len()
    }

    /// Does something with a session. Only that session is locked meanwhile.
    pub(crate) fn with_session<T>(
        &self,
        handle: CK_SESSION_HANDLE,
        act: impl FnOnce(&mut Session) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let session = sessions.open.get(&handle).map(Arc::clone);
        drop(sessions);
        let session = session.ok_or_else(no_session)?;
        let mut session = session.lock().unwrap_or_else(PoisonError::into_inner);
        act(&mut session)
    }
}

fn read_certificates(config: &Config) -> Result<Arc<[Arc<Certificate>]>, Failure> {
    let found = match &config.certificates {
        Some(directory) => certificate::read_directory(directory)?,
        None => Vec::new(),
    };
    Ok(found.into_iter().map(Arc::new).collect())
}

fn no_session() -> Failure {
    Failure::new(ck::CKR_SESSION_HANDLE_INVALID, "no session has this handle")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::tests::pem;
    use crate::object::{Class, Opens};
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;
    use std::fs;
    use std::path::Path;

    /// A module whose key server cannot be reached, with certificates in `folder`.
    fn unreachable(folder: &Path) -> Library {
        let key = rcgen::KeyPair::generate().unwrap();
        let parameters = rcgen::CertificateParams::new(["edge".to_owned()]).unwrap();
        let certificate = parameters.self_signed(&key).unwrap().pem();
        let [ca, own, private_key] = ["ca.pem", "edge.pem", "key.pem"].map(|it| folder.join(it));
        fs::write(&ca, &certificate).unwrap();
        fs::write(&own, &certificate).unwrap();
        fs::write(&private_key, key.serialize_pem()).unwrap();
        let certificates = folder.join("sites");
        fs::create_dir(&certificates).unwrap();
        fs::write(certificates.join("old.pem"), pem(&rcgen::PKCS_RSA_SHA256)).unwrap();
        let config = Config {
            servers: vec!["127.0.0.1:1".into()],
            service: None,
            name_server: None,
            server_name: "keys".into(),
            ca,
            certificate: own,
            private_key,
            certificates: Some(certificates),
            token_label: "keys".into(),
            deadline: Duration::from_secs(2),
        };
        let certificates = read_certificates(&config).unwrap();
        let survey = Survey {
            objects: Arc::new(Objects::new(&certificates, None)),
            certificates,
            keys: None,
            again: None,
        };
        let remote = Remote::new(&config).unwrap();
        Library::new(Arc::new(config), Arc::new(survey), remote)
    }

    fn private_keys(objects: &Objects) -> Vec<(String, Opens)> {
        let private = objects.iter().filter(|it| it.class == Class::PrivateKey);
        private.map(|it| (it.label.to_string(), it.opens)).collect()
    }

    #[test]
    fn rights_are_asked_for_when_that_is_due() {
        let folder = tempfile::tempdir().unwrap();
        let library = unreachable(folder.path());
        let known = library.known_objects();
        let key = known.iter().find(|it| it.class == Class::PrivateKey);
        let handle = key.unwrap().handle;
        library.object(handle).unwrap();
        let asked = || library.survey.load().again;
        assert_eq!(asked(), None, "a signature needs no list");
        library.object_with_rights(handle).unwrap();
        let first = asked();
        assert!(first.is_some());
        library.object_with_rights(handle).unwrap();
        assert_eq!(asked(), first, "not due");
    }

    #[test]
    fn the_last_list_counts_on_while_there_is_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let library = unreachable(folder.path());
        let before = library.survey.load_full();
        let entry = |certificate: &Arc<Certificate>| KeyEntry {
            ski: certificate.key.id.to_string(),
            key_type: "any".into(),
            spki: BASE64_STANDARD.encode(&certificate.key.spki),
            operations: vec!["decrypt-premaster".into()],
            ..KeyEntry::default()
        };
        let keys: Arc<[_]> = before.certificates.iter().map(entry).collect();
        library.survey.store(Arc::new(Survey {
            objects: Arc::new(Objects::new(&before.certificates, Some(&keys))),
            certificates: Arc::clone(&before.certificates),
            keys: Some(keys),
            again: None,
        }));
        let new = folder.path().join("sites/shop.pem");
        fs::write(new, pem(&rcgen::PKCS_ECDSA_P256_SHA256)).unwrap();
        let objects = library.objects().unwrap();
        let wanted = [("old", Opens::Premasters), ("shop", Opens::Nothing)];
        let wanted = wanted.map(|(label, opens)| (label.to_owned(), opens));
        assert_eq!(private_keys(&objects), wanted);
    }
}
