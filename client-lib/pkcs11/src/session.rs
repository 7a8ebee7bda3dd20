//! One session: a search under way, a signature, a decryption.
//!
//! A session is used by one thread at a time; the library keeps each behind a lock of its own, so
//! that a signature which waits for the server holds up no other session.

use std::sync::Arc;
use std::vec::IntoIter;

use cryptoki_sys as ck;
use cryptoki_sys::{CK_FLAGS, CK_OBJECT_HANDLE};
use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::mechanism::{Decryption, Gathered, Signing};
use crate::object::Object;
use crate::padding;
use crate::public_key::{Kind, PublicKey, raw_ecdsa};
use crate::remote::Remote;

/// See the module's own text.
#[derive(Default)]
pub(crate) struct Session {
    pub(crate) flags: CK_FLAGS,
    search: Option<IntoIter<CK_OBJECT_HANDLE>>,
    signature: Option<Signature>,
    decryption: Option<(Decryption, Arc<Object>)>,
}

struct Signature {
    signing: Signing,
    key: Arc<PublicKey>,
    /// What `C_SignUpdate` brought; `None` before the first.
    gathered: Option<Gathered>,
}

/// How much the host's buffer takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// The host only asks how long the result is.
    Ask,
    /// This many bytes.
    Bytes(usize),
}

/// What goes to the host's buffer.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The result.
    Result(Zeroizing<Vec<u8>>),
    /// How long it is or may be; the operation goes on.
    Length(usize),
    /// As `Length`, because the host's buffer is too small.
    TooSmall(usize),
}

fn active() -> Failure {
    let why = "another operation of this kind is under way in the session";
    Failure::new(ck::CKR_OPERATION_ACTIVE, why)
}

fn none_begun() -> Failure {
    let why = "no operation of this kind was begun in the session";
    Failure::new(ck::CKR_OPERATION_NOT_INITIALIZED, why)
}

impl Session {
    pub(crate) fn new(flags: CK_FLAGS) -> Self {
        Self {
            flags,
            ..Self::default()
        }
    }

    pub(crate) fn begin_search(&mut self, found: Vec<CK_OBJECT_HANDLE>) -> Result<(), Failure> {
        if self.search.is_some() {
            return Err(active());
        }
        self.search = Some(found.into_iter());
        Ok(())
    }

    /// The next `most` handles of the search.
    pub(crate) fn found(&mut self, most: usize) -> Result<Vec<CK_OBJECT_HANDLE>, Failure> {
        let search = self.search.as_mut().ok_or_else(none_begun)?;
        Ok(search.take(most).collect())
    }

    pub(crate) fn end_search(&mut self) -> Result<(), Failure> {
        self.search.take().map(drop).ok_or_else(none_begun)
    }

    pub(crate) fn begin_signature(
        &mut self,
        signing: Signing,
        key: Arc<PublicKey>,
    ) -> Result<(), Failure> {
        if self.signature.is_some() {
            return Err(active());
        }
        self.signature = Some(Signature {
            signing,
            key,
            gathered: None,
        });
        Ok(())
    }

    pub(crate) fn add_to_signature(&mut self, part: &[u8]) -> Result<(), Failure> {
        let signature = self.signature.as_mut().ok_or_else(none_begun)?;
        let signing = signature.signing;
        let gathered = signature.gathered.get_or_insert_with(|| signing.gather());
        let added = gathered.add(part);
        if added.is_err() {
            self.signature = None;
        }
        added
    }

    /// Signs `data`, or with `None` what was gathered. Ends the operation unless the host asks for
    /// the length alone or its buffer is too small.
    pub(crate) fn sign(
        &mut self,
        remote: &Remote,
        data: Option<&[u8]>,
        room: Room,
    ) -> Result<Answer, Failure> {
        let signature = self.signature.as_ref().ok_or_else(none_begun)?;
        let bytes = signature.key.signature_bytes();
        match room {
            Room::Ask => return Ok(Answer::Length(bytes)),
            Room::Bytes(room) if room < bytes => return Ok(Answer::TooSmall(bytes)),
            Room::Bytes(_) => {}
        }
        let signature = self.signature.take().ok_or_else(none_begun)?;
        signature.make(remote, data).map(Answer::Result)
    }

    pub(crate) fn begin_decryption(
        &mut self,
        decryption: Decryption,
        object: Arc<Object>,
    ) -> Result<(), Failure> {
        if self.decryption.is_some() {
            return Err(active());
        }
        self.decryption = Some((decryption, object));
        Ok(())
    }

    /// Decrypts, and ends the operation as [`Self::sign`] does.
    pub(crate) fn decrypt(
        &mut self,
        remote: &Remote,
        ciphertext: &[u8],
        room: Room,
    ) -> Result<Answer, Failure> {
        let (decryption, object) = self.decryption.take().ok_or_else(none_begun)?;
        let key = &object.key;
        let longest = key.signature_bytes();
        let Room::Bytes(room) = room else {
            self.decryption = Some((decryption, object));
            return Ok(Answer::Length(longest));
        };
        if ciphertext.len() != longest {
            return Err(Failure::new(
                ck::CKR_ENCRYPTED_DATA_LEN_RANGE,
                format!("{} bytes for a modulus of {longest}", ciphertext.len()),
            ));
        }
        let plain = match decryption {
            Decryption::Raw => remote.decrypt(&key.id, ciphertext)?,
            Decryption::Pkcs1 => {
                let block = remote.decrypt(&key.id, ciphertext)?;
                padding::contents(&block).ok_or_else(|| {
                    let why = "the padding is not that of PKCS#1";
                    Failure::new(ck::CKR_ENCRYPTED_DATA_INVALID, why)
                })?
            }
            Decryption::Premaster => remote.decrypt_premaster(&key.id, ciphertext)?,
        };
        if plain.len() > room {
            self.decryption = Some((decryption, Arc::clone(&object)));
            return Ok(Answer::TooSmall(plain.len()));
        }
        Ok(Answer::Result(plain))
    }
}

impl Signature {
    fn make(&self, remote: &Remote, data: Option<&[u8]>) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let (algorithm, input) = match (data, &self.gathered) {
            (Some(data), None) => self.signing.request(data)?,
            (None, Some(gathered)) => gathered.request(self.signing)?,
            (None, None) => self.signing.request(&[])?,
            (Some(_), Some(_)) => return Err(active()),
        };
        let signature = remote.sign(&self.key.id, algorithm, &input)?;
        let signature = match &self.key.kind {
            Kind::Ec { order_bytes, .. } => raw_ecdsa(&signature, *order_bytes),
            Kind::Rsa { .. } | Kind::Ed25519 { .. } => Some(signature),
        };
        match signature {
            Some(signature) if signature.len() == self.key.signature_bytes() => {
                Ok(Zeroizing::new(signature))
            }
            _ => Err(Failure::new(
                ck::CKR_DEVICE_ERROR,
                "the server's answer is no signature of this key",
            )),
        }
    }
}
