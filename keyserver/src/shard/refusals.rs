//! The log of refusals, at a bounded rate: whoever is refused must not be able to fill a disk.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use keyless_protocol::{Opcode, Ski};

use crate::limits;
use crate::policy::admitted::RefusalReason;

/// Counts the lines of the current second.
#[derive(Debug, Default)]
pub(crate) struct RefusalLog {
    second: Cell<Option<Instant>>,
    lines: Cell<u32>,
    suppressed: Cell<u64>,
}

impl RefusalLog {
    /// Writes one line, unless this second has had its share.
    pub(crate) fn record(
        &self,
        now: Instant,
        peer: SocketAddr,
        client: Option<&str>,
        opcode: Opcode,
        ski: Option<Ski>,
        reason: RefusalReason,
    ) {
        if !self.may_write(now) {
            return;
        }
        let key = ski.map(|ski| keyless_protocol::info::ski_to_hex(&ski));
        tracing::warn!(
            target: "keyserver::refused",
            %peer,
            client = client.unwrap_or("-"),
            operation = opcode.name(),
            key = key.as_deref().unwrap_or("-"),
            %reason,
            suppressed = self.suppressed.take(),
            "refused"
        );
    }

    fn may_write(&self, now: Instant) -> bool {
        let fresh = self
            .second
            .get()
            .is_none_or(|at| now >= at + Duration::from_secs(1));
        if fresh {
            self.second.set(Some(now));
            self.lines.set(0);
        }
        if self.lines.get() < limits::REFUSALS_LOGGED_PER_SECOND {
            self.lines.set(self.lines.get() + 1);
            true
        } else {
            self.suppressed.set(self.suppressed.get() + 1);
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_its_share_and_the_rest_is_counted() {
        let log = RefusalLog::default();
        let start = crate::clock::now();
        let written = (0..100).filter(|_| log.may_write(start)).count();
        assert_eq!(written, 10);
        assert_eq!(log.suppressed.get(), 90);
        assert!(log.may_write(start + Duration::from_secs(1)));
    }
}
