//! One private-key operation on its way through the server.

use std::time::Instant;

use accel::{Class, JobError, KeyExchange, Operation};
use zeroize::Zeroize;

use super::scheduler::{Client, Overload};
use crate::delegation::Reservation;
use crate::limits;
use crate::policy::Admitted;
use crate::shard::ConnectionId;
use crate::stops::Stopped;

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// `output` holds the checked result.
    Done,
    /// The engine refused or failed; `output` is empty.
    Failed(JobError),
    /// Nobody ran it before its deadline, or a token did not answer by then.
    TooLate,
    /// It was not let into its queue.
    Refused(Overload),
    /// No slot that holds its key can be used.
    #[cfg(feature = "pkcs11")]
    Unavailable,
    /// The ciphertext was answered before, and this is no honest retry.
    Replayed,
    /// The ledger of ciphertexts cannot be written, or there is none: nothing is opened.
    NoLedger,
    /// The credential that it signed cannot be written down: it is not released.
    Unwritten,
    /// An operator stopped its key, its client or the server while it waited.
    Stopped(Stopped),
}

/// The delegated credential that a job signs.
#[derive(Debug)]
pub(crate) struct Pending {
    /// The credential up to its signature: what the answer begins with.
    pub(crate) head: Vec<u8>,
    /// Its place among those that are about.
    pub(crate) reservation: Reservation,
}

/// A job: who asked, what for, and room for the answer. Buffers keep their capacity from use to
/// use; their content is wiped.
#[derive(Debug)]
pub(crate) struct Job {
    /// The I/O thread that owns the connection.
    pub(crate) shard: usize,
    /// The connection on that thread.
    pub(crate) connection: ConnectionId,
    /// Echoed in the reply.
    pub(crate) request_id: u32,
    /// Whether the client understands our error codes.
    pub(crate) extended: bool,
    /// The permission under which the job runs. Holds the snapshot, and with it the key.
    pub(crate) admitted: Option<Admitted>,
    /// What to do with the key.
    pub(crate) operation: Operation,
    /// What becomes of an opened ciphertext.
    pub(crate) exchange: Option<KeyExchange>,
    /// The delegated credential that its result completes.
    pub(crate) credential: Option<Box<Pending>>,
    /// Whether the ledger has decided about it, or its credential is written down.
    pub(crate) is_recorded: bool,
    /// It waits for nobody but the threads, and counts in the window of its connection.
    pub(crate) in_window: bool,
    /// The queue it waits in.
    pub(crate) class: Class,
    /// On whose account.
    pub(crate) client: Client,
    /// Hash, message or ciphertext.
    pub(crate) input: Vec<u8>,
    /// The result.
    pub(crate) output: Vec<u8>,
    /// How it ended.
    pub(crate) outcome: Outcome,
    /// When the request was admitted.
    pub(crate) admitted_at: Instant,
    /// When a crypto thread took it.
    pub(crate) taken_at: Instant,
    /// Past this nobody waits for the answer any more.
    pub(crate) deadline: Instant,
}

/// On whose account a job goes.
pub(crate) fn client_of(admitted: &Admitted) -> Client {
    let id = admitted.client();
    Client {
        number: id.number(),
        weight: admitted.snapshot().policy.weight(id),
    }
}

impl Job {
    fn new(shard: usize, now: Instant) -> Self {
        Self {
            shard,
            connection: ConnectionId::default(),
            request_id: 0,
            extended: false,
            admitted: None,
            operation: Operation::Ed25519Sign,
            exchange: None,
            credential: None,
            is_recorded: false,
            in_window: false,
            class: Class::Ed25519,
            client: Client {
                number: 0,
                weight: 1,
            },
            input: Vec::new(),
            output: Vec::new(),
            outcome: Outcome::TooLate,
            admitted_at: now,
            taken_at: now,
            deadline: now,
        }
    }

    /// Whether it has opened a ciphertext about which the ledger has yet to decide.
    pub(crate) fn awaits_ledger(&self) -> bool {
        self.exchange.is_some() && !self.is_recorded && self.outcome == Outcome::Done
    }

    /// Whether it has signed a credential that is yet to be written down.
    pub(crate) fn awaits_keeper(&self) -> bool {
        self.credential.is_some() && !self.is_recorded && self.outcome == Outcome::Done
    }

    /// What is answered, where `stopped` says whether the result may not leave any more.
    ///
    /// An opened ciphertext leaves only if the ledger has decided about it, and a credential only when it is written
    /// down: whatever was stopped when it should have gone there, and is not now.
    pub(crate) fn final_outcome(&self, stopped: Option<Stopped>) -> Outcome {
        match (self.outcome, stopped) {
            (Outcome::Done, Some(stopped)) => Outcome::Stopped(stopped),
            (Outcome::Done, None) if self.awaits_ledger() => Outcome::NoLedger,
            (Outcome::Done, None) if self.awaits_keeper() => Outcome::Unwritten,
            (outcome, _) => outcome,
        }
    }

    /// Wipes what the job carried. Only the used part of a buffer can hold anything: the rest was
    /// wiped when it was last used.
    fn wipe(&mut self) {
        self.admitted = None;
        self.credential = None;
        self.input.as_mut_slice().zeroize();
        self.input.clear();
        self.output.as_mut_slice().zeroize();
        self.output.clear();
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.wipe();
    }
}

/// The jobs that one I/O thread may have under way: at most as many as its completion ring holds.
///
/// A client is given another one as long as it has fewer than half of those left (dynamic thresholds:
/// Choudhury and Hahne, IEEE/ACM Transactions on Networking 1998). One alone may have a third of them,
/// two a quarter each: whoever takes all that it is given leaves room for the next.
#[derive(Debug)]
pub(crate) struct JobPool {
    shard: usize,
    all: usize,
    free: Vec<Box<Job>>,
    /// Jobs that have not been made yet.
    unmade: usize,
    /// Jobs under way by client; see [`account`].
    held: Box<[usize]>,
    /// Of those, the ones that open a ciphertext, and their sum.
    opening: Box<[usize]>,
    all_opening: usize,
}

impl JobPool {
    /// A pool of at most `jobs` jobs for I/O thread number `shard`. They are made on first use.
    pub(crate) fn new(shard: usize, jobs: usize) -> Self {
        Self {
            shard,
            all: jobs,
            free: Vec::with_capacity(jobs),
            unmade: jobs,
            held: vec![0; limits::JOB_ACCOUNTS].into_boxed_slice(),
            opening: vec![0; limits::JOB_ACCOUNTS].into_boxed_slice(),
            all_opening: 0,
        }
    }

    /// An empty job for this client, or nothing when it has its share or all are under way.
    pub(crate) fn take(&mut self, now: Instant, client: Client) -> Option<Box<Job>> {
        let left = self.free.len() + self.unmade;
        let held = self.held.get_mut(account(client))?;
        if 2 * *held >= left {
            return None;
        }
        let mut job = self.free.pop().or_else(|| {
            self.unmade = self.unmade.checked_sub(1)?;
            Some(Box::new(Job::new(self.shard, now)))
        })?;
        *held += 1;
        job.client = client;
        Some(job)
    }

    /// Jobs that have not come back.
    pub(crate) fn under_way(&self) -> usize {
        self.all - self.unmade - self.free.len()
    }

    /// Whether another job of this client may open a ciphertext. If it does, [`Self::opens`] counts it.
    pub(crate) fn may_open(&self, client: Client) -> bool {
        let opening = self.opening.get(account(client)).copied();
        opening.is_some_and(|opening| opening < limits::OPENING_PER_CLIENT)
            && self.all_opening < limits::OPENING
    }

    /// A job of this client opens a ciphertext, and may wait for the ledger until it is released.
    pub(crate) fn opens(&mut self, client: Client) {
        self.all_opening += 1;
        if let Some(opening) = self.opening.get_mut(account(client)) {
            *opening += 1;
        }
    }

    /// Wipes a job and keeps it for the next request.
    pub(crate) fn release(&mut self, mut job: Box<Job>) {
        if let Some(held) = self.held.get_mut(account(job.client)) {
            *held = held.saturating_sub(1);
        }
        if job.exchange.take().is_some() {
            self.all_opening = self.all_opening.saturating_sub(1);
            if let Some(opening) = self.opening.get_mut(account(job.client)) {
                *opening = opening.saturating_sub(1);
            }
        }
        job.wipe();
        self.free.push(job);
    }
}

/// The account of a client. The upper half of its number counts policies, the lower one clients of one.
fn account(client: Client) -> usize {
    let mixed = client.number ^ (client.number >> 32);
    usize::try_from(mixed % limits::JOB_ACCOUNTS as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u64) -> Client {
        Client { number, weight: 1 }
    }

    #[test]
    fn an_opened_ciphertext_leaves_only_when_it_is_recorded() {
        let mut job = Job::new(0, crate::clock::now());
        job.outcome = Outcome::Done;
        assert_eq!(job.final_outcome(None), Outcome::Done);
        let stopped = Outcome::Stopped(Stopped::All);
        assert_eq!(job.final_outcome(Some(Stopped::All)), stopped);
        job.exchange = Some(KeyExchange::Compatible);
        assert_eq!(job.final_outcome(None), Outcome::NoLedger);
        assert_eq!(job.final_outcome(Some(Stopped::All)), stopped);
        job.is_recorded = true;
        assert_eq!(job.final_outcome(None), Outcome::Done);
        job.outcome = Outcome::Replayed;
        assert_eq!(job.final_outcome(Some(Stopped::All)), Outcome::Replayed);
    }

    #[test]
    fn a_pool_is_bounded_and_wipes_what_comes_back() {
        let now = crate::clock::now();
        let mut pool = JobPool::new(0, 2);
        let mut first = pool.take(now, client(1)).expect("first");
        let second = pool.take(now, client(2)).expect("second");
        assert!(pool.take(now, client(3)).is_none());
        first.input.extend_from_slice(b"premaster");
        first.output.extend_from_slice(b"result");
        let (input, output) = (first.input.as_ptr(), first.output.as_ptr());
        pool.release(first);
        let again = pool.take(now, client(1)).expect("again");
        assert!(again.input.is_empty() && again.output.is_empty());
        assert_eq!(
            (again.input.as_ptr(), again.output.as_ptr()),
            (input, output)
        );
        pool.release(again);
        pool.release(second);
    }

    /// Jobs until none is given.
    fn fill(pool: &mut JobPool, number: u64) -> Vec<Box<Job>> {
        let now = crate::clock::now();
        std::iter::from_fn(|| pool.take(now, client(number))).collect()
    }

    #[test]
    fn whoever_takes_all_that_it_is_given_leaves_room_for_others() {
        let mut pool = JobPool::new(0, 1200);
        let first = fill(&mut pool, 1);
        assert_eq!(first.len(), 400);
        let second = fill(&mut pool, 2);
        let third = fill(&mut pool, 3);
        assert_eq!((second.len(), third.len()), (267, 178));
        // What the greedy one gives back is not its own any more.
        for job in first.into_iter().take(100) {
            pool.release(job);
        }
        assert_eq!(fill(&mut pool, 1).len(), 0);
        assert!(!fill(&mut pool, 4).is_empty());
        // A policy that was replaced has other clients.
        assert_ne!(account(client(1)), account(client(1 << 32 | 2)));
    }

    #[test]
    fn a_ledger_that_hangs_keeps_a_part_of_the_jobs_and_no_client_all_of_its_own() {
        let mut pool = JobPool::new(0, limits::JOBS_PER_SHARD);
        let mut waiting = Vec::new();
        for number in 1..=8 {
            while pool.may_open(client(number)) {
                let mut job = pool
                    .take(crate::clock::now(), client(number))
                    .expect("room");
                job.exchange = Some(KeyExchange::Compatible);
                pool.opens(client(number));
                waiting.push(job);
            }
        }
        assert_eq!(waiting.len(), limits::OPENING);
        for number in 1..=4 {
            assert!(pool.take(crate::clock::now(), client(number)).is_some());
        }
        for job in waiting {
            pool.release(job);
        }
        assert_eq!(pool.all_opening, 0);
        assert!(pool.may_open(client(8)));
    }
}
