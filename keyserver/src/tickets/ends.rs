//! Until when sessions can be resumed with keys that were handed out, and who has them.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use keyless_protocol::Ski;

use super::ageing::Ageing;
use crate::limits;

/// Which ticket keys edges have, since the server started.
#[derive(Debug, Default)]
pub struct TicketEnds {
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    /// By the SKI of a key, when the last ticket key that an edge has of it has no worth any more, in seconds since 1970.
    keys: Ageing<Ski>,
    /// The same, by the name of the client that was given it.
    holders: Ageing<(String, Ski)>,
    /// Until then, some holder may not be in the list, because it was full.
    unlisted_until: u64,
    /// When the list was last looked through because it was full.
    looked_through: u64,
}

/// A list that is full is not looked through more often, in seconds.
const FULL_PAUSE: u64 = 60;

impl TicketEnds {
    /// Keys were handed out at `now` that are of use until `end`.
    pub fn handed_out(&self, client: &str, ski: Ski, end: u64, now: u64) {
        let mut inside = self.lock();
        inside.keys.note(ski, end, now);
        let holder = (client.to_owned(), ski);
        if inside.holders.len() >= limits::TICKET_HOLDERS
            && now >= inside.looked_through + FULL_PAUSE
        {
            inside.looked_through = now;
            inside.holders.prune(now);
        }
        let is_full = inside.holders.len() >= limits::TICKET_HOLDERS;
        if is_full && !inside.holders.contains(&holder) {
            inside.unlisted_until = end.max(inside.unlisted_until);
        } else {
            inside.holders.note(holder, end, now);
        }
    }

    /// The ends that have not passed at `now`.
    #[must_use]
    pub fn at(&self, now: u64) -> HashMap<Ski, u64> {
        let mut inside = self.lock();
        inside.keys.prune(now);
        inside.keys.iter().map(|(ski, end)| (*ski, end)).collect()
    }

    /// The keys of which a client may have ticket keys that are of use at `now`. When there were too many to remember,
    /// that is every key of which anybody has some.
    #[must_use]
    pub fn held_by(&self, client: &str, now: u64) -> HashSet<Ski> {
        let mut inside = self.lock();
        inside.holders.prune(now);
        if inside.unlisted_until > now {
            inside.keys.prune(now);
            return inside.keys.iter().map(|(ski, _)| *ski).collect();
        }
        let of_client =
            |((holder, ski), _): (&(String, Ski), u64)| (holder == client).then_some(*ski);
        inside.holders.iter().filter_map(of_client).collect()
    }

    /// What is guarded is whole after every statement, so a panic elsewhere leaves nothing broken.
    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_end_counts_until_it_has_passed() {
        let ends = TicketEnds::default();
        ends.handed_out("a", [1; 20], 110, 100);
        ends.handed_out("b", [1; 20], 120, 100);
        ends.handed_out("a", [2; 20], 105, 100);
        assert_eq!(ends.at(104).len(), 2);
        assert_eq!(ends.held_by("a", 104), HashSet::from([[1; 20], [2; 20]]));
        assert_eq!(ends.at(105), HashMap::from([([1; 20], 120)]));
        assert_eq!(ends.held_by("a", 105), HashSet::from([[1; 20]]));
        assert!(ends.held_by("a", 110).is_empty() && ends.held_by("c", 100).is_empty());
        assert_eq!(ends.held_by("b", 110), HashSet::from([[1; 20]]));
        assert!(ends.at(120).is_empty());
    }

    #[test]
    fn where_there_are_too_many_holders_each_may_have_everything() {
        let ends = TicketEnds::default();
        for number in 0..limits::TICKET_HOLDERS {
            ends.handed_out(&number.to_string(), [1; 20], 110, 100);
        }
        assert_eq!(ends.held_by("7", 100).len(), 1);
        ends.handed_out("7", [1; 20], 120, 101);
        ends.handed_out("unlisted", [2; 20], 115, 101);
        for client in ["7", "unlisted"] {
            assert_eq!(ends.held_by(client, 102).len(), 2);
        }
        assert!(ends.held_by("unlisted", 115).is_empty());
        assert_eq!(ends.held_by("7", 115).len(), 1);
        // Those whose time is over make room.
        ends.handed_out("unlisted", [2; 20], 300, 200);
        assert_eq!(ends.held_by("unlisted", 200).len(), 1);
        assert!(ends.held_by("7", 200).is_empty());
    }
}
