//! What one core does: single operations against batches, measured side by side.
//!
//! [`crate::CostTable`] is made in half a second to choose by; this takes its time to be quoted.
//! Singles and all eight fills take turns within one run, so that a machine whose clock drifts
//! drifts for all of them, and each figure is a median of many turns.

use std::time::Duration;

use crate::backend::Backend;
use crate::calibrate::{MAX_FILL, calibration_key, calibration_operation};
use crate::class::Class;
use crate::error::JobError;
use crate::job::Job;
use crate::key::{Key, KeyRules};
use crate::simd::Lanes;
use crate::single::Single;

/// The time of one class on one core. Everything a release needs is in it: blinding, the check of
/// RSA results, fresh nonces, encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Speed {
    /// The class.
    pub class: Class,
    /// One operation by the single engine.
    pub single: Duration,
    /// A batch with 1, 2 ... 8 lanes filled; `None` without lanes for this class on this machine.
    pub batch: Option<[Duration; MAX_FILL]>,
}

impl Speed {
    /// Single operations per second.
    #[must_use]
    pub fn single_ops(&self) -> f64 {
        1.0 / self.single.as_secs_f64()
    }

    /// Operations per second at full load: full batches where those are quicker.
    #[must_use]
    pub fn ops(&self) -> f64 {
        let batched = self
            .batch
            .map_or(0.0, |[.., full]| 8.0 / full.as_secs_f64());
        batched.max(self.single_ops())
    }

    /// [`Self::ops`] over [`Self::single_ops`].
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.ops() / self.single_ops()
    }
}

/// Measures one class for about `budget`.
///
/// `clock` gives the time to count: the CPU time of the calling thread, so that what else the
/// machine does stays out of the figures.
///
/// # Errors
///
/// [`JobError`] when an operation fails; its speed is of no interest then.
pub fn measure(
    class: Class,
    budget: Duration,
    clock: &dyn Fn() -> Duration,
) -> Result<Speed, JobError> {
    const TURNS_MIN: usize = 5;
    let key =
        Key::from_der(calibration_key(class), KeyRules::default()).map_err(|_| JobError::Failed)?;
    let operation = calibration_operation(class);
    let lanes =
        Lanes::detect().filter(|lanes| lanes.lanes(class) > 1 && lanes.accepts(&key, operation));
    let time = |backend: &dyn Backend, fill| timed_run(backend, &key, class, fill, clock);

    let mut singles = Vec::new();
    let mut batches: [Vec<Duration>; MAX_FILL] = Default::default();
    let start = clock();
    // The first turn warms caches and makes per-key tables.
    for turn in 0.. {
        let single = time(&Single, MAX_FILL)? / 8;
        if turn > 0 {
            singles.push(single);
        }
        if let Some(lanes) = &lanes {
            for (position, samples) in batches.iter_mut().enumerate() {
                let batch = time(lanes, position + 1)?;
                if turn > 0 {
                    samples.push(batch);
                }
            }
        }
        if turn >= TURNS_MIN && clock().saturating_sub(start) >= budget {
            break;
        }
    }
    Ok(Speed {
        class,
        single: median(&mut singles),
        batch: lanes
            .is_some()
            .then(|| batches.each_mut().map(|samples| median(samples))),
    })
}

fn timed_run(
    backend: &dyn Backend,
    key: &Key,
    class: Class,
    fill: usize,
    clock: &dyn Fn() -> Duration,
) -> Result<Duration, JobError> {
    let input = [0x5a; 32];
    let mut outputs: [Vec<u8>; MAX_FILL] = Default::default();
    let mut jobs: Vec<_> = outputs
        .iter_mut()
        .take(fill)
        .map(|output| Job::new(key, calibration_operation(class), &input, output))
        .collect();
    let before = clock();
    backend.run(&mut jobs);
    let time = clock().saturating_sub(before);
    jobs.iter().try_for_each(|job| job.result)?;
    Ok(time)
}

fn median(samples: &mut [Duration]) -> Duration {
    samples.sort_unstable();
    samples.get(samples.len() / 2).copied().unwrap_or_default()
}
