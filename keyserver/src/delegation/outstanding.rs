//! The credentials that are about, and who has them.
//!
//! Nothing recalls a credential: it ends when its time is over. So each client has a quota for each key, and
//! the server can say when the last credential of a key ends. A reload changes nothing of it, and neither does a
//! restart: what is about is on disk before the last of it is released, see [`super::keeper`].

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use keyless_protocol::Ski;

use super::file;
use crate::disk::WriteWatch;
use crate::ending::{End, Now};
use crate::handshake::Fault;
use crate::limits::LIVE_CREDENTIALS_IN_ALL;
use crate::statefile::StateError;

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

/// Ends of credentials by account. A copy of it shares them: it is made under the lock that I/O threads
/// wait for.
pub(super) type Ends = HashMap<Arc<Account>, Arc<Vec<End>>>;

/// Ends of credentials by account. Bounded: an account has no more than its quota, and all together
/// [`LIVE_CREDENTIALS_IN_ALL`].
#[derive(Debug, Default)]
pub struct Outstanding {
    /// Where they are written down; nowhere without a state directory.
    file: Option<PathBuf>,
    write: WriteWatch,
    live: Mutex<Live>,
}

#[derive(Debug)]
struct Live {
    ends: Ends,
    /// How many ends there are in all.
    count: usize,
    /// None of them is earlier than this.
    earliest: End,
}

/// A place among the live credentials. Dropped, it is free again, unless [`Self::keep`] was called.
#[derive(Debug)]
pub struct Reservation {
    outstanding: Arc<Outstanding>,
    account: Arc<Account>,
    end: End,
    kept: bool,
}

impl Outstanding {
    /// Those that are about by what is in the state directory, if there is one.
    ///
    /// # Errors
    ///
    /// [`StateError`]: the file is there and cannot be used.
    pub fn open(directory: Option<&Path>) -> Result<Self, StateError> {
        Self::open_at(directory, Now::read())
    }

    fn open_at(directory: Option<&Path>, now: Now) -> Result<Self, StateError> {
        let file = directory.map(file::path);
        let read = |path| file::read(path, now);
        let ends = file.as_deref().map(read).transpose()?;
        Ok(Self {
            file,
            write: WriteWatch::default(),
            live: Mutex::new(Live::new(ends.unwrap_or_default())),
        })
    }

    /// Whether they are written down.
    pub(super) const fn is_kept(&self) -> bool {
        self.file.is_some()
    }

    /// Writes down what is about, reservations included: what is never kept costs a place after a crash, and no
    /// crash gives one back. To be called by one thread.
    pub(super) fn write(&self) -> Result<(), StateError> {
        let Some(path) = &self.file else {
            return Ok(());
        };
        // A copy, so that nobody waits for the disk with the lock.
        let ends = self.lock().ends.clone();
        self.write.begin();
        let result = file::write(path, &ends);
        self.write.end();
        result
    }

    /// Whether the disk keeps a write waiting: what is signed now could not be released.
    #[must_use]
    pub fn is_hung(&self) -> bool {
        self.write.is_hung()
    }

    /// A line for the operator, while the disk keeps a write waiting.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.is_hung().then(|| {
            "the disk of [admin] state does not answer: no delegated credential is issued until it does; signing goes on"
                .to_owned()
        })
    }

    /// A place for a credential of `account` that ends at `end`, in seconds since 1970, if fewer than `quota` of its
    /// credentials are live at `now`.
    ///
    /// # Errors
    ///
    /// [`Fault`]: there are as many as there may be.
    pub(super) fn reserve(
        self: &Arc<Self>,
        account: Account,
        end: u64,
        now: Now,
        quota: usize,
    ) -> Result<Reservation, Fault> {
        let mut live = self.lock();
        if live.count >= LIVE_CREDENTIALS_IN_ALL {
            live.prune(now);
        }
        if live.count >= LIVE_CREDENTIALS_IN_ALL {
            return Err(Fault("the server has no room for another live credential"));
        }
        let (account, end) = (Arc::new(account), End::at(end, now));
        if !live.add(&account, end, now, quota) {
            return Err(Fault(
                "the client has as many live credentials for this key as it may have",
            ));
        }
        drop(live);
        Ok(Reservation {
            outstanding: Arc::clone(self),
            account,
            end,
            kept: false,
        })
    }

    /// What is about at `now`, by key.
    #[must_use]
    pub fn by_key(&self, now: Now) -> HashMap<Ski, Extent> {
        let mut live = self.lock();
        let mut extents: HashMap<Ski, Extent> = HashMap::new();
        live.prune(now);
        for (account, ends) in &live.ends {
            let extent = extents
                .entry(account.ski)
                .or_insert(Extent { count: 0, until: 0 });
            extent.count += ends.len();
            let until = ends.iter().map(|end| end.seen_from(now));
            extent.until = until.fold(extent.until, u64::max);
        }
        extents
    }

    /// How many are live at `now`.
    #[must_use]
    pub fn count(&self, now: Now) -> usize {
        self.by_key(now).values().map(|extent| extent.count).sum()
    }

    fn lock(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Live {
    fn default() -> Self {
        Self::new(Ends::new())
    }
}

impl Live {
    fn new(ends: Ends) -> Self {
        let mut live = Self {
            ends,
            count: 0,
            earliest: End::NEVER,
        };
        live.measure();
        live
    }

    /// One more of an account, if fewer than `quota` of its credentials are live.
    fn add(&mut self, account: &Arc<Account>, end: End, now: Now, quota: usize) -> bool {
        let ends = Arc::make_mut(self.ends.entry(Arc::clone(account)).or_default());
        let before = ends.len();
        ends.retain(|end| !end.has_passed(now));
        self.count = self.count.saturating_sub(before - ends.len());
        if ends.len() >= quota {
            return false;
        }
        ends.push(end);
        self.count += 1;
        self.earliest = self.earliest.earlier(end);
        true
    }

    /// Gives the place of one back.
    fn remove(&mut self, account: &Account, end: End) {
        let Some(ends) = self.ends.get_mut(account) else {
            return;
        };
        if let Some(position) = ends.iter().position(|other| *other == end) {
            Arc::make_mut(ends).swap_remove(position);
            self.count = self.count.saturating_sub(1);
        }
        if ends.is_empty() {
            self.ends.remove(account);
        }
    }

    /// Forgets those that have ended; looks at all of them only if one has.
    fn prune(&mut self, now: Now) {
        if !self.earliest.has_passed(now) {
            return;
        }
        self.ends.retain(|_, ends| {
            if ends.iter().any(|end| end.has_passed(now)) {
                Arc::make_mut(ends).retain(|end| !end.has_passed(now));
            }
            !ends.is_empty()
        });
        self.measure();
    }

    fn measure(&mut self) {
        let ends = || self.ends.values().flat_map(|ends| ends.iter().copied());
        self.count = ends().count();
        self.earliest = ends().fold(End::NEVER, End::earlier);
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
        self.end.wall
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        (self.outstanding.lock()).remove(&self.account, self.end);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::OpenOptionsExt;
    use std::time::Duration;

    use nix::fcntl::OFlag;

    use super::*;
    use crate::clock;
    use crate::limits::CREDENTIAL_LIFETIME_MAX;

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
            all.reserve(account("a", 1), end, Now::of(100), 2)
                .unwrap()
                .keep();
        }
        all.reserve(account("a", 1), 130, Now::of(100), 2)
            .unwrap_err();
        // Another key and another client have their own.
        all.reserve(account("a", 2), 130, Now::of(100), 2)
            .unwrap()
            .keep();
        all.reserve(account("b", 1), 140, Now::of(100), 2)
            .unwrap()
            .keep();
        assert_eq!(
            all.by_key(Now::of(100))[&[1; 20]],
            Extent {
                count: 3,
                until: 140
            }
        );
        assert_eq!(all.count(Now::of(100)), 4);
        all.reserve(account("a", 1), 130, Now::of(109), 2)
            .unwrap_err();
        all.reserve(account("a", 1), 130, Now::of(110), 2)
            .unwrap()
            .keep();
        assert_eq!(
            all.by_key(Now::of(139))[&[1; 20]],
            Extent {
                count: 1,
                until: 140
            }
        );
        assert!(all.by_key(Now::of(140)).is_empty());
        let live = all.lock();
        assert!(live.ends.is_empty() && live.count == 0, "{live:?}");
    }

    /// A clock that is ahead for a moment.
    #[test]
    fn a_step_of_the_clock_forgets_nothing() {
        let all = Arc::new(Outstanding::default());
        all.reserve(account("a", 1), 110, Now::of(100), 1)
            .unwrap()
            .keep();
        let ahead = Now {
            wall: 1_000_000,
            steady: 101,
        };
        let extent = all.by_key(ahead)[&[1; 20]];
        assert_eq!((extent.count, extent.until), (1, 1_000_009));
        all.reserve(account("a", 1), 120, ahead, 1).unwrap_err();
        all.reserve(account("a", 1), 120, Now::of(101), 1)
            .unwrap_err();
        assert_eq!(all.count(Now::of(101)), 1);
        // Had the clock been right, it would be over by now.
        let later = Now {
            wall: 1_000_009,
            steady: 110,
        };
        assert_eq!(all.count(later), 0);
    }

    /// After a restart the clock at that moment says how long they have to last, and no later step says otherwise.
    #[test]
    fn a_step_of_the_clock_after_a_restart_forgets_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let all = Arc::new(Outstanding::open(Some(directory.path())).unwrap());
        all.reserve(account("a", 1), 110, Now::of(100), 1)
            .unwrap()
            .keep();
        all.write().unwrap();
        let at = |wall, steady| Now { wall, steady };
        let after = Outstanding::open_at(Some(directory.path()), at(105, 0)).unwrap();
        assert_eq!(after.count(at(1_000_000, 4)), 1);
        assert_eq!(after.count(at(109, 4)), 1);
        assert_eq!(after.count(at(110, 5)), 0);
        // The clock was behind, by years: they last as long as any credential may, and no longer.
        let week = CREDENTIAL_LIFETIME_MAX.as_secs();
        let after = Outstanding::open_at(Some(directory.path()), at(0, 0)).unwrap();
        assert_eq!(after.count(at(109, week)), 1);
        let after = Outstanding::open_at(Some(directory.path()), at(0, 0)).unwrap();
        assert_eq!(after.count(at(week * 10, 110)), 0);
    }

    #[test]
    fn what_was_written_counts_after_a_crash() {
        let directory = tempfile::tempdir().unwrap();
        let open = || Outstanding::open_at(Some(directory.path()), Now::of(100));
        let all = Arc::new(open().unwrap());
        let mut first = all.reserve(account("a", 1), 110, Now::of(100), 2).unwrap();
        all.write().unwrap();
        first.keep();
        // One that nobody has written down was not released either.
        all.reserve(account("b", 2), 120, Now::of(100), 2)
            .unwrap()
            .keep();
        let after = Arc::new(open().unwrap());
        assert_eq!(after.count(Now::of(100)), 1);
        after
            .reserve(account("a", 1), 120, Now::of(100), 1)
            .unwrap_err();
        after
            .reserve(account("a", 1), 120, Now::of(110), 1)
            .unwrap();

        let file = directory.path().join("credentials");
        let whole = std::fs::read(&file).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&file, &whole[..length]).unwrap();
            assert!(open().is_err(), "{length} bytes of it");
        }
    }

    /// A disk that takes a file and does not answer: a pipe without a reader in the place of the new file.
    #[test]
    fn a_disk_that_hangs_is_told_and_keeps_nobody_waiting_who_asks() {
        let directory = tempfile::tempdir().unwrap();
        let all = Arc::new(Outstanding::open(Some(directory.path())).unwrap());
        let new = directory.path().join("credentials.new");
        nix::unistd::mkfifo(&new, nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| all.write());
            let limit = clock::now() + Duration::from_secs(20);
            while !all.is_hung() {
                assert!(clock::now() < limit, "nobody is told");
                std::thread::sleep(Duration::from_millis(5));
            }
            assert!(all.trouble().unwrap().contains("does not answer"));
            all.reserve(account("a", 1), 110, Now::of(100), 1)
                .unwrap()
                .keep();
            assert_eq!(all.count(Now::of(100)), 1);
            assert!(!writer.is_finished());
            // A pipe cannot be flushed: the write ends with an error.
            let pipe = File::options()
                .read(true)
                .custom_flags(OFlag::O_NONBLOCK.bits())
                .open(&new);
            std::fs::remove_file(&new).unwrap();
            writer.join().unwrap().unwrap_err();
            drop(pipe);
        });
        assert!(!all.is_hung() && all.trouble().is_none());
        all.write().unwrap();
    }

    #[test]
    fn all_together_are_bounded_and_time_makes_room() {
        let all = Arc::new(Outstanding::default());
        let many = Arc::new(vec![End::at(110, Now::of(100)); LIVE_CREDENTIALS_IN_ALL]);
        *all.lock() = Live::new(HashMap::from([(Arc::new(account("many", 1)), many)]));
        all.reserve(account("a", 2), 120, Now::of(100), 1)
            .unwrap_err();
        all.reserve(account("a", 2), 120, Now::of(110), 1).unwrap();
    }

    /// A copy, as the keeper takes one for the disk, shares what it is a copy of, and does not change with it.
    #[test]
    fn what_is_counted_is_what_is_there_and_copies_stay_as_they_are() {
        let all = Arc::new(Outstanding::default());
        let mut given_back = Vec::new();
        for number in 0..200_u64 {
            let (client, ski) = (["a", "b", "c"][(number % 3) as usize], (number % 4) as u8);
            // Ends and times that overlap, a quota that is reached, and places that are given back.
            let (end, now) = (100 + number * 7 % 60, 100 + number / 8);
            let copy = all.lock().ends.clone();
            let before = format!("{copy:?}");
            match all.reserve(account(client, ski), end, Now::of(now), 5) {
                Ok(mut place) if number % 5 > 0 => place.keep(),
                Ok(place) => given_back.push(place),
                Err(_) => drop(given_back.pop()),
            }
            assert_eq!(format!("{copy:?}"), before);
            let live = all.lock();
            let there = || live.ends.values().flat_map(|ends| ends.iter().copied());
            assert_eq!(live.count, there().count());
            assert!(there().all(|end| end.earlier(live.earliest) == live.earliest));
        }
        drop(given_back);
        assert!(all.count(Now::of(125)) > 0);
        assert_eq!(all.count(Now::of(160)), 0);
        assert_eq!(all.lock().count, 0);
    }

    #[test]
    fn a_credential_that_was_not_signed_gives_its_place_back() {
        let all = Arc::new(Outstanding::default());
        let first = all.reserve(account("a", 1), 110, Now::of(100), 1).unwrap();
        all.reserve(account("a", 1), 110, Now::of(100), 1)
            .unwrap_err();
        drop(first);
        assert_eq!(all.count(Now::of(100)), 0);
        all.reserve(account("a", 1), 110, Now::of(100), 1)
            .unwrap()
            .keep();
        assert_eq!(all.count(Now::of(100)), 1);
    }
}
