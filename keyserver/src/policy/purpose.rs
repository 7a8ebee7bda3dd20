//! What a key is for: signing, or opening key exchanges. One of the two.
//!
//! Whoever may decrypt with a key that also signs is one fault of the decryption away from forging its
//! signatures, and whoever may sign is one away from opening recorded traffic. Two keys cost nothing; where a
//! certificate in use leaves no choice, the exception is written down and has an end.

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

#[cfg(test)]
mod tests {
    use super::*;

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
