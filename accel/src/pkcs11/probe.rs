//! One real signature, to see whether a slot that was shut works again.

use std::sync::Weak;

use zeroize::Zeroizing;

use super::failure::Failure;
use super::mechanism::{self, MAX_RESULT_LEN};
use super::module::lock;
use super::session::Held;
use super::slot::{KEY_GONE, Slot};
use crate::class::KeyType;
use crate::job::{Hash, Operation};
use crate::public::PublicKey;

/// Signs with the first key that is there, and checks the signature. A slot without keys, or with keys that
/// may not sign, passes: the queries before have to do.
pub(super) fn sign(slot: &Slot, held: &Held) -> Result<(), Failure> {
    let keys: Vec<_> = {
        let state = slot.lock();
        state.keys.iter().filter_map(Weak::upgrade).collect()
    };
    let first = keys.iter().find_map(|key| {
        let spki = lock(&key.spki).clone()?;
        let place = key.place()?;
        Some((place, PublicKey::from_spki(&spki).ok()?))
    });
    let Some((place, (key_type, public))) = first else {
        return if keys.is_empty() {
            Ok(())
        } else {
            Err(Failure::slot(KEY_GONE))
        };
    };
    let (operation, input) = (trial_of(key_type), [0x5a; 32]);
    let Ok(request) = mechanism::request(operation, key_type, place.abilities, &input) else {
        return Ok(());
    };
    let mut buffer = Zeroizing::new(vec![0; MAX_RESULT_LEN]);
    let inside = slot.module.enter()?;
    let length = slot.module.raw().run(
        request.call,
        held.session(&slot.module, &inside)?,
        &request.mechanism,
        place.handle,
        &request.input,
        &mut buffer,
    )?;
    drop(inside);
    let good = buffer
        .get(..length)
        .and_then(|returned| mechanism::result(operation, key_type, returned))
        .is_some_and(|result| public.verifies(operation, &input, &result));
    if good {
        Ok(())
    } else {
        Err(Failure::slot("a wrong signature"))
    }
}

/// What a key is tried with.
const fn trial_of(key_type: KeyType) -> Operation {
    match key_type {
        KeyType::Rsa { .. } => Operation::RsaPkcs1Sign(Hash::Sha256),
        KeyType::P256 | KeyType::P384 | KeyType::P521 => Operation::EcdsaSign(Hash::Sha256),
        KeyType::Ed25519 => Operation::Ed25519Sign,
        KeyType::MlDsa44 | KeyType::MlDsa65 | KeyType::MlDsa87 => Operation::MlDsaSign,
    }
}
