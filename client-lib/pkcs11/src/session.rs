//! One session: a search under way, a signature, a decryption.
//!
//! A session is used by one thread at a time; the library keeps each behind a lock of its own, so
//! that a signature which waits for the server holds up no other session.

use std::sync::Arc;
use std::vec::IntoIter;

use cryptoki_sys as ck;
use cryptoki_sys::{CK_FLAGS, CK_OBJECT_HANDLE};
use keyserver_client::KeyId;
use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::mechanism::{Decryption, Gathered, Signing};
use crate::object::Object;
use crate::padding;
use crate::public_key::{Kind, PublicKey, raw_ecdsa};
use crate::remote::Remote;

/// Bytes of the premaster secret of an RSA key exchange (RFC 5246, section 7.4.7.1).
const PREMASTER_BYTES: usize = 48;

/// See the module's own text.
#[derive(Default)]
pub(crate) struct Session {
    pub(crate) flags: CK_FLAGS,
    search: Option<IntoIter<CK_OBJECT_HANDLE>>,
    signature: Option<Signature>,
    decryption: Option<Opening>,
}

/// A decryption under way.
struct Opening {
    decryption: Decryption,
    object: Arc<Object>,
    /// What did not fit into the host's buffer, for its next call.
    opened: Option<Opened>,
}

/// What the key server has made of a ciphertext. Asked again, it would count a second use, or refuse: its
/// ledger has some ciphertexts opened once only.
struct Opened {
    ciphertext: Vec<u8>,
    plain: Zeroizing<Vec<u8>>,
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
        self.decryption = Some(Opening {
            decryption,
            object,
            opened: None,
        });
        Ok(())
    }

    /// Decrypts, and ends the operation as [`Self::sign`] does.
    pub(crate) fn decrypt(
        &mut self,
        remote: &Remote,
        ciphertext: &[u8],
        room: Room,
    ) -> Result<Answer, Failure> {
        self.decrypt_by(ciphertext, room, |decryption, key| match decryption {
            Decryption::Raw => remote.decrypt(key, ciphertext),
            Decryption::Pkcs1 => {
                let block = remote.decrypt(key, ciphertext)?;
                padding::contents(&block).ok_or_else(|| {
                    let why = "the padding is not that of PKCS#1";
                    Failure::new(ck::CKR_ENCRYPTED_DATA_INVALID, why)
                })
            }
            Decryption::Premaster => remote.decrypt_premaster(key, ciphertext),
        })
    }

    /// As [`Self::decrypt`]; `open` asks the key server, and is called when it has to be asked.
    fn decrypt_by(
        &mut self,
        ciphertext: &[u8],
        room: Room,
        open: impl FnOnce(Decryption, &KeyId) -> Result<Zeroizing<Vec<u8>>, Failure>,
    ) -> Result<Answer, Failure> {
        let mut opening = self.decryption.take().ok_or_else(none_begun)?;
        let key = &opening.object.key;
        let longest = key.signature_bytes();
        let Room::Bytes(room) = room else {
            self.decryption = Some(opening);
            return Ok(Answer::Length(longest));
        };
        if ciphertext.len() != longest {
            return Err(Failure::new(
                ck::CKR_ENCRYPTED_DATA_LEN_RANGE,
                format!("{} bytes for a modulus of {longest}", ciphertext.len()),
            ));
        }
        let known = match opening.decryption {
            Decryption::Raw => longest,
            Decryption::Premaster => PREMASTER_BYTES,
            Decryption::Pkcs1 => 0, // As long as it is; only the plaintext tells.
        };
        if known > room {
            self.decryption = Some(opening);
            return Ok(Answer::TooSmall(known));
        }
        let opened = opening.opened.take();
        let plain = match opened.filter(|opened| opened.ciphertext == ciphertext) {
            Some(opened) => opened.plain,
            None => open(opening.decryption, &key.id)?,
        };
        if plain.len() > room {
            let bytes = plain.len();
            opening.opened = Some(Opened {
                ciphertext: ciphertext.to_vec(),
                plain,
            });
            self.decryption = Some(opening);
            return Ok(Answer::TooSmall(bytes));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{Class, Opens};

    const CIPHERTEXT: [u8; 256] = [7; 256];

    fn begun(decryption: Decryption) -> Session {
        let key = PublicKey {
            id: KeyId::from_ski([1; 20]),
            spki: Vec::new(),
            kind: Kind::Rsa {
                modulus: vec![0x80; CIPHERTEXT.len()],
                exponent: vec![3],
            },
        };
        let object = Object {
            handle: 1,
            class: Class::PrivateKey,
            label: "old".into(),
            id: key.id.ski(),
            key: Arc::new(key),
            certificate: None,
            opens: Opens::Blocks,
        };
        let mut session = Session::new(0);
        let begun = session.begin_decryption(decryption, Arc::new(object));
        begun.unwrap();
        session
    }

    /// What the host gets, and whether the key server, which answers this much, was asked for it.
    fn decrypt(
        session: &mut Session,
        ciphertext: &[u8],
        room: usize,
        bytes: usize,
    ) -> (Result<Answer, Failure>, bool) {
        let mut asked = false;
        let answer = session.decrypt_by(ciphertext, Room::Bytes(room), |_, _| {
            asked = true;
            Ok(Zeroizing::new(vec![1; bytes]))
        });
        (answer, asked)
    }

    #[test]
    fn a_buffer_that_is_too_small_costs_no_decryption_when_the_length_is_known() {
        for (decryption, bytes) in [(Decryption::Raw, 256), (Decryption::Premaster, 48)] {
            let mut session = begun(decryption);
            let (answer, asked) = decrypt(&mut session, &CIPHERTEXT, bytes - 1, bytes);
            assert!(matches!(answer, Ok(Answer::TooSmall(length)) if length == bytes));
            assert!(!asked, "{decryption:?}");
            let (answer, asked) = decrypt(&mut session, &CIPHERTEXT, bytes, bytes);
            assert!(matches!(answer, Ok(Answer::Result(plain)) if plain.len() == bytes));
            assert!(asked && session.decryption.is_none());
        }
    }

    #[test]
    fn what_did_not_fit_is_given_to_the_next_call_for_it_and_to_no_other() {
        for (ciphertext, again) in [(CIPHERTEXT, false), ([8; 256], true)] {
            let mut session = begun(Decryption::Pkcs1);
            let (answer, asked) = decrypt(&mut session, &CIPHERTEXT, 31, 32);
            assert!(matches!(answer, Ok(Answer::TooSmall(32))) && asked);
            let asks = session.decrypt_by(&CIPHERTEXT, Room::Ask, |_, _| panic!("asked"));
            assert!(matches!(asks, Ok(Answer::Length(256))));
            let (answer, asked) = decrypt(&mut session, &ciphertext, 32, 32);
            assert!(matches!(answer, Ok(Answer::Result(plain)) if plain.len() == 32));
            assert_eq!(asked, again);
            assert!(session.decryption.is_none());
        }
    }
}
