//! The calls of one client: where callers and the connection's task meet.
//!
//! ```text
//!  caller:  permit -> slot -> encode frame ------> [frames] ---> task: seal, write
//!  caller <-- wake <- slot done <------------------------------- task: read, decode
//! ```
//!
//! Everything is bounded: slots by `in_flight` (a semaphore hands them out in order), waiting
//! callers by `queue`, encoded frames by [`FRAMES_MAX`]. A call holds its slot as a value whose drop
//! gives it back, so a future that is dropped half way, or whose deadline passes, leaks nothing.
//!
//! A request id is a slot's number with a generation above it. Slots are reused in the order in
//! which they became free, so an id comes back only after all 2^32 have been used, and the late
//! answer to an abandoned call finds nobody instead of the wrong caller.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use keyless_protocol::{ErrorCode, Reply, Request};
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use zeroize::Zeroize;

use crate::capabilities::Capabilities;
use crate::conn::Connection;
use crate::error::Error;

/// Encoded requests that wait for the connection's task: some 4,000 of the usual size. More wait
/// only when the server does not read and calls are given up in great numbers.
const FRAMES_MAX: usize = 4 * 1024 * 1024;

/// An id that no call uses: the connection's own questions carry it.
pub(crate) const OWN_ID: u32 = u32::MAX;

/// The most slots there can be; ids need the other half of their bits as generation.
pub(crate) const SLOTS_MAX: usize = 1 << 15;

/// See the module's own text.
#[derive(Debug)]
pub(crate) struct Calls {
    state: Mutex<State>,
    permits: Semaphore,
    waiting: AtomicUsize,
    queue: usize,
    slot_bits: u32,
    /// Told when `link` changes.
    link_changed: Notify,
}

#[derive(Debug)]
struct State {
    link: Link,
    slots: Vec<Slot>,
    free: VecDeque<usize>,
    frames: Vec<u8>,
    /// The slots of the calls in `frames`.
    unsent: Vec<usize>,
    /// The connection's task, when it has nothing to do.
    task: Option<Waker>,
    /// Calls that wait for an answer now.
    unanswered: usize,
    /// A call was given up since bytes last came from the server.
    suspicious: bool,
}

/// What the connection's task is up to.
#[derive(Clone, Debug)]
pub(crate) enum Link {
    /// There is a connection to a server that can do this much.
    Up { capabilities: Capabilities },
    /// There is none; one is being made. The error is why the last attempt or connection failed.
    Down { last: Option<Error> },
    /// The client was closed.
    Closed,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    /// `None` while unanswered or free.
    outcome: Option<Result<Vec<u8>, Error>>,
    busy: bool,
    waker: Option<Waker>,
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot")
            .field("busy", &self.busy)
            .finish_non_exhaustive()
    }
}

/// Gives the request to make of a server that can do this much.
pub(crate) type Ask<'a, 'r> = &'a (dyn Fn(&Capabilities) -> Result<Request<'r>, Error> + Sync);

/// What a call does while there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// It waits for one.
    Wait,
    /// It fails: the caller knows other servers.
    None,
}

/// What the connection's task should do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Take the encoded frames.
    Frames,
    /// Say goodbye and end.
    Close,
}

impl Calls {
    /// `in_flight` slots and room for `queue` callers that wait for one.
    pub(crate) fn new(in_flight: usize, queue: usize) -> Self {
        let in_flight = in_flight.clamp(1, SLOTS_MAX);
        let state = State {
            link: Link::Down { last: None },
            slots: (0..in_flight).map(|_| Slot::default()).collect(),
            free: (0..in_flight).collect(),
            frames: Vec::new(),
            unsent: Vec::new(),
            task: None,
            unanswered: 0,
            suspicious: false,
        };
        Self {
            state: Mutex::new(state),
            permits: Semaphore::new(in_flight),
            waiting: AtomicUsize::new(0),
            queue,
            slot_bits: in_flight.next_power_of_two().trailing_zeros(),
            link_changed: Notify::new(),
        }
    }

    /// Makes one request, the one that `ask` gives for the server's capabilities, and waits for its
    /// answer. The request's id is chosen here; what is left of `deadline` goes out with the request
    /// if the server understands it.
    pub(crate) async fn call(
        &self,
        ask: Ask<'_, '_>,
        patience: Patience,
        deadline: tokio::time::Instant,
    ) -> Result<Vec<u8>, Error> {
        let permit = if let Ok(permit) = self.permits.try_acquire() {
            permit
        } else {
            let _waiting = self.wait_in_queue()?;
            self.permits.acquire().await.map_err(|_| Error::Closed)?
        };
        let mut call = self.begin(ask, patience, deadline, permit).await?;
        poll_fn(|cx| call.poll(cx)).await
    }

    /// Waits for a connection if there is none, takes a slot and encodes the request.
    async fn begin<'c>(
        &'c self,
        ask: Ask<'_, '_>,
        patience: Patience,
        deadline: tokio::time::Instant,
        permit: SemaphorePermit<'c>,
    ) -> Result<Call<'c>, Error> {
        loop {
            let changed = self.link_changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let gone = match self.submit(ask, deadline) {
                Ok(Some(slot)) => {
                    return Ok(Call {
                        calls: self,
                        slot,
                        _permit: permit,
                    });
                }
                Ok(None) => "the connection has just ended",
                // For who knows other servers it is this one that has left.
                Err(Error::Closed) if patience == Patience::None => "the server has just left",
                Err(error) => return Err(error),
            };
            if patience == Patience::None {
                return Err(Error::lost("sending requests", gone).before_sending());
            }
            changed.await;
        }
    }

    /// Encodes a request under a fresh slot; `None` while there is no connection.
    fn submit(
        &self,
        ask: Ask<'_, '_>,
        deadline: tokio::time::Instant,
    ) -> Result<Option<usize>, Error> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let capabilities = match &state.link {
            Link::Up { capabilities } => capabilities,
            Link::Down { .. } => return Ok(None),
            Link::Closed => return Err(Error::Closed),
        };
        let mut request = ask(capabilities)?;
        capabilities.check(request.opcode)?;
        if state.frames.len() > FRAMES_MAX {
            return Err(Error::Overloaded);
        }
        let Some((&number, slot)) = state
            .free
            .front()
            .and_then(|number| Some((number, state.slots.get_mut(*number)?)))
        else {
            return Err(Error::Overloaded); // Not reached: permits and slots are as many.
        };
        slot.generation = slot.generation.wrapping_add(1);
        request.id = self.id(number, slot.generation);
        if request.id == OWN_ID {
            slot.generation = slot.generation.wrapping_add(1);
            request.id = self.id(number, slot.generation);
        }
        if capabilities.extended {
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            request.deadline_us = Some(u32::try_from(left.as_micros()).unwrap_or(u32::MAX));
            request.extended = true;
        } else {
            request.deadline_us = None;
            request.signature_scheme = None;
            request.extended = false;
        }
        request.encode(&mut state.frames).map_err(Error::input)?;
        slot.busy = true;
        slot.outcome = None;
        state.free.pop_front();
        state.unsent.push(number);
        state.unanswered += 1;
        let task = state.task.take();
        drop(guard);
        if let Some(task) = task {
            task.wake();
        }
        Ok(Some(number))
    }

    fn id(&self, number: usize, generation: u32) -> u32 {
        generation << self.slot_bits | u32::try_from(number).unwrap_or(0)
    }

    fn wait_in_queue(&self) -> Result<Waiting<'_>, Error> {
        let waiting = Waiting(&self.waiting);
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.queue {
            return Err(Error::Overloaded); // Dropping `waiting` takes the count back.
        }
        Ok(waiting)
    }

    /// What to report for a call whose deadline passed: a broken link if that is why.
    pub(crate) fn too_late(&self, limit: Duration) -> Error {
        match &self.lock().link {
            Link::Down { last: Some(error) } => error.clone(),
            Link::Closed => Error::Closed,
            Link::Up { .. } | Link::Down { last: None } => Error::Deadline { limit },
        }
    }

    // The side of the connection's task.

    /// Changes what callers see of the connection. Leaving [`Link::Up`] fails every call that waits
    /// for an answer; those that were not even sent may be made anew, whatever they are.
    pub(crate) fn set_link(&self, link: Link) {
        self.change_link(self.lock(), link);
    }

    /// Closes the connection unless a call holds a slot, and says whether it did. A call that still waits
    /// for a slot has sent nothing.
    pub(crate) fn close_if_idle(&self) -> bool {
        let state = self.lock();
        let is_idle = state.free.len() == state.slots.len();
        if is_idle {
            self.change_link(state, Link::Closed);
        }
        is_idle
    }

    fn change_link(&self, mut guard: MutexGuard<'_, State>, link: Link) {
        let state = &mut *guard;
        if matches!(state.link, Link::Closed) {
            return;
        }
        let failure = match &link {
            Link::Up { .. } => None,
            Link::Down { last: Some(error) } => Some(error.clone()),
            Link::Down { last: None } | Link::Closed => Some(Error::Closed),
        };
        let mut wakers = Vec::new();
        if let Some(error) = failure {
            state.frames.clear();
            state.unanswered = 0;
            state.suspicious = false;
            let mut fail = |slot: &mut Slot, error: &Error| {
                if slot.busy && slot.outcome.is_none() {
                    slot.outcome = Some(Err(error.clone()));
                    wakers.extend(slot.waker.take());
                }
            };
            let unsent = error.clone().before_sending();
            for number in state.unsent.drain(..) {
                if let Some(slot) = state.slots.get_mut(number) {
                    fail(slot, &unsent);
                }
            }
            for slot in &mut state.slots {
                fail(slot, &error);
            }
        }
        if matches!(link, Link::Closed) {
            wakers.extend(state.task.take());
        }
        state.link = link;
        drop(guard);
        wakers.into_iter().for_each(Waker::wake);
        self.link_changed.notify_waiters();
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.lock().link, Link::Closed)
    }

    /// Waits until the client is closed.
    pub(crate) async fn closed(&self) {
        loop {
            let changed = self.link_changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.is_closed() {
                return;
            }
            changed.await;
        }
    }

    /// Whether there is something for the task to do; if not, it is woken when there is.
    pub(crate) fn poll_work(&self, cx: &Context<'_>) -> Poll<Work> {
        let mut state = self.lock();
        if matches!(state.link, Link::Closed) {
            return Poll::Ready(Work::Close);
        }
        if !state.frames.is_empty() {
            return Poll::Ready(Work::Frames);
        }
        match &mut state.task {
            Some(task) => task.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Moves the encoded frames into the connection.
    pub(crate) fn take_frames(&self, connection: &mut Connection) {
        let mut state = self.lock();
        if !state.frames.is_empty() {
            connection.submit_frames(&mut state.frames);
            state.unsent.clear();
        }
    }

    /// Hands every reply that the connection has to its caller. `wakers` is scratch space.
    pub(crate) fn deliver(&self, connection: &mut Connection, wakers: &mut Vec<Waker>) {
        let mut guard = self.lock();
        let state = &mut *guard;
        state.suspicious = false;
        while let Some(reply) = connection.next_reply() {
            let number = usize::try_from(reply.id & ((1 << self.slot_bits) - 1));
            let generation = reply.id >> self.slot_bits;
            let Some(slot) = number.ok().and_then(|number| state.slots.get_mut(number)) else {
                continue;
            };
            // A shifted generation has lost its upper bits, so compare what is left of both.
            let current = slot.generation << self.slot_bits >> self.slot_bits;
            if slot.busy && slot.outcome.is_none() && current == generation {
                slot.outcome = Some(outcome(reply));
                wakers.extend(slot.waker.take());
                state.unanswered = state.unanswered.saturating_sub(1);
            }
        }
        drop(guard);
        wakers.drain(..).for_each(Waker::wake);
    }

    /// Whether an answer is overdue or awaited, so that a silent connection deserves a question.
    pub(crate) fn expects_an_answer(&self) -> bool {
        let state = self.lock();
        state.unanswered > 0 || state.suspicious
    }

    /// Slots in use, for tests and for [`crate::Client::in_flight`].
    pub(crate) fn in_flight(&self) -> usize {
        let state = self.lock();
        state.slots.len() - state.free.len()
    }

    /// Nothing panics while it holds the lock; should something do, the state is still whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn outcome(reply: Reply<'_>) -> Result<Vec<u8>, Error> {
    match reply.outcome {
        Ok(output) => Ok(output.to_vec()),
        Err(ErrorCode::Busy) => Err(Error::Busy {
            retry_after: reply
                .retry_after_ms
                .map(|ms| Duration::from_millis(ms.into())),
        }),
        Err(code) => Err(Error::Refused(code)),
    }
}

/// A caller counted among those that wait for a slot.
struct Waiting<'c>(&'c AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request that is on its way. Dropping it gives the slot back; the answer is then ignored.
struct Call<'c> {
    calls: &'c Calls,
    slot: usize,
    /// Declared last, so that it is given back after the slot.
    _permit: SemaphorePermit<'c>,
}

impl Call<'_> {
    fn poll(&mut self, cx: &Context<'_>) -> Poll<Result<Vec<u8>, Error>> {
        let mut state = self.calls.lock();
        let Some(slot) = state.slots.get_mut(self.slot) else {
            return Poll::Ready(Err(Error::Closed)); // Not reached: slots are never removed.
        };
        if let Some(outcome) = slot.outcome.take() {
            slot.busy = false;
            return Poll::Ready(outcome);
        }
        match &mut slot.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let mut guard = self.calls.lock();
        let state = &mut *guard;
        if let Some(slot) = state.slots.get_mut(self.slot) {
            if slot.busy && slot.outcome.is_none() {
                state.unanswered = state.unanswered.saturating_sub(1);
                state.suspicious = true;
            }
            if let Some(Ok(output)) = &mut slot.outcome {
                output.zeroize(); // Nobody took it, and it may be a secret.
            }
            slot.outcome = None;
            slot.busy = false;
            slot.waker = None;
        }
        state.free.push_back(self.slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keyless_protocol::Opcode;
    use tokio::time::Instant;

    #[tokio::test]
    async fn who_waits_for_a_slot_when_the_server_leaves_has_sent_nothing() {
        let calls = Calls::new(1, 1);
        let capabilities = Capabilities::stock();
        calls.set_link(Link::Up { capabilities });
        let ask = |_: &Capabilities| Ok(Request::new(0, Opcode::Ping));
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut first = Box::pin(calls.call(&ask, Patience::None, deadline));
        let mut second = Box::pin(calls.call(&ask, Patience::None, deadline));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(first.as_mut().poll(&mut cx).is_pending());
        assert!(second.as_mut().poll(&mut cx).is_pending());
        assert!(!calls.close_if_idle(), "the first is on its way");
        drop(first);
        assert!(calls.close_if_idle());
        let error = second.await.unwrap_err();
        assert!(error.is_unsent(), "{error}");
        let error = calls.call(&ask, Patience::Wait, deadline).await;
        assert!(matches!(error, Err(Error::Closed)), "its only server");
    }
}
