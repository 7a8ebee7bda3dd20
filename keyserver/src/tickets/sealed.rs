//! What 0x21 makes of a session ticket, and 0x22 makes a ticket of again.
//!
//! ```text
//! version[1] = 01   epoch[8]   generation[4]   nonce[12]   AES-256-GCM ciphertext   tag[16]
//! '------------- associated data -------------'
//! ```

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;
use keyless_protocol::Ski;
use keyless_protocol::tickets::EpochKey;

use super::epoch;
use super::master::{Master, Purpose};

/// The most bytes that are sealed at once. A session with a client's whole certificate chain is smaller.
pub const SEALED_MAX: usize = 16 * 1024;

const VERSION: u8 = 1;
const HEAD_LEN: usize = 1 + 8 + 4;
const TAG_LEN: usize = 16;

/// Why something was not sealed or unsealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealError {
    /// It is empty or longer than [`SEALED_MAX`], or no blob that was sealed here for this key.
    Input,
    /// The epoch of the blob is over, or was revoked.
    Expired,
    /// The cryptographic library failed.
    Failed,
}

/// Seals `plain` with the key of the epoch at `now`.
///
/// # Errors
///
/// [`SealError::Input`] or [`SealError::Failed`].
pub fn seal(
    master: &Master,
    ski: &Ski,
    generation: u32,
    now: u64,
    plain: &[u8],
) -> Result<Vec<u8>, SealError> {
    if !(1..=SEALED_MAX).contains(&plain.len()) {
        return Err(SealError::Input);
    }
    let epoch = epoch::at(now);
    let key = master
        .derive(Purpose::Server, epoch, generation, ski)
        .ok_or(SealError::Failed)?;
    let mut nonce = [0; NONCE_LEN];
    rand::fill(&mut nonce).map_err(|_| SealError::Failed)?;
    let mut head = [VERSION; HEAD_LEN];
    for (byte, value) in (head.iter_mut().skip(1)).zip(
        epoch
            .to_be_bytes()
            .into_iter()
            .chain(generation.to_be_bytes()),
    ) {
        *byte = value;
    }
    let mut blob = Vec::with_capacity(HEAD_LEN + NONCE_LEN + plain.len() + TAG_LEN);
    blob.extend_from_slice(&head);
    blob.extend_from_slice(&nonce);
    let start = blob.len();
    blob.extend_from_slice(plain);
    let body = blob.get_mut(start..).unwrap_or_default();
    let tag = aead(&key)?
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(head), body)
        .map_err(|_| SealError::Failed)?;
    blob.extend_from_slice(tag.as_ref());
    Ok(blob)
}

/// Opens what [`seal`] has made: the plaintext alone.
///
/// # Errors
///
/// [`SealError`].
pub fn unseal(
    master: &Master,
    ski: &Ski,
    generation: u32,
    now: u64,
    blob: &[u8],
) -> Result<Vec<u8>, SealError> {
    let (head, rest) = blob
        .split_first_chunk::<HEAD_LEN>()
        .ok_or(SealError::Input)?;
    let (nonce, sealed) = rest
        .split_first_chunk::<NONCE_LEN>()
        .ok_or(SealError::Input)?;
    let fits = (TAG_LEN + 1..=TAG_LEN + SEALED_MAX).contains(&sealed.len());
    let (&[version], fields) = head.split_first_chunk().ok_or(SealError::Input)?;
    let (epoch_bytes, generation_bytes) = fields.split_first_chunk().ok_or(SealError::Input)?;
    if version != VERSION || !fits {
        return Err(SealError::Input);
    }
    let epoch = u64::from_be_bytes(*epoch_bytes);
    if !epoch::is_alive(epoch, now) || generation_bytes != generation.to_be_bytes() {
        return Err(SealError::Expired);
    }
    let key = master
        .derive(Purpose::Server, epoch, generation, ski)
        .ok_or(SealError::Failed)?;
    let mut buffer = sealed.to_vec();
    let length = aead(&key)?
        .open_in_place(
            Nonce::assume_unique_for_key(*nonce),
            Aad::from(head),
            &mut buffer,
        )
        .map_err(|_| SealError::Input)?
        .len();
    buffer.truncate(length);
    Ok(buffer)
}

fn aead(key: &EpochKey) -> Result<LessSafeKey, SealError> {
    UnboundKey::new(&AES_256_GCM, &key.key)
        .map(LessSafeKey::new)
        .map_err(|_| SealError::Failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 500_000 * 3600;
    const SKI: Ski = [7; 20];

    fn master() -> (tempfile::TempDir, Master) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("master");
        super::super::create(&path).unwrap();
        let master = Master::load(&path).unwrap();
        (directory, master)
    }

    #[test]
    fn what_was_sealed_comes_back_until_its_epoch_is_gone() {
        let (_directory, master) = master();
        for length in [1, 100, SEALED_MAX] {
            let plain = vec![0x5c; length];
            let blob = seal(&master, &SKI, 0, NOW, &plain).unwrap();
            assert_eq!(blob.len(), 41 + length);
            assert_ne!(blob, seal(&master, &SKI, 0, NOW, &plain).unwrap());
            for later in [0, 3600, 3 * 3600 - 1] {
                assert_eq!(
                    unseal(&master, &SKI, 0, NOW + later, &blob),
                    Ok(plain.clone())
                );
            }
            for (now, generation) in [(NOW + 3 * 3600, 0), (NOW - 3601, 0), (NOW, 1)] {
                let gone = unseal(&master, &SKI, generation, now, &blob);
                assert_eq!(gone, Err(SealError::Expired));
            }
            assert_eq!(
                unseal(&master, &[8; 20], 0, NOW, &blob),
                Err(SealError::Input)
            );
        }
        for length in [0, SEALED_MAX + 1] {
            assert_eq!(
                seal(&master, &SKI, 0, NOW, &vec![0; length]),
                Err(SealError::Input)
            );
        }
    }

    #[test]
    fn no_byte_of_a_blob_can_be_changed_and_none_left_out() {
        let (_directory, master) = master();
        let blob = seal(&master, &SKI, 0, NOW, b"a session").unwrap();
        for at in 0..blob.len() {
            let mut bad = blob.clone();
            bad[at] ^= 1;
            unseal(&master, &SKI, 0, NOW, &bad).unwrap_err();
            unseal(&master, &SKI, 0, NOW, &blob[..at]).unwrap_err();
        }
        let longer = [&blob[..], &[0]].concat();
        assert_eq!(
            unseal(&master, &SKI, 0, NOW, &longer),
            Err(SealError::Input)
        );
    }

    /// Who gets the keys of edges cannot open what was sealed here.
    #[test]
    fn the_keys_of_edges_are_others() {
        let (_directory, master) = master();
        let (handed, _) = epoch::handed_out(&master, &SKI, 0, NOW).unwrap();
        let own = master
            .derive(Purpose::Server, epoch::at(NOW), 0, &SKI)
            .unwrap();
        assert!(
            handed
                .keys
                .iter()
                .all(|key| key.key != own.key && key.name != own.name)
        );
    }
}
