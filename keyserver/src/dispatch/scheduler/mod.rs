//! Who may wait, and who goes next.
//!
//! ```text
//!  push:  can it be done by its deadline?             no -> TooLate
//!         does the class have room, in time?          yes -> it waits
//!         does its client have less than its share?   yes -> it waits      no -> Busy, retry after
//!
//!  take:  the cheapest class that has something waiting goes first ...
//!         ... but half of the time, while there is one, a class whose next job has waited too long
//!         ... and where there are three threads or more, one stays free of long turns
//!         within the class: the clients in turn (see flows)
//!         who is past its deadline is handed back, and takes up no lane
//! ```
//!
//! There is no timer: a thread that becomes free takes what is waiting, at most one batch of one
//! class. Waiting for a fuller batch never helped at any load.
//!
//! Nothing here knows threads, locks or clocks: it is generic over what is queued and told the
//! time, so that `tests/simulation` runs the same code on machines that we do not have.

use std::time::{Duration, Instant};

use accel::Class;

use self::admission::Strict;
pub use self::flows::Client;
use self::flows::Flows;
use self::order::Order;
use self::service::Service;
pub use self::turns::{Times, Turn};
use crate::limits;

mod admission;
mod flows;
mod order;
mod service;
mod slab;
mod turns;

const CLASSES: usize = Class::ALL.len();

/// The bounds of a scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Threads that take from it.
    pub threads: usize,
    /// Work that may wait in a class, in time that the threads need for it.
    pub queue_time: Duration,
    /// Jobs that may wait in a class even if they take longer.
    pub jobs_min: usize,
    /// Jobs that may wait in all classes together.
    pub jobs_max: usize,
}

/// What a job asks for when it comes.
#[derive(Debug, Clone, Copy)]
pub struct Ticket {
    /// The queue it belongs to.
    pub class: Class,
    /// For whom.
    pub client: Client,
    /// Past this nobody waits for it.
    pub deadline: Instant,
}

/// Why a job may not wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overload {
    /// Its class has as much waiting as it may, and its client no less than its share of that.
    Busy {
        /// What waits now will have been done by then.
        retry_after: Duration,
    },
    /// It could not be done by its deadline.
    TooLate,
}

/// What has happened in one class so far, and what waits in it now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Jobs that wait.
    pub waiting: usize,
    /// Time that the threads need for them.
    pub wait: Duration,
    /// Jobs refused because the class was full.
    pub busy: u64,
    /// Jobs refused because their deadline could not be kept.
    pub too_late: u64,
    /// Jobs whose deadline passed while they waited.
    pub expired: u64,
}

/// Queues by class, with bounds and an order.
#[derive(Debug)]
pub struct Scheduler<T> {
    flows: Flows<T>,
    times: Times,
    bounds: Bounds,
    order: Order,
    service: Service,
    strict: Strict,
    figures: [Figures; CLASSES],
}

impl<T> Scheduler<T> {
    /// Empty queues.
    #[must_use]
    pub fn new(times: Times, bounds: Bounds) -> Self {
        // Many turns of the dearest class, and some rounds of ageing.
        let window = nanos(2 * limits::AGEING).saturating_mul(bounds.threads.max(2) as u64);
        Self {
            flows: Flows::new(bounds.jobs_max, |class| nanos(times.job(class))),
            times,
            bounds,
            order: Order::default(),
            service: Service::new(window),
            strict: Strict::default(),
            figures: [Figures::default(); CLASSES],
        }
    }

    /// Takes the next turn: moves its jobs to the end of `batch`, and those found past their
    /// deadline to the end of `late`. Whoever takes a turn ends it with [`Self::end`].
    ///
    /// Nothing: nothing waits that may begin now. `late` may have grown all the same.
    pub fn take(&mut self, now: Instant, batch: &mut Vec<T>, late: &mut Vec<T>) -> Option<Turn> {
        loop {
            let class = self.next_class(now)?;
            let turn = self.fill(now, class, batch, late);
            if turn.is_some() {
                return turn;
            }
        }
    }

    /// Like [`Self::take`] for brief classes only.
    pub fn take_brief(
        &mut self,
        now: Instant,
        batch: &mut Vec<T>,
        late: &mut Vec<T>,
    ) -> Option<Turn> {
        (self.times.order().into_iter())
            .take_while(|class| self.times.is_brief(*class))
            .find(|class| self.flows.len(*class) > 0)
            .and_then(|class| self.fill(now, class, batch, late))
    }

    /// The turn is over.
    pub fn end(&mut self, turn: Turn) {
        if turn.is_long {
            self.order.long_turn_ended();
        }
    }

    /// Jobs waiting, in all classes.
    #[must_use]
    pub fn len(&self) -> usize {
        Class::ALL
            .into_iter()
            .map(|class| self.flows.len(class))
            .sum()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The time in which the threads do all that waits, of whatever class.
    #[must_use]
    pub fn work_left(&self) -> Duration {
        let waiting = Class::ALL
            .into_iter()
            .map(|class| self.flows.work_ns(class));
        self.time_alone(waiting.sum())
    }

    /// Turns that what waits would make: more threads than that have nothing to do.
    #[must_use]
    pub fn turns_waiting(&self) -> usize {
        Class::ALL
            .into_iter()
            .map(|class| match self.flows.len(class) {
                0 => 0,
                waiting => waiting.div_ceil(self.times.turn(class, waiting).jobs),
            })
            .sum()
    }

    /// What has happened in a class, and what waits.
    #[must_use]
    pub fn figures(&self, class: Class) -> Figures {
        Figures {
            waiting: self.flows.len(class),
            wait: self.drain_time(class),
            ..self.figures[class.index()]
        }
    }

    fn fill(
        &mut self,
        now: Instant,
        class: Class,
        batch: &mut Vec<T>,
        late: &mut Vec<T>,
    ) -> Option<Turn> {
        let planned = self.times.turn(class, self.flows.len(class));
        let before = batch.len();
        while batch.len() - before < planned.jobs
            && let Some(entry) = self.flows.pop(class)
        {
            if now + planned.time > entry.deadline {
                self.figures[class.index()].expired += 1;
                late.push(entry.item);
            } else {
                batch.push(entry.item);
            }
        }
        let jobs = batch.len() - before;
        if jobs == 0 {
            return None;
        }
        let turn = Turn {
            jobs,
            ..self.times.turn(class, jobs)
        };
        if turn.is_long {
            self.order.long_turn_began();
        }
        let flows = &self.flows;
        self.service
            .gave(class, nanos(turn.time), |class| flows.len(class) == 0);
        Some(turn)
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use accel::Cost;

    use super::*;
    use crate::clock;

    pub(in crate::dispatch::scheduler) const US: Duration = Duration::from_micros(1);
    pub(in crate::dispatch::scheduler) const MS: Duration = Duration::from_millis(1);

    /// One core of a Zen 5 server with lanes.
    pub(in crate::dispatch::scheduler) fn times() -> Times {
        let cost = |single: u32, batch: Option<u32>| Cost {
            single: US * single,
            batch: batch.map(|time| [US * time; 8]),
        };
        Times::new(Class::ALL.map(|class| match class {
            Class::P256 => cost(12, Some(12)),
            Class::P384 => cost(63, Some(28)),
            Class::P521 => cost(110, None),
            Class::Ed25519 => cost(12, None),
            Class::MlDsa => cost(120, None),
            Class::Rsa2048 => cost(222, Some(528)),
            Class::Rsa3072 => cost(641, Some(1641)),
            Class::Rsa4096 => cost(1393, Some(3796)),
            Class::RsaOther => cost(9000, None),
        }))
    }

    pub(in crate::dispatch::scheduler) fn scheduler(threads: usize) -> Scheduler<u32> {
        let bounds = Bounds {
            threads,
            queue_time: limits::QUEUE_TIME,
            jobs_min: 16,
            jobs_max: 10_000,
        };
        Scheduler::new(times(), bounds)
    }

    pub(in crate::dispatch::scheduler) fn ticket(
        now: Instant,
        class: Class,
        number: u64,
    ) -> Ticket {
        Ticket {
            class,
            client: Client { number, weight: 1 },
            deadline: now + MS * 2000,
        }
    }

    fn take(queues: &mut Scheduler<u32>, now: Instant) -> Option<(Class, Vec<u32>)> {
        let (mut batch, mut late) = (Vec::new(), Vec::new());
        let turn = queues.take(now, &mut batch, &mut late)?;
        queues.end(turn);
        assert!(late.is_empty() && batch.len() == turn.jobs);
        Some((turn.class, batch))
    }

    #[test]
    fn what_is_too_late_takes_up_no_lane() {
        let now = clock::now();
        let mut queues = scheduler(1);
        for job in 0..16 {
            let deadline = now + if job % 2 == 0 { MS * 4 } else { MS * 400 };
            let ticket = Ticket {
                deadline,
                ..ticket(now, Class::Rsa2048, 1)
            };
            queues.push(now, ticket, job).expect("room");
        }
        let (mut batch, mut late) = (Vec::new(), Vec::new());
        let turn = queues
            .take(now + MS * 4, &mut batch, &mut late)
            .expect("eight are in time");
        assert_eq!((turn.jobs, batch.len(), late.len()), (8, 8, 8));
        assert!(batch.iter().all(|job| job % 2 == 1));
        batch.clear();
        assert!(queues.take(now + MS * 4, &mut batch, &mut late).is_none());
        assert_eq!((batch.len(), late.len(), queues.len()), (0, 8, 0));
        assert_eq!(queues.figures(Class::Rsa2048).expired, 8);
    }

    #[test]
    fn lanes_are_shared_by_clients_of_one_class() {
        let now = clock::now();
        let mut queues = scheduler(1);
        for job in 0..50 {
            queues
                .push(now, ticket(now, Class::Rsa2048, 1), job)
                .expect("room");
        }
        for client in 2..6 {
            let job = 100 * u32::try_from(client).expect("few");
            queues
                .push(now, ticket(now, Class::Rsa2048, client), job)
                .expect("room");
        }
        let (_, batch) = take(&mut queues, now).expect("plenty waits");
        assert_eq!(batch, [0, 200, 300, 400, 500, 1, 2, 3]);
    }

    /// With cheap jobs arriving for ever, a dear one still goes once it is old enough, and an
    /// endless supply of dear ones takes no more than half of the time.
    #[test]
    fn nothing_starves_and_nothing_takes_over() {
        let start = clock::now();
        let mut queues = scheduler(1);
        let mut now = start;
        let (mut first, mut dear, mut cheap) = (None, Duration::ZERO, Duration::ZERO);
        while now < start + MS * 2000 {
            let _ = queues.push(now, ticket(now, Class::Rsa4096, 1), 0);
            for _ in 0..200 {
                let _ = queues.push(now, ticket(now, Class::Rsa2048, 2), 0);
            }
            let (class, batch) = take(&mut queues, now).expect("plenty waits");
            let time = times().turn(class, batch.len()).time;
            if class == Class::Rsa4096 {
                first = first.or(Some(now - start));
                dear += time;
            } else {
                cheap += time;
            }
            now += time;
        }
        assert!(
            first.is_some_and(|waited| waited <= limits::AGEING + MS * 5),
            "{first:?}"
        );
        let share = dear.as_secs_f64() / (dear + cheap).as_secs_f64();
        assert!((0.4..0.55).contains(&share), "{share}");
    }

    #[test]
    fn one_of_three_threads_stays_free_of_long_turns_for_brief_jobs() {
        let now = clock::now();
        let mut queues = scheduler(3);
        let (mut batch, mut late) = (Vec::new(), Vec::new());
        for job in 0..8 {
            queues
                .push(now, ticket(now, Class::RsaOther, 1), job)
                .expect("room");
        }
        let mut turns: Vec<Turn> = (0..3)
            .map_while(|_| queues.take(now, &mut batch, &mut late))
            .collect();
        assert_eq!(turns.len(), 3, "nobody asks for brief work");
        queues.end(turns.remove(0));
        queues
            .push(now, ticket(now, Class::P256, 2), 9)
            .expect("room");
        assert_eq!(
            queues
                .take(now, &mut batch, &mut late)
                .map(|turn| turn.class),
            Some(Class::P256)
        );
        assert!(queues.take(now, &mut batch, &mut late).is_none());
        // What does not take long may spill over.
        queues
            .push(now, ticket(now, Class::Rsa2048, 1), 10)
            .expect("room");
        let spill = queues
            .take(now, &mut batch, &mut late)
            .expect("a short turn");
        assert_eq!(spill.class, Class::Rsa2048);
        queues.end(spill);
        assert_eq!(queues.take(now, &mut batch, &mut late), None);
        let later = now + limits::RESERVE_MEMORY;
        assert!(queues.take(later, &mut batch, &mut late).is_some());
    }
}
