//! Keys in tokens as a backend: each job is given to the pool, and waited for.

use std::collections::HashMap;

use super::token_key::TokenKey;
use crate::backend::Backend;
use crate::class::Class;
use crate::error::JobError;
use crate::job::{Job, Operation};
use crate::key::Key;

/// Runs jobs on tokens, all jobs of a batch side by side.
///
/// A job's key is a key in a token, or one in memory whose twin in a token this backend was given: then the
/// twin does the work. That is how the suite that holds every backend to the same rules runs over tokens.
#[derive(Debug, Default)]
pub struct Blocking {
    twins: HashMap<[u8; 20], TokenKey>,
}

impl Blocking {
    /// A backend that lends these keys in tokens to their twins in memory.
    #[must_use]
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a Key>) -> Self {
        let twin = |key: &'a Key| Some((key.ski(), key.token()?.clone()));
        Self {
            twins: keys.into_iter().filter_map(twin).collect(),
        }
    }

    fn token<'a>(&'a self, key: &'a Key) -> Option<&'a TokenKey> {
        key.token().or_else(|| self.twins.get(&key.ski()))
    }
}

impl Backend for Blocking {
    fn name(&self) -> &'static str {
        "pkcs11"
    }

    fn lanes(&self, _: Class) -> usize {
        1
    }

    /// Every result is verified with the public key before the pool releases it.
    fn checks_results(&self) -> bool {
        true
    }

    fn accepts(&self, key: &Key, operation: Operation) -> bool {
        operation.fits(key.key_type())
            && self.token(key).is_some_and(|token| token.allows(operation))
    }

    fn run(&self, jobs: &mut [Job<'_>]) {
        let begun: Vec<_> = jobs
            .iter()
            .map(|job| {
                job.validate()?;
                let token = self.token(job.key).ok_or(JobError::Failed)?;
                token.begin(job.operation, job.input)
            })
            .collect();
        for (job, begun) in jobs.iter_mut().zip(begun) {
            job.output.clear();
            match begun.and_then(|answer| answer.wait(job.output)) {
                Ok(()) => job.result = Ok(()),
                Err(error) => job.fail(error),
            }
        }
    }
}
