//! The trait behind which every way of computing lives.

use crate::class::Class;
use crate::job::{Job, Operation};
use crate::key::Key;

/// A way to run private-key operations.
///
/// All backends refuse the same inputs with the same errors ([`Job::validate`]) and pass the same
/// conformance suite, `accel/tests/conformance.rs`.
pub trait Backend: Send + Sync {
    /// Short name for logs, metrics and reports: `aws-lc`.
    fn name(&self) -> &'static str;

    /// How many jobs of `class` run side by side in one batch; 1 means one after the other. At most
    /// [`crate::MAX_FILL`].
    fn lanes(&self, class: Class) -> usize;

    /// Whether every RSA result has been checked with the public exponent before it is returned. Where
    /// it is false the engine makes that check itself.
    fn checks_results(&self) -> bool;

    /// Whether this backend can do `operation` with this very `key`. The engine gives rows that are
    /// not accepted to the reference backend. Only asked when the operation fits the key's type.
    fn accepts(&self, key: &Key, operation: Operation) -> bool {
        operation.fits(key.key_type())
    }

    /// Does some of the work of later jobs in this thread: up to about 100 us of it, for no job in particular. `false`
    /// when there is nothing, or nothing more, to prepare.
    fn prepare(&self) -> bool {
        false
    }

    /// How many jobs of `class` this thread has prepared work for.
    fn prepared(&self, class: Class) -> usize {
        let _ = class;
        0
    }

    /// Runs every job: fills `output` and sets `result` of each, in place, whatever happens to its
    /// neighbours. Rows may carry different keys and operations; the engine passes at most
    /// [`Backend::lanes`] rows of one class where that is more than 1.
    fn run(&self, jobs: &mut [Job<'_>]);

    /// Like [`Backend::run`], and calls `between` at moments when other work may be slipped in, if the
    /// batch is a long one. What those moments are depends on the length of the numbers alone, never on
    /// a key.
    fn run_yielding(&self, jobs: &mut [Job<'_>], between: &mut dyn FnMut()) {
        let _ = between;
        self.run(jobs);
    }
}
