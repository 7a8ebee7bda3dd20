//! Which backends are still believed, class by class.
//!
//! ```text
//!             a result of the lanes is wrong          a result of AWS-LC is wrong
//!  Trusted ─────────────────────────────▶ Single ─────────────────────────────▶ Refused
//!     ▲                                     │ ▲                                    │
//!     └──── released by the operator ───────┘ └──── proved again, once a minute ───┘
//!     ▲                                                                            │
//!     └───────────────────── released by the operator ─────────────────────────────┘
//! ```
//!
//! A wrong result says that this machine computes wrongly, now and then or always. It is never released, and its
//! backend is no longer used for the class: results of curves are only sampled, so the next wrong one might leave.
//! From then on every result of the class is verified. Only a person lets lanes be used again, after
//! [`crate::Engine::release`] has proved them; a class that even single operations fail is refused until they
//! have been proved, so that one flipped bit does not stop a server for a night.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::class::Class;

/// What is believed of a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trust {
    /// Every backend may be used.
    Trusted,
    /// Lanes gave a wrong result: operations run one by one on AWS-LC, and every result is verified.
    Single,
    /// Single operations gave a wrong result too: none is computed.
    Refused,
}

impl Trust {
    /// The name used in metrics and reports: `trusted`, `single`, `refused`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Trusted => "trusted",
            Self::Single => "single",
            Self::Refused => "refused",
        }
    }
}

/// The trust in each class. Read before every batch, so it is one relaxed load.
#[derive(Debug, Default)]
pub(crate) struct Quarantine {
    classes: [AtomicU8; Class::ALL.len()],
}

impl Quarantine {
    pub(crate) fn trust(&self, class: Class) -> Trust {
        match self.of(class).load(Ordering::Relaxed) {
            0 => Trust::Trusted,
            1 => Trust::Single,
            _ => Trust::Refused,
        }
    }

    /// Believes a class no more than `trust`; `true` if it was believed more before.
    pub(crate) fn lower(&self, class: Class, trust: Trust) -> bool {
        let to = trust as u8;
        self.of(class).fetch_max(to, Ordering::Relaxed) < to
    }

    /// Believes a class as much as `to`, unless something has changed since it was `from`.
    pub(crate) fn raise(&self, class: Class, from: Trust, to: Trust) -> bool {
        self.of(class)
            .compare_exchange(from as u8, to as u8, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    fn of(&self, class: Class) -> &AtomicU8 {
        let [first, ..] = &self.classes;
        self.classes.get(class.index()).unwrap_or(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_is_lost_at_once_and_won_back_only_from_where_it_was() {
        let quarantine = Quarantine::default();
        let trust = || quarantine.trust(Class::P256);
        assert_eq!(trust(), Trust::Trusted);
        assert!(quarantine.lower(Class::P256, Trust::Refused));
        assert!(!quarantine.lower(Class::P256, Trust::Single), "it is less");
        assert!(!quarantine.raise(Class::P256, Trust::Single, Trust::Trusted));
        assert_eq!(trust(), Trust::Refused);
        assert!(quarantine.raise(Class::P256, Trust::Refused, Trust::Single));
        assert!(quarantine.raise(Class::P256, Trust::Single, Trust::Trusted));
        assert_eq!(trust(), Trust::Trusted);
        for class in Class::ALL {
            assert_eq!(quarantine.trust(class), Trust::Trusted, "{class:?}");
        }
    }
}
