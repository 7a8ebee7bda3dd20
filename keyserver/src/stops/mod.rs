//! What an operator has stopped: a key, a client, or all of it.
//!
//! A stop counts at three places: when a request is admitted, when a crypto thread takes its job,
//! and before the result goes to the connection. So what was already on its way is held back too.
//! Stops are not configuration: they survive a reload, and with a state directory
//! (`[admin] state`) a restart and SIGKILL, because they are on disk before the command that made
//! them is answered. Keys are named by SKI and clients by name, which mean the same afterwards.

mod file;
mod generations;

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use keyless_protocol::{ErrorCode, Ski};

use crate::clock;
use crate::policy::Admitted;
use crate::turns::{Turn, Turns};

pub use self::generations::GENERATION_ASKED_MAX;
pub use crate::statefile::StateError;

/// How long a command waits for another whose write is under way. Each keeps one of the few places that the control socket
/// has, so a disk that does not answer must not keep more than one of them.
const PATIENCE: Duration = Duration::from_secs(2);

/// Who stopped something, when and why.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    /// Seconds since 1970.
    pub since: u64,
    /// The user who asked for it, as the kernel vouched.
    pub uid: u32,
    /// What the user said.
    pub reason: String,
}

/// What can be stopped.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// Every use of one key.
    Key(Ski),
    /// Every use of a key by one client of the configuration.
    Client(String),
    /// Every use of every key.
    All,
}

/// Everything that is stopped. Immutable; a change makes a new one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stops {
    pub(super) by_subject: HashMap<Subject, Stop>,
    /// How often the ticket keys of a key, or of all, were revoked. Never goes down.
    pub(super) generations: HashMap<Subject, u32>,
}

/// Why a request is held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// Its key is disabled.
    Key,
    /// Its client is blocked.
    Client,
    /// The server is sealed.
    All,
}

impl Stopped {
    /// What the client is told.
    #[must_use]
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::Key => ErrorCode::KeyDisabled,
            Self::Client => ErrorCode::Denied,
            Self::All => ErrorCode::Sealed,
        }
    }
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key => "the key is disabled (ksctl keys enable)",
            Self::Client => "the client is blocked (ksctl clients unblock)",
            Self::All => "the server is sealed (ksctl unseal)",
        })
    }
}

impl Stops {
    /// Whether an admitted request has to be held back.
    #[must_use]
    pub fn forbid(&self, admitted: &Admitted) -> Option<Stopped> {
        // Nearly always: nothing is stopped, and nothing is looked up.
        if self.by_subject.is_empty() {
            return None;
        }
        let client = admitted.snapshot().policy.client_name(admitted.client());
        if self.stops(&Subject::All) {
            Some(Stopped::All)
        } else if self.stops(&Subject::Key(admitted.key().ski())) {
            Some(Stopped::Key)
        } else if self.stops(&Subject::Client(client.to_owned())) {
            Some(Stopped::Client)
        } else {
            None
        }
    }

    /// Whether this very thing is stopped.
    #[must_use]
    pub fn stops(&self, subject: &Subject) -> bool {
        self.by_subject.contains_key(subject)
    }

    /// Everything that is stopped, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&Subject, &Stop)> {
        self.by_subject.iter()
    }
}

/// The stops in force, and the one way to change them.
///
/// Memory changes under a lock that nobody holds while waiting for a disk: whatever another command waits for, a stop
/// counts at once. Then the file is written, with all that counts by then, by one at a time, so that what is written last is
/// what counts last. Who has waited for long for another's write gives up, and leaves to that one what is to be written.
#[derive(Debug)]
pub struct Switchboard {
    current: ArcSwap<Stops>,
    /// Held while memory changes. What somebody is about to let go on, as soon as that is on disk.
    resuming: Mutex<Option<Subject>>,
    /// Nowhere without a state directory.
    path: Option<PathBuf>,
    /// Whose turn it is to write the file. Never waited for under the lock.
    turns: Turns,
    patience: Duration,
}

impl Switchboard {
    /// Reads the stops of the state directory; without one nothing is stopped, and no stop outlives
    /// the process.
    ///
    /// # Errors
    ///
    /// [`StateError`] when the file is there and cannot be read in full: the server must not start
    /// then, because it would forget a stop.
    pub fn open(directory: Option<&Path>) -> Result<Self, StateError> {
        let path = directory.map(file::path);
        let stops = match &path {
            Some(path) => file::read(path)?,
            None => Stops::default(),
        };
        Ok(Self {
            current: ArcSwap::from_pointee(stops),
            resuming: Mutex::default(),
            path,
            turns: Turns::default(),
            patience: PATIENCE,
        })
    }

    /// The stops in force now.
    pub fn current(&self) -> Guard<Arc<Stops>> {
        self.current.load()
    }

    /// Stops `subject` and revokes the ticket keys of what is in `tickets`, with it. It counts at once, before the file
    /// is written; `false` if it was stopped already, by somebody whose name and reason are kept.
    ///
    /// # Errors
    ///
    /// [`StateError`] when it is not on disk, or when ticket keys cannot be revoked once more. It is stopped all the same; what
    /// is not on disk, until the server ends.
    pub fn stop(
        &self,
        subject: Subject,
        uid: u32,
        reason: String,
        tickets: &[Subject],
    ) -> Result<bool, StateError> {
        let (is_new, revoked) = self.stop_in_memory(subject, uid, reason, tickets);
        // Also when nothing is new: the last attempt to write may have failed.
        self.save()?;
        revoked.map(|()| is_new)
    }

    fn stop_in_memory(
        &self,
        subject: Subject,
        uid: u32,
        reason: String,
        tickets: &[Subject],
    ) -> (bool, Result<(), StateError>) {
        let since = clock::wall().duration_since(std::time::UNIX_EPOCH);
        let since = since.unwrap_or_default().as_secs();
        let stop = Stop { since, uid, reason };
        let mut resuming = lock(&self.resuming);
        let mut stops = Stops::clone(&self.current());
        // Whoever is letting it go on came before, and must not end this stop.
        if resuming.take_if(|about| *about == subject).is_some() {
            stops.by_subject.remove(&subject);
        }
        let is_new = !stops.stops(&subject);
        stops.by_subject.entry(subject).or_insert(stop);
        let mut revoked = Ok(());
        for subject in tickets.iter().filter(|_| is_new) {
            // The others are revoked whatever becomes of this one.
            if let Err(error) = stops.revoke(subject, 0) {
                revoked = Err(error);
            }
        }
        self.current.store(Arc::new(stops));
        (is_new, revoked)
    }

    /// Revokes the ticket keys of `subject`, a key or all: raises its generation by one, or to `least` where that is more.
    /// Of a key that is the number that [`Stops::generation`] gives, so what is shown at one server can be asked for at
    /// another. It counts at once, before the file is written.
    ///
    /// # Errors
    ///
    /// [`StateError`] when `least` is more than [`GENERATION_ASKED_MAX`], which changes nothing; when there is no next
    /// generation, of one key or of some among all; and when it is not on disk: it counts all the same, until the server ends.
    pub fn revoke_tickets(&self, subject: &Subject, least: u32) -> Result<u32, StateError> {
        let generation = {
            let _changing = lock(&self.resuming);
            let mut stops = Stops::clone(&self.current());
            let generation = stops.revoke(subject, least);
            self.current.store(Arc::new(stops));
            generation
        };
        self.save()?;
        generation
    }

    /// Lets `subject` go on; `false` if it was not stopped. It counts when it is on disk.
    ///
    /// # Errors
    ///
    /// [`StateError`] when it is not on disk. Then it stays stopped.
    pub fn resume(&self, subject: &Subject) -> Result<bool, StateError> {
        // Who gives up has changed nothing, and leaves nothing to be written.
        let mut turn = self.turns.take(self.patience, false).ok_or_else(|| {
            kept_waiting("nothing has changed, and it stays stopped; try again later")
        })?;
        let (stops, was_stopped) = self.begin_resuming(subject);
        let written = match &self.path {
            Some(path) => file::write(Some(path), &stops),
            None => Ok(()),
        };
        self.end_resuming(subject, written.is_ok());
        if !turn.end()
            && let Err(error) = self.write(turn)
        {
            // Those who asked for it were told that it is not on disk.
            tracing::error!("{error}");
        }
        written.map(|()| was_stopped)
    }

    /// What shall be on disk before `subject` goes on, and whether it was stopped.
    fn begin_resuming(&self, subject: &Subject) -> (Stops, bool) {
        let mut resuming = lock(&self.resuming);
        *resuming = Some(subject.clone());
        let mut stops = Stops::clone(&self.current());
        let was_stopped = stops.by_subject.remove(subject).is_some();
        (stops, was_stopped)
    }

    /// Lets it go on if that is on disk, unless it was stopped again in between: that stop counts, and will be written.
    fn end_resuming(&self, subject: &Subject, is_written: bool) {
        let mut resuming = lock(&self.resuming);
        if resuming.take().is_some() && is_written {
            // With what was stopped in between.
            let mut stops = Stops::clone(&self.current());
            stops.by_subject.remove(subject);
            self.current.store(Arc::new(stops));
        }
    }

    /// Writes down what counts now, or leaves it to whom the disk keeps waiting.
    fn save(&self) -> Result<(), StateError> {
        let turn = self.turns.take(self.patience, true);
        let turn = turn.ok_or_else(|| kept_waiting("this counts, but is not on disk yet"))?;
        self.write(turn)
    }

    /// Writes down what counts, and once more for each time that somebody has left it to this turn meanwhile. The last write
    /// decides: it is about all that the others were about.
    fn write(&self, mut turn: Turn<'_>) -> Result<(), StateError> {
        loop {
            let written = file::write(self.path.as_deref(), &self.current.load_full());
            if turn.end() {
                return written;
            }
        }
    }
}

/// Another's write is under way and does not end.
fn kept_waiting(so: &str) -> StateError {
    StateError {
        what: format!("the disk keeps an earlier change waiting: {so}"),
    }
}

/// What is guarded is whole after every statement, so a panic elsewhere leaves nothing broken.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::OpenOptionsExt;
    use std::thread;
    use std::time::Duration;

    use nix::fcntl::OFlag;
    use nix::sys::stat::Mode;

    use super::*;

    const KEY: Subject = Subject::Key([7; 20]);

    fn subjects(board: &Switchboard) -> Vec<Subject> {
        let mut subjects: Vec<_> = board
            .current()
            .iter()
            .map(|(subject, _)| subject.clone())
            .collect();
        subjects.sort_by_key(|subject| format!("{subject:?}"));
        subjects
    }

    #[test]
    fn stops_outlive_the_process_and_end_when_they_are_taken_back() {
        let directory = tempfile::tempdir().unwrap();
        let board = Switchboard::open(Some(directory.path())).unwrap();
        assert!(board.stop(KEY, 7, "stolen".to_owned(), &[]).unwrap());
        assert!(board.stop(Subject::All, 0, "all".to_owned(), &[]).unwrap());
        let edge = Subject::Client("edge-1 \"x\"\n".to_owned());
        assert!(
            board
                .stop(edge.clone(), 1, "odd \u{1F511}".to_owned(), &[])
                .unwrap()
        );
        let again = Switchboard::open(Some(directory.path())).unwrap();
        assert_eq!(**again.current(), **board.current());
        assert_eq!(subjects(&again).len(), 3);
        // The first one who stopped it is remembered.
        assert!(!again.stop(KEY, 9, "late".to_owned(), &[]).unwrap());
        assert_eq!(again.current().by_subject[&KEY].reason, "stolen");

        assert!(again.resume(&KEY).unwrap() && !again.resume(&KEY).unwrap());
        assert!(again.resume(&Subject::All).unwrap());
        let third = Switchboard::open(Some(directory.path())).unwrap();
        assert_eq!(subjects(&third), [edge]);
    }

    #[test]
    fn without_a_directory_a_stop_counts_and_is_an_error() {
        let board = Switchboard::open(None).unwrap();
        board.stop(KEY, 0, "now".to_owned(), &[]).unwrap_err();
        assert!(board.current().stops(&KEY));
        assert!(board.resume(&KEY).unwrap());
        assert!(!board.current().stops(&KEY));
    }

    #[test]
    fn what_cannot_be_written_is_stopped_and_not_resumed() {
        let directory = tempfile::tempdir().unwrap();
        let gone = directory.path().join("gone");
        let board = Switchboard::open(Some(&gone)).unwrap();
        board.stop(KEY, 0, "now".to_owned(), &[]).unwrap_err();
        assert!(board.current().stops(&KEY));
        board.resume(&KEY).unwrap_err();
        assert!(board.current().stops(&KEY));
    }

    /// Waits for `what`, with a bound that only a server that hangs comes to.
    fn wait_until(what: impl Fn() -> bool) {
        let limit = clock::now() + Duration::from_secs(10);
        while !what() {
            assert!(clock::now() < limit, "it does not happen");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// The disk answers again. A pipe cannot be flushed, so the write that waited fails; the next finds none in the place
    /// where it was.
    fn answer(new: &Path) -> File {
        let aside = new.with_extension("aside");
        fs::rename(new, &aside).unwrap();
        File::options()
            .read(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(&aside)
            .unwrap()
    }

    /// A disk that takes a file and does not answer: a pipe without a reader in the place of the new file.
    #[test]
    fn a_stop_counts_while_the_disk_keeps_another_one_waiting() {
        let directory = tempfile::tempdir().unwrap();
        let new = directory.path().join("stops.new");
        nix::unistd::mkfifo(&new, Mode::S_IRWXU).unwrap();
        let mut board = Switchboard::open(Some(directory.path())).unwrap();
        // However slow the machine: none of them gives up.
        board.patience = Duration::from_mins(1);
        thread::scope(|scope| {
            let first = scope.spawn(|| board.stop(KEY, 0, "one".to_owned(), &[]));
            wait_until(|| board.current().stops(&KEY));
            let second = scope.spawn(|| board.stop(Subject::All, 0, "all".to_owned(), &[]));
            wait_until(|| board.current().stops(&Subject::All));
            let third = scope.spawn(|| board.revoke_tickets(&Subject::All, 5));
            wait_until(|| board.current().generation(&[7; 20]) == 5);
            assert!(!first.is_finished() && !second.is_finished() && !third.is_finished());

            let pipe = answer(&new);
            first.join().unwrap().unwrap_err();
            assert!(second.join().unwrap().unwrap());
            assert_eq!(third.join().unwrap().unwrap(), 5);
            drop(pipe);
        });
        let again = Switchboard::open(Some(directory.path())).unwrap();
        assert_eq!(**again.current(), **board.current());
        assert_eq!(subjects(&again).len(), 2);
    }

    /// As many as there may be at the control socket, and more: all are answered, and nothing is left unwritten.
    #[test]
    fn a_disk_that_hangs_keeps_one_command_and_writes_what_the_others_left() {
        let directory = tempfile::tempdir().unwrap();
        let new = directory.path().join("stops.new");
        let mut board = Switchboard::open(Some(directory.path())).unwrap();
        board.patience = Duration::from_millis(20);
        let edge = Subject::Client("edge".to_owned());
        board.stop(edge.clone(), 0, "edge".to_owned(), &[]).unwrap();
        nix::unistd::mkfifo(&new, Mode::S_IRWXU).unwrap();
        thread::scope(|scope| {
            let first = scope.spawn(|| board.stop(KEY, 0, "one".to_owned(), &[]));
            wait_until(|| board.current().stops(&KEY));
            let others = scope.spawn(|| {
                for number in 0..20 {
                    let subject = Subject::Key([number; 20]);
                    let error = board.stop(subject.clone(), 0, "more".to_owned(), &[]);
                    let error = error.unwrap_err().to_string();
                    assert!(error.contains("counts, but is not on disk"), "{error}");
                    assert!(board.current().stops(&subject));
                }
                board.revoke_tickets(&Subject::All, 5).unwrap_err();
                let error = board.resume(&edge).unwrap_err().to_string();
                assert!(error.contains("stays stopped"), "{error}");
                assert!(board.current().stops(&edge));
            });
            wait_until(|| others.is_finished());
            assert!(!first.is_finished());
            others.join().unwrap();
            // The first of its writes fails, and the one that it was left does not.
            let pipe = answer(&new);
            assert!(first.join().unwrap().unwrap());
            drop(pipe);
        });
        let again = Switchboard::open(Some(directory.path())).unwrap();
        assert_eq!(**again.current(), **board.current());
        assert_eq!(subjects(&again).len(), 21);
        assert_eq!(again.current().generation(&[7; 20]), 5);
        assert!(board.resume(&edge).unwrap());
    }

    /// The same where the one whose write hangs lets something go on.
    #[test]
    fn a_stop_that_was_left_to_whoever_resumes_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let new = directory.path().join("stops.new");
        let mut board = Switchboard::open(Some(directory.path())).unwrap();
        board.patience = Duration::from_millis(20);
        board.stop(KEY, 0, "one".to_owned(), &[]).unwrap();
        nix::unistd::mkfifo(&new, Mode::S_IRWXU).unwrap();
        thread::scope(|scope| {
            let resuming = scope.spawn(|| board.resume(&KEY));
            wait_until(|| lock(&board.resuming).is_some());
            let all = scope.spawn(|| board.stop(Subject::All, 0, "all".to_owned(), &[]));
            wait_until(|| all.is_finished());
            all.join().unwrap().unwrap_err();
            let pipe = answer(&new);
            resuming.join().unwrap().unwrap_err();
            drop(pipe);
        });
        let again = Switchboard::open(Some(directory.path())).unwrap();
        assert_eq!(**again.current(), **board.current());
        assert_eq!(subjects(&again).len(), 2);
    }

    #[test]
    fn a_stop_is_not_lost_to_whoever_lets_it_go_on_at_that_moment() {
        let directory = tempfile::tempdir().unwrap();
        let board = Switchboard::open(Some(directory.path())).unwrap();
        board.stop(KEY, 1, "one".to_owned(), &[]).unwrap();
        // Both while the disk has what lets it go on.
        let (on_disk, was_stopped) = board.begin_resuming(&KEY);
        assert!(was_stopped && !on_disk.stops(&KEY) && board.current().stops(&KEY));
        assert!(board.stop(KEY, 2, "two".to_owned(), &[KEY]).unwrap());
        board.stop(Subject::All, 3, "all".to_owned(), &[]).unwrap();
        board.end_resuming(&KEY, true);
        let again = Switchboard::open(Some(directory.path())).unwrap();
        for board in [&board, &again] {
            assert!(board.current().stops(&KEY) && board.current().stops(&Subject::All));
            assert_eq!(board.current().by_subject[&KEY].reason, "two");
            assert_eq!(board.current().generation(&[7; 20]), 1);
        }
        // Nothing else was stopped meanwhile: it goes on, and what was stopped meanwhile does not.
        board.begin_resuming(&KEY);
        board
            .stop(
                Subject::Client("edge".to_owned()),
                4,
                "edge".to_owned(),
                &[],
            )
            .unwrap();
        board.end_resuming(&KEY, true);
        assert_eq!(subjects(&board).len(), 2);
        assert!(!board.current().stops(&KEY));
    }
}
