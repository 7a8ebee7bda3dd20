//! Which grants of a client name a key: one hash lookup, however many keys and grants there are.
//!
//! Most keys are named by the same few grants, so lists of grants are kept once each and keys point to theirs. A list
//! is made of another one and one more grant; the same two always give the same list.

use std::collections::HashMap;

/// The place of a list in [`Cover::lists`].
type List = u32;

/// The grants of one client by key.
#[derive(Debug)]
pub(super) struct Cover {
    /// The first is empty.
    lists: Vec<Box<[u32]>>,
    /// For every key that is not in `by_key`.
    elsewhere: List,
    by_key: HashMap<u32, List>,
}

/// A cover that grants are added to, in their order.
#[derive(Debug)]
pub(super) struct CoverBuilder {
    cover: Cover,
    longer: HashMap<(List, u32), List>,
}

impl Cover {
    /// The grants that name the key at this position, in the order of the configuration.
    pub(super) fn of(&self, key: u32) -> &[u32] {
        let list = self.by_key.get(&key).unwrap_or(&self.elsewhere);
        let found = usize::try_from(*list).ok();
        found
            .and_then(|place| self.lists.get(place))
            .map_or(&[], |list| list)
    }
}

impl CoverBuilder {
    pub(super) fn new() -> Self {
        Self {
            cover: Cover {
                lists: vec![Box::default()],
                elsewhere: 0,
                by_key: HashMap::new(),
            },
            longer: HashMap::new(),
        }
    }

    /// The grant names every key, also those that nobody knows yet.
    pub(super) fn add_to_all(&mut self, grant: u32) {
        self.cover.elsewhere = self.extend(self.cover.elsewhere, grant);
        let mut by_key = std::mem::take(&mut self.cover.by_key);
        for list in by_key.values_mut() {
            *list = self.extend(*list, grant);
        }
        self.cover.by_key = by_key;
    }

    /// The grant names this key.
    pub(super) fn add(&mut self, key: u32, grant: u32) {
        let list = self.cover.by_key.get(&key).copied();
        let list = self.extend(list.unwrap_or(self.cover.elsewhere), grant);
        self.cover.by_key.insert(key, list);
    }

    pub(super) fn finish(self) -> Cover {
        self.cover
    }

    fn extend(&mut self, list: List, grant: u32) -> List {
        let lists = &mut self.cover.lists;
        let place = usize::try_from(list).unwrap_or(0);
        // A grant may name a key in two ways.
        if lists.get(place).and_then(|shorter| shorter.last()) == Some(&grant) {
            return list;
        }
        *self.longer.entry((list, grant)).or_insert_with(|| {
            let shorter = lists.get(place).map_or(&[][..], |shorter| shorter);
            let longer = [shorter, &[grant]].concat();
            let place = List::try_from(lists.len()).unwrap_or(0);
            lists.push(longer.into_boxed_slice());
            place
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_its_grants_in_order_and_lists_are_shared() {
        let mut builder = CoverBuilder::new();
        for key in 0..100 {
            builder.add(key, 0);
        }
        builder.add_to_all(1);
        builder.add(7, 2);
        builder.add(7, 2);
        builder.add(200, 2);
        let cover = builder.finish();
        assert_eq!(cover.of(5), [0, 1]);
        assert_eq!(cover.of(7), [0, 1, 2]);
        assert_eq!(cover.of(200), [1, 2]);
        assert_eq!(cover.of(u32::MAX), [1]);
        // Nothing; 0; 0 1; 0 1 2; 1; 1 2.
        assert_eq!(cover.lists.len(), 6);
    }
}
