//! The queues between the I/O threads and the crypto threads: one [`Scheduler`] behind a lock, and
//! the rule for who is woken.
//!
//! A wake-up is a system call and takes tens of microseconds to arrive, so nobody is woken who is
//! awake, and no more threads than there are turns to take. Where CPUs are plenty a thread without
//! work looks for some more microseconds before it goes to sleep; see [`Placement::spin`].
//!
//! [`Placement::spin`]: crate::placement::Placement::spin

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use accel::Class;

use super::job::{Job, Outcome};
use super::scheduler::{Bounds, Figures, Scheduler, Ticket, Times, Turn};
use crate::state::Heartbeat;
use crate::{clock, limits};

/// The queues of one cell: its I/O threads put in, its crypto threads take out.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    waiting: Mutex<Waiting>,
    work: Condvar,
    /// Jobs that wait, for a look without the lock.
    hint: AtomicUsize,
    /// Little waits, for a look without the lock.
    runs_low: AtomicBool,
    spin: Duration,
}

#[derive(Debug)]
struct Waiting {
    scheduler: Scheduler<Box<Job>>,
    /// Refused jobs on their way back to the caller.
    refused: Vec<Box<Job>>,
    /// Threads that sleep and have not been told to wake.
    asleep: usize,
    /// Threads that were told to wake and have not looked yet.
    called: usize,
    /// Threads that look without the lock.
    looking: usize,
    stopping: bool,
}

/// What a crypto thread has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Run the batch, and hand back what is late.
    Turn(Turn),
    /// Hand back what is late.
    OnlyLate,
    /// End.
    Stop,
}

/// The jobs a crypto thread has in hand.
#[derive(Debug)]
pub(crate) struct Hands {
    /// To be run.
    pub(crate) batch: Vec<Box<Job>>,
    /// Past their deadline: to be handed back.
    pub(crate) late: Vec<Box<Job>>,
}

impl Hands {
    /// Empty hands.
    pub(crate) fn new() -> Self {
        Self {
            batch: Vec::with_capacity(limits::BATCH_MAX),
            late: Vec::with_capacity(limits::JOBS_PER_SHARD),
        }
    }
}

impl Dispatcher {
    /// Empty queues. A crypto thread that finds nothing looks for `spin` before it sleeps.
    pub(crate) fn new(times: Times, bounds: Bounds, spin: Duration) -> Self {
        let waiting = Waiting {
            scheduler: Scheduler::new(times, bounds),
            refused: Vec::with_capacity(bounds.jobs_max),
            asleep: 0,
            called: 0,
            looking: 0,
            stopping: false,
        };
        Self {
            waiting: Mutex::new(waiting),
            work: Condvar::new(),
            hint: AtomicUsize::new(0),
            runs_low: AtomicBool::new(true),
            spin,
        }
    }

    /// Queues `jobs` and empties it, except for those that are refused: they stay, and their
    /// outcome says why.
    pub(crate) fn submit(&self, jobs: &mut Vec<Box<Job>>) {
        let now = clock::now();
        let mut waiting = self.lock();
        let Waiting {
            scheduler, refused, ..
        } = &mut *waiting;
        for job in jobs.drain(..) {
            let ticket = Ticket {
                class: job.class,
                client: job.client,
                deadline: job.deadline,
            };
            if let Err((refusal, mut job)) = scheduler.push(now, ticket, job) {
                job.outcome = Outcome::Refused(refusal);
                refused.push(job);
            }
        }
        jobs.append(refused);
        let wake = waiting.call();
        self.publish(&waiting);
        drop(waiting);
        for _ in 0..wake {
            self.work.notify_one();
        }
    }

    /// Waits for work. `ended` is the turn that the thread has just finished. While nothing waits, `idle` is called, at least
    /// once before the thread sleeps, and for as long as it says that it found something to do, about 100 us each time.
    ///
    /// `heartbeat` beats while it waits, so that silence means a thread stuck in the engine.
    pub(crate) fn take(
        &self,
        ended: Option<Turn>,
        heartbeat: &Heartbeat,
        hands: &mut Hands,
        idle: &mut dyn FnMut() -> bool,
    ) -> Next {
        let mut waiting = self.lock();
        if let Some(turn) = ended {
            waiting.scheduler.end(turn);
        }
        let (mut looked, mut idled) = (false, false);
        loop {
            heartbeat.tick();
            let Hands { batch, late } = hands;
            if let Some(turn) = waiting.scheduler.take(clock::now(), batch, late) {
                self.publish(&waiting);
                return Next::Turn(turn);
            }
            if !hands.late.is_empty() {
                self.publish(&waiting);
                return Next::OnlyLate;
            }
            if waiting.stopping {
                return Next::Stop;
            }
            if !looked && !self.spin.is_zero() {
                looked = true;
                waiting.looking += 1;
                drop(waiting);
                self.look();
                waiting = self.lock();
                waiting.looking -= 1;
                continue;
            }
            if !idled {
                drop(waiting);
                idled = !idle();
                waiting = self.lock();
                // What came meanwhile may have woken nobody.
                continue;
            }
            waiting.asleep += 1;
            let woken = self.work.wait_timeout(waiting, limits::HEARTBEAT);
            (waiting, _) = woken.unwrap_or_else(PoisonError::into_inner);
            waiting.wake_up();
            (looked, idled) = (false, false);
        }
    }

    /// Like [`Self::take`] for brief work only, and without waiting for it.
    pub(crate) fn take_brief(&self, hands: &mut Hands) -> Option<Turn> {
        let mut waiting = self.lock();
        let Hands { batch, late } = hands;
        let turn = waiting.scheduler.take_brief(clock::now(), batch, late);
        self.publish(&waiting);
        turn
    }

    /// What has happened in a class, and what waits.
    pub(crate) fn figures(&self, class: Class) -> Figures {
        self.lock().scheduler.figures(class)
    }

    /// Whether the crypto threads will soon have nothing to do.
    pub(crate) fn runs_low(&self) -> bool {
        self.runs_low.load(Ordering::Relaxed)
    }

    /// Lets the crypto threads finish what is queued and end.
    pub(crate) fn stop(&self) {
        self.lock().stopping = true;
        self.work.notify_all();
    }

    /// Spins until something waits, but not for long.
    fn look(&self) {
        let until = clock::now() + self.spin;
        while self.hint.load(Ordering::Relaxed) == 0 && clock::now() < until {
            std::hint::spin_loop();
        }
    }

    fn publish(&self, waiting: &Waiting) {
        let runs_low = waiting.scheduler.work_left() < limits::LITTLE_WORK;
        self.runs_low.store(runs_low, Ordering::Relaxed);
        if !self.spin.is_zero() {
            self.hint.store(waiting.scheduler.len(), Ordering::Relaxed);
        }
    }

    /// The lock guards plain data that is whole after every statement, so a panic elsewhere while
    /// it was held leaves nothing broken.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// How many sleeping threads to wake for what waits. They count as awake from here on.
    fn call(&mut self) -> usize {
        if self.asleep == 0 {
            return 0;
        }
        let coming = self.called + self.looking;
        let missing = self.scheduler.turns_waiting().saturating_sub(coming);
        let wake = missing.min(self.asleep);
        self.asleep -= wake;
        self.called += wake;
        wake
    }

    /// A sleeper is awake: because it was called, or by itself. Which of several took the call
    /// does not matter, the sum is right.
    fn wake_up(&mut self) {
        if self.called > 0 {
            self.called -= 1;
        } else {
            self.asleep = self.asleep.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use accel::Cost;

    use super::super::job::JobPool;
    use super::super::scheduler::Client;
    use super::*;
    use crate::state::Health;

    /// The last of three threads leaves long work to the others while brief work comes, and sleeps meanwhile.
    #[test]
    fn a_thread_that_may_not_take_what_waits_sleeps() {
        let long = Duration::from_millis(50);
        let times = Times::new(Class::ALL.map(|class| Cost {
            single: if class == Class::P256 {
                Duration::from_micros(12)
            } else {
                long
            },
            batch: None,
        }));
        let bounds = Bounds {
            threads: 3,
            queue_time: Duration::from_secs(1),
            jobs_min: 8,
            jobs_max: 8,
        };
        let dispatcher = Arc::new(Dispatcher::new(times, bounds, Duration::ZERO));
        let heartbeat = Health::default().watch("test");
        let client = Client {
            number: 1,
            weight: 1,
        };
        let (mut pool, mut jobs) = (JobPool::new(0, 16), Vec::new());
        for class in [Class::P256, Class::Rsa2048, Class::Rsa3072, Class::Rsa4096] {
            let mut job = pool.take(clock::now(), client).expect("room");
            job.class = class;
            job.deadline = clock::now() + Duration::from_secs(60);
            jobs.push(job);
        }
        dispatcher.submit(&mut jobs);
        assert!(jobs.is_empty());
        let mut hands = Hands::new();
        for _ in 0..3 {
            let next = dispatcher.take(None, &heartbeat, &mut hands, &mut || false);
            assert!(matches!(next, Next::Turn(_)), "{next:?}");
        }
        let third = std::thread::spawn({
            let dispatcher = Arc::clone(&dispatcher);
            move || {
                let (mut hands, mut idles) = (Hands::new(), 0);
                let next = dispatcher.take(None, &heartbeat, &mut hands, &mut || {
                    idles += 1;
                    false
                });
                (next, idles)
            }
        });
        std::thread::sleep(Duration::from_millis(50));
        dispatcher.stop();
        let (next, idles) = third.join().unwrap();
        assert_eq!(next, Next::Stop);
        assert!(idles <= 2, "it looked {idles} times");
    }
}
