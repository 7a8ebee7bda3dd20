//! The servers of one name, as its client knows them, and what changes when it is looked up again.

use crate::fleet::{Place, ServerId};

/// What servers join and leave.
pub(crate) trait Roster {
    /// A new server, `host:port`.
    fn join(&mut self, address: &str, place: Place) -> ServerId;
    /// A server stands elsewhere among the others. Its connection stays.
    fn moved(&mut self, id: ServerId, place: Place);
    /// A server is no longer there.
    fn leave(&mut self, id: ServerId);
}

/// See the module's own text.
#[derive(Debug, Default)]
pub(crate) struct Known(Vec<(String, Place, ServerId)>);

impl Known {
    /// Takes what was found now.
    pub(crate) fn update(&mut self, found: Vec<(String, Place)>, roster: &mut impl Roster) {
        self.0.retain(|(address, _, id)| {
            let stays = found.iter().any(|one| one.0 == *address);
            if !stays {
                roster.leave(*id);
            }
            stays
        });
        for (address, place) in found {
            match self.0.iter_mut().find(|known| known.0 == address) {
                Some((_, before, id)) => {
                    if std::mem::replace(before, place) != place {
                        roster.moved(*id, place);
                    }
                }
                None => {
                    let id = roster.join(&address, place);
                    self.0.push((address, place, id));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::Fleet;
    use crate::observe::Silent;
    use std::sync::Arc;
    use std::time::Instant;

    /// Notes what it is told.
    struct Notes(Fleet, Vec<String>);

    impl Roster for Notes {
        fn join(&mut self, address: &str, place: Place) -> ServerId {
            self.1.push(format!("{address} joins {}", place.weight));
            self.0.join(address, place, Instant::now())
        }

        fn moved(&mut self, id: ServerId, place: Place) {
            self.1
                .push(format!("{} moves {}", id.index(), place.weight));
        }

        fn leave(&mut self, id: ServerId) {
            self.1.push(format!("{} leaves", id.index()));
        }
    }

    #[test]
    fn only_what_has_changed_is_told() {
        let fleet = Fleet::new(false, Arc::new(Silent), Instant::now());
        let mut notes = Notes(fleet, Vec::new());
        let mut known = Known::default();
        let mut told = |found: &[(&str, u32)]| {
            let place = |weight| Place { tier: 0, weight };
            let found = found
                .iter()
                .map(|&(name, weight)| (name.to_owned(), place(weight)));
            known.update(found.collect(), &mut notes);
            std::mem::take(&mut notes.1)
        };
        assert_eq!(told(&[("a", 1), ("b", 1)]), ["a joins 1", "b joins 1"]);
        assert!(told(&[("b", 1), ("a", 1)]).is_empty());
        assert_eq!(told(&[("a", 3), ("b", 1)]), ["0 moves 3"]);
        assert_eq!(told(&[("c", 1), ("a", 3)]), ["1 leaves", "c joins 1"]);
        assert_eq!(told(&[("b", 1)]), ["0 leaves", "2 leaves", "b joins 1"]);
    }
}
