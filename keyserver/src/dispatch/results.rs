//! What a crypto thread has finished, on its way to the I/O threads.
//!
//! A reply costs little more than nothing when it leaves with others of its connection: what costs is waking the I/O
//! thread, changing from one thread to the other and going through TCP. Where both have a CPU together, an I/O thread that
//! is told of each batch of P-256 runs after each, and sends eight replies. So it is told when there is no more to do, or when
//! the next batch would make a result wait for longer than it may: for [`limits::GATHERING`], as the signatures of a
//! dozen connections, whose requests came together, leave together; and for longer where requests wait for long, since
//! there it takes longer until a connection has several.
//!
//! An I/O thread with a CPU of its own is told at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::completion::CompletionRing;
use super::job::Job;
use crate::{clock, limits};

/// The results of one crypto thread.
#[derive(Debug)]
pub(super) struct Results<'a> {
    rings: &'a [Arc<CompletionRing>],
    /// Whether the I/O threads run on the CPU of this thread.
    gives_way: bool,
    /// I/O threads that have not been told, a bit for each, from the 64th on together with others.
    untold: u64,
    /// By when they are to be told.
    tell_by: Option<Instant>,
    /// When the I/O threads of this CPU had last taken all results.
    let_in_at: Instant,
}

impl<'a> Results<'a> {
    /// None so far, for the I/O threads of these rings.
    pub(super) fn new(rings: &'a [Arc<CompletionRing>], gives_way: bool) -> Self {
        Self {
            rings,
            gives_way,
            untold: 0,
            tell_by: None,
            let_in_at: clock::now(),
        }
    }

    /// Gives a job that has just ended back to the I/O thread it came from, which is not told yet.
    pub(super) fn add(&mut self, job: Box<Job>, now: Instant) {
        let (shard, came) = (job.shard, job.admitted_at);
        if let Some(ring) = self.rings.get(shard) {
            ring.push(job);
            self.untold |= 1 << (shard % 64);
            let tell_by = now + may_be_kept(now.saturating_duration_since(came));
            self.tell_by = Some(self.tell_by.map_or(tell_by, |other| other.min(tell_by)));
        }
    }

    /// What was in hand has been added: the I/O threads are told of it now or later.
    pub(super) fn added(&mut self) {
        if !self.gives_way {
            self.announce();
        }
    }

    /// The thread is about to do something that takes so long.
    pub(super) fn before(&mut self, time: Duration) {
        if let Some(tell_by) = self.tell_by
            && clock::now() + time > tell_by
        {
            self.announce();
        }
    }

    /// Wakes each I/O thread that has results and does not know it, once.
    pub(super) fn announce(&mut self) {
        let untold = std::mem::take(&mut self.untold);
        if untold == 0 {
            return;
        }
        self.tell_by = None;
        let mut is_left = false;
        for (shard, ring) in self.rings.iter().enumerate() {
            if untold & (1 << (shard % 64)) != 0 {
                ring.notify();
                is_left |= ring.has_waiting();
            }
        }
        if self.gives_way {
            self.give_way(is_left);
        }
    }

    /// An I/O thread that is woken runs at once, unless it has just run for long: then the scheduler lets it wait, and
    /// looks again at its next tick only, up to 4 ms later. To give way at once would be as bad, since many replies
    /// cost little more than few.
    fn give_way(&mut self, is_left: bool) {
        let now = clock::now();
        if !is_left {
            self.let_in_at = now;
        } else if now.saturating_duration_since(self.let_in_at) > limits::LET_IN_AFTER {
            std::thread::yield_now();
            self.let_in_at = clock::now();
        }
    }
}

/// How long a result may be kept whose request has waited for so long.
fn may_be_kept(waited: Duration) -> Duration {
    (waited / limits::GATHERING_PART).clamp(limits::GATHERING, limits::GATHERING_MAX)
}

#[cfg(test)]
mod tests {
    use super::super::job::JobPool;
    use super::super::scheduler::Client;
    use super::*;

    /// One result for the I/O thread of the only ring.
    fn finish(results: &mut Results<'_>) {
        let client = Client {
            number: 1,
            weight: 1,
        };
        let mut pool = JobPool::new(0, 1);
        let job = pool.take(clock::now(), client).expect("an empty pool");
        results.add(job, clock::now());
        results.added();
    }

    async fn is_told(ring: &CompletionRing) -> bool {
        tokio::time::timeout(Duration::ZERO, ring.ready())
            .await
            .is_ok()
    }

    #[tokio::test]
    async fn an_io_thread_of_the_same_cpu_is_told_before_long_work_and_before_none() {
        let rings = [Arc::new(CompletionRing::new(8))];
        let mut results = Results::new(&rings, true);
        finish(&mut results);
        // As if no time passed from here on: a test may stand still for longer than results are gathered.
        results.tell_by = Some(clock::now() + Duration::from_hours(1));
        results.before(Duration::from_mins(59));
        assert!(!is_told(&rings[0]).await);
        // The next batch would take too long for the first.
        results.before(Duration::from_mins(61));
        assert!(is_told(&rings[0]).await);
        // There is nothing new.
        results.before(Duration::from_hours(1));
        results.announce();
        assert!(!is_told(&rings[0]).await);
        // There is no other work.
        finish(&mut results);
        results.announce();
        assert!(is_told(&rings[0]).await);
        // Short batches add up.
        finish(&mut results);
        std::thread::sleep(limits::GATHERING);
        results.before(Duration::ZERO);
        assert!(is_told(&rings[0]).await);
    }

    /// Whoever waits for long has its results gathered for longer, unless there are those of others among them.
    #[test]
    fn what_has_waited_little_is_told_soon() {
        let ms = Duration::from_millis;
        assert_eq!(
            [ms(0), ms(1), ms(3), ms(60)].map(may_be_kept),
            [
                limits::GATHERING,
                limits::GATHERING,
                ms(3) / limits::GATHERING_PART,
                limits::GATHERING_MAX
            ]
        );
        let rings = [Arc::new(CompletionRing::new(8))];
        let mut results = Results::new(&rings, true);
        let client = Client {
            number: 1,
            weight: 1,
        };
        let (mut pool, now) = (JobPool::new(0, 8), clock::now());
        for waited in [ms(60), ms(0), ms(60)] {
            let mut job = pool.take(now, client).expect("room");
            job.admitted_at = now.checked_sub(waited).expect("the clock runs");
            results.add(job, now);
        }
        assert_eq!(results.tell_by, Some(now + limits::GATHERING));
    }

    #[tokio::test]
    async fn an_io_thread_with_a_cpu_of_its_own_is_told_at_once() {
        let rings = [Arc::new(CompletionRing::new(8))];
        let mut results = Results::new(&rings, false);
        finish(&mut results);
        assert!(is_told(&rings[0]).await);
    }
}
