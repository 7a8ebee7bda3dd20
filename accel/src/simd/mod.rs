//! The lane backend: up to eight operations of one class at once, over the kernels of `accel-lanes`.
//!
//! | file | noun |
//! |---|---|
//! | `rsa.rs` | a batch of RSA jobs; a key's constants |
//! | `blinding.rs` | blinding pairs, made eight at a time and kept with their key |
//! | `padding.rs` | EMSA-PKCS1-v1_5 and EMSA-PSS |
//! | `ecdsa.rs` | a batch of ECDSA jobs: nonces, signatures, DER |
//! | `prepared.rs` | nonces worked on while a thread had nothing else to do |
//!
//! Everything here is safe code.

mod blinding;
mod ecdsa;
pub(crate) mod padding;
mod prepared;
mod rsa;

use accel_lanes::{Ifma, LANES, Path};

use crate::backend::Backend;
use crate::class::Class;
use crate::error::JobError;
use crate::job::{Job, Operation};
use crate::key::Key;

/// What a key carries for the lanes, filled at first use.
#[derive(Debug, Default)]
pub(crate) struct LaneState {
    rsa: rsa::RsaState,
}

/// Eight operations at once.
#[derive(Clone, Copy, Debug)]
pub struct Lanes {
    path: Path,
}

impl Lanes {
    /// The lanes of this processor; `None` without AVX-512 IFMA, where single operations are quicker.
    #[must_use]
    pub fn detect() -> Option<Self> {
        Ifma::detect().map(|token| Self {
            path: Path::Ifma(token),
        })
    }

    /// The portable twin: the same computation on any processor, for tests. Much slower than single
    /// operations.
    #[must_use]
    pub const fn portable() -> Self {
        Self {
            path: Path::portable(),
        }
    }
}

impl Backend for Lanes {
    fn name(&self) -> &'static str {
        match self.path {
            Path::Ifma(_) => "lanes-ifma",
            Path::Portable(_) => "lanes-portable",
        }
    }

    fn lanes(&self, class: Class) -> usize {
        match class {
            Class::P256 | Class::P384 | Class::Rsa2048 | Class::Rsa3072 | Class::Rsa4096 => LANES,
            Class::P521 | Class::Ed25519 | Class::MlDsa | Class::RsaOther => 1,
        }
    }

    /// Every RSA lane is raised to e and compared before it is released.
    fn checks_results(&self) -> bool {
        true
    }

    fn accepts(&self, key: &Key, operation: Operation) -> bool {
        operation.fits(key.key_type())
            && !key.is_in_token()
            && (ecdsa::scalar_len(key).is_some() || rsa::lanes_of(key).is_some())
    }

    fn prepare(&self) -> bool {
        prepared::prepare(self.path)
    }

    fn prepared(&self, class: Class) -> usize {
        ecdsa::curve_of(class).map_or(0, prepared::waiting)
    }

    fn run(&self, jobs: &mut [Job<'_>]) {
        self.run_yielding(jobs, &mut || ());
    }

    fn run_yielding(&self, jobs: &mut [Job<'_>], between: &mut dyn FnMut()) {
        let mut rest = jobs;
        while let Some(first) = rest.first() {
            let class = first.key.class();
            let fill = rest
                .iter()
                .take(LANES)
                .take_while(|job| job.key.class() == class)
                .count();
            let (batch, later) = rest.split_at_mut(fill);
            match class {
                Class::Rsa2048 | Class::Rsa3072 | Class::Rsa4096 => {
                    rsa::run(self.path, batch, between);
                }
                Class::P256 | Class::P384 => ecdsa::run(self.path, batch),
                Class::P521 | Class::Ed25519 | Class::MlDsa | Class::RsaOther => {
                    batch.iter_mut().for_each(refuse);
                }
            }
            rest = later;
        }
    }
}

/// Ends a job of a class without lanes: with its own error if it has one, else as a failure, which the
/// engine redoes on the reference backend.
fn refuse(job: &mut Job<'_>) {
    let error = job.validate().err().unwrap_or(JobError::Failed);
    job.fail(error);
}

/// How many random inputs a test takes that takes fewer in an ordinary run; `LANES_CASES=100000` is the long run.
#[cfg(test)]
fn cases(ordinary: usize) -> usize {
    std::env::var("LANES_CASES").map_or(ordinary, |cases| {
        cases.parse().expect("LANES_CASES is a number of inputs")
    })
}
