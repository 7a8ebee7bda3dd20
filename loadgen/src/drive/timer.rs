//! Sleeping to the microsecond: the wait of an event queue counts in milliseconds, a timer descriptor in nanoseconds.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

/// A timer that wakes an event queue. Its expiry need not be read: it is registered edge-triggered, and setting it again
/// forgets the last one.
#[derive(Debug)]
pub(crate) struct Timer {
    fd: TimerFd,
    /// What it is set to, on the run's clock.
    set_to_ns: u64,
}

impl Timer {
    pub(crate) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let fd = TimerFd::new(
            ClockId::CLOCK_MONOTONIC,
            TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC,
        )?;
        registry.register(
            &mut SourceFd(&fd.as_fd().as_raw_fd()),
            token,
            Interest::READABLE,
        )?;
        Ok(Self { fd, set_to_ns: 0 })
    }

    /// Wakes the queue once, at a time later than now, both on the run's clock. Setting it to the same time again costs
    /// nothing.
    pub(crate) fn wake_at(&mut self, at_ns: u64, now_ns: u64) -> io::Result<()> {
        if at_ns != self.set_to_ns {
            // A wait of zero would switch the timer off.
            let wait = TimeSpec::from(Duration::from_nanos(at_ns.saturating_sub(now_ns).max(1)));
            self.fd
                .set(Expiration::OneShot(wait), TimerSetTimeFlags::empty())?;
            self.set_to_ns = at_ns;
        }
        Ok(())
    }
}
