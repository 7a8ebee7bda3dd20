//! Turns what happens on the connections of one thread into numbers, and hands them over once a second.

use std::sync::Arc;

use keyless_protocol::Reply;
use tokio::sync::mpsc;

use super::slots::Pending;
use crate::mix::Class;
use crate::random::Random;
use crate::record::{Failure, Interval};
use crate::units::NS_PER_S;
use crate::verify::{Spool, Verify};
use crate::workload::Workload;

/// Intervals handed over and not yet read; the reader is a thread that has nothing else to do.
pub(crate) const INTERVALS_QUEUED_MAX: usize = 64;

/// The measured stretch of the run, on the run's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) from_ns: u64,
    pub(crate) until_ns: u64,
}

impl Window {
    pub(crate) fn holds(&self, at_ns: u64) -> bool {
        (self.from_ns..self.until_ns).contains(&at_ns)
    }
}

/// The measurements of one thread.
#[derive(Debug)]
pub(crate) struct Meter {
    workload: Arc<Workload>,
    verify: Verify,
    random: Random,
    window: Window,
    current: Interval,
    next_handover_ns: u64,
    intervals: mpsc::Sender<Interval>,
    pub(crate) spool: Spool,
}

impl Meter {
    pub(crate) fn new(
        workload: Arc<Workload>,
        verify: Verify,
        random: Random,
        spool: Spool,
        intervals: mpsc::Sender<Interval>,
    ) -> Self {
        let parts = workload.mix().parts().len();
        Self {
            verify,
            random,
            window: Window {
                from_ns: 0,
                until_ns: 0,
            },
            current: Interval::new(parts),
            next_handover_ns: u64::MAX,
            intervals,
            spool,
            workload,
        }
    }

    pub(crate) fn begin(&mut self, window: Window) {
        self.window = window;
        self.next_handover_ns = window.from_ns.saturating_add(NS_PER_S);
    }

    pub(crate) fn window(&self) -> Window {
        self.window
    }

    /// Ends the measured stretch earlier than planned.
    pub(crate) fn end_at(&mut self, at_ns: u64) {
        self.window.until_ns = self.window.until_ns.min(at_ns).max(self.window.from_ns);
    }

    /// Counts a request that leaves at `sent_ns`. `due_ns` is when the generator could have sent it: its intended time,
    /// or when a place became free for it.
    pub(crate) fn sent(&mut self, intended_ns: u64, due_ns: u64, sent_ns: u64) {
        if self.window.holds(intended_ns) {
            self.current.offered += 1;
            self.current.held_back += u64::from(due_ns > intended_ns);
            self.current
                .send_lag
                .saturating_record(sent_ns.saturating_sub(due_ns));
        }
    }

    /// Counts a request that was due but never left.
    pub(crate) fn unsent(&mut self, intended_ns: u64) {
        if self.window.holds(intended_ns) {
            self.current.offered += 1;
            self.current.unsent += 1;
        }
    }

    /// Counts a request of the workload that was due, found no place until `now_ns`, and is given up.
    pub(crate) fn given_up(&mut self, entry: u32, intended_ns: u64, now_ns: u64) {
        let part = self.workload.entry(entry).map(|entry| entry.part);
        if let Some(part) = part.filter(|_| self.window.holds(intended_ns)) {
            self.current.offered += 1;
            self.current
                .never_left(part, now_ns.saturating_sub(intended_ns));
        }
    }

    /// Counts a reply that arrived at `now_ns`, and keeps the answer if it is to be checked.
    pub(crate) fn replied(&mut self, pending: Pending, reply: &Reply<'_>, now_ns: u64) {
        let Some(entry) = self.workload.entry(pending.entry) else {
            return;
        };
        let measured = self.window.holds(pending.intended_ns);
        let is_ping = matches!(
            self.workload.mix().parts().get(entry.part),
            Some((Class::Ping, _))
        );
        let failure = match reply.outcome {
            Err(code) => Some(Failure::Code(code)),
            Ok(answer) if is_ping && self.verify != Verify::None && !entry.echoes(answer) => {
                Some(Failure::WrongEcho)
            }
            Ok(answer) => {
                // Pongs are compared on the spot; they go to the spool only to be counted as verified.
                if measured && self.verify.takes(&mut self.random) {
                    self.spool.push(pending.entry, answer);
                }
                None
            }
        };
        if failure.is_none() && self.window.holds(now_ns) {
            self.current.completed += 1;
        }
        if measured {
            self.current.retry_after += u64::from(reply.retry_after_ms.is_some());
            match failure {
                Some(failure) => self.current.failed(entry.part, failure),
                None => self.current.answered(
                    entry.part,
                    now_ns.saturating_sub(pending.intended_ns),
                    now_ns.saturating_sub(pending.sent_ns),
                ),
            }
        }
    }

    /// Counts a request given up at `now_ns`.
    pub(crate) fn timed_out(&mut self, pending: Pending, now_ns: u64) {
        if let Some(part) = self.measured_part(pending) {
            self.current.timed_out(
                part,
                now_ns.saturating_sub(pending.intended_ns),
                now_ns.saturating_sub(pending.sent_ns),
            );
        }
    }

    /// Counts a request whose connection was lost.
    pub(crate) fn disconnected(&mut self, pending: Pending) {
        if let Some(part) = self.measured_part(pending) {
            self.current.failed(part, Failure::Disconnected);
        }
    }

    /// Counts a lost connection.
    pub(crate) fn connection_lost(&mut self, now_ns: u64) {
        if self.window.holds(now_ns) {
            self.current.connections_lost += 1;
        }
    }

    fn measured_part(&self, pending: Pending) -> Option<usize> {
        let measured = self.window.holds(pending.intended_ns);
        self.workload
            .entry(pending.entry)
            .filter(|_| measured)
            .map(|entry| entry.part)
    }

    /// Hands over the record of a second that is over. When the reader is behind, the record simply grows longer.
    ///
    /// The last stretch is left to [`Self::finish`], so that it holds the answers that come after the end, too.
    pub(crate) fn hand_over_if_due(&mut self, now_ns: u64) {
        if now_ns < self.next_handover_ns || self.next_handover_ns >= self.window.until_ns {
            return;
        }
        if let Ok(permit) = self.intervals.try_reserve() {
            let end_ns = self.next_handover_ns;
            permit.send(cut(&mut self.current, end_ns - self.window.from_ns));
        }
        while self.next_handover_ns <= now_ns {
            self.next_handover_ns += NS_PER_S;
        }
    }

    /// Hands over what there is when the run has ended.
    pub(crate) fn finish(&mut self) {
        let last = cut(
            &mut self.current,
            self.window.until_ns - self.window.from_ns,
        );
        // The other side is gone only when the whole run was given up.
        let _ = self.intervals.blocking_send(last);
    }
}

/// Ends a record here and begins the next. A fresh one costs little: its pages are zeroed by the kernel on first use.
fn cut(current: &mut Interval, at_ns: u64) -> Interval {
    let mut full = std::mem::replace(current, Interval::new(current.classes.len()));
    full.end_ns = at_ns;
    current.start_ns = at_ns;
    full
}
