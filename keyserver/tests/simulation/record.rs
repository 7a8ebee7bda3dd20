//! What came of the requests.

use std::collections::BTreeMap;
use std::time::Duration;

use accel::Class;

use crate::machine::Job;

/// Everything that was seen in the measured stretch of time.
#[derive(Debug)]
pub(crate) struct Record {
    from_ns: u64,
    until_ns: u64,
    threads: usize,
    /// Latencies by source, of what was answered.
    latencies_ns: Vec<(Option<Class>, Vec<u64>)>,
    /// Work that was of use, by class: answered before its client gave up.
    useful: BTreeMap<Class, Duration>,
    useful_by_source: Vec<Duration>,
    refused: u64,
    expired: u64,
    turns: BTreeMap<Class, (usize, usize)>,
}

impl Record {
    pub(crate) fn new(sources: usize, threads: usize) -> Self {
        Self {
            from_ns: 0,
            until_ns: u64::MAX,
            threads,
            latencies_ns: vec![(None, Vec::new()); sources],
            useful: BTreeMap::new(),
            useful_by_source: vec![Duration::ZERO; sources],
            refused: 0,
            expired: 0,
            turns: BTreeMap::new(),
        }
    }

    pub(crate) fn measure(&mut self, from_ns: u64, until_ns: u64) {
        (self.from_ns, self.until_ns) = (from_ns, until_ns);
    }

    pub(crate) fn answered(&mut self, job: &Job, now_ns: u64, work: Duration) {
        if now_ns < self.from_ns {
            return;
        }
        let (class, latencies) = &mut self.latencies_ns[job.source];
        *class = Some(job.class);
        latencies.push(now_ns - job.came_ns);
        if now_ns <= job.patience_ns {
            *self.useful.entry(job.class).or_default() += work;
            self.useful_by_source[job.source] += work;
        }
    }

    pub(crate) fn refused(&mut self, job: &Job) {
        self.refused += u64::from(job.came_ns >= self.from_ns);
    }

    pub(crate) fn expired(&mut self, job: &Job) {
        self.expired += u64::from(job.came_ns >= self.from_ns);
    }

    pub(crate) fn began(&mut self, class: Class, jobs: usize) {
        let (turns, all) = self.turns.entry(class).or_default();
        *turns += 1;
        *all += jobs;
    }

    pub(crate) fn refusals(&self) -> u64 {
        self.refused
    }

    pub(crate) fn expirations(&self) -> u64 {
        self.expired
    }

    /// A percentile of the latencies of some sources: 0.99 of them take no longer.
    pub(crate) fn percentile(&self, share: f64, which: impl Fn(usize, Class) -> bool) -> Duration {
        let mut all: Vec<u64> = (self.latencies_ns.iter().enumerate())
            .filter(|(source, (class, _))| class.is_some_and(|class| which(*source, class)))
            .flat_map(|(_, (_, latencies))| latencies.iter().copied())
            .collect();
        assert!(
            all.len() >= 20,
            "{} answers say nothing about a percentile",
            all.len()
        );
        all.sort_unstable();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a position in the list"
        )]
        let at = ((all.len() - 1) as f64 * share).ceil() as usize;
        Duration::from_nanos(all[at])
    }

    /// The 99th percentile of a class.
    pub(crate) fn p99(&self, class: Class) -> Duration {
        self.percentile(0.99, |_, other| other == class)
    }

    /// Useful work done, of what all threads could have done.
    pub(crate) fn goodput(&self) -> f64 {
        let work: Duration = self.useful.values().sum();
        work.as_secs_f64() / self.thread_seconds()
    }

    /// The part of one source in the useful work.
    pub(crate) fn share(&self, source: usize) -> f64 {
        let all: Duration = self.useful_by_source.iter().sum();
        self.useful_by_source[source].as_secs_f64() / all.as_secs_f64()
    }

    /// The part of a class in what all threads could have done.
    pub(crate) fn share_of_class(&self, class: Class) -> f64 {
        let work = self.useful.get(&class).copied().unwrap_or_default();
        work.as_secs_f64() / self.thread_seconds()
    }

    fn thread_seconds(&self) -> f64 {
        let measured = Duration::from_nanos(self.until_ns - self.from_ns);
        measured.as_secs_f64() * self.threads as f64
    }
}
