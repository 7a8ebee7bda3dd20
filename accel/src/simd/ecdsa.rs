//! ECDSA in lanes: digests of one length, hedged nonces, eight signatures, DER.
//!
//! **Nonces.** Each is 512 bits of
//!
//! ```text
//! HMAC-SHA-512(fresh, label || row || key || digest)
//! ```
//!
//! where `fresh` is 256 random bits drawn for this batch alone, and the row's number keeps two equal
//! requests of one batch apart. The eight hashes run in lanes too. The kernel takes the 512 bits modulo the order, so the bias is below
//! 2^-128 on both curves. Two things must fail together before a nonce repeats or can be guessed: the
//! random generator and the secrecy of the key, because with a stuck generator the nonce is still a
//! hash of the secret key and the digest, as in RFC 6979 and RFC 8032, and with a known digest and a
//! good generator it is random. A nonce is used once and wiped with its batch.
//!
//! Where nonces were prepared in idle time (`prepared.rs`, off by default), those are used instead.
//!
//! **Faults.** The kernel proves that each nonce's point lies on the curve. A lane where it does not, or
//! where the nonce cannot be used (a case of probability 2^-255), has no signature: the engine counts
//! it, and has the reference backend sign with a nonce of its own.

use accel_lanes::curve::{
    MAX_MESSAGE, NONCE_LEN, PreparedRequest, Request, SignError, Signature, hmac_sha512, sign_p256,
    sign_p384, sign_prepared_p256, sign_prepared_p384,
};
use accel_lanes::{LANES, Path};
use aws_lc_rs::rand;
use zeroize::{Zeroize, Zeroizing};

use crate::class::{Class, KeyType};
use crate::error::JobError;
use crate::job::{Job, Operation};
use crate::key::Key;
use crate::simd::blinding::Rows;
use crate::simd::prepared::{self, Curve};

/// Bytes of the longest order.
const MAX_LEN: usize = 48;
/// What sets these hashes apart from any other use of the key.
const LABEL: &[u8] = b"ecdsa nonce 1";
/// The number of each row of a batch.
const NUMBERS: [[u8; 1]; LANES] = [[0], [1], [2], [3], [4], [5], [6], [7]];
const _: () = assert!(LABEL.len() + 1 + 2 * MAX_LEN <= MAX_MESSAGE);

/// What a row's signature is made of.
struct Input<'a> {
    key: &'a [u8],
    /// As long as the key, from its start.
    digest: [u8; MAX_LEN],
    /// This row's number.
    number: &'static [u8; 1],
}

impl Input<'_> {
    fn digest(&self) -> &[u8] {
        self.digest.get(..self.key.len()).unwrap_or_default()
    }

    /// What the nonce is made of.
    fn seed(&self) -> [&[u8]; 4] {
        [LABEL, self.number, self.key, self.digest()]
    }
}

/// The length of the order, for keys that sign in lanes.
pub(crate) const fn scalar_len(key: &Key) -> Option<usize> {
    match key.key_type() {
        KeyType::P256 => Some(32),
        KeyType::P384 => Some(48),
        KeyType::Rsa { .. }
        | KeyType::P521
        | KeyType::Ed25519
        | KeyType::MlDsa44
        | KeyType::MlDsa65
        | KeyType::MlDsa87 => None,
    }
}

/// Runs up to eight ECDSA jobs whose keys are on one curve. What the lanes cannot do ends as
/// [`JobError::Failed`], a lane without a valid signature as [`JobError::CheckFailed`]: the engine
/// redoes both.
pub(crate) fn run(path: Path, jobs: &mut [Job<'_>]) {
    let (mut rows, mut inputs) = (Rows::new(), Rows::new());
    for (number, job) in NUMBERS.iter().zip(jobs) {
        match prepare(job, number) {
            Ok(input) => {
                rows.push(job);
                inputs.push(input);
            }
            Err(error) => job.fail(error),
        }
    }
    let Some(curve) = rows.first().and_then(|job| curve_of(job.key.class())) else {
        return;
    };
    if sign_prepared(path, curve, &mut rows, &inputs) {
        return;
    }
    let mut nonces = Zeroizing::new([[0; NONCE_LEN]; LANES]);
    if !derive(path, &inputs, &mut nonces) {
        rows.iter_mut().for_each(|job| job.fail(JobError::Failed));
        return;
    }
    let requests: Rows<Request<'_>> = inputs
        .iter()
        .zip(nonces.iter())
        .map(|(input, nonce)| Request {
            key: input.key,
            digest: input.digest(),
            nonce,
        })
        .collect();
    match curve {
        Curve::P256 => hand_out(&mut rows, &sign_p256(path, &requests)),
        Curve::P384 => hand_out(&mut rows, &sign_p384(path, &requests)),
    }
}

/// Signs with nonces that this thread has prepared; `false` if there are not enough of them.
fn sign_prepared(
    path: Path,
    curve: Curve,
    rows: &mut [&mut Job<'_>],
    inputs: &[Input<'_>],
) -> bool {
    let signed = prepared::spend(curve, inputs.len(), |nonces| {
        let requests: Rows<PreparedRequest<'_>> = inputs
            .iter()
            .zip(nonces)
            .map(|(input, nonce)| PreparedRequest {
                key: input.key,
                digest: input.digest(),
                nonce,
            })
            .collect();
        match curve {
            Curve::P256 => Signed::P256(sign_prepared_p256(path, &requests)),
            Curve::P384 => Signed::P384(sign_prepared_p384(path, &requests)),
        }
    });
    match signed {
        Some(Signed::P256(signatures)) => hand_out(rows, &signatures),
        Some(Signed::P384(signatures)) => hand_out(rows, &signatures),
        None => return false,
    }
    true
}

/// Signatures of either curve.
#[expect(
    clippy::large_enum_variant,
    reason = "it lives on the stack for a moment"
)]
enum Signed {
    P256([Result<Signature<32>, SignError>; LANES]),
    P384([Result<Signature<48>, SignError>; LANES]),
}

/// The curve of a class that signs in lanes.
pub(crate) const fn curve_of(class: Class) -> Option<Curve> {
    match class {
        Class::P256 => Some(Curve::P256),
        Class::P384 => Some(Curve::P384),
        Class::P521
        | Class::Ed25519
        | Class::MlDsa
        | Class::Rsa2048
        | Class::Rsa3072
        | Class::Rsa4096
        | Class::RsaOther => None,
    }
}

/// Checks the job; gives its key and its digest as long as the order (the leftmost bytes, or zeros and then
/// all of it: FIPS 186-5, section 6.4.1, step 2).
fn prepare<'a>(job: &Job<'a>, number: &'static [u8; 1]) -> Result<Input<'a>, JobError> {
    job.validate()?;
    let (Operation::EcdsaSign(_), Some(len), Some(key)) =
        (job.operation, scalar_len(job.key), job.key.ec_scalar())
    else {
        return Err(JobError::Failed);
    };
    let mut digest = [0; MAX_LEN];
    let taken = job.input.get(..len).unwrap_or(job.input);
    digest
        .get_mut(len - taken.len()..len)
        .ok_or(JobError::Failed)?
        .copy_from_slice(taken);
    Ok(Input {
        key,
        digest,
        number,
    })
}

/// Makes the nonces of a batch; `false` if the random generator failed.
fn derive(path: Path, inputs: &[Input<'_>], nonces: &mut [[u8; NONCE_LEN]; LANES]) -> bool {
    let mut fresh = Zeroizing::new([0; 32]);
    if rand::fill(fresh.as_mut_slice()).is_err() {
        return false;
    }
    let seeds: Rows<_> = inputs.iter().map(Input::seed).collect();
    hmac_sha512(path, fresh.as_slice(), &seeds, nonces)
}

/// Encodes what was signed, fails what was not.
fn hand_out<const B: usize>(
    rows: &mut [&mut Job<'_>],
    signatures: &[Result<Signature<B>, SignError>; LANES],
) {
    for (job, signature) in rows.iter_mut().zip(signatures) {
        match signature {
            Ok(signature) => {
                encode(signature, job.output);
                job.result = Ok(());
            }
            Err(SignError::Length) => job.fail(JobError::Failed),
            Err(SignError::Nonce) => job.fail(JobError::CheckFailed),
        }
    }
}

/// `ECDSA-Sig-Value ::= SEQUENCE { r INTEGER, s INTEGER }` (RFC 3279, section 2.2.3). Everything is
/// shorter than 128 bytes, so each length is one byte.
fn encode<const B: usize>(signature: &Signature<B>, output: &mut Vec<u8>) {
    output.zeroize();
    output.extend([0x30, 0]);
    for number in [&signature.r, &signature.s] {
        let zeros = number.iter().take_while(|byte| **byte == 0).count();
        // The kernel releases no zero, but an INTEGER has at least one byte all the same.
        let digits = number.get(zeros.min(B - 1)..).unwrap_or(number);
        let sign = digits.first().is_some_and(|byte| *byte >= 0x80);
        output.extend([0x02, short(digits.len() + usize::from(sign))]);
        output.extend(sign.then_some(0));
        output.extend_from_slice(digits);
    }
    let length = short(output.len() - 2);
    if let Some(place) = output.get_mut(1) {
        *place = length;
    }
}

/// A length below 128, as DER writes it.
#[expect(
    clippy::cast_possible_truncation,
    reason = "at most 2 * (2 + 49) bytes on the longest curve"
)]
const fn short(length: usize) -> u8 {
    length as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Hash;
    use crate::simd::cases;

    fn der<const B: usize>(r: [u8; B], s: [u8; B]) -> Vec<u8> {
        let mut output = vec![1, 2, 3];
        encode(&Signature { r, s }, &mut output);
        output
    }

    #[test]
    fn der_integers_are_minimal_and_positive() {
        let mut small = [0; 32];
        small[31] = 0x7f;
        let mut signed = [0; 32];
        signed[31] = 0x80;
        assert_eq!(der(small, signed), [0x30, 7, 2, 1, 0x7f, 2, 2, 0, 0x80]);
        let full = der([0xff; 48], [0x7f; 48]);
        assert_eq!(full.len(), 2 + 3 + 48 + 2 + 48);
        assert_eq!(full[..5], [0x30, 101, 2, 49, 0]);
        assert_eq!(full[53..55], [2, 48]);
    }

    fn key(name: &str) -> Key {
        let path = format!("{}/tests/keys/{name}", env!("CARGO_MANIFEST_DIR"));
        Key::from_bytes(&std::fs::read(path).unwrap()).unwrap()
    }

    fn paths() -> Vec<Path> {
        let paths = Path::all();
        eprintln!("ECDSA lanes run here on: {paths:?}");
        paths
    }

    /// Every hash, every fill, two keys in turn: all verify.
    #[test]
    fn signatures_verify_with_the_reference() {
        for names in [
            ["p256.pkcs8.pem", "p256-b.pkcs8.pem"],
            ["p384.pkcs8.pem", "p384-b.pkcs8.pem"],
        ] {
            let keys = names.map(key);
            for path in paths() {
                for fill in 1..=LANES {
                    for hash in Hash::ALL {
                        let mut input = vec![0; hash.len()];
                        rand::fill(&mut input).unwrap();
                        let mut outputs = vec![vec![]; fill];
                        let mut jobs: Vec<_> = outputs
                            .iter_mut()
                            .zip(keys.iter().cycle())
                            .map(|(output, key)| {
                                Job::new(key, Operation::EcdsaSign(hash), &input, output)
                            })
                            .collect();
                        run(path, &mut jobs);
                        for job in &jobs {
                            assert_eq!(job.result, Ok(()));
                            assert!(crate::verify::result_is_correct(job));
                        }
                    }
                }
            }
        }
    }

    /// Random digests, eight different ones a batch.
    #[test]
    fn signatures_of_random_digests_verify_with_the_reference() {
        for name in ["p256.pkcs8.pem", "p384.pkcs8.pem"] {
            let key = key(name);
            for path in paths() {
                for _ in 0..cases(800) / LANES {
                    let mut digests = [[0; 48]; LANES];
                    rand::fill(digests.as_flattened_mut()).unwrap();
                    let mut outputs = vec![vec![]; LANES];
                    let mut jobs: Vec<_> = outputs
                        .iter_mut()
                        .zip(&digests)
                        .map(|(output, digest)| {
                            Job::new(&key, Operation::EcdsaSign(Hash::Sha384), digest, output)
                        })
                        .collect();
                    run(path, &mut jobs);
                    for job in &jobs {
                        assert_eq!(job.result, Ok(()));
                        assert!(crate::verify::result_is_correct(job));
                    }
                }
            }
        }
    }

    #[test]
    fn equal_requests_get_different_nonces() {
        let key = key("p256.pkcs8.pem");
        for path in paths() {
            let mut seen = std::collections::HashSet::new();
            for _ in 0..50 {
                let mut outputs = vec![vec![]; LANES];
                let mut jobs: Vec<_> = outputs
                    .iter_mut()
                    .map(|output| {
                        Job::new(&key, Operation::EcdsaSign(Hash::Sha256), &[7; 32], output)
                    })
                    .collect();
                run(path, &mut jobs);
                for output in outputs {
                    // r alone: it is the nonce's.
                    let len = usize::from(output[3]);
                    assert!(seen.insert(output[4..4 + len].to_vec()));
                }
            }
        }
    }

    #[test]
    fn a_nonce_depends_on_key_digest_row_and_randomness() {
        let keys = ["p256.pkcs8.pem", "p256-b.pkcs8.pem"].map(key);
        let digests = [[1; 32], [2; 32]];
        let mut outputs = vec![vec![]; 8];
        let mut seeds = std::collections::HashSet::new();
        for (output, number) in outputs.iter_mut().zip(0u8..) {
            let job = Job::new(
                &keys[usize::from(number & 1)],
                Operation::EcdsaSign(Hash::Sha256),
                &digests[usize::from(number >> 1 & 1)],
                output,
            );
            let input = prepare(&job, &NUMBERS[usize::from(number >> 2)]).unwrap();
            assert!(seeds.insert(input.seed().concat()));
        }
        assert_eq!(seeds.len(), 8);
    }

    /// The hash of the nonces is the one that AWS-LC computes.
    #[test]
    fn tags_agree_with_the_reference() {
        use aws_lc_rs::hmac;
        for path in paths() {
            for round in 0..cases(1_600) / LANES {
                let mut bytes = [0; 128 + MAX_MESSAGE];
                rand::fill(&mut bytes).unwrap();
                let (key, message) = bytes.split_at(128);
                let key = &key[..round * 7 % 129];
                let messages: Vec<[&[u8]; 1]> = (0..LANES)
                    .map(|lane| [&message[..(round * 5 + lane * 13) % (MAX_MESSAGE + 1)]])
                    .collect();
                let mut tags = [[0; NONCE_LEN]; LANES];
                assert!(hmac_sha512(path, key, &messages, &mut tags));
                let key = hmac::Key::new(hmac::HMAC_SHA512, key);
                for (tag, [message]) in tags.iter().zip(messages) {
                    assert_eq!(tag.as_slice(), hmac::sign(&key, message).as_ref());
                }
            }
        }
    }
}
