//! Reading ahead in what a client has sent, where there are very many keys.
//!
//! A key that is one of a hundred thousand is in no cache when it is asked for, and finding it is a chain of reads
//! from memory. A read of a socket mostly brings several requests, whose chains have nothing to do with each other.
//! One after the other they took 1 us a request; together, a quarter of it.

use std::cell::Cell;

use accel::WARMED_AT_ONCE;
use keyless_protocol::Request;
use smallvec::SmallVec;

use crate::framing::FrameBuffer;
use crate::policy::ClientId;
use crate::snapshot::Snapshot;

/// With fewer keys all of them stay in the caches.
const KEYS_MIN: usize = 256;

/// How far one connection was looked ahead. What a turn leaves in the buffer is not looked at again in the next: with
/// room for one request at a time, each would cost as much as sixteen.
#[derive(Debug, Default)]
pub(super) struct LookAhead {
    /// Frames that are still to be served of those that were looked at.
    left: Cell<usize>,
}

impl LookAhead {
    /// The next frame will be served: reads for it, and for those that follow, what they need, unless that was done.
    pub(super) fn before_next(
        &self,
        frames: &FrameBuffer,
        snapshot: &Snapshot,
        client: Option<ClientId>,
    ) {
        if let Some(left) = self.left.get().checked_sub(1) {
            self.left.set(left);
            return;
        }
        let Some(client) = client.filter(|_| snapshot.keys.len() >= KEYS_MIN) else {
            return;
        };
        let mut looked_at = 0_usize;
        let ahead = frames.ahead().take(WARMED_AT_ONCE);
        // What is no request is found when it is served.
        let skis: SmallVec<[[u8; 20]; WARMED_AT_ONCE]> = ahead
            .inspect(|_| looked_at += 1)
            .filter_map(|frame| Request::decode(frame).ok()?.ski)
            .collect();
        let keys = snapshot.keys.warm(&skis);
        snapshot.policy.warm(client, keys.map(|index| index.0));
        self.left.set(looked_at.saturating_sub(1));
    }
}
