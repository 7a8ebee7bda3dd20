//! One thread of the load: an event loop over its connections.
//!
//! ```text
//!   loop:  send what is due (open loop) or what has room (closed loop)
//!          seal and write once per connection that has something to say
//!          sleep until a socket is ready or the next request is due
//!          read once per ready connection, count its replies
//! ```
//!
//! The loop owns everything it touches: connections, slots, schedule, histograms. Nothing is shared with other threads
//! while the load runs, and nothing is allocated per request.

mod link;
mod meter;
mod slots;
mod timer;
mod work;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use keyserver_client::TlsIdentity;
use mio::{Events, Poll, Token};
use tokio::sync::mpsc;

pub(crate) use link::Endpoint;
use link::{Link, Read};
pub(crate) use meter::INTERVALS_QUEUED_MAX;
use meter::{Meter, Window};
pub(crate) use slots::IN_FLIGHT_MAX;
use slots::Pending;
use timer::Timer;
use work::Work;

use crate::arrival::Schedule;
use crate::clock::Clock;
use crate::host::thread_cpu_ns;
use crate::random::Random;
use crate::record::Interval;
use crate::verify::{Spool, Verify};
use crate::workload::{Manner, Workload};

/// Handshakes a thread has open at once: enough to overlap the waiting, few enough that none waits for its turn on the
/// server longer than the server allows.
const OPENING_MAX: usize = 16;
/// Time for all connections to come up before the run.
const CONNECT_LIMIT_NS: u64 = 10_000_000_000;
/// How often timeouts, lost connections and the stop flag are looked at.
const HOUSEKEEPING_NS: u64 = 10_000_000;
/// How often a thread that is ready looks whether the others are, too.
const START_POLL_NS: u64 = 1_000_000;
/// Requests sent before the sockets get their turn again.
const BURST_MAX: usize = 256;
/// Requests given up before the sockets get their turn again. Each costs some 50 ns.
const GIVEN_UP_MAX: usize = 4096;
const TIMER_TOKEN: Token = Token(usize::MAX);

/// What all threads of a run have in common.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) workload: Arc<Workload>,
    pub(crate) identity: TlsIdentity,
    pub(crate) clock: Clock,
    pub(crate) seed: u64,
    pub(crate) in_flight_max: u16,
    pub(crate) warmup_ns: u64,
    pub(crate) duration_ns: u64,
    pub(crate) timeout_ns: u64,
    pub(crate) verify: Verify,
    /// What requests carry besides their payload.
    pub(crate) manner: Manner,
    /// Busy-wait for the next send time instead of sleeping.
    pub(crate) spin: bool,
    /// When the load begins, on the run's clock; 0 until all threads are connected.
    pub(crate) start_ns: AtomicU64,
    /// Set to end the run early.
    pub(crate) stop: AtomicBool,
}

/// What one thread does.
#[derive(Debug)]
pub(crate) struct Share {
    pub(crate) thread: usize,
    /// One connection to each.
    pub(crate) endpoints: Vec<Endpoint>,
    /// Send times of an open loop; none for a closed loop.
    pub(crate) schedule: Option<Schedule>,
    /// Measured requests after which this thread has done its part.
    pub(crate) count: Option<u64>,
    pub(crate) spool_bytes_max: usize,
}

/// What a thread hands back when the load has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) spool: Spool,
    /// CPU time this thread took during the measured stretch.
    pub(crate) cpu_ns: u64,
    /// How long the measured stretch was.
    pub(crate) measured_ns: u64,
    /// Why a connection went down, if one did.
    pub(crate) trouble: Option<String>,
}

/// What a thread knows when all its connections are up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connected {
    pub(crate) tls_version: Option<&'static str>,
    pub(crate) key_exchange: Option<&'static str>,
}

/// One thread of the load.
#[derive(Debug)]
pub(crate) struct Driver {
    plan: Arc<Plan>,
    poll: Poll,
    timer: Timer,
    events: Option<Events>,
    links: Vec<Link>,
    meter: Meter,
    random: Random,
    schedule: Option<Schedule>,
    /// When the load began, on the run's clock; none before.
    start_ns: Option<u64>,
    /// Measured requests still to be sent.
    count_left: Option<u64>,
    /// The link that the next request is tried on.
    cursor: usize,
    /// Links with something gathered, each once.
    dirty: Work,
    /// Links to read from, each once.
    ready: Work,
    /// Set while a request is due and no place is free for it.
    blocked: bool,
    /// When a place last became free after that.
    unblocked_at_ns: u64,
    next_housekeeping_ns: u64,
}

impl Driver {
    /// # Errors
    /// The system refused an event queue or a timer.
    pub(crate) fn new(
        plan: Arc<Plan>,
        share: Share,
        intervals: mpsc::Sender<Interval>,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let timer = Timer::new(poll.registry(), TIMER_TOKEN)?;
        let stream = share.thread as u64;
        let count = share.endpoints.len();
        let links = share
            .endpoints
            .into_iter()
            .zip(0..)
            .map(|(endpoint, index)| Link::new(endpoint, Token(index), plan.in_flight_max))
            .collect();
        // Three streams of chance per thread: requests, sampling, and arrivals (in the schedule).
        let meter = Meter::new(
            Arc::clone(&plan.workload),
            plan.verify,
            Random::new(plan.seed, stream * 3 + 1),
            Spool::new(share.spool_bytes_max),
            intervals,
        );
        Ok(Self {
            random: Random::new(plan.seed, stream * 3),
            meter,
            plan,
            poll,
            timer,
            events: Some(Events::with_capacity(1024)),
            links,
            schedule: share.schedule,
            start_ns: None,
            count_left: share.count,
            cursor: 0,
            dirty: Work::new(count),
            ready: Work::new(count),
            blocked: false,
            unblocked_at_ns: 0,
            next_housekeeping_ns: 0,
        })
    }

    /// Brings up every connection.
    ///
    /// # Errors
    /// Which target could not be reached, and why.
    pub(crate) fn connect(&mut self) -> Result<Connected, String> {
        let limit_ns = self.now().saturating_add(CONNECT_LIMIT_NS);
        while !self.links.iter().all(Link::is_up) {
            if self.stopped() {
                return Err("interrupted while connecting".to_owned());
            }
            let now_ns = self.now();
            self.open_links(now_ns);
            if let Some(link) = self
                .links
                .iter()
                .find(|link| link.trouble.is_some() || now_ns > limit_ns && !link.is_up())
            {
                let why = link.trouble.as_deref().unwrap_or("no answer within 10 s");
                return Err(format!("{}: {why}", link.endpoint().name));
            }
            self.pump(now_ns);
        }
        let first = self.links.first();
        Ok(Connected {
            tls_version: first.and_then(Link::tls_version),
            key_exchange: first.and_then(Link::key_exchange),
        })
    }

    /// Waits for the common start, makes the load, and waits for the last answers.
    pub(crate) fn run(mut self) -> Finished {
        let start_ns = self.wait_for_start();
        self.start_ns = Some(start_ns);
        let from_ns = start_ns.saturating_add(self.plan.warmup_ns);
        self.meter.begin(Window {
            from_ns,
            until_ns: from_ns.saturating_add(self.plan.duration_ns),
        });
        let mut cpu_at_start = None;
        loop {
            let now_ns = self.now();
            if now_ns >= from_ns && cpu_at_start.is_none() {
                cpu_at_start = Some(thread_cpu_ns());
            }
            self.meter.hand_over_if_due(now_ns);
            if self.stopped() {
                self.meter.end_at(now_ns);
            }
            if now_ns >= self.meter.window().until_ns || self.count_left == Some(0) {
                break;
            }
            self.send(start_ns, now_ns);
            self.pump(now_ns);
        }
        let cpu_ns = cpu_at_start.map_or(0, |start| thread_cpu_ns().saturating_sub(start));
        self.send_the_last(start_ns);
        self.count_unsent(start_ns);
        self.drain();
        if self.count_left == Some(0) {
            let now_ns = self.now();
            self.meter.end_at(now_ns);
        }
        self.meter.finish();
        let now_ns = self.now();
        let window = self.meter.window();
        let mut trouble = None;
        for link in &mut self.links {
            trouble = trouble.or_else(|| link.trouble.take());
            link.close(self.poll.registry(), now_ns, None);
        }
        Finished {
            spool: self.meter.spool,
            cpu_ns,
            measured_ns: window.until_ns - window.from_ns,
            trouble,
        }
    }

    fn now(&self) -> u64 {
        self.plan.clock.now()
    }

    fn stopped(&self) -> bool {
        self.plan.stop.load(Ordering::Relaxed)
    }

    /// Sleeps until the common start, so that no thread begins before the others.
    fn wait_for_start(&self) -> u64 {
        loop {
            let start_ns = self.plan.start_ns.load(Ordering::Acquire);
            let now_ns = self.now();
            if (start_ns > 0 && start_ns <= now_ns) || self.stopped() {
                return start_ns;
            }
            // Until the time is known, look for it now and then.
            let wait_ns = if start_ns == 0 {
                START_POLL_NS
            } else {
                (start_ns - now_ns).min(START_POLL_NS)
            };
            std::thread::sleep(Duration::from_nanos(wait_ns));
        }
    }

    /// Sends what may be sent now.
    fn send(&mut self, start_ns: u64, now_ns: u64) {
        if self.schedule.is_some() {
            self.send_due(start_ns, now_ns);
        } else {
            self.send_where_room(now_ns);
        }
    }

    /// Open loop: sends every request whose time has come, as far as there are places.
    fn send_due(&mut self, start_ns: u64, now_ns: u64) {
        self.give_up_the_overdue(start_ns, now_ns);
        for _ in 0..BURST_MAX {
            let Some(schedule) = &mut self.schedule else {
                return;
            };
            let intended_ns = start_ns.saturating_add(schedule.next_ns());
            if intended_ns > now_ns
                || intended_ns >= self.meter.window().until_ns
                || self.count_left == Some(0)
            {
                return;
            }
            let links = self.links.len();
            let Some(link) = (0..links)
                .map(|step| (self.cursor + step) % links)
                .find(|link| self.links[*link].has_room())
            else {
                self.blocked = true;
                return;
            };
            schedule.advance();
            self.cursor = link + 1;
            // When it could have left: the rest of the wait is the generator's own.
            let due_ns = intended_ns.max(self.unblocked_at_ns);
            self.send_one(link, intended_ns, due_ns, now_ns);
        }
    }

    /// Open loop: sends what became due between the last turn and the end.
    fn send_the_last(&mut self, start_ns: u64) {
        let until_ns = self.meter.window().until_ns;
        let is_due = |driver: &Self| {
            let next_ns = driver.schedule.as_ref().map(Schedule::next_ns);
            next_ns.is_some_and(|next_ns| start_ns.saturating_add(next_ns) < until_ns)
        };
        while is_due(self) && !self.blocked && self.count_left != Some(0) {
            let now_ns = self.now();
            self.send_due(start_ns, now_ns);
        }
    }

    /// Closed loop: fills every place there is.
    fn send_where_room(&mut self, now_ns: u64) {
        for link in 0..self.links.len() {
            while self.links[link].has_room() && self.count_left != Some(0) {
                self.send_one(link, now_ns, now_ns, now_ns);
            }
        }
    }

    fn send_one(&mut self, link: usize, intended_ns: u64, due_ns: u64, sent_ns: u64) {
        let entry = self.plan.workload.draw(&mut self.random);
        let pending = Pending {
            entry,
            intended_ns,
            sent_ns,
        };
        let target = &mut self.links[link];
        let (Some(id), Some(request)) =
            (target.slots.take(pending), self.plan.workload.entry(entry))
        else {
            return;
        };
        self.meter.sent(intended_ns, due_ns, sent_ns);
        let request = request.request(id, self.plan.manner);
        let submitted = target.submit(&request);
        self.count_off(intended_ns);
        match submitted {
            Ok(()) => self.dirty.add(link),
            Err(trouble) => self.lose(link, sent_ns, trouble),
        }
    }

    /// One measured request less to be sent.
    fn count_off(&mut self, intended_ns: u64) {
        if self.meter.window().holds(intended_ns)
            && let Some(left) = &mut self.count_left
        {
            *left = left.saturating_sub(1);
        }
    }

    /// Open loop: gives up the requests that have waited for a place as long as they may. A visitor would have left.
    ///
    /// So what waits in the generator is bounded, however much more is offered than the target takes.
    fn give_up_the_overdue(&mut self, start_ns: u64, now_ns: u64) {
        for _ in 0..GIVEN_UP_MAX {
            let Some(schedule) = &mut self.schedule else {
                return;
            };
            let intended_ns = start_ns.saturating_add(schedule.next_ns());
            if intended_ns.saturating_add(self.plan.timeout_ns) > now_ns
                || intended_ns >= self.meter.window().until_ns
                || self.count_left == Some(0)
            {
                return;
            }
            schedule.advance();
            // Drawn all the same, so that the same seed asks the others the same questions.
            let entry = self.plan.workload.draw(&mut self.random);
            self.meter.given_up(entry, intended_ns, now_ns);
            self.count_off(intended_ns);
        }
    }

    /// Writes, sleeps until something happens, and reads.
    fn pump(&mut self, now_ns: u64) {
        while let Some(link) = self.dirty.pop() {
            if let Err(trouble) = self.links[link].flush() {
                self.lose(link, now_ns, trouble);
            }
        }
        self.wait();
        // Only what is ready now: a link that stays ready waits for the next turn behind the others.
        for _ in 0..self.ready.len() {
            let Some(link) = self.ready.pop() else { break };
            self.read(link);
        }
        let now_ns = self.now();
        if now_ns >= self.next_housekeeping_ns {
            self.next_housekeeping_ns = now_ns + HOUSEKEEPING_NS;
            self.keep_house(now_ns);
        }
    }

    /// Sleeps until a socket is ready, the next request is due, or housekeeping is.
    fn wait(&mut self) {
        let Some(mut events) = self.events.take() else {
            return;
        };
        let now_ns = self.now();
        let mut wake_at_ns = self.next_housekeeping_ns;
        let mut spin = false;
        if let (Some(schedule), Some(start_ns)) = (&self.schedule, self.start_ns)
            && !self.blocked
        {
            wake_at_ns = wake_at_ns.min(start_ns.saturating_add(schedule.next_ns()));
            spin = self.plan.spin;
        }
        let sleep = self.ready.is_empty() && wake_at_ns > now_ns && !spin;
        let timeout = if sleep && self.timer.wake_at(wake_at_ns, now_ns).is_ok() {
            None
        } else {
            Some(Duration::ZERO)
        };
        // An interrupted wait is a short one.
        if self.poll.poll(&mut events, timeout).is_ok() {
            for event in &events {
                let Token(link) = event.token();
                if link >= self.links.len() {
                    continue;
                }
                if event.is_readable() || event.is_error() || event.is_read_closed() {
                    self.ready.add(link);
                }
                if event.is_writable() {
                    self.dirty.add(link);
                }
            }
        }
        self.events = Some(events);
    }

    fn read(&mut self, link: usize) {
        let clock = self.plan.clock;
        let (blocked, unblocked_at_ns) = (&mut self.blocked, &mut self.unblocked_at_ns);
        let meter = &mut self.meter;
        let was_up = self.links[link].is_up();
        let outcome = self.links[link].read(
            || clock.now(),
            |pending, reply, now_ns| {
                if std::mem::take(blocked) {
                    *unblocked_at_ns = now_ns;
                }
                meter.replied(pending, reply, now_ns);
            },
        );
        match outcome {
            Ok(Read::Drained) => {}
            Ok(Read::More) => self.ready.add(link),
            Err(trouble) => {
                let now_ns = self.now();
                self.lose(link, now_ns, trouble);
                return;
            }
        }
        // A handshake message or a key update wants an answer; a link that came up makes room.
        if self.links[link].wants_flush() {
            self.dirty.add(link);
        }
        if !was_up && self.links[link].is_up() && std::mem::take(&mut self.blocked) {
            self.unblocked_at_ns = self.now();
        }
    }

    /// Counts what was in flight on a broken connection, and lets it come up again.
    fn lose(&mut self, link: usize, now_ns: u64, trouble: String) {
        let target = &mut self.links[link];
        if target.is_up() {
            self.meter.connection_lost(now_ns);
        }
        target
            .slots
            .release_if(|_| true, |pending| self.meter.disconnected(pending));
        target.close(self.poll.registry(), now_ns, Some(trouble));
    }

    fn keep_house(&mut self, now_ns: u64) {
        self.time_out(now_ns);
        self.open_links(now_ns);
    }

    fn time_out(&mut self, now_ns: u64) {
        let sent_before = now_ns.saturating_sub(self.plan.timeout_ns);
        let (blocked, unblocked_at_ns) = (&mut self.blocked, &mut self.unblocked_at_ns);
        for link in &mut self.links {
            link.slots.release_if(
                |pending| pending.sent_ns < sent_before,
                |pending| {
                    if std::mem::take(blocked) {
                        *unblocked_at_ns = now_ns;
                    }
                    self.meter.timed_out(pending, now_ns);
                },
            );
        }
        let opened_before = now_ns.saturating_sub(CONNECT_LIMIT_NS);
        for link in 0..self.links.len() {
            if self.links[link].is_opening_since(opened_before) {
                self.lose(link, now_ns, "no answer within 10 s".to_owned());
            }
        }
    }

    /// Starts handshakes on links that are down, a few at a time.
    fn open_links(&mut self, now_ns: u64) {
        let mut opening = self.links.iter().filter(|link| link.is_opening()).count();
        for link in 0..self.links.len() {
            if opening >= OPENING_MAX {
                return;
            }
            if self.links[link].wants_to_connect(now_ns) {
                opening += 1;
                if let Err(trouble) =
                    self.links[link].open(self.poll.registry(), &self.plan.identity, now_ns)
                {
                    self.lose(link, now_ns, trouble);
                }
            }
        }
    }

    /// Counts the requests of an open loop that were due before the end and found no place.
    fn count_unsent(&mut self, start_ns: u64) {
        let until_ns = self.meter.window().until_ns;
        if self.count_left == Some(0) {
            return;
        }
        while let Some(schedule) = &mut self.schedule {
            let intended_ns = start_ns.saturating_add(schedule.next_ns());
            if intended_ns >= until_ns {
                return;
            }
            schedule.advance();
            self.meter.unsent(intended_ns);
        }
    }

    /// Waits until every request in flight is answered or given up.
    fn drain(&mut self) {
        self.schedule = None;
        while self.links.iter().any(|link| link.slots.in_flight() > 0) {
            let now_ns = self.now();
            self.pump(now_ns);
        }
    }
}
