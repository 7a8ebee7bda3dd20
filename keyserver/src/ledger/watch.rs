//! Tells the operator of replays, a few times a second at most.

use std::time::{Duration, Instant};

use keyless_protocol::info::ski_to_hex;

use crate::clock;
use crate::dispatch::Job;

/// Replays that are logged in a second; the rest are only counted.
const LOGGED_PER_SECOND: u32 = 10;

/// The alarm of the ledger.
#[derive(Debug, Default)]
pub(super) struct ReplayAlarm {
    since: Option<Instant>,
    logged: u32,
}

impl ReplayAlarm {
    /// Logs that `job` asked for what was answered before.
    pub(super) fn replayed(&mut self, job: &Job) {
        let Some(admitted) = job.admitted.as_ref().filter(|_| self.may_log()) else {
            return;
        };
        tracing::error!(
            alarm = "replay_decrypt",
            client = admitted.snapshot().policy.client_name(admitted.client()),
            ski = ski_to_hex(&admitted.key().ski()),
            "a ciphertext was sent again that had been answered: a recorded handshake is being replayed, or \
             an edge retries too often or too late; block the client if it is not yours to explain"
        );
    }

    /// Logs that `job` asked for a key whose entries were dropped.
    pub(super) fn dropped(&mut self, job: &Job) {
        let Some(admitted) = job.admitted.as_ref().filter(|_| self.may_log()) else {
            return;
        };
        tracing::error!(
            alarm = "dropped_key",
            client = admitted.snapshot().policy.client_name(admitted.client()),
            ski = ski_to_hex(&admitted.key().ski()),
            "nothing is decrypted with this key any more: what it had opened was dropped from the ledger by command"
        );
    }

    /// Whether there is room for one more line in this second.
    fn may_log(&mut self) -> bool {
        let now = clock::now();
        let fresh = |since: Instant| now.saturating_duration_since(since) < Duration::from_secs(1);
        if !self.since.is_some_and(fresh) {
            self.since = Some(now);
            self.logged = 0;
        }
        if self.logged >= LOGGED_PER_SECOND {
            return false;
        }
        self.logged += 1;
        true
    }
}
