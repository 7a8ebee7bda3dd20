//! Signs once with every new or changed key before it is put in force, and checks the signature.
//!
//! A key file that was damaged in a way its own consistency checks do not see, a key whose token does
//! not let it sign, or a machine whose arithmetic fails, is found here and not by the first client.

use std::num::NonZero;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use accel::{
    Engine, EngineConfig, EngineError, Hash, Job, Key, KeyType, MAX_FILL, Operation, VerifyRate,
};

use crate::snapshot::{LoadError, Snapshot};
use crate::tokens::Tokens;
use crate::{alarm, config, os};

/// What is signed. Any 32 bytes do; these say in a trace where they come from.
const MESSAGE: &[u8; 32] = b"keyserver: test before key use..";

/// An engine that verifies everything it computes.
#[derive(Debug)]
pub(crate) struct Prover(Engine);

impl Prover {
    /// An engine of the kind that will serve the requests.
    pub(crate) fn new(accel: &config::Accel) -> Result<Self, EngineError> {
        let engine = match accel.engine {
            config::EngineChoice::Auto => accel::EngineChoice::Auto,
            config::EngineChoice::Lanes => accel::EngineChoice::Lanes,
            config::EngineChoice::Single => accel::EngineChoice::Single,
        };
        let verify_ecdsa = VerifyRate::ALWAYS;
        // Speed does not matter here, so nothing is measured.
        let calibration = Duration::ZERO;
        Engine::new(EngineConfig {
            engine,
            verify_ecdsa,
            calibration,
        })
        .map(Self)
    }

    /// Signs with every key of `new` that is not the same object in `old`.
    ///
    /// # Errors
    ///
    /// [`LoadError::SelfTest`] names the first key whose signature is not right.
    pub(crate) fn prove(&self, new: &Snapshot, old: Option<&Snapshot>) -> Result<(), LoadError> {
        // The very object: a key that has moved between a file and a token, or between tokens, or that was read
        // again, is another one with the same name.
        let known = |key: &Key| {
            old.and_then(|old| old.keys.by_ski(&key.ski()))
                .is_some_and(|(_, old)| std::ptr::eq(Arc::as_ptr(old), key))
        };
        let mut keys: Vec<(&Key, &str)> = (0..)
            .map_while(|position| new.key_at(position))
            // A key whose slot is down is only there when it need not be, and is checked when the
            // slot comes back.
            .filter(|(key, _)| !known(key) && Tokens::can_serve(key))
            .map(|(key, label)| (&**key, label))
            .collect();
        // One class after the other, so that the engine can use its lanes.
        keys.sort_by_key(|(key, _)| key.class());
        let batches: Vec<_> = keys.chunk_by(|a, b| a.0.class() == b.0.class()).collect();
        let batches: Vec<_> = batches
            .iter()
            .flat_map(|keys| keys.chunks(MAX_FILL))
            .collect();
        let result = self.run_all(&batches, old.is_some());
        // A key that only came right the second time is in force, and the machine is suspect.
        alarm::report(&self.0);
        result
    }

    /// Spreads the batches over the CPUs: 100,000 RSA keys take a core about half a minute. When a server is serving
    /// meanwhile, what it serves goes first.
    fn run_all(&self, batches: &[&[(&Key, &str)]], is_serving: bool) -> Result<(), LoadError> {
        let next = Mutex::new(batches.iter());
        let take = || next.lock().unwrap_or_else(PoisonError::into_inner).next();
        let work = || {
            if is_serving {
                os::settle_background_thread();
            }
            while let Some(batch) = take() {
                self.run(batch)?;
            }
            Ok(())
        };
        let cpus = std::thread::available_parallelism().map_or(1, NonZero::get);
        std::thread::scope(|scope| {
            // Threads of their own: a thread that has lowered its priority cannot raise it again.
            let threads = cpus.min(batches.len());
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            let result = |thread: ScopedJoinHandle<'_, _>| {
                thread.join().unwrap_or_else(|panic| resume_unwind(panic))
            };
            threads.into_iter().try_for_each(result)
        })
    }

    fn run(&self, keys: &[(&Key, &str)]) -> Result<(), LoadError> {
        let mut outputs = vec![Vec::new(); keys.len()];
        let mut jobs: Vec<Job<'_>> = (keys.iter().zip(&mut outputs))
            .map(|((key, _), output)| Job::new(key, operation(key.key_type()), MESSAGE, output))
            .collect();
        self.0.run(&mut jobs);
        for (job, (_, label)) in jobs.iter().zip(keys) {
            job.result.map_err(|reason| LoadError::SelfTest {
                label: (*label).to_owned(),
                reason: reason.to_string(),
            })?;
            if let Err(error) = self.0.prepare_key_exchange(job.key) {
                tracing::warn!(
                    key = label,
                    %error,
                    "the token does not do the bare RSA operation (CKM_RSA_X_509): key exchanges with this key fail"
                );
            }
        }
        Ok(())
    }
}

/// The signature that is made for a test.
const fn operation(key: KeyType) -> Operation {
    match key {
        KeyType::Rsa { .. } => Operation::RsaPkcs1Sign(Hash::Sha256),
        KeyType::P256 | KeyType::P384 | KeyType::P521 => Operation::EcdsaSign(Hash::Sha256),
        KeyType::Ed25519 => Operation::Ed25519Sign,
        KeyType::MlDsa44 | KeyType::MlDsa65 | KeyType::MlDsa87 => Operation::MlDsaSign,
    }
}
