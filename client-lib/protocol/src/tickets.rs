//! The keys with which edges seal session tickets, as a server hands them out.
//!
//! An addition to version 1. All integers are big endian.
//!
//! ```text
//! 0x46, in:   nothing; the key in item 0x04 says which certificate is meant
//!       out:  now[8] epoch_seconds[4] count[1] count x { epoch[8] name[16] key[32] }
//!
//! now            the server's time, seconds since 1970
//! epoch_seconds  how long an epoch is; epoch e lasts from e * epoch_seconds on
//! name           begins each ticket that was sealed with the key
//! key            AES-256-GCM
//! ```
//!
//! The newest epoch, which has not begun, stands first. Whoever gets an answer keeps what is in it and forgets every
//! other key: that is how an epoch is revoked.
//!
//! How an edge makes a ticket of it is between edges; ours write `name[16] nonce[12] ciphertext tag[16]`, with the name
//! as associated data, and seal with the epoch that has begun last.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bytes of a key's name.
pub const NAME_LEN: usize = 16;

/// Bytes of a key.
pub const KEY_LEN: usize = 32;

/// The most epochs that one answer holds.
pub const EPOCHS_MAX: usize = 16;

/// The key of one epoch. Wiped when dropped.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct EpochKey {
    /// Which epoch.
    pub epoch: u64,
    /// What its tickets begin with.
    pub name: [u8; NAME_LEN],
    /// The secret.
    pub key: [u8; KEY_LEN],
}

/// Shows the epoch, not the key.
impl fmt::Debug for EpochKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EpochKey")
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

/// The answer to [`Opcode::TicketKeys`](crate::Opcode::TicketKeys).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TicketKeys {
    /// The server's time, seconds since 1970.
    pub now: u64,
    /// Seconds of an epoch; never 0.
    pub epoch_seconds: u32,
    /// One key an epoch, the newest first.
    pub keys: Vec<EpochKey>,
}

/// Bytes that are no such answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotTicketKeys;

impl fmt::Display for NotTicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("these are no ticket keys: a wrong length, an epoch of 0 seconds, or too many")
    }
}

impl std::error::Error for NotTicketKeys {}

impl TicketKeys {
    /// Reads an answer, all of it.
    ///
    /// # Errors
    ///
    /// [`NotTicketKeys`].
    pub fn decode(bytes: &[u8]) -> Result<Self, NotTicketKeys> {
        let (now, rest) = bytes.split_first_chunk().ok_or(NotTicketKeys)?;
        let (seconds, rest) = rest.split_first_chunk().ok_or(NotTicketKeys)?;
        let (&[count], mut rest) = rest.split_first_chunk().ok_or(NotTicketKeys)?;
        let epoch_seconds = u32::from_be_bytes(*seconds);
        let count = usize::from(count);
        if epoch_seconds == 0 || count > EPOCHS_MAX {
            return Err(NotTicketKeys);
        }
        // As long as it gets from the start: growing would leave copies of keys behind.
        let mut keys = Vec::with_capacity(count);
        for _ in 0..count {
            let (epoch, after) = rest.split_first_chunk().ok_or(NotTicketKeys)?;
            let (name, after) = after.split_first_chunk().ok_or(NotTicketKeys)?;
            let (key, after) = after.split_first_chunk().ok_or(NotTicketKeys)?;
            keys.push(EpochKey {
                epoch: u64::from_be_bytes(*epoch),
                name: *name,
                key: *key,
            });
            rest = after;
        }
        if !rest.is_empty() {
            return Err(NotTicketKeys);
        }
        Ok(Self {
            now: u64::from_be_bytes(*now),
            epoch_seconds,
            keys,
        })
    }

    /// Bytes that [`Self::encode`] appends, for a buffer that need not grow.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        8 + 4 + 1 + self.keys.len().min(EPOCHS_MAX) * (8 + NAME_LEN + KEY_LEN)
    }

    /// Appends the answer to `out`: the first [`EPOCHS_MAX`] of the keys.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let keys = self.keys.get(..EPOCHS_MAX).unwrap_or(&self.keys);
        out.extend_from_slice(&self.now.to_be_bytes());
        out.extend_from_slice(&self.epoch_seconds.to_be_bytes());
        out.push(u8::try_from(keys.len()).unwrap_or_default());
        for key in keys {
            out.extend_from_slice(&key.epoch.to_be_bytes());
            out.extend_from_slice(&key.name);
            out.extend_from_slice(&key.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(count: u8) -> TicketKeys {
        let key = |n: u8| EpochKey {
            epoch: u64::from(100 - n),
            name: [n; 16],
            key: [n ^ 0x5c; 32],
        };
        TicketKeys {
            now: 1_800_000_000,
            epoch_seconds: 3600,
            keys: (0..count).map(key).collect(),
        }
    }

    #[test]
    fn an_answer_says_what_it_was_made_of_and_no_cut_of_it_does() {
        for count in [0, 1, 4, 16] {
            let answer = keys(count);
            let mut bytes = Vec::new();
            answer.encode(&mut bytes);
            assert_eq!(bytes.len(), 13 + 56 * usize::from(count));
            assert_eq!(bytes.len(), answer.encoded_len());
            assert_eq!(TicketKeys::decode(&bytes), Ok(answer));
            for cut in 0..bytes.len() {
                assert_eq!(
                    TicketKeys::decode(&bytes[..cut]),
                    Err(NotTicketKeys),
                    "{cut}"
                );
            }
            bytes.push(0);
            assert_eq!(TicketKeys::decode(&bytes), Err(NotTicketKeys));
        }
    }

    #[test]
    fn too_many_keys_and_empty_epochs_are_refused() {
        let mut bytes = Vec::new();
        keys(17).encode(&mut bytes);
        assert_eq!(
            TicketKeys::decode(&bytes).map(|answer| answer.keys.len()),
            Ok(16)
        );
        bytes[12] = 17;
        bytes.extend([0; 56]);
        assert_eq!(TicketKeys::decode(&bytes), Err(NotTicketKeys));
        let mut bytes = vec![0; 13];
        assert_eq!(TicketKeys::decode(&bytes), Err(NotTicketKeys));
        bytes[11] = 1;
        TicketKeys::decode(&bytes).unwrap();
    }

    #[test]
    fn debug_shows_no_key() {
        let text = format!("{:?}", keys(1));
        assert!(
            text.contains("100") && !text.contains("92") && !text.contains("5c"),
            "{text}"
        );
    }
}
