//! The queues that ours is compared with: what one writes first, and what many servers have.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use accel::Class;
use keyserver::dispatch::scheduler::{Overload, Ticket, Times, Turn};

use crate::machine::{Job, Queue};

/// First come, first served: jobs of the first one's class from the front, up to a batch. Bounded
/// by number. With `by_class`, the cheapest class goes first, always.
#[derive(Debug)]
pub(crate) struct Plain {
    waiting: VecDeque<Job>,
    times: Times,
    jobs_max: usize,
    by_class: bool,
}

impl Plain {
    pub(crate) fn first_come(times: &Times, jobs_max: usize) -> Self {
        Self {
            waiting: VecDeque::new(),
            times: times.clone(),
            jobs_max,
            by_class: false,
        }
    }

    pub(crate) fn by_class(times: &Times, jobs_max: usize) -> Self {
        Self {
            by_class: true,
            ..Self::first_come(times, jobs_max)
        }
    }

    fn move_batch(&mut self, class: Class, batch: &mut Vec<Job>) -> Turn {
        let waiting = self
            .waiting
            .iter()
            .filter(|job| job.class == class)
            .take(8)
            .count();
        let turn = self.times.turn(class, waiting);
        let mut at = 0;
        while batch.len() < turn.jobs && at < self.waiting.len() {
            if self.waiting[at].class == class {
                batch.extend(self.waiting.remove(at));
            } else {
                at += 1;
            }
        }
        turn
    }

    fn cheapest(&self) -> Option<Class> {
        let order = self.times.order();
        let mut waiting = [false; Class::ALL.len()];
        for job in &self.waiting {
            waiting[job.class.index()] = true;
        }
        order.into_iter().find(|class| waiting[class.index()])
    }
}

impl Queue for Plain {
    fn push(&mut self, _: Instant, _: Ticket, job: Job) -> Result<(), (Overload, Job)> {
        if self.waiting.len() >= self.jobs_max {
            let retry_after = Duration::from_millis(50);
            return Err((Overload::Busy { retry_after }, job));
        }
        self.waiting.push_back(job);
        Ok(())
    }

    fn take(&mut self, _: Instant, batch: &mut Vec<Job>, _: &mut Vec<Job>) -> Option<Turn> {
        let class = if self.by_class {
            self.cheapest()
        } else {
            self.waiting.front().map(|job| job.class)
        };
        Some(self.move_batch(class?, batch))
    }

    fn take_brief(&mut self, _: Instant, batch: &mut Vec<Job>, _: &mut Vec<Job>) -> Option<Turn> {
        let class = self
            .cheapest()
            .filter(|class| self.by_class && self.times.is_brief(*class))?;
        Some(self.move_batch(class, batch))
    }

    fn end(&mut self, _: Turn) {}
}
