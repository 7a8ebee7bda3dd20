//! Until when sessions can be resumed with keys that were handed out.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use keyless_protocol::Ski;

/// By the SKI of a key, when the last ticket key that an edge has of it has no worth any more, in seconds since 1970. One entry
/// for each key that is loaded, at most.
#[derive(Debug, Default)]
pub struct TicketEnds {
    ends: Mutex<HashMap<Ski, u64>>,
}

impl TicketEnds {
    /// Keys were handed out at `now` that are of use until `end`.
    pub fn handed_out(&self, ski: Ski, end: u64, now: u64) {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        ends.retain(|_, end| *end > now);
        let last = ends.entry(ski).or_default();
        *last = end.max(*last);
    }

    /// The ends that have not passed at `now`.
    #[must_use]
    pub fn at(&self, now: u64) -> HashMap<Ski, u64> {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        ends.retain(|_, end| *end > now);
        ends.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_end_counts_until_it_has_passed() {
        let ends = TicketEnds::default();
        ends.handed_out([1; 20], 110, 100);
        ends.handed_out([1; 20], 120, 100);
        ends.handed_out([2; 20], 105, 100);
        assert_eq!(ends.at(104).len(), 2);
        assert_eq!(ends.at(105), HashMap::from([([1; 20], 120)]));
        assert!(ends.at(120).is_empty());
    }
}
