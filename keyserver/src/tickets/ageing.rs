//! Things with an end, forgotten when it has passed, without looking at all of them each time.

use std::collections::HashMap;
use std::hash::Hash;

use crate::ending::{End, Now};

/// Fewer than so many entries are not worth looking through.
const LOOKED_THROUGH_MIN: usize = 64;

/// Things with their ends.
#[derive(Debug)]
pub(super) struct Ageing<T> {
    ends: HashMap<T, End>,
    /// Looked through when there are so many: twice those that were left the last time. So each entry that is noted pays for
    /// looking at two, and there are never more than twice those whose end has not passed.
    full_at: usize,
}

impl<T> Default for Ageing<T> {
    fn default() -> Self {
        Self {
            ends: HashMap::new(),
            full_at: LOOKED_THROUGH_MIN,
        }
    }
}

impl<T: Eq + Hash> Ageing<T> {
    /// Notes an end, if it is later than the one that is known. How many entries were looked through for it.
    pub(super) fn note(&mut self, thing: T, end: End, now: Now) -> usize {
        let looked_at = if self.ends.len() >= self.full_at {
            self.prune(now)
        } else {
            0
        };
        let last = self.ends.entry(thing).or_insert(end);
        *last = end.later(*last);
        looked_at
    }

    /// Forgets what has ended at `now`. How many entries were looked through.
    pub(super) fn prune(&mut self, now: Now) -> usize {
        let looked_at = self.ends.len();
        self.ends.retain(|_, end| !end.has_passed(now));
        self.full_at = (2 * self.ends.len()).max(LOOKED_THROUGH_MIN);
        looked_at
    }

    /// How many are there, some of which may have ended.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether this one is.
    pub(super) fn contains(&self, thing: &T) -> bool {
        self.ends.contains_key(thing)
    }

    /// All of them with their ends, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&T, End)> {
        self.ends.iter().map(|(thing, end)| (thing, *end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_costs_the_same_however_many_there_are() {
        let mut ageing = Ageing::default();
        let first: usize = (0..100_000)
            .map(|number| ageing.note(number, End::at(110, Now::of(100)), Now::of(100)))
            .sum();
        assert!(first <= 200_000, "{first}");
        // Again and again: nothing is looked through for what is there.
        let again: usize = (0..100_000)
            .map(|number| ageing.note(number, End::at(111, Now::of(100)), Now::of(100)))
            .sum();
        assert!(again <= 100_000, "{again}");
        // All have ended; as many come, and they do not add up.
        let later: usize = (0..100_000)
            .map(|number| ageing.note(-number, End::at(220, Now::of(200)), Now::of(200)))
            .sum();
        assert!(later <= 300_000, "{later}");
        assert!(ageing.len() <= 200_000, "{}", ageing.len());
        ageing.prune(Now::of(219));
        assert_eq!(ageing.len(), 100_000);
        ageing.prune(Now::of(220));
        assert_eq!(ageing.len(), 0);
    }
}
