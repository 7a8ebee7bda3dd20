//! What an operation costs on this machine: measured at start, used to choose between singles and a
//! batch, and exported so that queues can be bounded in microseconds of work.
//!
//! A batch takes about the same time however many of its lanes are filled, so few jobs are quicker
//! one by one and many are quicker together. Where the line runs depends on the processor and the
//! class, hence the measurement. There is no waiting for a fuller batch: with the work that is there, do the
//! quicker of the two.

use std::time::{Duration, Instant};

use crate::backend::Backend;
use crate::class::Class;
use crate::error::JobError;
use crate::job::{Hash, Job, Operation};
use crate::key::{Key, KeyRules};
use crate::single::Single;

/// The most jobs that ever share a batch.
pub const MAX_FILL: usize = 8;

/// What one class costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// One operation by itself.
    pub single: Duration,
    /// A batch with 1, 2 ... 8 lanes filled; `None` where the class has no lanes. With fewer than
    /// eight lanes the last entries repeat the fullest batch.
    pub batch: Option<[Duration; MAX_FILL]>,
}

impl Cost {
    /// Time for `fill` jobs the quicker way.
    #[must_use]
    pub fn best(&self, fill: usize) -> Duration {
        let singles = self
            .single
            .saturating_mul(u32::try_from(fill).unwrap_or(u32::MAX));
        self.batch_of(fill)
            .map_or(singles, |batch| batch.min(singles))
    }

    /// Time per job at full load: full batches where there are lanes.
    #[must_use]
    pub fn per_job(&self) -> Duration {
        self.best(MAX_FILL) / 8
    }

    fn batch_of(&self, fill: usize) -> Option<Duration> {
        self.batch?.get(fill.checked_sub(1)?).copied()
    }
}

/// The cost of every class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CostTable {
    classes: [Cost; Class::ALL.len()],
}

impl CostTable {
    /// The cost of one class.
    #[must_use]
    pub fn class(&self, class: Class) -> &Cost {
        let [first, ..] = &self.classes;
        self.classes.get(class.index()).unwrap_or(first)
    }

    /// Whether `fill` jobs of a class are quicker as a batch than one after the other.
    #[must_use]
    pub fn prefers_batch(&self, class: Class, fill: usize) -> bool {
        let cost = self.class(class);
        let singles = cost
            .single
            .saturating_mul(u32::try_from(fill).unwrap_or(u32::MAX));
        cost.batch_of(fill).is_some_and(|batch| batch < singles)
    }

    /// Costs seen on one core of a Zen 5 server, for when nobody measures. A batch is taken to cost two
    /// and a half singles.
    #[must_use]
    pub(crate) fn estimate(lanes: Option<&dyn Backend>) -> Self {
        Self {
            classes: Class::ALL.map(|class| {
                let single = Duration::from_micros(match class {
                    Class::P256 => 12,
                    Class::P384 => 60,
                    Class::P521 => 110,
                    Class::Ed25519 => 6,
                    Class::MlDsa => 120,
                    Class::Rsa2048 => 215,
                    Class::Rsa3072 => 605,
                    Class::Rsa4096 => 1300,
                    Class::RsaOther => 9000,
                });
                let has_lanes = lanes.is_some_and(|lanes| lanes.lanes(class) > 1);
                Cost {
                    single,
                    batch: has_lanes.then_some([single * 5 / 2; MAX_FILL]),
                }
            }),
        }
    }

    /// Measures every class, spending about `budget` on each.
    pub(crate) fn measure(lanes: Option<&dyn Backend>, budget: Duration) -> Result<Self, JobError> {
        let mut table = Self::estimate(lanes);
        for (class, cost) in Class::ALL.into_iter().zip(&mut table.classes) {
            *cost = measure_class(class, lanes, budget)?;
        }
        Ok(table)
    }
}

/// Measures one class: half the budget, or all of it without lanes, for singles, the rest shared by the
/// eight fills.
fn measure_class(
    class: Class,
    lanes: Option<&dyn Backend>,
    budget: Duration,
) -> Result<Cost, JobError> {
    let key =
        Key::from_der(calibration_key(class), KeyRules::default()).map_err(|_| JobError::Failed)?;
    let operation = calibration_operation(class);
    let lanes = lanes.filter(|lanes| lanes.lanes(class) > 1 && lanes.accepts(&key, operation));
    let Some(lanes) = lanes else {
        let single = median_run(&Single, &key, operation, 1, budget)?;
        return Ok(Cost {
            single,
            batch: None,
        });
    };
    let single = median_run(&Single, &key, operation, 1, budget / 4)?;
    let width = lanes.lanes(class).min(MAX_FILL);
    let mut batch = [Duration::ZERO; MAX_FILL];
    for (position, time) in batch.iter_mut().enumerate() {
        let fill = (position + 1).min(width);
        *time = median_run(lanes, &key, operation, fill, budget / 12)?;
    }
    Ok(Cost {
        single,
        batch: Some(batch),
    })
}

/// Median time of one `run` with `fill` equal jobs, after one that warms caches and makes per-key tables.
fn median_run(
    backend: &dyn Backend,
    key: &Key,
    operation: Operation,
    fill: usize,
    budget: Duration,
) -> Result<Duration, JobError> {
    const MAX_SAMPLES: usize = 1000;
    let input = [0x5a; 32];
    let mut outputs: [Vec<u8>; MAX_FILL] = Default::default();
    let mut samples = Vec::with_capacity(MAX_SAMPLES);
    let mut started = Instant::now();
    while samples.len() < MAX_SAMPLES && (samples.len() < 2 || started.elapsed() < budget) {
        let mut jobs: Vec<_> = outputs
            .iter_mut()
            .take(fill)
            .map(|output| Job::new(key, operation, &input, output))
            .collect();
        let before = Instant::now();
        backend.run(&mut jobs);
        let time = before.elapsed();
        jobs.iter().try_for_each(|job| job.result)?;
        if samples.is_empty() {
            // The first run is warm-up: it makes tables, and its time is replaced by the second's.
            started = Instant::now();
        }
        samples.push(time);
    }
    samples.swap_remove(0);
    samples.sort_unstable();
    samples
        .get(samples.len() / 2)
        .copied()
        .ok_or(JobError::Failed)
}

pub(crate) const fn calibration_operation(class: Class) -> Operation {
    match class {
        Class::P256 | Class::P384 | Class::P521 => Operation::EcdsaSign(Hash::Sha256),
        Class::Ed25519 => Operation::Ed25519Sign,
        Class::MlDsa => Operation::MlDsaSign,
        Class::Rsa2048 | Class::Rsa3072 | Class::Rsa4096 | Class::RsaOther => {
            Operation::RsaPkcs1Sign(Hash::Sha256)
        }
    }
}

/// Keys for measuring, in DER. They protect nothing, and anyone may know them: their signatures never
/// leave this module. `RsaOther` measures 8192 bits, the dearest it can hold; ML-DSA the middle
/// parameter set.
pub(crate) const fn calibration_key(class: Class) -> &'static [u8] {
    match class {
        Class::P256 => include_bytes!("calibrate/p256.der"),
        Class::P384 => include_bytes!("calibrate/p384.der"),
        Class::P521 => include_bytes!("calibrate/p521.der"),
        Class::Ed25519 => include_bytes!("calibrate/ed25519.der"),
        Class::MlDsa => include_bytes!("calibrate/ml-dsa-65.der"),
        Class::Rsa2048 => include_bytes!("calibrate/rsa-2048.der"),
        Class::Rsa3072 => include_bytes!("calibrate/rsa-3072.der"),
        Class::Rsa4096 => include_bytes!("calibrate/rsa-4096.der"),
        Class::RsaOther => include_bytes!("calibrate/rsa-8192.der"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Lanes;

    const US: Duration = Duration::from_micros(1);

    fn table(single: Duration, batch: Option<[Duration; MAX_FILL]>) -> CostTable {
        CostTable {
            classes: [Cost { single, batch }; Class::ALL.len()],
        }
    }

    #[test]
    fn the_quicker_way_is_chosen_for_each_fill() {
        // The figures of RSA-2048: three singles take longer than a batch, two do not.
        let table = table(214 * US, Some([537 * US; MAX_FILL]));
        let choices: Vec<_> = (0..=MAX_FILL + 1)
            .map(|fill| table.prefers_batch(Class::Rsa2048, fill))
            .collect();
        assert_eq!(
            choices,
            [
                false, false, false, true, true, true, true, true, true, false
            ]
        );
        let cost = table.class(Class::Rsa2048);
        assert_eq!(cost.best(0), Duration::ZERO);
        assert_eq!(cost.best(2), 428 * US);
        assert_eq!(cost.best(8), 537 * US);
        assert_eq!(cost.per_job(), 537 * US / 8);
    }

    #[test]
    fn without_lanes_everything_runs_alone() {
        let table = table(10 * US, None);
        assert!((0..20).all(|fill| !table.prefers_batch(Class::P256, fill)));
        assert_eq!(table.class(Class::P256).per_job(), 10 * US);
    }

    /// Every calibration key loads as its class, and measuring gives times that can be.
    #[test]
    fn every_class_is_measured() {
        for class in Class::ALL {
            let key = Key::from_bytes(calibration_key(class)).unwrap();
            assert_eq!(key.class(), class);
        }
        let lanes = Lanes::detect();
        let lanes = lanes.as_ref().map(|lanes| -> &dyn Backend { lanes });
        let table = CostTable::measure(lanes, Duration::from_millis(1)).unwrap();
        for class in Class::ALL {
            let cost = table.class(class);
            assert!(
                cost.single > US && cost.single < Duration::from_secs(5),
                "{class:?} {cost:?}"
            );
            let wide = lanes.is_some_and(|lanes| lanes.lanes(class) > 1);
            assert_eq!(cost.batch.is_some(), wide, "{class:?}");
            assert!(
                cost.batch
                    .is_none_or(|batch| batch.iter().all(|time| *time > US))
            );
        }
    }
}
