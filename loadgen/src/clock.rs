//! Time for the measurement: nanoseconds since the run's origin, read from the system's monotonic clock.

use std::time::Instant;

use crate::units::duration_ns;

/// Counts nanoseconds from its making. All threads of a run share one origin.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock that reads 0 now.
    #[must_use]
    pub fn start() -> Self {
        Self {
            origin: Instant::now(),
        }
    }

    /// Nanoseconds since the start.
    #[must_use]
    pub fn now(&self) -> u64 {
        duration_ns(self.origin.elapsed())
    }
}
