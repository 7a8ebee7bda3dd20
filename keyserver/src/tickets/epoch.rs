//! Which keys there are at a time.

use std::time::Duration;

use keyless_protocol::Ski;
use keyless_protocol::tickets::TicketKeys;

use super::master::{Master, Purpose};

/// How long an epoch is. All servers that share a master must agree, so it is no setting.
pub const EPOCH: Duration = Duration::from_hours(1);

/// Epochs that are handed out before they begin: an edge lives through an outage, and clocks may differ.
const EARLY: u64 = 1;

/// Epochs that are kept after they ended, for the tickets that are still about.
const KEPT: u64 = 2;

/// The epoch at `now`, in seconds since 1970.
pub(super) fn at(now: u64) -> u64 {
    now / EPOCH.as_secs()
}

/// Whether something of `epoch` still counts at `now`.
pub(super) fn is_alive(epoch: u64, now: u64) -> bool {
    let current = at(now);
    (current.saturating_sub(KEPT)..=current.saturating_add(EARLY)).contains(&epoch)
}

/// What an edge gets at `now` for the certificate of a key, and when the last of it has no worth any more, both in seconds
/// since 1970. `None` only where the cryptographic library fails.
#[must_use]
pub fn handed_out(
    master: &Master,
    ski: &Ski,
    generation: u32,
    now: u64,
) -> Option<(TicketKeys, u64)> {
    let current = at(now);
    let newest = current.saturating_add(EARLY);
    let keys = (current.saturating_sub(KEPT)..=newest)
        .rev()
        .map(|epoch| master.derive(Purpose::Edge, epoch, generation, ski))
        .collect::<Option<Vec<_>>>()?;
    let keys = TicketKeys {
        now,
        epoch_seconds: u32::try_from(EPOCH.as_secs()).unwrap_or(u32::MAX),
        keys,
    };
    let end = (newest.saturating_add(1 + KEPT)).saturating_mul(EPOCH.as_secs());
    Some((keys, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn master() -> (tempfile::TempDir, Master) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("master");
        super::super::create(&path).unwrap();
        let master = Master::load(&path).unwrap();
        (directory, master)
    }

    #[test]
    fn an_edge_gets_the_next_epoch_early_and_two_old_ones() {
        let (_directory, master) = master();
        let now = 500_000 * 3600 + 1800;
        let (answer, end) = handed_out(&master, &[1; 20], 0, now).unwrap();
        let epochs: Vec<_> = answer.keys.iter().map(|key| key.epoch).collect();
        assert_eq!(epochs, [500_001, 500_000, 499_999, 499_998]);
        assert_eq!((answer.now, answer.epoch_seconds), (now, 3600));
        assert_eq!(end, 500_004 * 3600);
        // An hour later three of the four are the same.
        let (later, _) = handed_out(&master, &[1; 20], 0, now + 3600).unwrap();
        assert_eq!(later.keys[1..], answer.keys[..3]);
        // And after a revocation none is.
        let (revoked, _) = handed_out(&master, &[1; 20], 1, now).unwrap();
        assert!(revoked.keys.iter().all(|key| !answer.keys.contains(key)));
    }

    #[test]
    fn an_epoch_lives_from_an_hour_before_to_two_hours_after() {
        let start = 500_000 * 3600;
        for (now, alive) in [
            (start - 3601, false),
            (start - 3600, true),
            (start, true),
            (start + 3 * 3600 - 1, true),
            (start + 3 * 3600, false),
        ] {
            assert_eq!(is_alive(500_000, now), alive, "{now}");
        }
        assert!(is_alive(0, 0));
    }
}
