//! Sleeping until a moment, and hardly longer.

use std::cell::Cell;
use std::thread;
use std::time::Instant;

thread_local! {
    static EXACT: Cell<bool> = const { Cell::new(false) };
}

/// Returns at `end`, or as soon after as the machine lets this thread run.
pub(crate) fn until(end: Instant) {
    EXACT.with(|exact| {
        if !exact.replace(true) {
            be_exact();
        }
    });
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        thread::sleep(left);
    }
}

/// The kernel may let a sleep last 50 us longer than asked for, to wake several threads at once. A device knows
/// nothing of that.
fn be_exact() {
    let slack: libc::c_ulong = 1; // nanosecond; 0 would mean the default
    // SAFETY: this option takes one number and changes nothing but when the calling thread's timers fire.
    let _ = unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, slack) };
}
