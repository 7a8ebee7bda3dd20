//! `loadgen run`: from the options to a result.
//!
//! ```text
//!   main thread:   survey -> start threads -> (all connected) start signal -> collect seconds -> check answers
//!   load threads:            connect          .................. drive the load, hand over a record each second
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use keyless_protocol::ServerInfo;
use keyserver_client::TlsIdentity;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::arrival::Schedule;
use crate::cli::RunArgs;
use crate::clock::Clock;
use crate::collect::Collector;
use crate::drive::{Connected, Driver, Endpoint, Finished, INTERVALS_QUEUED_MAX, Plan, Share};
use crate::error::RunError;
use crate::host::{self, MachineTicks};
use crate::progress::Progress;
use crate::random::Random;
use crate::record::Interval;
use crate::survey::{Survey, survey};
use crate::units::{duration_ns, float};
use crate::verify::{SPOOL_BYTES_MAX, Spool, Verdict, check_all};
use crate::workload::{Manner, Workload};

/// From the start signal to the first request, so that every thread is awake.
const START_DELAY_NS: u64 = 20_000_000;

/// Everything a run gives.
#[derive(Debug)]
pub struct Outcome {
    /// When the measured stretch began.
    pub started: SystemTime,
    /// When it ended.
    pub ended: SystemTime,
    /// Its length.
    pub measured_ns: u64,
    /// The measurements.
    pub collected: Collector,
    /// What checking the answers found.
    pub verdict: Verdict,
    /// What the first target says of itself; `None` for a stock server.
    pub server: Option<ServerInfo>,
    /// TLS version of the first connection.
    pub tls_version: Option<&'static str>,
    /// Key exchange group of the first connection.
    pub key_exchange: Option<&'static str>,
    /// Distinct keys used.
    pub keys: usize,
    /// The share of a core each load thread took.
    pub thread_busy: Vec<f64>,
    /// What the machine did meanwhile.
    pub around: Around,
    /// Whether a signal ended it early.
    pub interrupted: bool,
    /// Why a connection was lost, if one was.
    pub trouble: Option<String>,
}

/// What was read from the system at both ends of the measured stretch.
#[derive(Clone, Copy, Debug, Default)]
pub struct Around {
    /// The share of all CPU time that the hypervisor gave to others; `None` where the system does not say.
    pub steal: Option<f64>,
    /// CPU seconds the server took, and seconds of wall time it took them in; `None` without `--server-pid`.
    pub server_cpu: Option<(f64, f64)>,
    /// How far the wall clock and the monotonic clock drifted apart, in nanoseconds.
    pub clock_step_ns: u64,
}

/// A message of a load thread.
enum Event {
    Connected(Connected),
    Failed(RunError),
    Finished(Box<Finished>),
}

/// Runs the load and measures it.
///
/// # Errors
/// Nothing could be measured: see [`RunError`].
pub fn run(args: &RunArgs) -> Result<Outcome, RunError> {
    let system = |error: std::io::Error| RunError::System(format!("cannot start: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system)?;
    runtime.block_on(async {
        let mut signals = Signals::new().map_err(system)?;
        let identity = TlsIdentity::from_files(&args.ca, &args.cert, &args.key)
            .map_err(|error| RunError::Usage(error.to_string()))?;
        let survey = tokio::select! {
            survey = survey(args, &identity) => survey?,
            () = signals.next() => return Err(RunError::Interrupted),
        };
        Run::start(args, identity, survey, signals)?.finish().await
    })
}

/// SIGINT and SIGTERM.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// A reading of the system.
struct Reading {
    at_ns: u64,
    wall: SystemTime,
    machine: Option<MachineTicks>,
    server_cpu_s: Option<f64>,
}

/// A run under way.
struct Run<'a> {
    args: &'a RunArgs,
    plan: Arc<Plan>,
    signals: Signals,
    events: mpsc::Receiver<Event>,
    intervals: mpsc::Receiver<Interval>,
    progress: Progress,
    collected: Collector,
    server: Option<ServerInfo>,
    /// The first connection's, when all threads are connected.
    connected: Option<Connected>,
    readings: Vec<Reading>,
    finished: Vec<Finished>,
}

impl<'a> Run<'a> {
    fn start(
        args: &'a RunArgs,
        identity: TlsIdentity,
        survey: Survey,
        signals: Signals,
    ) -> Result<Self, RunError> {
        let workload = Workload::with_inputs(
            args.mix.clone(),
            args.pad,
            &survey.keys,
            args.seed,
            args.fresh,
        )
        .map_err(RunError::Usage)?;
        if let Some(pid) = args.server_pid
            && host::process_cpu_s(pid).is_none()
        {
            return Err(RunError::Usage(format!(
                "--server-pid {pid}: no such process on this machine"
            )));
        }
        host::raise_open_files();
        let parts = workload.mix().parts().len();
        let plan = Arc::new(Plan {
            workload: Arc::new(workload),
            identity,
            clock: Clock::start(),
            seed: args.seed,
            in_flight_max: args.inflight_per_conn,
            warmup_ns: duration_ns(args.warmup),
            duration_ns: duration_ns(args.duration()),
            timeout_ns: duration_ns(args.timeout),
            verify: args.verify,
            manner: manner(args, survey.server.as_ref()).map_err(RunError::Usage)?,
            spin: args.spin,
            start_ns: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let (event_sender, events) = mpsc::channel(2 * args.threads);
        let (interval_sender, intervals) = mpsc::channel(INTERVALS_QUEUED_MAX * args.threads);
        let cores = args.cores().map_err(RunError::Usage)?;
        for thread in 0..args.threads {
            let share = share(args, thread, &survey.endpoints);
            let core = cores.get(thread % cores.len().max(1)).copied();
            let (plan, events, intervals) = (
                Arc::clone(&plan),
                event_sender.clone(),
                interval_sender.clone(),
            );
            thread::Builder::new()
                .name(format!("load-{thread}"))
                .spawn(move || load_thread(plan, share, core, &events, intervals))
                .map_err(|error| {
                    RunError::System(format!("cannot start thread {thread}: {error}"))
                })?;
        }
        Ok(Self {
            progress: Progress::new(!args.no_progress),
            collected: Collector::new(args.threads, parts),
            args,
            plan,
            signals,
            events,
            intervals,
            server: survey.server,
            connected: None,
            readings: Vec::new(),
            finished: Vec::new(),
        })
    }

    async fn finish(mut self) -> Result<Outcome, RunError> {
        self.connect().await?;
        let interrupted = self.load().await?;
        if self.readings.len() < 2 {
            self.read_system();
        }
        self.intervals.close();
        while let Some(interval) = self.intervals.recv().await {
            self.take(interval);
        }
        self.collected.finish();
        let spools = self
            .finished
            .iter_mut()
            .map(|finished| std::mem::replace(&mut finished.spool, Spool::new(0)));
        let (verdict, check_interrupted) = check(
            &self.plan,
            spools.collect(),
            &mut self.signals,
            &mut self.progress,
        )
        .await;
        self.progress.clear();
        Ok(self.into_outcome(verdict, interrupted || check_interrupted))
    }

    /// Waits until every thread has its connections, then gives the start signal.
    async fn connect(&mut self) -> Result<(), RunError> {
        self.progress.note("connecting");
        for _ in 0..self.args.threads {
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(Event::Connected(connected)) => { self.connected.get_or_insert(connected); }
                    Some(Event::Failed(error)) => { self.stop(); return Err(error); }
                    Some(Event::Finished(_)) | None => return Err(thread_lost()),
                },
                () = self.signals.next() => { self.stop(); return Err(RunError::Interrupted); }
            }
        }
        let start_ns = self.plan.clock.now() + START_DELAY_NS;
        self.plan.start_ns.store(start_ns, Ordering::Release);
        if self.plan.warmup_ns > 0 {
            self.progress.note("warming up");
        }
        Ok(())
    }

    /// Collects until every thread has finished. Returns whether a signal ended it early.
    async fn load(&mut self) -> Result<bool, RunError> {
        let from_ns = self
            .plan
            .start_ns
            .load(Ordering::Relaxed)
            .saturating_add(self.plan.warmup_ns);
        let until_ns = from_ns.saturating_add(self.plan.duration_ns);
        let mut interrupted = false;
        while self.finished.len() < self.args.threads {
            let next_reading_ns = if self.readings.is_empty() {
                from_ns
            } else {
                until_ns
            };
            let wait = Duration::from_nanos(next_reading_ns.saturating_sub(self.plan.clock.now()));
            tokio::select! {
                Some(interval) = self.intervals.recv() => self.take(interval),
                event = self.events.recv() => match event {
                    Some(Event::Finished(finished)) => {
                        if self.readings.len() == 1 {
                            self.read_system();
                        }
                        self.finished.push(*finished);
                    }
                    Some(Event::Failed(error)) => { self.stop(); return Err(error); }
                    Some(Event::Connected(_)) | None => return Err(thread_lost()),
                },
                () = tokio::time::sleep(wait), if self.readings.len() < 2 => self.read_system(),
                () = self.signals.next() => {
                    if interrupted {
                        return Err(RunError::Interrupted);
                    }
                    interrupted = true;
                    self.stop();
                    self.progress.note("interrupted: waiting for the last answers (again to give up)");
                }
            }
        }
        Ok(interrupted)
    }

    fn stop(&self) {
        self.plan.stop.store(true, Ordering::Relaxed);
    }

    fn take(&mut self, interval: Interval) {
        if let Some(second) = self.collected.add(interval) {
            self.progress.second(second);
        }
    }

    fn read_system(&mut self) {
        self.readings.push(Reading {
            at_ns: self.plan.clock.now(),
            wall: SystemTime::now(),
            machine: MachineTicks::read(),
            server_cpu_s: self.args.server_pid.and_then(host::process_cpu_s),
        });
    }

    fn into_outcome(self, verdict: Verdict, interrupted: bool) -> Outcome {
        let measured_ns = self
            .finished
            .iter()
            .map(|finished| finished.measured_ns)
            .max()
            .unwrap_or(0);
        let busy =
            |finished: &Finished| float(finished.cpu_ns) / float(finished.measured_ns.max(1));
        let started = self
            .readings
            .first()
            .map_or_else(SystemTime::now, |reading| reading.wall);
        let connected = self.connected;
        Outcome {
            started,
            ended: self.readings.last().map_or(started, |reading| reading.wall),
            measured_ns,
            verdict,
            server: self.server,
            tls_version: connected.and_then(|connected| connected.tls_version),
            key_exchange: connected.and_then(|connected| connected.key_exchange),
            keys: self.plan.workload.keys,
            thread_busy: self.finished.iter().map(busy).collect(),
            around: around(&self.readings),
            interrupted,
            trouble: self
                .finished
                .into_iter()
                .find_map(|finished| finished.trouble),
            collected: self.collected,
        }
    }
}

/// The connections and the load of one thread.
/// What requests may carry, by what the server says it understands.
fn manner(args: &RunArgs, server: Option<&ServerInfo>) -> Result<Manner, String> {
    let deadline_us = args
        .deadline
        .map(|deadline| u32::try_from(deadline.as_micros()).unwrap_or(u32::MAX));
    let understands = |wanted: &str| {
        server.is_some_and(|server| server.capabilities.iter().any(|able| able == wanted))
    };
    if deadline_us.is_some() && !understands("deadline") {
        return Err(
            "--deadline: the target does not understand deadlines; leave the option out".to_owned(),
        );
    }
    Ok(Manner {
        extended: server.is_some(),
        deadline_us,
    })
}

fn share(args: &RunArgs, thread: usize, endpoints: &[Endpoint]) -> Share {
    let threads = args.threads;
    let mine = (0..args.connections).filter(|connection| connection % threads == thread);
    // The streams of chance that `Driver` leaves: see there.
    let random = Random::new(args.seed, thread as u64 * 3 + 2);
    let count = args.count.map(|count| {
        let (each, rest) = (count / threads as u64, count % threads as u64);
        each + u64::from((thread as u64) < rest)
    });
    Share {
        thread,
        endpoints: mine
            .filter_map(|connection| endpoints.get(connection % endpoints.len()).cloned())
            .collect(),
        schedule: args
            .rate
            .map(|rate| Schedule::new(args.arrival, rate, thread, threads, random)),
        count,
        spool_bytes_max: SPOOL_BYTES_MAX / threads,
    }
}

/// A load thread, from its first connection to its last answer.
fn load_thread(
    plan: Arc<Plan>,
    share: Share,
    core: Option<usize>,
    events: &mpsc::Sender<Event>,
    intervals: mpsc::Sender<Interval>,
) {
    let load = || -> Result<Finished, RunError> {
        if let Some(core) = core {
            host::pin_thread(core).map_err(RunError::Usage)?;
        }
        let mut driver = Driver::new(plan, share, intervals)
            .map_err(|error| RunError::System(format!("cannot make an event queue: {error}")))?;
        let connected = driver.connect().map_err(RunError::Target)?;
        // A closed channel means that the run was given up; the stop flag tells the driver.
        let _ = events.blocking_send(Event::Connected(connected));
        Ok(driver.run())
    };
    let event = match load() {
        Ok(finished) => Event::Finished(Box::new(finished)),
        Err(error) => Event::Failed(error),
    };
    let _ = events.blocking_send(event);
}

/// Checks the kept answers on threads of their own. Returns what was found and whether a signal stopped it.
async fn check(
    plan: &Arc<Plan>,
    spools: Vec<Spool>,
    signals: &mut Signals,
    progress: &mut Progress,
) -> (Verdict, bool) {
    let kept: u64 = spools.iter().map(|spool| spool.kept).sum();
    let shared = Arc::new((AtomicBool::new(false), AtomicU64::new(0)));
    let (workload, shared_there) = (Arc::clone(&plan.workload), Arc::clone(&shared));
    let mut work = tokio::task::spawn_blocking(move || {
        check_all(&workload, spools, &shared_there.0, &shared_there.1)
    });
    let mut interrupted = false;
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            verdict = &mut work => {
                // A check that panicked has checked nothing.
                let verdict = verdict.unwrap_or_else(|_| Verdict { unchecked: kept, ..Verdict::default() });
                return (verdict, interrupted);
            }
            _ = tick.tick() => progress.checking(shared.1.load(Ordering::Relaxed), kept),
            () = signals.next() => {
                shared.0.store(true, Ordering::Relaxed);
                interrupted = true;
            }
        }
    }
}

fn around(readings: &[Reading]) -> Around {
    let (Some(first), Some(last)) = (readings.first(), readings.last()) else {
        return Around::default();
    };
    let elapsed_ns = last.at_ns.saturating_sub(first.at_ns);
    let wall_ns = last.wall.duration_since(first.wall).map_or(0, duration_ns);
    Around {
        steal: first
            .machine
            .zip(last.machine)
            .map(|(first, last)| first.steal_until(&last)),
        server_cpu: first
            .server_cpu_s
            .zip(last.server_cpu_s)
            .map(|(first, last)| (last - first, float(elapsed_ns) / 1e9)),
        clock_step_ns: wall_ns.abs_diff(elapsed_ns),
    }
}

fn thread_lost() -> RunError {
    RunError::System("a load thread ended unexpectedly".to_owned())
}
