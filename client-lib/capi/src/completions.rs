//! Results of submitted calls: they wait here until the event loop takes them, and a descriptor
//! becomes readable.
//!
//! ```text
//!   submit ---> client ---> callback: queue, then eventfd += 1 ---> poll() in the event loop
//!                                                                     |
//!              completions: eventfd = 0, then take from the queue <---'
//! ```
//!
//! Taking clears the descriptor first: a result that arrives in between sets it again, and is not
//! overlooked.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::process;
use std::sync::{Arc, Mutex, PoisonError};

use client::Error;
use nix::sys::eventfd::{EfdFlags, EventFd};
use zeroize::Zeroizing;

use crate::status::Failure;
use crate::types::KeyserverStatus;

/// Most calls that are on their way or wait to be taken.
const OUTSTANDING_MAX: usize = 4096;

/// What the caller gave to know its call by. Nothing is done with it but handing it back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct User(pub(crate) usize);

/// One outcome.
#[derive(Debug)]
pub(crate) struct Completion {
    pub(crate) user: User,
    pub(crate) outcome: Result<Zeroizing<Vec<u8>>, Error>,
}

/// See the module's own text.
#[derive(Debug)]
pub(crate) struct Completions {
    state: Mutex<State>,
    event: EventFd,
    /// A child has the same descriptor and results of its own: it would take the parent's signal and leave it
    /// asleep.
    process: u32,
}

#[derive(Debug, Default)]
struct State {
    outstanding: usize,
    ready: VecDeque<Completion>,
}

impl Completions {
    pub(crate) fn new() -> Result<Arc<Self>, Failure> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let event = EventFd::from_flags(flags).map_err(|error| {
            Failure::new(KeyserverStatus::Internal, format!("no descriptor: {error}"))
        })?;
        Ok(Arc::new(Self {
            state: Mutex::default(),
            event,
            process: process::id(),
        }))
    }

    /// Becomes readable when something is ready.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.event.as_fd().as_raw_fd()
    }

    fn check_process(&self) -> Result<(), Failure> {
        if self.process == process::id() {
            return Ok(());
        }
        let why = "the client's descriptor is the parent's; make a client after the fork";
        Err(Failure::new(KeyserverStatus::Closed, why))
    }

    /// Counts one more call, if there is room for it.
    pub(crate) fn begin(&self) -> Result<(), Failure> {
        self.check_process()?;
        let mut state = self.lock();
        if state.outstanding >= OUTSTANDING_MAX {
            return Err(Error::Overloaded.into());
        }
        state.outstanding += 1;
        Ok(())
    }

    /// A call that was counted did not begin.
    pub(crate) fn did_not_begin(&self) {
        self.lock().outstanding -= 1;
    }

    /// A call is over.
    pub(crate) fn finish(&self, user: User, outcome: Result<Vec<u8>, Error>) {
        let outcome = outcome.map(Zeroizing::new);
        self.lock().ready.push_back(Completion { user, outcome });
        // It fails only when 2^64 results wait.
        let _ = self.event.write(1);
    }

    /// Up to `most` that are ready. The descriptor stays readable when there are more.
    pub(crate) fn take(&self, most: usize) -> Result<Vec<Completion>, Failure> {
        self.check_process()?;
        // It fails when the descriptor was not readable, which is well.
        let _ = self.event.read();
        let mut state = self.lock();
        let count = state.ready.len().min(most);
        let taken: Vec<_> = state.ready.drain(..count).collect();
        state.outstanding -= taken.len();
        if !state.ready.is_empty() {
            let _ = self.event.write(1);
        }
        Ok(taken)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    fn readable(completions: &Completions) -> bool {
        let mut set = [PollFd::new(completions.event.as_fd(), PollFlags::POLLIN)];
        poll(&mut set, PollTimeout::ZERO).unwrap() == 1
    }

    #[test]
    fn the_descriptor_is_readable_as_long_as_something_is_ready() {
        let completions = Completions::new().unwrap();
        assert!(!readable(&completions));
        for number in 0..3 {
            completions.begin().unwrap();
            completions.finish(User(number), Ok(vec![1]));
        }
        assert!(readable(&completions));
        assert_eq!(completions.take(2).unwrap().len(), 2);
        assert!(readable(&completions), "one is left");
        let last = completions.take(2).unwrap();
        assert_eq!((last.len(), last[0].user.0), (1, 2));
        assert!(!readable(&completions));
    }

    #[test]
    fn what_nobody_takes_is_bounded() {
        let completions = Completions::new().unwrap();
        for number in 0..OUTSTANDING_MAX {
            completions.begin().unwrap();
            completions.finish(User(number), Err(Error::Closed));
        }
        assert_eq!(
            completions.begin().unwrap_err().status,
            KeyserverStatus::Overloaded
        );
        assert_eq!(completions.take(1).unwrap().len(), 1);
        completions.begin().unwrap();
        completions.did_not_begin();
    }

    #[test]
    fn a_child_leaves_the_signal_to_its_parent() {
        let mut completions = Arc::into_inner(Completions::new().unwrap()).unwrap();
        completions.begin().unwrap();
        completions.finish(User(1), Ok(vec![1]));
        let own = std::mem::replace(&mut completions.process, 0);
        for failure in [
            completions.take(1).unwrap_err(),
            completions.begin().unwrap_err(),
        ] {
            assert_eq!(failure.status, KeyserverStatus::Closed);
        }
        assert!(readable(&completions));
        completions.process = own;
        assert_eq!(completions.take(1).unwrap().len(), 1);
    }
}
