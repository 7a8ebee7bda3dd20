//! Replies of one connection that wait to be sealed, in one buffer: they are sealed together.
//!
//! Some hold secrets: what was decrypted, keys of tickets. Those are wiped once they are sealed, when the buffer
//! moves because it grows, and when the connection goes before they were sealed. Wiping goes byte by byte, which
//! would take half of a ping's time: so it is done only where it is due.

use keyless_protocol::{EncodeError, MIN_FRAME, Reply};
use zeroize::Zeroize;

use crate::wiped;

/// Bytes of a reply beyond its payload, or more: the header and the other items.
const AROUND_PAYLOAD: usize = 64;

/// Replies that wait.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    /// There is a secret among them.
    is_secret: bool,
}

impl Outbox {
    /// Adds a reply.
    ///
    /// # Errors
    ///
    /// It does not fit a frame; nothing was added then.
    pub(crate) fn push(&mut self, reply: &Reply<'_>) -> Result<(), EncodeError> {
        if self.is_secret {
            let payload = reply.outcome.map_or(0, <[u8]>::len);
            wiped::reserve(&mut self.bytes, MIN_FRAME.max(payload) + AROUND_PAYLOAD);
        }
        reply.encode(&mut self.bytes)
    }

    /// Adds a reply that is a secret.
    ///
    /// # Errors
    ///
    /// As [`Self::push`].
    pub(crate) fn push_secret(&mut self, reply: &Reply<'_>) -> Result<(), EncodeError> {
        // Encoding makes room for the whole frame first, so nothing secret moves.
        self.push(reply)?;
        self.is_secret = true;
        Ok(())
    }

    /// All that waits.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What waited is sealed.
    pub(crate) fn clear(&mut self) {
        self.wipe();
        self.bytes.clear();
    }

    /// Gives the memory back when nothing waits.
    pub(crate) fn shrink(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = Vec::new();
        }
    }

    fn wipe(&mut self) {
        if std::mem::take(&mut self.is_secret) {
            self.bytes.as_mut_slice().zeroize();
        }
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.wipe();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was written stays where it is or is wiped: the vector never moves it by itself.
    #[test]
    fn a_buffer_with_a_secret_is_moved_by_hand() {
        let mut outbox = Outbox::default();
        let secret = [0xA5; 48];
        outbox.push(&Reply::success(1, b"public")).unwrap();
        outbox.push_secret(&Reply::success(2, &secret)).unwrap();
        assert!(outbox.is_secret);
        for id in 3..200_u32 {
            let payload = vec![7; usize::try_from(id).unwrap() * 150];
            let reply = Reply::success(id, &payload);
            let (before, capacity) = (outbox.bytes.len(), outbox.bytes.capacity());
            let more = MIN_FRAME.max(payload.len()) + AROUND_PAYLOAD;
            wiped::reserve(&mut outbox.bytes, more);
            let made = outbox.bytes.capacity();
            assert!(made >= capacity);
            outbox.push(&reply).unwrap();
            // There was room, so writing moved nothing.
            assert_eq!(outbox.bytes.capacity(), made);
            assert!(outbox.bytes.len() - before <= MIN_FRAME.max(payload.len()) + AROUND_PAYLOAD);
        }
        assert!(outbox.bytes.windows(48).any(|bytes| bytes == secret));
        outbox.clear();
        assert!(outbox.bytes().is_empty() && !outbox.is_secret);
        outbox.push(&Reply::success(1, b"public")).unwrap();
        assert!(!outbox.is_secret);
    }
}
