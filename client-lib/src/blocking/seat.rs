//! Who does the input and output.
//!
//! ```text
//!   caller A: submit, lead: [ poll, read, deliver ]* until its own answer, then hand over --.
//!   caller B: submit, wait ................................... woken: answer, or the lead <-'
//!   own thread (only once something was submitted with a callback): leads when no caller does
//! ```
//!
//! A client that only blocks has no thread at all: whoever waits for an answer reads the sockets, for
//! all who wait. That saves two switches of threads per call, and nothing has to survive a fork.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mio::{Events, Poll};

use crate::error::Error;
use crate::operation::Operation;

use super::Callback;
use super::core::{Completion, Core};
use super::waiter::{Turn, Waiter};

/// Socket events taken at once.
const EVENTS: usize = 64;
/// The token by which a leader is woken.
pub(super) const WAKE: usize = usize::MAX;

/// One client in one process.
pub(super) struct Seat {
    /// The process that made it. After a fork nothing here is touched but to drop sockets.
    pub(super) pid: u32,
    core: Mutex<Core>,
    poll: Mutex<(Poll, Events)>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Seat {
    pub(super) fn new(poll: Poll, core: Core) -> Self {
        Self {
            pid: std::process::id(),
            core: Mutex::new(core),
            poll: Mutex::new((poll, Events::with_capacity(EVENTS))),
            thread: Mutex::new(None),
        }
    }

    /// Whether it was made in this process, and not inherited over a fork.
    pub(super) fn is_own(&self) -> bool {
        self.pid == std::process::id()
    }

    /// Asks and waits.
    pub(super) fn call(&self, operation: Operation, limit: Duration) -> Result<Vec<u8>, Error> {
        let waiter = Arc::new(Waiter::default());
        let leads = !std::mem::replace(&mut self.lock().led, true);
        if leads {
            let looked_lately = self.lock().resume(Instant::now());
            if !looked_lately {
                self.turn(Some(Duration::ZERO));
            }
        }
        let completion = Completion::Waiter(Arc::clone(&waiter));
        let submitted = self
            .lock()
            .submit(operation, limit, completion, Instant::now());
        if let Err(error) = submitted {
            if leads {
                self.hand_over();
            }
            return Err(error);
        }
        if !leads {
            match waiter.wait() {
                Turn::Done(outcome) => {
                    if waiter.has_lead() {
                        self.hand_over();
                    }
                    return outcome;
                }
                Turn::Lead => {}
            }
        }
        let outcome = self.lead(&waiter);
        self.hand_over();
        outcome
    }

    /// Asks; the answer goes to `callback`, on the client's own thread or that of a caller.
    pub(super) fn submit(
        self: &Arc<Self>,
        operation: Operation,
        limit: Duration,
        callback: Callback,
    ) -> Result<(), Error> {
        self.ensure_service()?;
        let mut core = self.lock();
        let completion = Completion::Callback(callback);
        let submitted = core.submit(operation, limit, completion, Instant::now());
        // What ended at once is told by the thread that leads.
        core.wake();
        submitted
    }

    /// Starts the client's own thread unless it runs.
    fn ensure_service(self: &Arc<Self>) -> Result<(), Error> {
        let mut core = self.lock();
        if core.service.is_some() {
            return Ok(());
        }
        let waiter = Arc::new(Waiter::default());
        let (seat, own) = (Arc::clone(self), Arc::clone(&waiter));
        let spawned = thread::Builder::new()
            .name("keyserver-client".to_owned())
            .spawn(move || seat.serve(&own));
        let thread = spawned.map_err(|error| Error::network("starting a thread", error))?;
        if !std::mem::replace(&mut core.led, true) {
            waiter.lead();
        }
        core.service = Some(waiter);
        drop(core);
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(())
    }

    /// The life of the client's own thread: it leads from its first turn until the end.
    fn serve(&self, own: &Waiter) {
        if matches!(own.wait(), Turn::Lead) {
            while !self.lock().closed {
                self.turn(None);
            }
            self.tell();
        }
    }

    fn lead(&self, waiter: &Waiter) -> Result<Vec<u8>, Error> {
        loop {
            if let Some(outcome) = waiter.outcome() {
                return outcome;
            }
            self.turn(None);
        }
    }

    /// One turn of the leader: what time demands, then what the sockets bring, then the outcomes.
    fn turn(&self, most: Option<Duration>) {
        let sleep = {
            let (mut core, now) = (self.lock(), Instant::now());
            core.advance(now);
            core.sleep(most, now)
        };
        let mut tokens = [WAKE; EVENTS];
        let mut count = 0;
        {
            let mut poll = self.poll.lock().unwrap_or_else(PoisonError::into_inner);
            let (poll, events) = &mut *poll;
            // An interrupted wait is a turn without events.
            if poll.poll(events, Some(sleep)).is_ok() {
                for (token, event) in tokens.iter_mut().zip(events.iter()) {
                    *token = event.token().0;
                    count += 1;
                }
            }
        }
        let (mut core, now) = (self.lock(), Instant::now());
        core.sleeping_until = None;
        core.ready(tokens.get(..count).unwrap_or_default(), now);
        core.advance(now);
        drop(core);
        self.tell();
    }

    /// Tells all outcomes there are.
    fn tell(&self) {
        let finished = self.lock().take_finished();
        finish(finished);
    }

    /// Passes the lead on with no outcome untold: a call that ends while it is submitted is told by the
    /// leader, and when there is none any longer, by nobody.
    fn hand_over(&self) {
        loop {
            let mut core = self.lock();
            let finished = core.take_finished();
            if finished.is_empty() {
                core.hand_over();
                return;
            }
            drop(core);
            finish(finished);
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.lock().in_flight()
    }

    #[cfg(test)]
    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Ends everything and waits for the threads, so that their code may be unloaded.
    pub(super) fn close(&self) {
        let (service, resolvers) = {
            let mut core = self.lock();
            core.close();
            (core.service.clone(), core.resolvers())
        };
        if let Some(service) = service {
            service.lead();
        }
        let own = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let threads = own.into_iter().chain(resolvers);
        // The last client may be dropped by a callback, which runs on the client's own thread.
        for thread in threads.filter(|one| one.thread().id() != thread::current().id()) {
            // A thread that panicked has been reported by the panic itself.
            let _ = thread.join();
        }
        self.tell();
    }

    /// Drops the sockets that a forked process inherited, without a TLS close: they belong to the
    /// parent. Should another thread of the parent have held the lock at the moment of the fork,
    /// they stay open, unused, until this process ends.
    pub(super) fn abandon(&self) {
        match self.core.try_lock() {
            Ok(mut core) => core.abandon(),
            Err(TryLockError::Poisoned(core)) => core.into_inner().abandon(),
            Err(TryLockError::WouldBlock) => {}
        }
    }

    /// Nothing panics while it holds the lock; should something do, the state is still whole.
    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn finish(finished: Vec<(Completion, Result<Vec<u8>, Error>)>) {
    for (completion, outcome) in finished {
        // A callback that panics must not take the lead with it; the panic itself is reported.
        let _ = catch_unwind(AssertUnwindSafe(|| completion.finish(outcome)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocking::{Client, tests::identity};

    #[test]
    fn a_leader_does_not_leave_while_an_outcome_is_untold() {
        let builder = Client::builder("keys", identity()).server("127.0.0.1:1");
        let seat = builder.open().expect("opens");
        let [first, second] = [(); 2].map(|()| Arc::new(Waiter::default()));
        let mut core = seat.lock();
        core.led = true;
        let completion = Completion::Waiter(Arc::clone(&first));
        let limit = Duration::from_secs(20);
        core.submit(Operation::ping(b""), limit, completion, Instant::now())
            .expect("takes it");
        // All that is on its way ends now, as a call does while another thread submits it.
        core.close();
        core.closed = false;
        let completion = Completion::Waiter(Arc::clone(&second));
        core.submit(Operation::ping(b""), limit, completion, Instant::now())
            .expect("takes it");
        drop(core);
        seat.hand_over();
        assert!(matches!(first.outcome(), Some(Err(Error::Closed))));
        assert!(second.has_lead(), "whose call is still on its way");
    }
}
