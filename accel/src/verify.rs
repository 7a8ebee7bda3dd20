//! Checking a result with the public key before it leaves.

use std::sync::atomic::{AtomicU64, Ordering};

use zeroize::Zeroizing;

use crate::aws_lc::Rsa;
use crate::job::{Job, Operation};
use crate::key::{Key, Material};
use crate::parts::MAX_MODULUS_LEN;

/// How many of the ECDSA, Ed25519 and ML-DSA signatures are verified before they are released.
///
/// RSA results are always checked: a fault in the Chinese remainder step gives the key away at
/// once, and the check is cheap. A curve signature costs about three times its price to verify,
/// and a single faulty one reveals far less, so a sample is the usual choice: it finds failing
/// hardware within a fraction of a second of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyRate {
    permille: u16,
}

impl VerifyRate {
    /// No signature is verified.
    pub const NEVER: Self = Self { permille: 0 };
    /// Every signature is verified.
    pub const ALWAYS: Self = Self { permille: 1000 };

    /// `permille` of a thousand signatures are verified; more than 1000 means all.
    #[must_use]
    pub const fn permille(permille: u16) -> Self {
        Self {
            permille: if permille > 1000 { 1000 } else { permille },
        }
    }

    /// How many of a thousand signatures are verified.
    #[must_use]
    pub const fn as_permille(self) -> u16 {
        self.permille
    }
}

impl Default for VerifyRate {
    /// One in a hundred.
    fn default() -> Self {
        Self::permille(10)
    }
}

/// Spreads a [`VerifyRate`] evenly over a stream of signatures, across threads.
#[derive(Debug)]
pub(crate) struct Sampler {
    permille: u64,
    seen: AtomicU64,
}

impl Sampler {
    pub(crate) const fn new(rate: VerifyRate) -> Self {
        Self {
            permille: rate.permille as u64,
            seen: AtomicU64::new(0),
        }
    }

    /// Whether the next signature is one to verify. Exactly `permille` of each thousand are.
    pub(crate) fn next(&self) -> bool {
        match self.permille {
            0 => false,
            1000 => true,
            permille => {
                let position = self.seen.fetch_add(1, Ordering::Relaxed) % 1000;
                position * permille / 1000 != (position + 1) * permille / 1000
            }
        }
    }
}

/// Whether `job.output` is a correct result, found with nothing but the public key.
pub(crate) fn result_is_correct(job: &Job<'_>) -> bool {
    verifies(job.key, job.operation, job.input, job.output)
}

fn verifies(key: &Key, operation: Operation, input: &[u8], output: &[u8]) -> bool {
    match (key.material(), operation) {
        (Material::Rsa(rsa, _), Operation::RsaPkcs1Sign(hash)) => {
            rsa.verify_pkcs1(hash, input, output)
        }
        (Material::Rsa(rsa, _), Operation::RsaPssSign(hash)) => rsa.verify_pss(hash, input, output),
        (Material::Rsa(rsa, parts), Operation::RsaPrivate) => {
            is_preimage(rsa, parts.modulus_len(), input, output)
        }
        #[cfg(feature = "pkcs11")]
        (Material::Token(token), operation) => token.public().verifies(operation, input, output),
        (Material::Ec(ec, _), Operation::EcdsaSign(_)) => ec.verify(input, output),
        (Material::Ed25519(ed), Operation::Ed25519Sign) => ed.verify(input, output),
        (Material::MlDsa(keys), Operation::MlDsaSign) => {
            let (_, public) = &**keys;
            public.verify_sig(input, output).is_ok()
        }
        _ => false,
    }
}

/// Whether the public operation makes `ciphertext` of `block`, a number as long as the modulus. The block is
/// a plaintext, so what is computed from it is wiped.
pub(crate) fn is_preimage(rsa: &Rsa, modulus_len: usize, ciphertext: &[u8], block: &[u8]) -> bool {
    let mut again = Zeroizing::new([0_u8; MAX_MODULUS_LEN]);
    let Some(again) = again.get_mut(..modulus_len) else {
        return false;
    };
    rsa.public_raw(block, again) && again == ciphertext
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sampler_picks_the_promised_share() {
        for permille in [0, 1, 10, 333, 500, 999, 1000] {
            let sampler = Sampler::new(VerifyRate::permille(permille));
            let picked = (0..5000).filter(|_| sampler.next()).count();
            assert_eq!(picked, usize::from(permille) * 5, "{permille} permille");
        }
    }
}
