//! RSA in lanes: encode, take blinding pairs, run eight operations, hand out what passed its check.

use std::sync::OnceLock;

use accel_lanes::rsa::{Lane, private_in_slices};
use accel_lanes::{LANES, Path, RsaKey, RsaNumbers};

use crate::error::JobError;
use crate::job::{Job, Operation};
use crate::key::Key;
use crate::parts::{RsaParts, USUAL_EXPONENT};
use crate::simd::blinding::{Rows, RsaLanes, pairs_for};
use crate::simd::padding;

/// Bytes of the longest modulus that runs in lanes.
const MAX_LEN: usize = 512;

/// A key's constants for the lanes, made at first use.
#[derive(Debug, Default)]
pub(crate) struct RsaState(OnceLock<Option<Box<RsaLanes>>>);

impl RsaState {
    /// `None` if the lanes cannot take this key: a length they do not know, primes of different
    /// lengths, an exponent other than 65537.
    fn lanes(&self, parts: &RsaParts) -> Option<&RsaLanes> {
        self.0
            .get_or_init(|| constants(parts).map(|key| Box::new(RsaLanes::new(key))))
            .as_deref()
    }
}

fn constants(parts: &RsaParts) -> Option<RsaKey> {
    if parts.e != USUAL_EXPONENT {
        return None;
    }
    RsaKey::new(RsaNumbers {
        n: &parts.n,
        p: &parts.p,
        q: &parts.q,
        dp: &parts.dp,
        dq: &parts.dq,
        qinv: &parts.qinv,
    })
}

/// The lane form of an RSA key.
pub(crate) fn lanes_of(key: &Key) -> Option<&RsaLanes> {
    key.lane_state().rsa.lanes(key.rsa_parts()?)
}

/// Runs up to eight RSA jobs whose keys have one length. What the lanes cannot do ends as
/// [`JobError::Failed`], what does not pass the check as [`JobError::CheckFailed`]: the engine redoes
/// both. Calls `between` about every 120 us.
pub(crate) fn run(path: Path, jobs: &mut [Job<'_>], between: &mut dyn FnMut()) {
    let (mut rows, mut keys) = (Rows::new(), Rows::new());
    let mut messages = [[0; MAX_LEN]; LANES];
    for (job, message) in jobs.iter_mut().zip(&mut messages) {
        match job
            .validate()
            .and_then(|()| prepare(job, message).ok_or(JobError::Failed))
        {
            Ok((lanes, len)) => {
                job.output.clear();
                job.output.resize(len, 0);
                keys.push(lanes);
                rows.push((job, message.get(..len).unwrap_or_default()));
            }
            Err(error) => job.fail(error),
        }
    }
    let mut pairs = pairs_for(path, &keys);
    let mut lanes: Rows<Lane<'_>> = Rows::new();
    let mut results = Rows::new();
    for (((job, message), key), pair) in rows.into_iter().zip(&keys).zip(&mut pairs) {
        let pair = match pair {
            Ok(pair) => pair,
            Err(error) => {
                job.fail(*error);
                continue;
            }
        };
        lanes.push(Lane {
            key: &key.key,
            blinding: &mut pair.blinding,
            input: message,
            output: job.output.as_mut_slice(),
            correct: false,
        });
        results.push(&mut job.result);
    }
    private_in_slices(path, &mut lanes, between);
    let correct: Rows<bool> = lanes.iter().map(|lane| lane.correct).collect();
    drop(lanes);
    for (result, correct) in results.into_iter().zip(&correct) {
        *result = if *correct {
            Ok(())
        } else {
            Err(JobError::CheckFailed)
        };
    }
    // Rows without a pair had no lane.
    let used = keys.into_iter().zip(pairs);
    let used = used.filter_map(|(key, pair)| Some((key, pair.ok()?)));
    for ((key, pair), correct) in used.zip(correct) {
        if correct {
            key.keep(pair);
        } else {
            key.discard(pair);
        }
    }
    for job in jobs {
        if let Err(error) = job.result {
            job.fail(error);
        }
    }
}

/// Writes the number to be raised to d, and says with which constants and how long it is.
fn prepare<'a>(job: &Job<'a>, message: &mut [u8]) -> Option<(&'a RsaLanes, usize)> {
    let lanes = lanes_of(job.key)?;
    let len = lanes.key.size().bytes();
    let message = message.get_mut(..len)?;
    match job.operation {
        Operation::RsaPkcs1Sign(hash) => padding::pkcs1(hash, job.input, message).ok()?,
        Operation::RsaPssSign(hash) => padding::pss(hash, job.input, message).ok()?,
        Operation::RsaPrivate if job.input.len() == len => message.copy_from_slice(job.input),
        Operation::RsaPrivate
        | Operation::EcdsaSign(_)
        | Operation::Ed25519Sign
        | Operation::MlDsaSign => return None,
    }
    Some((lanes, len))
}

#[cfg(test)]
mod tests;
