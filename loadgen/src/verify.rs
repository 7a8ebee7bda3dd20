//! Whether answers are right: each sampled answer is kept while the load runs and checked when it has ended.
//!
//! Checking costs as much as a core can give (a P-256 verification takes longer than the signature it checks), so doing
//! it during the run would measure the checking. Keeping an answer costs one copy into a buffer of bounded size.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::random::Random;
use crate::units::{float, ns_from_f64, parse_share};
use crate::workload::{Check, Workload};

/// Bytes of answers kept per run, over all threads. 512 MiB hold 6 million P-256 or 2 million RSA-2048 signatures.
pub const SPOOL_BYTES_MAX: usize = 512 << 20;
const CHUNK_BYTES: usize = 1 << 20;
/// Entry index and length before each answer.
const ITEM_HEADER_BYTES: usize = 8;

/// How many answers to check.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verify {
    /// Every answer.
    All,
    /// A random share of them, as a fraction.
    Share(f64),
    /// None. Error replies are still counted.
    None,
}

impl std::str::FromStr for Verify {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" | "100%" => Ok(Self::All),
            "none" | "0%" => Ok(Self::None),
            share => parse_share(share)
                .map(Self::Share)
                .map_err(|_| format!("`{text}` is not all, none or a share such as 1%")),
        }
    }
}

impl std::fmt::Display for Verify {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Share(share) => write!(f, "{}%", share * 100.0),
            Self::None => f.write_str("none"),
        }
    }
}

impl Verify {
    /// Whether the next answer is to be kept.
    pub fn takes(self, random: &mut Random) -> bool {
        match self {
            Self::All => true,
            Self::Share(share) => random.bits() < ns_from_f64(share * float(u64::MAX)),
            Self::None => false,
        }
    }
}

/// Answers of one thread, waiting to be checked.
#[derive(Debug)]
pub struct Spool {
    /// Each filled front to back with: entry index (u32), length (u32), answer.
    chunks: Vec<Vec<u8>>,
    bytes_left: usize,
    /// Answers kept.
    pub kept: u64,
    /// Answers that were to be kept but found the spool full.
    pub dropped: u64,
}

impl Spool {
    /// A spool of at most so many bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self {
            chunks: Vec::new(),
            bytes_left: bytes_max,
            kept: 0,
            dropped: 0,
        }
    }

    /// Keeps an answer to the entry at `index` of the workload.
    pub fn push(&mut self, index: u32, answer: &[u8]) {
        let needed = ITEM_HEADER_BYTES + answer.len();
        let has_room = |chunk: &Vec<u8>| chunk.capacity() - chunk.len() >= needed;
        if !self.chunks.last().is_some_and(has_room) {
            let chunk_bytes = CHUNK_BYTES.max(needed);
            let Some(left) = self.bytes_left.checked_sub(chunk_bytes) else {
                self.dropped += 1;
                return;
            };
            self.bytes_left = left;
            self.chunks.push(Vec::with_capacity(chunk_bytes));
        }
        self.kept += 1;
        if let Some(chunk) = self.chunks.last_mut() {
            let length = u32::try_from(answer.len()).unwrap_or(u32::MAX);
            chunk.extend_from_slice(&index.to_le_bytes());
            chunk.extend_from_slice(&length.to_le_bytes());
            chunk.extend_from_slice(answer);
        }
    }
}

/// What checking found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Answers checked and found right.
    pub verified: u64,
    /// Answers checked and found wrong, per part of the mix.
    pub wrong: Vec<u64>,
    /// Answers that should have been checked but were not: no room to keep them, or the check was interrupted.
    pub unchecked: u64,
}

impl Verdict {
    /// Wrong answers of all classes.
    #[must_use]
    pub fn wrong_total(&self) -> u64 {
        self.wrong.iter().sum()
    }
}

/// Checks everything kept, on as many threads as this process may use CPUs. Stops early when `stop` is set;
/// `progress` counts what is done.
pub fn check_all(
    workload: &Workload,
    spools: Vec<Spool>,
    stop: &AtomicBool,
    progress: &AtomicU64,
) -> Verdict {
    let dropped = spools.iter().map(|spool| spool.dropped).sum();
    let chunks: Vec<Vec<u8>> = spools.into_iter().flat_map(|spool| spool.chunks).collect();
    let next = AtomicU64::new(0);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let check_some = || {
        let mut verdict = Verdict {
            wrong: vec![0; workload.mix().parts().len()],
            ..Verdict::default()
        };
        loop {
            let claimed =
                usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap_or(usize::MAX);
            let Some(chunk) = chunks.get(claimed) else {
                return verdict;
            };
            check_chunk(workload, chunk, stop, progress, &mut verdict);
        }
    };
    let mut total = Verdict {
        wrong: vec![0; workload.mix().parts().len()],
        unchecked: dropped,
        ..Verdict::default()
    };
    thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(check_some)).collect();
        for part in handles.into_iter().filter_map(|handle| handle.join().ok()) {
            total.verified += part.verified;
            total.unchecked += part.unchecked;
            for (sum, wrong) in total.wrong.iter_mut().zip(part.wrong) {
                *sum += wrong;
            }
        }
    });
    total
}

fn check_chunk(
    workload: &Workload,
    chunk: &[u8],
    stop: &AtomicBool,
    progress: &AtomicU64,
    verdict: &mut Verdict,
) {
    let mut rest = chunk;
    while let Some((index, tail)) = rest.split_first_chunk::<4>()
        && let Some((length, tail)) = tail.split_first_chunk::<4>()
        && let Some((answer, tail)) = tail
            .split_at_checked(usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX))
    {
        rest = tail;
        if stop.load(Ordering::Relaxed) {
            verdict.unchecked += 1;
            continue;
        }
        let index = u32::from_le_bytes(*index);
        if is_right(workload, index, answer) {
            verdict.verified += 1;
        } else if let Some(entry) = workload.entry(index)
            && let Some(wrong) = verdict.wrong.get_mut(entry.part)
        {
            *wrong += 1;
        }
        progress.fetch_add(1, Ordering::Relaxed);
    }
}

/// Whether this is a right answer to the entry at `index`.
#[must_use]
pub fn is_right(workload: &Workload, index: u32, answer: &[u8]) -> bool {
    let Some(entry) = workload.entry(index) else {
        return false;
    };
    match &entry.check {
        Check::Echo => entry.echoes(answer),
        // 00 02, at least eight padding bytes without a zero, 00, the secret (RFC 8017, 7.2.1).
        Check::Block {
            secret,
            block_bytes,
        } => {
            let Some(padded) = answer
                .strip_suffix(secret)
                .and_then(|head| head.strip_suffix(&[0]))
            else {
                return false;
            };
            let padding = padded.strip_prefix(&[0, 2]).unwrap_or_default();
            answer.len() == *block_bytes && padding.len() >= 8 && !padding.contains(&0)
        }
        Check::Signature { message, verifier } => workload
            .verifiers
            .get(*verifier)
            .is_some_and(|key| key.verify_sig(message, answer).is_ok()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::PublicKey;
    use crate::mix::Pad;
    use crate::workload::{Entry, Manner};
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::rsa::PrivateDecryptingKey;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};

    fn load(pair: &rcgen::KeyPair, mix: &str) -> Workload {
        let spki = rcgen::PublicKeyData::subject_public_key_info(pair);
        let key = PublicKey::from_spki(&spki, "test").unwrap().unwrap();
        Workload::new(mix.parse().unwrap(), Pad::Pss, &[key], 1).unwrap()
    }

    fn message(entry: &Entry) -> &[u8] {
        match &entry.check {
            Check::Signature { message, .. } => message,
            other => panic!("not a signature: {other:?}"),
        }
    }

    #[test]
    fn right_and_wrong_signatures_are_told_apart_and_counted() {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let workload = load(&pair, "p256=1,ping=1");
        let signer =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &pair.serialize_der())
                .unwrap();
        let mut spool = Spool::new(SPOOL_BYTES_MAX);
        for index in 0..10 {
            let entry = workload.entry(index).unwrap();
            let good = signer.sign(&SystemRandom::new(), message(entry)).unwrap();
            assert!(is_right(&workload, index, good.as_ref()));
            assert!(
                !is_right(&workload, index + 1, good.as_ref()),
                "a signature over another message"
            );
            spool.push(index, good.as_ref());
        }
        spool.push(3, b"no signature");
        spool.push(3, b"");
        let verdict = check_all(
            &workload,
            vec![spool],
            &AtomicBool::new(false),
            &AtomicU64::new(0),
        );
        assert_eq!(
            verdict,
            Verdict {
                verified: 10,
                wrong: vec![2, 0],
                unchecked: 0
            }
        );
    }

    #[test]
    fn a_decrypted_block_must_hold_the_secret_and_its_padding() {
        let private = PrivateDecryptingKey::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
        let spki = aws_lc_rs::encoding::AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(
            &private.public_key(),
        )
        .unwrap();
        let key = PublicKey::from_spki(spki.as_ref(), "test")
            .unwrap()
            .unwrap();
        let workload =
            Workload::new("rsa2048-decrypt=1".parse().unwrap(), Pad::Pss, &[key], 1).unwrap();
        let entry = workload.entry(0).unwrap();
        let Check::Block {
            secret,
            block_bytes,
        } = &entry.check
        else {
            panic!("not a block")
        };
        // The ciphertext is real: the private key opens it.
        let opener = aws_lc_rs::rsa::Pkcs1PrivateDecryptingKey::new(private).unwrap();
        let mut plain = [0; 256];
        let request = entry.request(1, Manner::default());
        assert_eq!(opener.decrypt(request.payload, &mut plain).unwrap(), secret);

        let mut block = vec![0, 2];
        block.resize(block_bytes - secret.len() - 1, 0x55);
        block.push(0);
        block.extend_from_slice(secret);
        assert!(is_right(&workload, 0, &block));
        for position in [0, 1, 5, block_bytes - 49, block_bytes - 1] {
            let mut wrong = block.clone();
            wrong[position] = if wrong[position] == 0 { 1 } else { 0 };
            assert!(
                !is_right(&workload, 0, &wrong),
                "byte {position} changed unnoticed"
            );
        }
        assert!(!is_right(&workload, 0, secret));
    }

    #[test]
    fn a_full_spool_says_so() {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let workload = load(&pair, "ed25519=1");
        let mut spool = Spool::new(2 * CHUNK_BYTES);
        for _ in 0..3 * (CHUNK_BYTES / 1000) {
            spool.push(0, &[0; 1000]);
        }
        assert!(spool.dropped > 0);
        let dropped = spool.dropped;
        let verdict = check_all(
            &workload,
            vec![spool],
            &AtomicBool::new(true),
            &AtomicU64::new(0),
        );
        // A stop before the check leaves everything unchecked, and says how much that is.
        assert_eq!(verdict.unchecked, 3 * (CHUNK_BYTES as u64 / 1000));
        assert!(dropped < verdict.unchecked);
    }

    #[test]
    fn shares_sample_what_they_say() {
        assert_eq!("all".parse(), Ok(Verify::All));
        assert_eq!("none".parse(), Ok(Verify::None));
        assert_eq!("1%".parse(), Ok(Verify::Share(0.01)));
        assert!("some".parse::<Verify>().unwrap_err().contains("1%"));
        let mut random = Random::new(3, 0);
        let taken = (0..100_000)
            .filter(|_| Verify::Share(0.01).takes(&mut random))
            .count();
        // 1,000 expected, standard deviation 31.
        assert!((850..1150).contains(&taken), "{taken}");
        assert!(!Verify::None.takes(&mut random));
    }
}
