//! The engine: routes a batch to the cheapest backend and lets no wrong result out.
//!
//! ```text
//!            jobs of one class
//!                   |
//!        accepted by the lane backend?  -- no --> reference (AWS-LC, one by one)
//!                   | yes                              |
//!      batch cheaper than singles? -- no ------------->|
//!                   | yes                              |
//!             lane backend                             |
//!                   |                                  |
//!     RSA: checked by the backend or here;  curves: a sample is verified
//!                   |
//!      failed? -> count, alarm, quarantine, wipe, redo on the reference, verify; failed again? -> CheckFailed
//! ```
//!
//! A backend that gave a wrong result is not asked again for that class: [`crate::quarantine`].

use std::fmt;
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use zeroize::{Zeroize, Zeroizing};

use crate::alarm::{AlarmQueue, Alarms, Check};
use crate::backend::Backend;
use crate::calibrate::{CostTable, MAX_FILL};
use crate::class::Class;
use crate::error::{EngineError, JobError};
use crate::job::{Job, Operation};
use crate::key::Key;
use crate::prove::{ProofError, prove};
use crate::quarantine::{Quarantine, Trust};
use crate::simd::Lanes;
use crate::single::Single;
use crate::verify::{Sampler, VerifyRate, result_is_correct};

/// Which backends may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineChoice {
    /// Lanes where the processor has them and a batch is cheaper, single operations otherwise.
    #[default]
    Auto,
    /// Every operation the lane backend accepts goes to it, whatever it costs; for tests.
    Lanes,
    /// Single operations only.
    Single,
}

/// How to make an [`Engine`].
#[derive(Clone, Copy, Debug)]
pub struct EngineConfig {
    /// Which backends may be used.
    pub engine: EngineChoice,
    /// How many ECDSA, Ed25519 and ML-DSA signatures are verified. RSA results always are.
    pub verify_ecdsa: VerifyRate,
    /// How long to measure each class at start. Zero skips the measurement and takes built-in
    /// estimates, which is right for tests and wrong for a busy server.
    pub calibration: Duration,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            engine: EngineChoice::Auto,
            verify_ecdsa: VerifyRate::default(),
            calibration: Duration::from_millis(50),
        }
    }
}

/// What an engine has done so far, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Results that did not verify. None of them was released. Anything above zero is an alarm: it
    /// means failing hardware or a fault in the engine.
    pub check_failures: u64,
    /// Jobs redone on the reference backend, because of a failed check or because the lane backend
    /// gave up on them.
    pub fallbacks: u64,
    /// Jobs that ran in a batch of the lane backend.
    pub batched: u64,
    /// Jobs that ran alone.
    pub single: u64,
}

#[derive(Debug, Default)]
struct AtomicCounters {
    check_failures: AtomicU64,
    fallbacks: AtomicU64,
    batched: AtomicU64,
    single: AtomicU64,
}

fn count(counter: &AtomicU64, by: usize) {
    counter.fetch_add(u64::try_from(by).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// Runs jobs. One engine serves all threads.
pub struct Engine {
    reference: Box<dyn Backend>,
    lanes: Option<Box<dyn Backend>>,
    choice: EngineChoice,
    costs: CostTable,
    sampler: Sampler,
    counters: AtomicCounters,
    alarms: AlarmQueue,
    quarantine: Quarantine,
    precompute: bool,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("backend", &self.backend_name())
            .field("choice", &self.choice)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Makes an engine with the backends this processor offers and measures what they cost.
    ///
    /// # Errors
    ///
    /// [`EngineError::LanesUnavailable`] when lanes are demanded and the processor has none;
    /// [`EngineError::Calibration`] when the first operations fail.
    pub fn new(config: EngineConfig) -> Result<Self, EngineError> {
        let lanes = Lanes::detect().map(|lanes| Box::new(lanes) as Box<dyn Backend>);
        Self::with_lanes(config, lanes)
    }

    /// Makes an engine over a lane backend of the caller's, for tests and comparisons.
    ///
    /// # Errors
    ///
    /// As [`Engine::new`].
    pub fn with_lanes(
        config: EngineConfig,
        lanes: Option<Box<dyn Backend>>,
    ) -> Result<Self, EngineError> {
        Self::with_backends(config, Box::new(Single), lanes)
    }

    /// The same over a reference of the caller's too: how a test puts a fault into single operations. Calibration
    /// measures AWS-LC whatever is given here.
    ///
    /// # Errors
    ///
    /// As [`Engine::new`].
    pub fn with_backends(
        config: EngineConfig,
        reference: Box<dyn Backend>,
        lanes: Option<Box<dyn Backend>>,
    ) -> Result<Self, EngineError> {
        let lanes = match config.engine {
            EngineChoice::Single => None,
            EngineChoice::Auto => lanes,
            EngineChoice::Lanes => Some(lanes.ok_or(EngineError::LanesUnavailable)?),
        };
        let costs = if config.calibration.is_zero() {
            CostTable::estimate(lanes.as_deref())
        } else {
            CostTable::measure(lanes.as_deref(), config.calibration)
                .map_err(EngineError::Calibration)?
        };
        Ok(Self {
            reference,
            lanes,
            choice: config.engine,
            costs,
            sampler: Sampler::new(config.verify_ecdsa),
            counters: AtomicCounters::default(),
            alarms: AlarmQueue::new(),
            quarantine: Quarantine::default(),
            precompute: false,
        })
    }

    /// Lets [`Self::idle`] work on nonces of ECDSA before there is anything to sign. A decision about security, and off
    /// unless it is called: such nonces are as good as the random generator, and not also a hash of key and digest;
    /// they lie in memory, and a copy of the machine would use them twice. `docs/configuration.md` says more.
    #[must_use]
    pub const fn precompute_ecdsa(mut self) -> Self {
        self.precompute = true;
        self
    }

    /// Whether [`Self::precompute_ecdsa`] was called.
    #[must_use]
    pub const fn precomputes(&self) -> bool {
        self.precompute
    }

    /// To be called by a thread that has no job to run: does some of the work of later ones, up to about 100 us of it. `false`
    /// when there is nothing to prepare. What a thread prepares it uses itself.
    pub fn idle(&self) -> bool {
        self.precompute && self.lanes.as_deref().is_some_and(Backend::prepare)
    }

    /// How many jobs of `class` the calling thread has prepared for, see [`Self::idle`].
    #[must_use]
    pub fn prepared(&self, class: Class) -> usize {
        (self.lanes.as_deref()).map_or(0, |lanes| lanes.prepared(class))
    }

    /// Name of the fastest backend in use, for logs and metrics.
    #[must_use]
    pub fn backend_name(&self) -> &'static str {
        self.lanes
            .as_deref()
            .map_or_else(|| self.reference.name(), Backend::name)
    }

    /// What each class costs on this machine, as measured at start.
    #[must_use]
    pub const fn costs(&self) -> &CostTable {
        &self.costs
    }

    /// What has happened so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            check_failures: read(&self.counters.check_failures),
            fallbacks: read(&self.counters.fallbacks),
            batched: read(&self.counters.batched),
            single: read(&self.counters.single),
        }
    }

    /// The results that failed their check since this was last called. Whoever runs the engine asks
    /// every second or so and tells the operator: this machine computes wrongly.
    #[must_use]
    pub fn take_alarms(&self) -> Alarms {
        self.alarms.take()
    }

    /// How far `class` is believed.
    #[must_use]
    pub fn trust(&self, class: Class) -> Trust {
        self.quarantine.trust(class)
    }

    /// Ends the quarantine of `class`, if its backends prove themselves: a person has looked at the machine. The proof
    /// takes [`crate::PROOF_OPERATIONS`] operations with a key of the engine's own, on the reference and in lanes, and
    /// every result is verified.
    ///
    /// # Errors
    ///
    /// [`ProofError`]; nothing has changed then.
    pub fn release(&self, class: Class) -> Result<(), ProofError> {
        let from = self.trust(class);
        prove(&*self.reference, class)?;
        if let Some(lanes) = self.lanes.as_deref() {
            prove(lanes, class)?;
        }
        if from != Trust::Trusted && !self.quarantine.raise(class, from, Trust::Trusted) {
            return Err(ProofError::FailedMeanwhile);
        }
        Ok(())
    }

    /// Proves single operations of `class` again and, if they are right, lets a class that is refused go on with them.
    /// `true` if it does.
    pub fn try_single(&self, class: Class) -> bool {
        self.trust(class) == Trust::Refused
            && prove(&*self.reference, class).is_ok()
            && (self.quarantine).raise(class, Trust::Refused, Trust::Single)
    }

    /// Lets a key in a token answer key exchanges: has it compute once what takes the place of the private
    /// exponent. Nothing to do for other keys. Blocks for one operation of the token.
    ///
    /// # Errors
    ///
    /// The token did not do the bare RSA operation; key exchanges with this key will fail.
    pub fn prepare_key_exchange(&self, key: &Key) -> Result<(), JobError> {
        let Some(challenge) = key.key_exchange_challenge() else {
            return Ok(());
        };
        let mut opened = Zeroizing::new(Vec::new());
        let mut job = Job::new(key, Operation::RsaPrivate, &challenge, &mut opened);
        self.run(slice::from_mut(&mut job));
        job.result?;
        key.prepare_key_exchange(&opened);
        Ok(())
    }

    /// Runs every job, in place: fills its output, sets its result.
    ///
    /// Meant for jobs of one class, which is what lanes can share; a mixture is run correctly, but in
    /// smaller batches. The caller takes at most as many jobs as it wants finished together: they
    /// all return at once.
    pub fn run(&self, jobs: &mut [Job<'_>]) {
        self.run_yielding(jobs, &mut || {});
    }

    /// Like [`Self::run`], and calls `between` about every 150 us within a long batch and after each single, so that a
    /// signature of 10 us does not wait for an RSA-4096 batch of 4 ms. What `between` runs must be
    /// short, and must not come back here with long work of its own.
    pub fn run_yielding(&self, jobs: &mut [Job<'_>], between: &mut dyn FnMut()) {
        // A job that a backend passes over has failed, whatever its caller had put there.
        (jobs.iter_mut()).for_each(|job| job.result = Err(JobError::Failed));
        Key::warm(jobs.iter().map(|job| job.key));
        self.compute(jobs, between);
        jobs.iter_mut().for_each(answer_key_exchange);
    }

    fn compute(&self, jobs: &mut [Job<'_>], between: &mut dyn FnMut()) {
        let Some(lanes) = self.lanes.as_deref() else {
            self.run_single(jobs, between);
            return;
        };
        let mut rest = jobs;
        while !rest.is_empty() {
            let (fill, batch) = self.plan(lanes, rest);
            let (now, later) = rest.split_at_mut(fill);
            if batch {
                count(&self.counters.batched, now.len());
                lanes.run_yielding(now, between);
                self.check(now, lanes, false);
            } else {
                self.run_single(now, between);
            }
            rest = later;
        }
    }

    /// How many of the first jobs to run together, and whether in lanes.
    fn plan(&self, lanes: &dyn Backend, jobs: &[Job<'_>]) -> (usize, bool) {
        let takes = |job: &Job<'_>| {
            job.operation.fits(job.key.key_type()) && lanes.accepts(job.key, job.operation)
        };
        let Some(first) = jobs.first() else {
            return (0, false);
        };
        let class = first.key.class();
        let width = lanes.lanes(class).min(MAX_FILL);
        let trusted = self.quarantine.trust(class) == Trust::Trusted;
        if width < 2 || !trusted || !takes(first) {
            let alone = |job: &&Job<'_>| {
                let class = job.key.class();
                lanes.lanes(class) < 2
                    || self.quarantine.trust(class) != Trust::Trusted
                    || !takes(job)
            };
            return (jobs.iter().take_while(alone).count(), false);
        }
        let fill = jobs
            .iter()
            .take(width)
            .take_while(|job| job.key.class() == class && takes(job))
            .count();
        let batch = self.choice == EngineChoice::Lanes
            || self.costs.prefers_batch(class, fill)
            || lanes.prepared(class) >= fill;
        (fill, batch)
    }

    fn run_single(&self, jobs: &mut [Job<'_>], between: &mut dyn FnMut()) {
        // What a token computes is not this machine's.
        let kind = |job: &Job<'_>| (job.key.class(), job.key.is_in_token());
        for jobs in jobs.chunk_by_mut(|one, next| kind(one) == kind(next)) {
            let Some((class, is_in_token)) = jobs.first().map(kind) else {
                continue;
            };
            if !is_in_token && self.quarantine.trust(class) == Trust::Refused {
                jobs.iter_mut()
                    .for_each(|job| job.fail(JobError::Quarantined));
                continue;
            }
            count(&self.counters.single, jobs.len());
            self.reference.run_yielding(jobs, between);
            self.check(jobs, &*self.reference, true);
        }
    }

    /// Looks at each result of `backend` before the caller sees it.
    fn check(&self, jobs: &mut [Job<'_>], backend: &dyn Backend, is_reference: bool) {
        let mut found = false;
        for job in jobs.iter_mut() {
            found |= self.check_one(job, backend, is_reference, false);
        }
        if found {
            // What the rate has passed over came from the same hands.
            for job in jobs.iter_mut().filter(|job| job.result.is_ok()) {
                self.check_one(job, backend, is_reference, true);
            }
        }
    }

    /// Looks at one result, and at its numbers too where the rate or the class says so, or if it `must`. Whether a check
    /// failed.
    fn check_one(
        &self,
        job: &mut Job<'_>,
        backend: &dyn Backend,
        is_reference: bool,
        must: bool,
    ) -> bool {
        // What a token returns has been verified, and retried where that helps, before it gets here.
        if job.key.is_in_token() {
            return false;
        }
        let failed = match job.result {
            Ok(()) => {
                let due = match job.operation {
                    Operation::RsaPkcs1Sign(_)
                    | Operation::RsaPssSign(_)
                    | Operation::RsaPrivate => !backend.checks_results(),
                    Operation::EcdsaSign(_) | Operation::Ed25519Sign | Operation::MlDsaSign => {
                        self.sampler.next()
                    }
                };
                let due = due || must || self.quarantine.trust(job.key.class()) != Trust::Trusted;
                if !due || result_is_correct(job) {
                    return false;
                }
                Some(Check::Verification)
            }
            // A backend that checks by itself says so when a check failed.
            Err(JobError::CheckFailed) => Some(Check::Backend),
            Err(JobError::Failed) => None,
            Err(JobError::Input | JobError::WrongKey | JobError::Quarantined) => return false,
        };
        if failed.is_some() {
            count(&self.counters.check_failures, 1);
            let trust = if is_reference {
                Trust::Refused
            } else {
                Trust::Single
            };
            self.quarantine.lower(job.key.class(), trust);
        }
        self.redo(job);
        if let Some(check) = failed {
            let redone = job.result.is_ok();
            self.alarms.raise(backend.name(), job, check, redone);
        }
        failed.is_some()
    }

    /// Wipes a failed result and tries once more on the reference backend, always verifying.
    fn redo(&self, job: &mut Job<'_>) {
        count(&self.counters.fallbacks, 1);
        job.output.zeroize();
        self.reference.run(slice::from_mut(job));
        if job.result.is_ok() && !result_is_correct(job) {
            count(&self.counters.check_failures, 1);
            self.quarantine.lower(job.key.class(), Trust::Refused);
            job.fail(JobError::CheckFailed);
            let name = self.reference.name();
            self.alarms.raise(name, job, Check::Verification, false);
        }
    }
}

/// Turns the opened block of an RSA key exchange into what the asker may see. By then the block has
/// passed its check; whether its padding is good nobody outside of `key_exchange` ever knows.
fn answer_key_exchange(job: &mut Job<'_>) {
    let (Some(exchange), Ok(())) = (job.exchange, job.result) else {
        return;
    };
    if let Err(error) = exchange.answer(job.key, job.input, job.output) {
        job.fail(error);
    }
}

#[cfg(test)]
mod tests;
