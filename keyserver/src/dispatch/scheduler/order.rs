//! Whose turn it is among the classes.
//!
//! The cheapest goes first, because eight ECDSA signatures fit into the time that one RSA-4096
//! decryption takes. A class whose next job has waited longer than [`limits::AGEING`] is overdue;
//! while there are cheaper classes and overdue ones, each side gets half of the threads' time, and
//! among overdue classes whoever has had least of it goes first (start-time fair queueing: Goyal,
//! Vin and Cheng, SIGCOMM 1996). So nobody starves, and an endless supply of dear work takes half of
//! the machine at most. Cheap work is ahead: light work beside a flood of dear work waits for the
//! batch that runs, and not for the next.
//!
//! Where no turn can be interrupted, without lanes, or with one or two dear jobs, brief work
//! would have to wait for it to end. Of three threads or more, one therefore begins no long turn as
//! long as brief work comes. With fewer it would be too large a part of the machine.

use std::time::Instant;

use accel::Class;

use super::{Scheduler, nanos};
use crate::limits;

/// What has been given to whom.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// Time given to the cheapest classes less that given to overdue ones, while there are both.
    balance_ns: u64,
    /// Time given to each class when it was overdue.
    given_ns: [u64; Class::ALL.len()],
    /// Where the last that was overdue began: those who become overdue begin there, too.
    begin_ns: u64,
    /// Threads in a long turn.
    long_turns: usize,
    /// When a brief job last came.
    brief_seen: Option<Instant>,
}

impl Order {
    /// A brief job came.
    pub(super) fn saw_brief(&mut self, now: Instant) {
        self.brief_seen = Some(now);
    }

    /// A long turn began.
    pub(super) fn long_turn_began(&mut self) {
        self.long_turns += 1;
    }

    /// A long turn ended.
    pub(super) fn long_turn_ended(&mut self) {
        self.long_turns = self.long_turns.saturating_sub(1);
    }
}

impl<T> Scheduler<T> {
    /// The class that goes next, of those that may.
    pub(super) fn next_class(&mut self, now: Instant) -> Option<Class> {
        let mut cheapest = None;
        let mut overdue: Option<(u64, Class)> = None;
        for class in self.times.order() {
            let Some(since) = self.flows.next_since(class) else {
                continue;
            };
            if !self.may_begin(now, class) {
                continue;
            }
            let begin = self.order.given_ns[class.index()].max(self.order.begin_ns);
            if cheapest.is_none() {
                cheapest = Some(class);
            } else if now.saturating_duration_since(since) >= limits::AGEING
                && overdue.is_none_or(|(least, _)| begin < least)
            {
                overdue = Some((begin, class));
            }
        }
        let cheapest = cheapest?;
        let Some((begin, overdue)) = overdue else {
            self.order.balance_ns = 0;
            return Some(cheapest);
        };
        let time_ns = |class| nanos(self.times.turn(class, self.flows.len(class)).time);
        let (cheap_ns, overdue_ns) = (time_ns(cheapest), time_ns(overdue));
        let order = &mut self.order;
        if let Some(rest) = order.balance_ns.checked_sub(overdue_ns) {
            order.balance_ns = rest;
            order.begin_ns = begin;
            order.given_ns[overdue.index()] = begin + overdue_ns;
            Some(overdue)
        } else {
            order.balance_ns += cheap_ns;
            Some(cheapest)
        }
    }

    /// Whether a turn of this class may begin: a long one must leave a thread without one.
    fn may_begin(&self, now: Instant, class: Class) -> bool {
        let order = &self.order;
        let brief_comes = order
            .brief_seen
            .is_some_and(|seen| now.saturating_duration_since(seen) < limits::RESERVE_MEMORY);
        self.bounds.threads < limits::THREADS_FOR_RESERVE
            || !brief_comes
            || order.long_turns + 1 < self.bounds.threads
            || !self.times.turn(class, self.flows.len(class)).is_long
    }
}
