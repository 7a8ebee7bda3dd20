//! RSA key exchange (TLS 1.2 and older, RFC 5246, section 7.4.7.1), opened so that the answer says
//! nothing about the padding of what was sent.
//!
//! Whoever can tell a well-padded ciphertext from any other can decrypt every recorded session of the
//! key, and sign with it (Bleichenbacher, CRYPTO 1998; Böck, Somorovsky and Young, USENIX Security
//! 2018). So nothing may depend on the padding: no error, no length, no time, no log line, no second
//! answer that differs from the first. A block that does not conform is answered like one that
//! does, with a substitute secret that depends on the key and the ciphertext alone: the same ciphertext
//! always gets the same answer, because a random one would betray itself when asked for twice.
//!
//! ```text
//!  ciphertext c --public checks--> c^d mod n, blinded, checked with e --> EM, k bytes
//!       |                                                                |
//!       +--> substitute, of HMAC(kdk, label || c)       00 02 PS 00 secret[48] ?  one mask, no branch
//!                       |                                                |
//!                       +----------------- select ----------------------+
//!                                            |
//!               master secret | premaster secret | block with synthetic padding
//! ```
//!
//! | file | noun |
//! |---|---|
//! | `unpad.rs` | the mask: does a block conform? and the selection by it |
//! | `substitute.rs` | what stands in for the secret of a block that does not |
//!
//! **How to check that it is constant time.** `unpad.rs` has two functions that are never inlined;
//! `objdump -d` of any program that uses them shows no conditional jump but those of loops over
//! public lengths. `cargo run --release -p accel --example timing_key_exchange` compares the time of good
//! blocks with bad ones (Reparaz, Balasch and Verbauwhede, "dude, is my code constant time?", 2017), and
//! `examples/undefined_key_exchange.rs` has valgrind follow the bytes of a block through all of it, AWS-LC's
//! PRF included: no jump and no address depends on them.

mod substitute;
mod unpad;

use aws_lc_rs::tls_prf;
use zeroize::{Zeroize, Zeroizing};

pub(crate) use self::substitute::{Substitutes, challenge};
use self::unpad::{SECRET_LEN, conforms, select};
use crate::error::JobError;
use crate::key::Key;

/// Bytes of a master secret (RFC 5246, section 8.1).
const MASTER_LEN: usize = 48;
/// Bytes of the version number that a premaster secret begins with.
const VERSION_LEN: usize = 2;

/// What becomes of an opened block: how much of it the asker gets to see, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyExchange {
    /// 48 bytes, the master secret. It is one-way: nothing about the premaster secret, and so nothing
    /// about the block, can be learnt from it.
    Master {
        /// The highest version that the client offered (`ClientHello.client_version`).
        client_version: [u8; VERSION_LEN],
        /// The hash function of the cipher suite's PRF.
        prf: Prf,
        /// What the master secret is bound to.
        seed: Seed,
    },
    /// 48 bytes, the premaster secret: `client_version`, then 46 bytes out of the block.
    Premaster {
        /// The highest version that the client offered (`ClientHello.client_version`). It replaces what
        /// stands in the block and is never compared with it (RFC 5246, section 7.4.7.1).
        client_version: [u8; VERSION_LEN],
    },
    /// k bytes: `00 02 PS 00 secret`, with the 48 bytes out of the block and a padding PS that has
    /// nothing to do with the true one. For edges that unpad by themselves.
    ///
    /// Its limit: whoever already knows the secret of one ciphertext c can recognise a conforming
    /// c * s^e for a small s, with a chance of about 2^-25 a query. Daily ceilings stand in front of
    /// that; the two other forms do not have it.
    Compatible,
}

/// The hash function of the TLS 1.2 pseudo-random function (RFC 5246, section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prf {
    /// SHA-256: every suite that does not name another.
    Sha256,
    /// SHA-384: suites whose names end in it.
    Sha384,
}

/// What a master secret is bound to. All of it is public.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seed {
    /// `ClientHello.random || ServerHello.random` (RFC 5246, section 8.1).
    Randoms([u8; 64]),
    /// The session hash of [`Prf::Sha256`]: the extended master secret (RFC 7627, section 4).
    SessionHash256([u8; 32]),
    /// The session hash of [`Prf::Sha384`].
    SessionHash384([u8; 48]),
}

impl Seed {
    const fn label_and_bytes(&self) -> (&'static [u8], &[u8]) {
        match self {
            Self::Randoms(randoms) => (b"master secret", randoms),
            Self::SessionHash256(hash) => (b"extended master secret", hash),
            Self::SessionHash384(hash) => (b"extended master secret", hash),
        }
    }
}

impl KeyExchange {
    /// Bytes of the answer under a modulus of `k` bytes. The length says nothing about the block.
    #[must_use]
    pub const fn answer_len(&self, k: usize) -> usize {
        match self {
            Self::Master { .. } => MASTER_LEN,
            Self::Premaster { .. } => SECRET_LEN,
            Self::Compatible => k,
        }
    }

    /// Replaces `block`, which `key` has opened `ciphertext` to, by the answer, and wipes it. The engine
    /// does this for jobs with an [`exchange`](crate::Job::exchange); where another device has opened the
    /// block, its caller does.
    ///
    /// # Errors
    ///
    /// [`JobError::WrongKey`] for a key without an RSA private exponent. [`JobError::Failed`] where the block
    /// is shorter than any key allows: never for what a block contains. `block` is empty then.
    pub fn answer(
        &self,
        key: &Key,
        ciphertext: &[u8],
        block: &mut Vec<u8>,
    ) -> Result<(), JobError> {
        let Some(substitutes) = key.substitutes() else {
            block.zeroize();
            return Err(JobError::WrongKey);
        };
        self.answer_with(substitutes, ciphertext, block)
    }

    fn answer_with(
        &self,
        substitutes: &Substitutes,
        ciphertext: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<(), JobError> {
        let answered = match self {
            Self::Master {
                client_version,
                prf,
                seed,
            } => premaster(*client_version, substitutes, ciphertext, output)
                .and_then(|premaster| master(&premaster, *prf, seed))
                .map(|master| replace(output, &*master)),
            Self::Premaster { client_version } => {
                premaster(*client_version, substitutes, ciphertext, output)
                    .map(|premaster| replace(output, &*premaster))
            }
            Self::Compatible => compatible(substitutes, ciphertext, output),
        };
        if answered.is_none() {
            output.zeroize();
        }
        answered.ok_or(JobError::Failed)
    }
}

/// The premaster secret of a block, or the substitute for it.
fn premaster(
    client_version: [u8; VERSION_LEN],
    substitutes: &Substitutes,
    ciphertext: &[u8],
    block: &[u8],
) -> Option<Zeroizing<[u8; SECRET_LEN]>> {
    let (padding, secret) = block.split_last_chunk::<SECRET_LEN>()?;
    // The substitute is made whether it is needed or not.
    let substitute = substitutes.premaster(ciphertext);
    let mut premaster = Zeroizing::new([0; SECRET_LEN]);
    select(conforms(padding), secret, &substitute, &mut premaster);
    *premaster.first_chunk_mut()? = client_version;
    Some(premaster)
}

/// Turns the block into `00 02 PS 00 secret`, whatever it was: into the substitute for all of it, and then the bytes
/// that are not the substitute's.
fn compatible(substitutes: &Substitutes, ciphertext: &[u8], block: &mut [u8]) -> Option<()> {
    let (padding, secret) = block.split_last_chunk::<SECRET_LEN>()?;
    let good = conforms(padding);
    let opened = Zeroizing::new(*secret);
    substitutes.block(ciphertext, block)?;
    let (padding, secret) = block.split_last_chunk_mut::<SECRET_LEN>()?;
    let substitute = Zeroizing::new(*secret);
    select(good, &opened, &substitute, secret);
    // A zero becomes a one. That bends the distribution, which matters to nobody: the padding only has to be
    // fixed, and to have nothing to do with the true one.
    for byte in &mut *padding {
        *byte |= u8::from(*byte == 0);
    }
    let ([leading, block_type], rest) = padding.split_first_chunk_mut::<2>()?;
    let (separator, _) = rest.split_last_mut()?;
    (*leading, *block_type, *separator) = (0, 2, 0);
    Some(())
}

/// RFC 5246, section 8.1, and RFC 7627, section 4.
fn master(
    premaster: &[u8; SECRET_LEN],
    prf: Prf,
    seed: &Seed,
) -> Option<Zeroizing<[u8; MASTER_LEN]>> {
    let algorithm = match prf {
        Prf::Sha256 => &tls_prf::P_SHA256,
        Prf::Sha384 => &tls_prf::P_SHA384,
    };
    let (label, seed) = seed.label_and_bytes();
    let secret = tls_prf::Secret::new(algorithm, premaster).ok()?;
    let derived = secret.derive(label, seed, MASTER_LEN).ok()?;
    let mut master = Zeroizing::new([0; MASTER_LEN]);
    *master = *derived.as_ref().first_chunk()?;
    Some(master)
}

/// Wipes what `output` holds and puts `answer` in its place.
fn replace(output: &mut Vec<u8>, answer: &[u8]) {
    output.as_mut_slice().zeroize();
    output.clear();
    output.extend_from_slice(answer);
}

#[cfg(test)]
mod tests;
