//! What a crypto thread does in one turn, and how long that takes: from the costs that the engine
//! measured at start.

use std::time::Duration;

use accel::{Class, Cost, CostTable};

use crate::limits;

/// Time that a turn of single operations may take. Longer, and a cheaper class that arrives
/// meanwhile waits for jobs that another thread could have had; shorter, and the queue's lock is
/// taken for every 10 us signature.
const SINGLES_TURN: Duration = Duration::from_micros(100);

/// A class whose full turn takes no longer is brief: it goes first, and it may be slipped into a
/// long batch of another.
const BRIEF_MAX: Duration = Duration::from_micros(200);

/// A turn that cannot be interrupted and takes longer keeps brief work waiting noticeably. One
/// RSA-2048 operation by itself is below it.
const LONG_MIN: Duration = Duration::from_micros(300);

/// The time that operations of each class take on this machine.
#[derive(Debug, Clone)]
pub struct Times {
    costs: [Cost; Class::ALL.len()],
    is_brief: [bool; Class::ALL.len()],
    /// The brief classes, then the others; in both, the cheapest job first.
    order: [Class; Class::ALL.len()],
}

/// Jobs of one class that a thread takes at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// Of which class.
    pub class: Class,
    /// How many jobs at most.
    pub jobs: usize,
    /// How long they take.
    pub time: Duration,
    /// Whether brief work has to wait until the turn ends, for a time that matters.
    pub is_long: bool,
    /// Whether it is brief work itself: then no other is slipped in.
    pub is_brief: bool,
}

impl Times {
    /// The times of a machine where classes cost this, in the order of [`Class::ALL`].
    #[must_use]
    pub fn new(costs: [Cost; Class::ALL.len()]) -> Self {
        let mut times = Self {
            costs,
            is_brief: [false; Class::ALL.len()],
            order: Class::ALL,
        };
        times.is_brief = Class::ALL.map(|class| {
            times.turn(class, limits::BATCH_MAX).time <= BRIEF_MAX
                && times.cost(class).single <= BRIEF_MAX
        });
        let mut order = Class::ALL;
        order.sort_by_key(|class| (!times.is_brief(*class), times.job(*class)));
        times.order = order;
        times
    }

    /// The times that the engine measured.
    #[must_use]
    pub fn measured(table: &CostTable) -> Self {
        Self::new(Class::ALL.map(|class| *table.class(class)))
    }

    /// Work of one job: its share of a full turn.
    #[must_use]
    pub fn job(&self, class: Class) -> Duration {
        self.cost(class).per_job().max(Duration::from_nanos(1))
    }

    /// The least time from the start of a job to its end.
    #[must_use]
    pub fn least(&self, class: Class) -> Duration {
        self.cost(class).best(1)
    }

    /// What a thread takes when `waiting` jobs of a class wait.
    ///
    /// As many as share a batch, when a batch is quicker than the same jobs one by one; otherwise
    /// as many as fit [`SINGLES_TURN`], and at least one. The time of a batch does not depend on how
    /// many lanes are filled, so there is nothing to gain from a smaller one.
    #[must_use]
    pub fn turn(&self, class: Class, waiting: usize) -> Turn {
        let fill = waiting.clamp(1, limits::BATCH_MAX);
        let cost = self.cost(class);
        let singles = |jobs: usize| {
            let jobs = u32::try_from(jobs).unwrap_or(u32::MAX);
            cost.single.saturating_mul(jobs)
        };
        if cost.best(fill) < singles(fill) {
            return Turn {
                class,
                jobs: fill,
                time: cost.best(fill),
                is_long: false,
                is_brief: self.is_brief(class),
            };
        }
        let single = cost.single.as_nanos().max(1);
        let jobs = usize::try_from(SINGLES_TURN.as_nanos() / single).unwrap_or(usize::MAX);
        let jobs = jobs.clamp(1, fill);
        let time = singles(jobs);
        Turn {
            class,
            jobs,
            time,
            is_long: time > LONG_MIN,
            is_brief: self.is_brief(class),
        }
    }

    /// Whether a class goes before what is dear, and into its batches.
    #[must_use]
    pub const fn is_brief(&self, class: Class) -> bool {
        self.is_brief[class.index()]
    }

    /// Who goes first: the brief classes, then the others; in both, the cheapest job first.
    #[must_use]
    pub fn order(&self) -> [Class; Class::ALL.len()] {
        self.order
    }

    fn cost(&self, class: Class) -> &Cost {
        &self.costs[class.index()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Duration = Duration::from_micros(1);

    /// One core of a Zen 5 server with lanes, and without.
    fn times(lanes: bool) -> Times {
        let cost = |single: u32, batch: Option<u32>| Cost {
            single: US * single,
            batch: batch.filter(|_| lanes).map(|time| [US * time; 8]),
        };
        Times::new(Class::ALL.map(|class| match class {
            Class::P256 => cost(12, Some(12)),
            Class::P384 => cost(63, Some(28)),
            Class::P521 => cost(110, None),
            Class::Ed25519 => cost(12, None),
            Class::MlDsa => cost(120, None),
            Class::Rsa2048 => cost(222, Some(526)),
            Class::Rsa3072 => cost(641, Some(1641)),
            Class::Rsa4096 => cost(1393, Some(3796)),
            Class::RsaOther => cost(9000, None),
        }))
    }

    #[test]
    fn a_turn_is_a_batch_where_that_is_quicker() {
        let times = times(true);
        let jobs = |class, waiting| times.turn(class, waiting).jobs;
        assert_eq!(
            [1, 2, 3, 8, 9].map(|n| jobs(Class::Rsa2048, n)),
            [1, 1, 3, 8, 8]
        );
        assert_eq!([1, 2, 8].map(|n| jobs(Class::P256, n)), [1, 2, 8]);
        // One after another for 100 us, where there are no lanes.
        assert_eq!([1, 8, 90].map(|n| jobs(Class::Ed25519, n)), [1, 8, 8]);
        assert_eq!(jobs(Class::MlDsa, 8), 1);
        assert_eq!(times.turn(Class::Rsa2048, 8).time, US * 526);
        assert_eq!(times.job(Class::Rsa2048), US * 526 / 8);
    }

    #[test]
    fn brief_is_what_fits_between_and_long_is_what_nothing_fits_between() {
        let (with, without) = (times(true), times(false));
        let brief = |times: &Times| {
            Class::ALL
                .into_iter()
                .filter(|class| times.is_brief(*class))
                .collect::<Vec<_>>()
        };
        let curves = [
            Class::P256,
            Class::P384,
            Class::P521,
            Class::Ed25519,
            Class::MlDsa,
        ];
        assert_eq!(
            (brief(&with), brief(&without)),
            (curves.to_vec(), curves.to_vec())
        );
        assert!(!with.turn(Class::Rsa4096, 8).is_long && with.turn(Class::Rsa4096, 1).is_long);
        assert!(!without.turn(Class::Rsa2048, 8).is_long);
        assert!(without.turn(Class::Rsa3072, 8).is_long && with.turn(Class::RsaOther, 1).is_long);
        assert_eq!(with.order()[0], Class::P256);
        assert_eq!(with.order()[4..6], [Class::MlDsa, Class::Rsa2048]);
    }
}
