//! The servers of one name, as its client knows them, and what changes when it is looked up again.

use super::Found;
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
    pub(crate) fn update(&mut self, found: Found, roster: &mut impl Roster) {
        self.0.retain(|(address, _, id)| {
            let is_there = found.servers.iter().any(|one| one.0 == *address);
            let stays = is_there || found.leaves_open(address);
            if !stays {
                roster.leave(*id);
            }
            stays
        });
        for (address, place) in found.servers {
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
    use super::super::Kind;
    use super::*;
    use crate::fleet::Fleet;
    use crate::observe::Silent;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

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
        let mut told = |found: &[(&str, u32)], unanswered: Option<Kind>| {
            let place = |weight| Place { tier: 0, weight };
            let servers = found
                .iter()
                .map(|&(name, weight)| (name.to_owned(), place(weight)));
            let found = Found {
                servers: servers.collect(),
                good_for: Duration::ZERO,
                unanswered,
            };
            known.update(found, &mut notes);
            std::mem::take(&mut notes.1)
        };
        let (a, b, c) = ("10.0.0.1:1", "[fd00::1]:1", "10.0.0.2:1");
        assert_eq!(
            told(&[(a, 1), (b, 1)], None),
            ["10.0.0.1:1 joins 1", "[fd00::1]:1 joins 1"]
        );
        assert!(told(&[(b, 1), (a, 1)], None).is_empty());
        assert_eq!(told(&[(a, 3), (b, 1)], None), ["0 moves 3"]);
        assert_eq!(
            told(&[(c, 1)], Some(Kind::Aaaa)),
            ["0 leaves", "10.0.0.2:1 joins 1"],
            "one stays of which nothing was found out"
        );
        assert_eq!(
            told(&[(c, 1), (a, 3)], None),
            ["1 leaves", "10.0.0.1:1 joins 3"]
        );
        assert_eq!(
            told(&[(b, 1)], None),
            ["2 leaves", "3 leaves", "[fd00::1]:1 joins 1"]
        );
    }
}
