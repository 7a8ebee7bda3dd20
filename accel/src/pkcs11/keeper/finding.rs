//! Where the keys of a slot are: looked for at each login, and later those that were not there.

use std::sync::{Arc, Weak};

use super::{Keeper, no_session};
use crate::pkcs11::error::TokenError;
use crate::pkcs11::failure::Failure;
use crate::pkcs11::module::{Inside, lock};
use crate::pkcs11::object::{self, Found, NotFound, Watched};
use crate::pkcs11::slot::{KEY_GONE, Place, SlotKey};

impl Keeper {
    /// Finds every key: a new generation.
    pub(super) fn find_all(&mut self) -> Result<(), Failure> {
        let slot = Arc::clone(&self.slot);
        let inside = slot.module.enter()?;
        let keys: Vec<_> = {
            let state = slot.lock();
            state.keys.iter().filter_map(Weak::upgrade).collect()
        };
        for key in keys {
            match self.find_in_session(&inside, &key) {
                Ok(_) => {}
                Err(NotFound::Failure(failure)) => return Err(failure),
                Err(NotFound::Error(_)) => slot.lock().note(KEY_GONE),
            }
        }
        let mut state = slot.lock();
        state.generation += 1;
        Ok(())
    }

    /// Finds one key; tells its `SubjectPublicKeyInfo`.
    pub(super) fn find_one(&mut self, key: &SlotKey) -> Result<Vec<u8>, NotFound> {
        self.calling(true);
        let slot = Arc::clone(&self.slot);
        let result = slot
            .module
            .enter()
            .map_err(NotFound::Failure)
            .and_then(|inside| self.find_in_session(&inside, key));
        self.calling(false);
        result
    }

    /// Finds a key, compares its public half, and remembers where it is; or forgets where it was.
    fn find_in_session(&self, inside: &Inside<'_>, key: &SlotKey) -> Result<Vec<u8>, NotFound> {
        let held = self.session.as_ref().ok_or_else(no_session);
        let session = held
            .and_then(|held| held.session(&self.slot.module, inside))
            .map_err(NotFound::Failure)?;
        let session = Watched {
            session,
            begins: &|| self.calling(true),
        };
        let found = object::find(&session, &key.uri, &self.mechanisms, self.logged_in)
            .and_then(|found| compare(key, found));
        match &found {
            Ok((place, _)) => key.put(Some(*place)),
            Err(NotFound::Error(_)) => key.put(None),
            // The search did not come to its end.
            Err(NotFound::Failure(_)) => {}
        }
        found.map(|(_, spki)| spki)
    }

    /// Looks for keys that were not on the token: somebody may have put them back.
    pub(super) fn find_missing(&mut self) {
        let keys: Vec<_> = {
            let state = self.slot.lock();
            let keys = state.keys.iter().filter_map(Weak::upgrade);
            keys.filter(|key| !key.is_there()).collect()
        };
        for key in keys {
            if let Err(NotFound::Failure(failure)) = self.find_one(&key) {
                // The next keepalive says whether the session is to blame.
                self.slot.note(&failure);
                return;
            }
        }
    }
}

/// Where a key that was found is, and its public half, if that is the one that it must be.
fn compare(key: &SlotKey, found: Found) -> Result<(Place, Vec<u8>), NotFound> {
    let expected = lock(&key.spki).clone();
    let uri = || Box::new(key.uri.clone());
    let spki = match (found.spki, expected) {
        (Some(spki), Some(expected)) if spki != *expected => {
            return Err(NotFound::Error(TokenError::Mismatch(uri())));
        }
        (Some(spki), _) => spki,
        (None, Some(expected)) => expected.to_vec(),
        (None, None) => return Err(NotFound::Error(TokenError::NoPublicKey(uri()))),
    };
    let place = Place {
        handle: found.handle,
        abilities: found.abilities,
    };
    Ok((place, spki))
}
