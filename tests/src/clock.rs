//! The time of day, for tests that it could get in the way of.

use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Longer than a test takes that counts the uses of one day, and short enough to wait for within the time of a test.
const BEFORE_MIDNIGHT: u64 = 90;

/// Waits for the next day (UTC) when this one is nearly over: what a grant gives in a day would be given twice.
pub fn wait_past_midnight() {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock after 1970")
        .as_secs();
    let left = 86_400 - now % 86_400;
    if left < BEFORE_MIDNIGHT {
        thread::sleep(Duration::from_secs(left + 1));
    }
}
