//! The only place that reads the clock, so that a test can see who asks for the time.

use std::time::{Instant, SystemTime};

/// Monotonic time, for intervals and deadlines.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one door to the monotonic clock"
)]
pub fn now() -> Instant {
    Instant::now()
}

/// Time of day, for logs and for dates in policy.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one door to the time of day"
)]
pub fn wall() -> SystemTime {
    SystemTime::now()
}
