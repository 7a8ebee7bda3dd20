//! Proof that a backend computes rightly: a run of operations with a known key, every result verified.

use std::error::Error;
use std::fmt;

use crate::backend::Backend;
use crate::calibrate::{MAX_FILL, calibration_key, calibration_operation};
use crate::class::Class;
use crate::job::Job;
use crate::key::{Key, KeyRules};
use crate::verify::result_is_correct;

/// Operations of one proof, in full batches where the backend has lanes. Each is over another input.
pub const PROOF_OPERATIONS: usize = 64;

/// Why a class stays in quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProofError {
    /// A result did not verify, or there was none.
    Wrong,
    /// Another result failed its check while the proof was under way.
    FailedMeanwhile,
}

impl fmt::Display for ProofError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wrong => "a result of the proof is wrong: this machine computes wrongly",
            Self::FailedMeanwhile => "another result failed its check during the proof",
        })
    }
}

impl Error for ProofError {}

/// Runs [`PROOF_OPERATIONS`] of a class on `backend` and verifies all of them. Takes half a second for the dearest
/// class, 8192 bits of RSA one by one, and milliseconds for most.
pub(crate) fn prove(backend: &dyn Backend, class: Class) -> Result<(), ProofError> {
    let key = Key::from_der(calibration_key(class), KeyRules::default())
        .map_err(|_| ProofError::Wrong)?;
    let operation = calibration_operation(class);
    if !backend.accepts(&key, operation) {
        return Ok(());
    }
    let mut outputs: [Vec<u8>; MAX_FILL] = Default::default();
    for round in 0..PROOF_OPERATIONS / MAX_FILL {
        let mut inputs = [[0_u8; 32]; MAX_FILL];
        for (lane, input) in inputs.iter_mut().enumerate() {
            let number = (round * MAX_FILL + lane) as u64;
            for (chunk, seed) in input.chunks_exact_mut(8).zip(1_u64..) {
                // Every bit takes both values: steps of the golden ratio.
                let word = (number + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                chunk.copy_from_slice(&word.to_be_bytes());
            }
        }
        let mut jobs: Vec<_> = (outputs.iter_mut().zip(&inputs))
            .map(|(output, input)| Job::new(&key, operation, input, output))
            .collect();
        let width = backend.lanes(class).clamp(1, MAX_FILL);
        for batch in jobs.chunks_mut(width) {
            backend.run(batch);
        }
        if !jobs
            .iter()
            .all(|job| job.result.is_ok() && result_is_correct(job))
        {
            return Err(ProofError::Wrong);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Lanes;
    use crate::single::Single;

    #[test]
    fn good_backends_prove_every_class() {
        let lanes = Lanes::detect();
        for class in Class::ALL {
            assert_eq!(prove(&Single, class), Ok(()), "{class:?}");
            if let Some(lanes) = &lanes {
                assert_eq!(prove(lanes, class), Ok(()), "{class:?}");
            }
        }
    }
}
