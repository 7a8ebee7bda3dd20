//! Until when sessions can be resumed with keys that were handed out, and who has them.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use keyless_protocol::Ski;

use super::ageing::Ageing;
use crate::ending::{End, Now};
use crate::limits;

/// Which ticket keys edges have, since the server started.
#[derive(Debug, Default)]
pub struct TicketEnds {
    inside: Mutex<Inside>,
}

#[derive(Debug)]
struct Inside {
    /// By the SKI of a key, when the last ticket key that an edge has of it has no worth any more.
    keys: Ageing<Ski>,
    /// The same, by the name of the client that was given it.
    holders: Ageing<(String, Ski)>,
    /// Until then, some holder may not be in the list, because it was full.
    unlisted_until: End,
    /// When the list may next be looked through because it is full, in seconds of this process.
    look_through_at: u64,
}

impl Default for Inside {
    fn default() -> Self {
        Self {
            keys: Ageing::default(),
            holders: Ageing::default(),
            unlisted_until: End::PASSED,
            look_through_at: 0,
        }
    }
}

/// A list that is full is not looked through more often, in seconds.
const FULL_PAUSE: u64 = 60;

impl TicketEnds {
    /// Keys were handed out at `now` that are of use until `end`, in seconds since 1970.
    pub fn handed_out(&self, client: &str, ski: Ski, end: u64, now: Now) {
        let end = End::at(end, now);
        let mut inside = self.lock();
        inside.keys.note(ski, end, now);
        let holder = (client.to_owned(), ski);
        if inside.holders.len() >= limits::TICKET_HOLDERS && now.steady >= inside.look_through_at {
            inside.look_through_at = now.steady + FULL_PAUSE;
            inside.holders.prune(now);
        }
        let is_full = inside.holders.len() >= limits::TICKET_HOLDERS;
        if is_full && !inside.holders.contains(&holder) {
            inside.unlisted_until = end.later(inside.unlisted_until);
        } else {
            inside.holders.note(holder, end, now);
        }
    }

    /// The ends that have not passed at `now`, in seconds since 1970.
    #[must_use]
    pub fn at(&self, now: Now) -> HashMap<Ski, u64> {
        let mut inside = self.lock();
        inside.keys.prune(now);
        (inside.keys.iter())
            .map(|(ski, end)| (*ski, end.seen_from(now)))
            .collect()
    }

    /// The keys of which a client may have ticket keys that are of use at `now`. When there were too many to remember,
    /// that is every key of which anybody has some.
    #[must_use]
    pub fn held_by(&self, client: &str, now: Now) -> HashSet<Ski> {
        let mut inside = self.lock();
        inside.holders.prune(now);
        if !inside.unlisted_until.has_passed(now) {
            inside.keys.prune(now);
            return inside.keys.iter().map(|(ski, _)| *ski).collect();
        }
        let of_client =
            |((holder, ski), _): (&(String, Ski), End)| (holder == client).then_some(*ski);
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
        ends.handed_out("a", [1; 20], 110, Now::of(100));
        ends.handed_out("b", [1; 20], 120, Now::of(100));
        ends.handed_out("a", [2; 20], 105, Now::of(100));
        assert_eq!(ends.at(Now::of(104)).len(), 2);
        assert_eq!(
            ends.held_by("a", Now::of(104)),
            HashSet::from([[1; 20], [2; 20]])
        );
        assert_eq!(ends.at(Now::of(105)), HashMap::from([([1; 20], 120)]));
        assert_eq!(ends.held_by("a", Now::of(105)), HashSet::from([[1; 20]]));
        assert!(
            ends.held_by("a", Now::of(110)).is_empty()
                && ends.held_by("c", Now::of(100)).is_empty()
        );
        assert_eq!(ends.held_by("b", Now::of(110)), HashSet::from([[1; 20]]));
        assert!(ends.at(Now::of(120)).is_empty());
    }

    /// A clock that is ahead for a moment.
    #[test]
    fn a_step_of_the_clock_forgets_nobody() {
        let ends = TicketEnds::default();
        ends.handed_out("a", [1; 20], 110, Now::of(100));
        let ahead = Now {
            wall: 1_000_000,
            steady: 101,
        };
        assert_eq!(ends.held_by("a", ahead).len(), 1);
        assert_eq!(ends.at(ahead), HashMap::from([([1; 20], 1_000_009)]));
        assert_eq!(ends.held_by("a", Now::of(101)).len(), 1);
        assert_eq!(ends.at(Now::of(101)).len(), 1);
    }

    #[test]
    fn where_there_are_too_many_holders_each_may_have_everything() {
        let ends = TicketEnds::default();
        for number in 0..limits::TICKET_HOLDERS {
            ends.handed_out(&number.to_string(), [1; 20], 110, Now::of(100));
        }
        assert_eq!(ends.held_by("7", Now::of(100)).len(), 1);
        ends.handed_out("7", [1; 20], 120, Now::of(101));
        ends.handed_out("unlisted", [2; 20], 115, Now::of(101));
        for client in ["7", "unlisted"] {
            assert_eq!(ends.held_by(client, Now::of(102)).len(), 2);
        }
        assert!(ends.held_by("unlisted", Now::of(115)).is_empty());
        assert_eq!(ends.held_by("7", Now::of(115)).len(), 1);
        // Those whose time is over make room.
        ends.handed_out("unlisted", [2; 20], 300, Now::of(200));
        assert_eq!(ends.held_by("unlisted", Now::of(200)).len(), 1);
        assert!(ends.held_by("7", Now::of(200)).is_empty());
    }
}
