//! A machine with any number of crypto threads, and the time that passes on it.
//!
//! ```text
//!   arrivals ---> queue.push -----------> refused: the client hears it at once
//!                    |
//!   threads:  queue.take -> slice -> slice -> ... -> answered -> queue.take
//!                              ^ queue.take_brief in between, as `Engine::run_yielding` offers
//! ```
//!
//! The queue is the server's own, or one of the simpler ones it is compared with. Everything else
//! is replaced: threads are entries in a list, work is time that passes, and the clock is a number
//! that jumps from event to event. The same seed gives the same run on every machine.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use accel::Class;
use keyserver::dispatch::scheduler::{Client, Overload, Scheduler, Ticket, Times, Turn};

use crate::load::{Arrivals, Source};
use crate::record::Record;

/// How long a batch runs before brief work may be slipped in.
const SLICE_NS: u64 = 150_000;
/// From the push of a job until a sleeping thread looks.
const WAKE_NS: u64 = 10_000;
/// From the answer until a client that keeps a number of requests in flight has sent the next.
const ROUND_TRIP_NS: u64 = 100_000;

/// A job under way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Job {
    pub(crate) source: usize,
    pub(crate) class: Class,
    pub(crate) came_ns: u64,
    /// When its client loses patience.
    pub(crate) patience_ns: u64,
}

/// What the threads take from: the server's queues, or simpler ones.
pub(crate) trait Queue {
    fn push(&mut self, now: Instant, ticket: Ticket, job: Job) -> Result<(), (Overload, Job)>;
    fn take(&mut self, now: Instant, batch: &mut Vec<Job>, late: &mut Vec<Job>) -> Option<Turn>;
    fn take_brief(
        &mut self,
        now: Instant,
        batch: &mut Vec<Job>,
        late: &mut Vec<Job>,
    ) -> Option<Turn>;
    fn end(&mut self, turn: Turn);
}

impl Queue for Scheduler<Job> {
    fn push(&mut self, now: Instant, ticket: Ticket, job: Job) -> Result<(), (Overload, Job)> {
        Self::push(self, now, ticket, job)
    }

    fn take(&mut self, now: Instant, batch: &mut Vec<Job>, late: &mut Vec<Job>) -> Option<Turn> {
        Self::take(self, now, batch, late)
    }

    fn take_brief(
        &mut self,
        now: Instant,
        batch: &mut Vec<Job>,
        late: &mut Vec<Job>,
    ) -> Option<Turn> {
        Self::take_brief(self, now, batch, late)
    }

    fn end(&mut self, turn: Turn) {
        Self::end(self, turn);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A source has its next request.
    Arrival(usize),
    /// A thread has come to the end of a slice, or woke up.
    Thread(usize),
}

#[derive(Debug, Default)]
struct Thread {
    asleep: bool,
    turn: Option<Turn>,
    batch: Vec<Job>,
    /// Time of the turn that is still to come.
    left_ns: u64,
    /// Brief work that was slipped in.
    brief: Option<Turn>,
    brief_batch: Vec<Job>,
}

/// The whole of a simulated server and its clients.
pub(crate) struct Machine<Q> {
    queue: Q,
    times: Times,
    threads: Vec<Thread>,
    arrivals: Arrivals,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    sequence: u64,
    origin: Instant,
    now_ns: u64,
    late: Vec<Job>,
    record: Record,
}

impl<Q: Queue> Machine<Q> {
    pub(crate) fn new(times: &Times, threads: usize, queue: Q, sources: &[Source]) -> Self {
        Self {
            queue,
            times: times.clone(),
            threads: (0..threads)
                .map(|_| Thread {
                    asleep: true,
                    ..Thread::default()
                })
                .collect(),
            arrivals: Arrivals::new(sources),
            events: BinaryHeap::new(),
            sequence: 0,
            origin: keyserver::clock::now(),
            now_ns: 0,
            late: Vec::new(),
            record: Record::new(sources.len(), threads),
        }
    }

    /// Lets time pass: `warmup` that is not recorded, and `measured` that is.
    pub(crate) fn run(mut self, warmup: Duration, measured: Duration) -> Record {
        let from_ns = nanos(warmup);
        let until_ns = from_ns + nanos(measured);
        self.record.measure(from_ns, until_ns);
        for source in 0..self.arrivals.len() {
            for at_ns in self.arrivals.first(source) {
                self.plan(at_ns, Event::Arrival(source));
            }
        }
        while let Some(Reverse((at_ns, _, event))) = self.events.pop() {
            if at_ns >= until_ns {
                break;
            }
            self.now_ns = at_ns;
            match event {
                Event::Arrival(source) => self.arrive(source),
                Event::Thread(thread) => self.turn(thread),
            }
        }
        self.record
    }

    fn plan(&mut self, at_ns: u64, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((at_ns, self.sequence, event)));
    }

    fn instant(&self, at_ns: u64) -> Instant {
        self.origin + Duration::from_nanos(at_ns)
    }

    fn arrive(&mut self, source: usize) {
        let (settings, next_ns) = self.arrivals.next(source, self.now_ns);
        if let Some(at_ns) = next_ns {
            self.plan(at_ns, Event::Arrival(source));
        }
        let job = Job {
            source,
            class: settings.class,
            came_ns: self.now_ns,
            patience_ns: self.now_ns + nanos(settings.patience),
        };
        let ticket = Ticket {
            class: settings.class,
            client: Client {
                number: settings.client,
                weight: settings.weight,
            },
            deadline: self.instant(self.now_ns + nanos(settings.deadline)),
        };
        let now = self.instant(self.now_ns);
        match self.queue.push(now, ticket, job) {
            Ok(()) => self.wake_one(),
            Err((overload, job)) => {
                self.record.refused(&job);
                let again = match overload {
                    Overload::Busy { retry_after } => nanos(retry_after).max(1_000_000),
                    Overload::TooLate => ROUND_TRIP_NS,
                };
                self.ask_again(job.source, again);
            }
        }
    }

    fn wake_one(&mut self) {
        if let Some(thread) = self.threads.iter().position(|thread| thread.asleep) {
            self.threads[thread].asleep = false;
            self.plan(self.now_ns + WAKE_NS, Event::Thread(thread));
        }
    }

    /// A client that keeps requests in flight sends the next one.
    fn ask_again(&mut self, source: usize, after_ns: u64) {
        if self.arrivals.is_closed(source) {
            self.plan(self.now_ns + after_ns, Event::Arrival(source));
        }
    }

    fn turn(&mut self, at: usize) {
        let now = self.instant(self.now_ns);
        let mut thread = std::mem::take(&mut self.threads[at]);
        if let Some(turn) = thread.brief.take() {
            self.queue.end(turn);
            self.answer(&mut thread.brief_batch);
        } else if thread.left_ns > 0
            && let Some(turn) = self
                .queue
                .take_brief(now, &mut thread.brief_batch, &mut self.late)
        {
            thread.brief = Some(turn);
            self.plan(self.now_ns + nanos(turn.time), Event::Thread(at));
            self.threads[at] = thread;
            self.lose_late();
            return;
        }
        if thread.left_ns == 0 {
            if let Some(turn) = thread.turn.take() {
                self.queue.end(turn);
                self.answer(&mut thread.batch);
            }
            if let Some(turn) = self.queue.take(now, &mut thread.batch, &mut self.late) {
                thread.turn = Some(turn);
                thread.left_ns = nanos(turn.time);
                self.record.began(turn.class, turn.jobs);
            } else {
                thread.asleep = true;
            }
        }
        if let Some(turn) = thread.turn {
            let whole = turn.is_long || turn.is_brief || turn.jobs < 3;
            let slice_ns = if whole {
                thread.left_ns
            } else {
                thread.left_ns.min(SLICE_NS)
            };
            thread.left_ns -= slice_ns;
            self.plan(self.now_ns + slice_ns, Event::Thread(at));
        }
        self.threads[at] = thread;
        self.lose_late();
    }

    fn answer(&mut self, batch: &mut Vec<Job>) {
        for job in batch.drain(..) {
            self.record
                .answered(&job, self.now_ns, self.times.job(job.class));
            self.ask_again(job.source, ROUND_TRIP_NS);
        }
    }

    fn lose_late(&mut self) {
        for job in std::mem::take(&mut self.late) {
            self.record.expired(&job);
            self.ask_again(job.source, ROUND_TRIP_NS);
        }
    }
}

pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
