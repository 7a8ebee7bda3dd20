//! The credentials that are about, and who has them.
//!
//! Nothing recalls a credential: it ends when its time is over. So each client has a quota for each key, and
//! the server can say when the last credential of a key ends. A reload changes nothing of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use keyless_protocol::Ski;

/// Who has a credential, and of which key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Account {
    /// Name in the configuration.
    pub client: String,
    /// The key that signed it.
    pub ski: Ski,
}

/// What is about of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Live credentials.
    pub count: usize,
    /// When the last of them ends, seconds since 1970.
    pub until: u64,
}

/// Ends of credentials, seconds since 1970, by account. Bounded: an account has no more than its quota, and there are no more
/// accounts than pairs of a client and a key.
#[derive(Debug, Default)]
pub struct Outstanding {
    ends: Mutex<HashMap<Account, Vec<u64>>>,
}

/// A place among the live credentials. Dropped, it is free again, unless [`Self::keep`] was called.
#[derive(Debug)]
pub struct Reservation {
    outstanding: Arc<Outstanding>,
    account: Account,
    end: u64,
    kept: bool,
}

impl Outstanding {
    /// A place for a credential of `account` that ends at `end`; nothing when `quota` of its credentials are live at
    /// `now`.
    pub(super) fn reserve(
        self: &Arc<Self>,
        account: Account,
        end: u64,
        now: u64,
        quota: usize,
    ) -> Option<Reservation> {
        let mut all = self.lock();
        let ends = all.entry(account.clone()).or_default();
        ends.retain(|end| *end > now);
        if ends.len() >= quota {
            return None;
        }
        ends.push(end);
        drop(all);
        Some(Reservation {
            outstanding: Arc::clone(self),
            account,
            end,
            kept: false,
        })
    }

    /// What is about at `now`, by key.
    #[must_use]
    pub fn by_key(&self, now: u64) -> HashMap<Ski, Extent> {
        let mut all = self.lock();
        let mut extents: HashMap<Ski, Extent> = HashMap::new();
        all.retain(|account, ends| {
            ends.retain(|end| *end > now);
            if let Some(last) = ends.iter().max() {
                let extent = extents
                    .entry(account.ski)
                    .or_insert(Extent { count: 0, until: 0 });
                extent.count += ends.len();
                extent.until = extent.until.max(*last);
            }
            !ends.is_empty()
        });
        extents
    }

    /// How many are live at `now`.
    #[must_use]
    pub fn count(&self, now: u64) -> usize {
        self.by_key(now).values().map(|extent| extent.count).sum()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Account, Vec<u64>>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reservation {
    /// The credential was signed: its place is taken until it ends.
    pub fn keep(&mut self) {
        self.kept = true;
    }

    /// Who has it, and of which key.
    #[must_use]
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// When it ends, seconds since 1970.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let mut all = self.outstanding.lock();
        let Some(ends) = all.get_mut(&self.account) else {
            return;
        };
        if let Some(position) = ends.iter().position(|end| *end == self.end) {
            ends.swap_remove(position);
        }
        if ends.is_empty() {
            all.remove(&self.account);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(client: &str, ski: u8) -> Account {
        Account {
            client: client.to_owned(),
            ski: [ski; 20],
        }
    }

    #[test]
    fn a_client_has_a_quota_for_each_key_that_time_gives_back() {
        let all = Arc::new(Outstanding::default());
        for end in [110, 120] {
            all.reserve(account("a", 1), end, 100, 2).unwrap().keep();
        }
        assert!(all.reserve(account("a", 1), 130, 100, 2).is_none());
        // Another key and another client have their own.
        all.reserve(account("a", 2), 130, 100, 2).unwrap().keep();
        all.reserve(account("b", 1), 140, 100, 2).unwrap().keep();
        assert_eq!(
            all.by_key(100)[&[1; 20]],
            Extent {
                count: 3,
                until: 140
            }
        );
        assert_eq!(all.count(100), 4);
        assert!(all.reserve(account("a", 1), 130, 109, 2).is_none());
        all.reserve(account("a", 1), 130, 110, 2).unwrap().keep();
        assert_eq!(
            all.by_key(139)[&[1; 20]],
            Extent {
                count: 1,
                until: 140
            }
        );
        assert!(all.by_key(140).is_empty());
        assert!(all.lock().is_empty(), "nothing is kept of what has ended");
    }

    #[test]
    fn a_credential_that_was_not_signed_gives_its_place_back() {
        let all = Arc::new(Outstanding::default());
        let first = all.reserve(account("a", 1), 110, 100, 1).unwrap();
        assert!(all.reserve(account("a", 1), 110, 100, 1).is_none());
        drop(first);
        assert_eq!(all.count(100), 0);
        all.reserve(account("a", 1), 110, 100, 1).unwrap().keep();
        assert_eq!(all.count(100), 1);
    }
}
