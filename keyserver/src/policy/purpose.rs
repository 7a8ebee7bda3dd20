//! What a key is for: signing, or opening key exchanges. One of the two.
//!
//! Whoever may decrypt with a key that also signs is one fault of the decryption away from forging its
//! signatures, and whoever may sign is one away from opening recorded traffic. Two keys cost nothing; where a
//! certificate in use leaves no choice, the exception is written down and has an end.

use std::collections::HashMap;
use std::sync::Arc;

use super::rights::Right;
use crate::config::{Date, Place};

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Purpose {
    /// It signs.
    #[default]
    Sign,
    /// It opens the RSA key exchanges of TLS 1.2.
    KeyExchange,
}

impl Purpose {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Sign, Self::KeyExchange];

    /// The name in configuration and key list.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sign => "sign",
            Self::KeyExchange => "key-exchange",
        }
    }

    /// The purpose with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|purpose| purpose.name() == name)
    }
}

/// What a `[[keys]]` entry says about the use of its keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyUse {
    /// `purpose`
    pub purpose: Purpose,
    /// `dual_use_until`: through this day, in UTC, the keys serve the other purpose too.
    pub dual_use_until: Option<Date>,
    /// Where the entry stands.
    pub place: Place,
}

impl KeyUse {
    /// Whether a right may be used on the keys on the day `today`.
    #[must_use]
    pub fn lets(&self, right: Right, today: Date) -> bool {
        right.purpose().is_none_or(|wanted| wanted == self.purpose) || self.is_dual(today)
    }

    /// Whether the keys serve both purposes on the day `today`.
    #[must_use]
    pub fn is_dual(&self, today: Date) -> bool {
        self.dual_use_until.is_some_and(|until| today <= until)
    }
}

/// What each key is for, by its position. Looked at for every request, so a hundred thousand keys take little room: what
/// the keys of one `[[keys]]` entry are for is here once.
#[derive(Debug, Default)]
pub(super) struct KeyUses {
    /// One for each entry.
    all: Vec<Arc<KeyUse>>,
    /// The place of each key's in `all`.
    of: Vec<u32>,
    /// What a key that does not exist is for.
    elsewhere: KeyUse,
}

impl KeyUses {
    /// Of the key at this position.
    pub(super) fn of(&self, key: u32) -> &KeyUse {
        let place = |number: u32| usize::try_from(number).ok();
        let found = place(key)
            .and_then(|at| self.of.get(at))
            .and_then(|number| self.all.get(place(*number)?));
        found.map_or(&self.elsewhere, |usage| usage)
    }
}

/// In the order of the positions.
impl<'a> FromIterator<&'a Arc<KeyUse>> for KeyUses {
    fn from_iter<I: IntoIterator<Item = &'a Arc<KeyUse>>>(usages: I) -> Self {
        let mut uses = Self::default();
        let mut numbers = HashMap::new();
        for usage in usages {
            let next = u32::try_from(uses.all.len()).unwrap_or(u32::MAX);
            let number = *numbers.entry(Arc::as_ptr(usage)).or_insert(next);
            if number == next {
                uses.all.push(Arc::clone(usage));
            }
            uses.of.push(number);
        }
        uses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_the_use_of_its_entry() {
        let [sign, exchange] = Purpose::ALL.map(|purpose| {
            Arc::new(KeyUse {
                purpose,
                ..KeyUse::default()
            })
        });
        let uses: KeyUses = [&sign, &exchange, &exchange, &sign].into_iter().collect();
        let purposes = [0, 1, 2, 3].map(|key| uses.of(key).purpose);
        let [sign, exchange] = Purpose::ALL;
        assert_eq!(purposes, [sign, exchange, exchange, sign]);
        assert_eq!(uses.all.len(), 2);
        // As a key that signs.
        assert_eq!(*uses.of(4), KeyUse::default());
        assert_eq!(*uses.of(u32::MAX), KeyUse::default());
    }

    #[test]
    fn a_right_needs_the_purpose_or_an_exception_in_force() {
        let day = |text| Date::parse(text).unwrap();
        let mut sign = KeyUse::default();
        assert!(sign.lets(Right::Tls13Sign, day("2027-01-01")));
        assert!(!sign.lets(Right::Tls12Master, day("2027-01-01")));
        // Tickets are not made with the private key.
        assert!(sign.lets(Right::Tickets, day("2027-01-01")));
        sign.dual_use_until = Some(day("2027-06-30"));
        assert!(sign.lets(Right::Tls12Master, day("2027-06-30")));
        assert!(!sign.lets(Right::Tls12Master, day("2027-07-01")));
        let exchange = KeyUse {
            purpose: Purpose::KeyExchange,
            ..KeyUse::default()
        };
        assert!(exchange.lets(Right::DecryptRaw, day("2027-01-01")));
        assert!(!exchange.lets(Right::Delegate, day("2027-01-01")));
    }

    #[test]
    fn names_read_back() {
        for purpose in Purpose::ALL {
            assert_eq!(Purpose::from_name(purpose.name()), Some(purpose));
        }
        assert_eq!(Purpose::from_name("both"), None);
    }
}
