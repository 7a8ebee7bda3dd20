//! Who may wait: bounds in time, shares, deadlines.
//!
//! A class admits while what waits in it can be done within [`queue_time`], or as many jobs as a
//! connection may have in flight, so that the cap we announce can be used on a small machine. If even
//! that is not enough and it has to refuse, nothing is gained by letting the others wait: it is strict,
//! and [`queue_time`] is all, for long enough that trying again whether the allowance suffices does not
//! show in the 99th percentile.
//! Beside other classes that wait, both shrink to the part of the threads that the class is given,
//! but never below two batches. Past that a client is admitted as long as it has less waiting than its share of
//! the bound by weight, or no more than one job; what it adds delays those who have more, not the others, because clients
//! take turns. Nobody is admitted past twice the bound.
//!
//! [`queue_time`]: super::Bounds::queue_time

use std::time::{Duration, Instant};

use accel::Class;

use super::flows::Entry;
use super::{Overload, Scheduler, Ticket, nanos};
use crate::limits;

/// A class that is given one part in this of the threads' time, or more, is treated as if it were
/// alone: shares fluctuate, and a little work beside it is no reason to refuse. What it admits then
/// waits this much longer than alone, and the contract allows for twice as long.
const SLACK: f64 = 1.15;

/// Longer than anybody waits; a bound for arithmetic.
const TIME_MAX_SECONDS: f64 = 3600.0;

/// Full batches that may always wait in a class.
const BATCHES_MIN: usize = 2;

/// Which classes are strict.
#[derive(Debug, Default)]
pub(super) struct Strict([Option<Spell>; Class::ALL.len()]);

/// A time in which a class is strict.
#[derive(Debug)]
struct Spell {
    began: Instant,
    until: Instant,
    /// Work that waited when it began.
    waiting_ns: u64,
}

impl Strict {
    fn spell(&self, class: Class, now: Instant) -> Option<&Spell> {
        self.0[class.index()]
            .as_ref()
            .filter(|spell| now < spell.until)
    }

    /// A class had to refuse, with an allowance that takes so long and so much work that waits. While it is strict,
    /// refusing says nothing about the allowance.
    fn refused(&mut self, class: Class, now: Instant, allowance: Duration, waiting_ns: u64) {
        if self.spell(class, now).is_none() {
            self.0[class.index()] = Some(Spell {
                began: now,
                until: now + allowance * limits::STRICT_TIMES,
                waiting_ns,
            });
        }
    }
}

impl<T> Scheduler<T> {
    /// Lets a job wait.
    ///
    /// # Errors
    ///
    /// Gives it back with the [`Overload`].
    pub fn push(&mut self, now: Instant, ticket: Ticket, item: T) -> Result<(), (Overload, T)> {
        let Ticket {
            class,
            client,
            deadline,
        } = ticket;
        if self.times.is_brief(class) {
            self.order.saw_brief(now);
        }
        if let Err(refusal) = self.admit(now, ticket) {
            if matches!(refusal, Overload::Busy { .. }) {
                let allowance = self.time_alone(self.allowance_ns(class));
                let waiting_ns = self.flows.work_ns(class);
                self.strict.refused(class, now, allowance, waiting_ns);
            }
            return Err((self.refused(class, refusal), item));
        }
        let entry = Entry {
            item,
            since: now,
            deadline,
        };
        let cost = nanos(self.times.job(class));
        self.flows.push(class, client, cost, entry).map_err(|item| {
            let retry_after = self.drain_time(class);
            (self.refused(class, Overload::Busy { retry_after }), item)
        })
    }

    fn admit(&self, now: Instant, ticket: Ticket) -> Result<(), Overload> {
        let class = ticket.class;
        let job_ns = nanos(self.times.job(class));
        let waiting_ns = self.flows.work_ns(class);
        let share = self.flows.share(class, ticket.client);
        // What goes before it in its class: all of it at most, and at most what the clients in the
        // round are given while those of its own client that came before it are served.
        let ahead_ns = (share.work_ns / share.weight)
            .saturating_mul(share.of)
            .min(waiting_ns);
        let turn = self.times.turn(class, self.flows.len(class) + 1);
        if now + self.time_for(class, ahead_ns) + turn.time > ticket.deadline {
            return Err(Overload::TooLate);
        }
        let bound_ns = self.bound_ns(class, now);
        if waiting_ns + job_ns <= bound_ns {
            return Ok(());
        }
        // Where operations are long or clients many, the share of one may be less than a job. And who asks for little on the
        // average asks again, at times, before it has its answer.
        let due_ns = (bound_ns.saturating_mul(share.weight) / share.of).max(2 * job_ns);
        let most_ns = bound_ns.saturating_mul(2) + self.overhang_ns(class, now, bound_ns);
        let fits = waiting_ns + job_ns <= most_ns;
        if fits && share.work_ns + job_ns <= due_ns {
            return Ok(());
        }
        Err(Overload::Busy {
            retry_after: self.drain_time(class),
        })
    }

    /// Work that may wait in a class.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a part of a number of nanoseconds"
    )]
    fn bound_ns(&self, class: Class, now: Instant) -> u64 {
        let in_time = self.work_in(self.queue_time(class));
        let alone_ns = if self.strict.spell(class, now).is_some() {
            in_time
        } else {
            in_time.max(self.allowance_ns(class))
        };
        let part = (self.service.share(class) * SLACK).min(1.0);
        let shared_ns = (alone_ns as f64 * part) as u64;
        shared_ns.max(self.work_of(class, BATCHES_MIN * limits::BATCH_MAX))
    }

    /// Work that was let in before the class became strict, is more than may wait since, and cannot have been done
    /// yet.
    fn overhang_ns(&self, class: Class, now: Instant, bound_ns: u64) -> u64 {
        self.strict.spell(class, now).map_or(0, |spell| {
            let done_ns = self.work_in(now.saturating_duration_since(spell.began));
            spell.waiting_ns.saturating_sub(done_ns + bound_ns)
        })
    }

    /// The time that the queue of a class may take: longer where a promise is longer, because there it
    /// takes more to keep every thread in full batches.
    fn queue_time(&self, class: Class) -> Duration {
        let usual = limits::target(Class::Rsa2048);
        let promise = limits::target(class).max(usual);
        (self.bounds.queue_time).mul_f64(promise.as_secs_f64() / usual.as_secs_f64())
    }

    /// Work of the jobs that a connection may have in flight, as far as they may wait here.
    fn allowance_ns(&self, class: Class) -> u64 {
        self.work_of(class, self.bounds.jobs_min)
            .min(self.work_in(limits::ALLOWANCE_TIME))
    }

    fn work_of(&self, class: Class, jobs: usize) -> u64 {
        nanos(self.times.job(class)).saturating_mul(jobs as u64)
    }

    /// Work that all threads do in a time.
    fn work_in(&self, time: Duration) -> u64 {
        nanos(time).saturating_mul(self.bounds.threads.max(1) as u64)
    }

    /// The time in which all threads do so much work.
    pub(super) fn time_alone(&self, work_ns: u64) -> Duration {
        Duration::from_nanos(work_ns / self.bounds.threads.max(1) as u64)
    }

    /// The time until what waits in a class now has been done.
    pub(super) fn drain_time(&self, class: Class) -> Duration {
        self.time_for(class, self.flows.work_ns(class))
    }

    /// The time in which the threads do so much work of a class.
    fn time_for(&self, class: Class, work_ns: u64) -> Duration {
        let threads = self.bounds.threads.max(1) as f64;
        let seconds = work_ns as f64 / 1e9 / threads / self.service.share(class);
        Duration::from_secs_f64(seconds.min(TIME_MAX_SECONDS))
    }

    fn refused(&mut self, class: Class, refusal: Overload) -> Overload {
        let figures = &mut self.figures[class.index()];
        match refusal {
            Overload::Busy { .. } => figures.busy += 1,
            Overload::TooLate => figures.too_late += 1,
        }
        refusal
    }
}

#[cfg(test)]
mod tests {
    use super::super::Bounds;
    use super::super::Client;
    use super::super::tests::{MS, US, scheduler, ticket, times};
    use super::*;
    use crate::clock;

    /// Jobs of one client until one is refused.
    fn fill(
        queues: &mut Scheduler<u32>,
        now: Instant,
        class: Class,
        client: u64,
    ) -> (u32, Overload) {
        for job in 0.. {
            if let Err((overload, _)) = queues.push(now, ticket(now, class, client), job) {
                return (job, overload);
            }
        }
        panic!("it takes for ever");
    }

    #[test]
    fn a_class_is_bounded_in_time_and_at_least_in_jobs() {
        let now = clock::now();
        for threads in [1_u32, 4] {
            let mut queues = scheduler(threads as usize);
            // 66 us a job: 121 of them are the 8 ms of one thread.
            let (jobs, overload) = fill(&mut queues, now, Class::Rsa2048, 1);
            assert_eq!(jobs, threads * 8000 / 66);
            let Overload::Busy { retry_after } = overload else {
                panic!("{overload:?}")
            };
            assert!(retry_after.abs_diff(limits::QUEUE_TIME) < MS / 10);
            // 474 us a job, and twice the time.
            let (jobs, _) = fill(&mut queues, now, Class::Rsa4096, 1);
            assert_eq!(jobs, threads * 16_000 * 8 / 3796);
            // 9 ms a job, and ten times the time: 16 may wait whatever they take.
            let (jobs, _) = fill(&mut queues, now, Class::RsaOther, 1);
            assert_eq!(jobs, (threads * 80 / 9).max(16));
        }
    }

    /// What fits the allowance is never refused. More than that is too much, and then nobody waits for
    /// longer than the queue's time; later the allowance is tried again.
    #[test]
    fn a_class_that_had_to_refuse_is_held_to_the_time_of_its_queue() {
        let start = clock::now();
        let bounds = Bounds {
            threads: 1,
            queue_time: limits::QUEUE_TIME,
            jobs_min: 256,
            jobs_max: 10_000,
        };
        let (mut batch, mut late) = (Vec::new(), Vec::new());
        let mut empty = |queues: &mut Scheduler<u32>, now| {
            while let Some(turn) = queues.take(now, &mut batch, &mut late) {
                queues.end(turn);
            }
        };
        let mut queues = Scheduler::new(times(), bounds);
        assert_eq!(fill(&mut queues, start, Class::Rsa2048, 1).0, 256);
        for after in [1, 1000, 3000] {
            let now = start + MS * after;
            empty(&mut queues, now);
            assert_eq!(fill(&mut queues, now, Class::Rsa2048, 1).0, 8000 / 66);
        }
        // 200 times the 16.9 ms that 256 jobs take.
        let now = start + MS * 3400;
        empty(&mut queues, now);
        assert_eq!(fill(&mut queues, now, Class::Rsa2048, 1).0, 256);
        // Another class was not concerned. 256 jobs of 474 us are just what may wait.
        assert_eq!(fill(&mut queues, start, Class::Rsa4096, 1).0, 256);
    }

    /// One client that made the class strict with all it may have waiting does not keep out the others.
    #[test]
    fn what_one_was_allowed_does_not_count_against_the_next() {
        let start = clock::now();
        let mut queues = Scheduler::new(
            times(),
            Bounds {
                threads: 1,
                queue_time: limits::QUEUE_TIME,
                jobs_min: 256,
                jobs_max: 10_000,
            },
        );
        assert_eq!(fill(&mut queues, start, Class::Rsa2048, 1).0, 256);
        // Its share of the 8 ms that wait from now on, and not of the 17 ms that do wait.
        assert_eq!(fill(&mut queues, start, Class::Rsa2048, 2).0, 8000 / 66 / 2);
        assert_eq!(fill(&mut queues, start, Class::Rsa2048, 3).0, 8000 / 66 / 3);
        // When it has been done, or could have been, twice the bound is all there is.
        let later = start + MS * 10;
        assert_eq!(fill(&mut queues, later, Class::Rsa2048, 4).0, 0);
    }

    #[test]
    fn a_client_below_its_share_finds_room_where_others_have_filled_it() {
        let now = clock::now();
        let mut queues = scheduler(1);
        let (greedy, _) = fill(&mut queues, now, Class::Rsa2048, 1);
        let (second, _) = fill(&mut queues, now, Class::Rsa2048, 2);
        assert_eq!(second, greedy / 2);
        let (third, _) = fill(&mut queues, now, Class::Rsa2048, 3);
        assert_eq!(third, greedy / 3);
        // Never more than twice the bound, whoever comes. As long as there is room, whoever has little waiting finds it.
        let clients: Vec<u32> = (4..500)
            .map(|client| fill(&mut queues, now, Class::Rsa2048, client).0)
            .collect();
        let others = clients.iter().sum::<u32>();
        let all = greedy + second + third + others;
        assert!((2 * greedy..=2 * greedy + 1).contains(&all), "{all}");
        assert!(clients.is_sorted_by(|one, next| one >= next));
        assert_eq!(queues.figures(Class::Rsa2048).busy, 499);
    }

    /// One operation takes longer than the share of one of many clients.
    #[test]
    fn a_client_with_little_waiting_is_admitted_however_small_its_share() {
        let now = clock::now();
        let mut queues = scheduler(1);
        // 9 ms a job, of 80 ms.
        let (greedy, _) = fill(&mut queues, now, Class::RsaOther, 1);
        assert_eq!(greedy, 16);
        // The share of each of ten is less than two, and there is room for 16 besides those of the greedy one.
        let mut ask = |client| {
            let ticket = ticket(now, Class::RsaOther, client);
            queues.push(now, ticket, 0).is_ok()
        };
        assert!((2..11).all(&mut ask));
        let again: Vec<_> = (2..11).filter(|client| ask(*client)).collect();
        assert_eq!(again, [2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn a_deadline_that_cannot_be_kept_is_refused_at_once() {
        let now = clock::now();
        let mut queues = scheduler(1);
        let within = |time| Ticket {
            deadline: now + time,
            ..ticket(now, Class::Rsa2048, 1)
        };
        assert_eq!(
            queues.push(now, within(US * 200), 0),
            Err((Overload::TooLate, 0))
        );
        for job in 0..40 {
            queues.push(now, within(MS * 4), job).expect("room");
        }
        // 40 jobs of 66 us are ahead, and a batch takes 528 us.
        assert_eq!(
            queues.push(now, within(MS * 3), 0),
            Err((Overload::TooLate, 0))
        );
        queues.push(now, within(MS * 4), 40).expect("room");
        // Another client does not have them ahead.
        let other = Ticket {
            client: Client {
                number: 2,
                weight: 1,
            },
            ..within(MS)
        };
        queues.push(now, other, 41).expect("room");
        assert_eq!(queues.figures(Class::Rsa2048).too_late, 2);
    }
}
