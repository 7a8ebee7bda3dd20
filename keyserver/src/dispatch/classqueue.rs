//! What waits for a crypto thread: one bounded queue per class, and the rule for who goes first.
//!
//! The rule has no timer. A crypto thread that becomes free takes what is waiting, at most one
//! batch of one class: waiting for a fuller batch never helped at any load. Between classes the
//! cheapest goes first, because eight ECDSA signatures fit into the time that one RSA-4096
//! decrypt takes; a class whose oldest job has waited longer than [`limits::AGEING`] goes before
//! all that are cheaper, so that nobody starves.
//!
//! Generic over what is queued, and told the time, so that the same code runs under a simulated
//! clock.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use accel::Class;

use crate::limits;

/// How many jobs of a class a crypto thread takes when that many are waiting.
pub type Take<'a> = &'a dyn Fn(Class, usize) -> usize;

/// A queue per class.
#[derive(Debug)]
pub struct ClassQueues<T> {
    queues: Vec<VecDeque<(Instant, T)>>,
    bound: usize,
    waiting: usize,
}

impl<T> ClassQueues<T> {
    /// Queues of at most `bound` jobs each.
    #[must_use]
    pub fn new(bound: usize) -> Self {
        let queues = Class::ALL
            .iter()
            .map(|_| VecDeque::with_capacity(bound))
            .collect();
        Self {
            queues,
            bound,
            waiting: 0,
        }
    }

    /// Puts a job at the end of its class.
    ///
    /// # Errors
    ///
    /// Gives the job back when the queue of its class is full.
    pub fn push(&mut self, class: Class, now: Instant, job: T) -> Result<(), T> {
        let bound = self.bound;
        match self.queues.get_mut(class.index()) {
            Some(queue) if queue.len() < bound => {
                queue.push_back((now, job));
                self.waiting += 1;
                Ok(())
            }
            _ => Err(job),
        }
    }

    /// Moves the next batch to the end of `batch` and says of which class it is.
    pub fn take(&mut self, now: Instant, take: Take<'_>, batch: &mut Vec<T>) -> Option<Class> {
        let class = self.next_class(now)?;
        self.move_batch(class, take, batch);
        Some(class)
    }

    /// Jobs waiting, in all classes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Jobs waiting in one class.
    #[must_use]
    pub fn class_len(&self, class: Class) -> usize {
        self.queues.get(class.index()).map_or(0, VecDeque::len)
    }

    /// Moves one batch of the first class that `is_brief` to the end of `batch`.
    pub fn take_brief(
        &mut self,
        is_brief: &dyn Fn(Class) -> bool,
        take: Take<'_>,
        batch: &mut Vec<T>,
    ) -> Option<Class> {
        let class = Class::ALL
            .into_iter()
            .find(|class| self.class_len(*class) > 0 && is_brief(*class))?;
        self.move_batch(class, take, batch);
        Some(class)
    }

    fn move_batch(&mut self, class: Class, take: Take<'_>, batch: &mut Vec<T>) {
        let Some(queue) = self.queues.get_mut(class.index()) else {
            return;
        };
        let count = take(class, queue.len())
            .clamp(1, limits::BATCH_MAX)
            .min(queue.len());
        self.waiting -= count;
        batch.extend(queue.drain(..count).map(|(_, job)| job));
    }

    fn next_class(&self, now: Instant) -> Option<Class> {
        let mut cheapest = None;
        let mut overdue: Option<(Duration, Class)> = None;
        for (class, queue) in Class::ALL.iter().copied().zip(&self.queues) {
            let Some((since, _)) = queue.front() else {
                continue;
            };
            cheapest = cheapest.or(Some(class));
            let waited = now.saturating_duration_since(*since);
            if waited >= limits::AGEING && overdue.is_none_or(|(longest, _)| waited > longest) {
                overdue = Some((waited, class));
            }
        }
        overdue.map(|(_, class)| class).or(cheapest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(_: Class, waiting: usize) -> usize {
        waiting
    }

    #[test]
    fn a_batch_is_one_class_in_order_and_at_most_eight() {
        let now = crate::clock::now();
        let mut queues = ClassQueues::new(64);
        for job in 0..10 {
            queues.push(Class::Rsa2048, now, job).expect("room");
            queues.push(Class::P256, now, 100 + job).expect("room");
        }
        let mut batch = Vec::new();
        assert_eq!(queues.take(now, &all, &mut batch), Some(Class::P256));
        assert_eq!(batch, (100..108).collect::<Vec<_>>());
        batch.clear();
        assert_eq!(queues.take(now, &all, &mut batch), Some(Class::P256));
        assert_eq!(batch, [108, 109]);
        batch.clear();
        assert_eq!(
            queues.take(now, &|_, _| 1, &mut batch),
            Some(Class::Rsa2048)
        );
        assert_eq!(batch, [0]);
        assert_eq!(queues.len(), 9);
    }

    #[test]
    fn a_full_class_refuses_without_touching_the_others() {
        let now = crate::clock::now();
        let mut queues = ClassQueues::new(2);
        assert_eq!(queues.push(Class::Rsa4096, now, 1), Ok(()));
        assert_eq!(queues.push(Class::Rsa4096, now, 2), Ok(()));
        assert_eq!(queues.push(Class::Rsa4096, now, 3), Err(3));
        assert_eq!(queues.push(Class::P256, now, 4), Ok(()));
        assert_eq!((queues.class_len(Class::Rsa4096), queues.len()), (2, 3));
    }

    /// With cheap jobs arriving for ever, a dear one still goes once it is old enough.
    #[test]
    fn nothing_starves() {
        let start = crate::clock::now();
        let mut queues = ClassQueues::new(4096);
        queues.push(Class::Rsa4096, start, 0).expect("room");
        let mut now = start;
        let mut waited = None;
        for turn in 1..10_000 {
            now += Duration::from_micros(20);
            for _ in 0..8 {
                let _ = queues.push(Class::P256, now, turn);
            }
            let mut batch = Vec::new();
            if queues.take(now, &all, &mut batch) == Some(Class::Rsa4096) {
                waited = Some(now - start);
                break;
            }
        }
        let waited = waited.expect("the RSA-4096 job was taken");
        assert!(
            waited <= limits::AGEING + Duration::from_micros(40),
            "{waited:?}"
        );
    }

    /// Whatever comes in goes out once, in the order of its class.
    #[test]
    fn nothing_is_lost_or_repeated() {
        use proptest::prelude::*;
        proptest!(|(jobs in prop::collection::vec((0..Class::ALL.len(), 0_u64..500), 1..400))| {
            let start = crate::clock::now();
            let mut now = start;
            let mut queues = ClassQueues::new(4096);
            for (sequence, (class, pause)) in jobs.iter().enumerate() {
                now += Duration::from_micros(*pause);
                queues.push(Class::ALL[*class], now, (*class, sequence)).expect("room");
            }
            let mut out = Vec::new();
            loop {
                let mut batch = Vec::new();
                let Some(class) = queues.take(now, &all, &mut batch) else { break };
                now += Duration::from_micros(100);
                prop_assert!(batch.len() <= limits::BATCH_MAX);
                prop_assert!(batch.iter().all(|job: &(usize, usize)| job.0 == class.index()));
                out.extend(batch);
            }
            for class in 0..Class::ALL.len() {
                let mine: Vec<usize> =
                    out.iter().filter(|job| job.0 == class).map(|job| job.1).collect();
                prop_assert!(mine.is_sorted());
            }
            out.sort_unstable_by_key(|job| job.1);
            let sequence: Vec<usize> = out.iter().map(|job| job.1).collect();
            prop_assert_eq!(sequence, (0..jobs.len()).collect::<Vec<_>>());
        });
    }
}
