//! One operation after the other on AWS-LC: the default backend, and the reference for the others.

use crate::aws_lc::{ED25519_SIGNATURE_LEN, MAX_ECDSA_LEN, Refused};
use crate::backend::Backend;
use crate::class::Class;
use crate::error::JobError;
use crate::job::{Job, Operation};
use crate::key::Material;

/// Runs each job by itself through AWS-LC, for every operation and key type.
///
/// RSA, ECDSA and Ed25519 jobs allocate nothing on the Rust side once `output` has grown
/// (`tests/allocations.rs`).
#[derive(Clone, Copy, Debug, Default)]
pub struct Single;

impl Backend for Single {
    fn name(&self) -> &'static str {
        "aws-lc"
    }

    fn lanes(&self, _: Class) -> usize {
        1
    }

    /// AWS-LC raises every RSA result to the public exponent and compares before it returns it.
    fn checks_results(&self) -> bool {
        true
    }

    fn run(&self, jobs: &mut [Job<'_>]) {
        self.run_yielding(jobs, &mut || {});
    }

    fn run_yielding(&self, jobs: &mut [Job<'_>], between: &mut dyn FnMut()) {
        for job in jobs {
            match job.validate() {
                Err(error) => job.fail(error),
                Ok(()) => match compute(job) {
                    Ok(()) => job.result = Ok(()),
                    Err(Refused) => job.fail(JobError::Failed),
                },
            }
            between();
        }
    }
}

/// Runs a validated job.
fn compute(job: &mut Job<'_>) -> Result<(), Refused> {
    job.output.clear();
    match (job.key.material(), job.operation) {
        (Material::Rsa(rsa, parts), operation) => {
            job.output.resize(parts.modulus_len(), 0);
            match operation {
                Operation::RsaPkcs1Sign(hash) => rsa.sign_pkcs1(hash, job.input, job.output),
                Operation::RsaPssSign(hash) => rsa.sign_pss(hash, job.input, job.output),
                Operation::RsaPrivate => rsa.private_raw(job.input, job.output),
                Operation::EcdsaSign(_) | Operation::Ed25519Sign | Operation::MlDsaSign => {
                    Err(Refused)
                }
            }
        }
        (Material::Ec(ec, _), Operation::EcdsaSign(_)) => {
            let mut signature = [0; MAX_ECDSA_LEN];
            let length = ec.sign(job.input, &mut signature)?;
            job.output
                .extend_from_slice(signature.get(..length).ok_or(Refused)?);
            Ok(())
        }
        (Material::Ed25519(pair), Operation::Ed25519Sign) => {
            let mut signature = [0; ED25519_SIGNATURE_LEN];
            pair.sign(job.input, &mut signature)?;
            job.output.extend_from_slice(&signature);
            Ok(())
        }
        (Material::MlDsa(keys), Operation::MlDsaSign) => {
            let (pair, _) = &**keys;
            job.output.resize(pair.algorithm().signature_len(), 0);
            let length = pair.sign(job.input, job.output).map_err(|_| Refused)?;
            if length == job.output.len() {
                Ok(())
            } else {
                Err(Refused)
            }
        }
        #[cfg(feature = "pkcs11")]
        (Material::Token(token), operation) => token
            .run(operation, job.input, job.output)
            .map_err(|_| Refused),
        _ => Err(Refused),
    }
}
