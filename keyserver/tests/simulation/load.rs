//! Who asks, for what, and how often.

use std::time::Duration;

use accel::Class;

/// Requests of one client for one class.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source {
    pub(crate) client: u64,
    pub(crate) weight: u32,
    pub(crate) class: Class,
    pub(crate) pace: Pace,
    /// What the request says: no use afterwards.
    pub(crate) deadline: Duration,
    /// When the client gives up, whatever it said.
    pub(crate) patience: Duration,
}

/// When a source sends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// So many requests a second, whether or not answers come: an exponential time between two.
    Open(f64),
    /// So many requests in flight, the next when one is answered or its time to retry has come.
    Closed(usize),
}

impl Source {
    /// Requests that may wait as long as the server lets them.
    pub(crate) fn new(client: u64, class: Class, pace: Pace) -> Self {
        Self {
            client,
            weight: 1,
            class,
            pace,
            deadline: Duration::from_secs(2),
            patience: Duration::from_secs(2),
        }
    }

    /// The same from a client that gives up after `patience` without having said so.
    pub(crate) fn patient(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }
}

/// The sources with their chance.
#[derive(Debug)]
pub(crate) struct Arrivals {
    sources: Vec<(Source, Random)>,
}

impl Arrivals {
    pub(crate) fn new(sources: &[Source]) -> Self {
        let sources = (1..)
            .zip(sources)
            .map(|(seed, source)| (*source, Random(seed)))
            .collect();
        Self { sources }
    }

    pub(crate) fn len(&self) -> usize {
        self.sources.len()
    }

    pub(crate) fn is_closed(&self, source: usize) -> bool {
        matches!(self.sources[source].0.pace, Pace::Closed(_))
    }

    /// The times of a source's first requests: a closed loop begins over a millisecond.
    pub(crate) fn first(&mut self, source: usize) -> Vec<u64> {
        let (settings, random) = &mut self.sources[source];
        match settings.pace {
            Pace::Open(rate) => vec![random.exponential_ns(rate)],
            Pace::Closed(count) => (0..count as u64)
                .map(|one| one * 1_000_000 / count as u64)
                .collect(),
        }
    }

    /// What the source asks for, and when it asks again by itself.
    pub(crate) fn next(&mut self, source: usize, now_ns: u64) -> (Source, Option<u64>) {
        let (settings, random) = &mut self.sources[source];
        let next_ns = match settings.pace {
            Pace::Open(rate) => Some(now_ns + random.exponential_ns(rate)),
            Pace::Closed(_) => None,
        };
        (*settings, next_ns)
    }
}

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a positive number of nanoseconds far below 2^64"
    )]
    fn exponential_ns(&mut self, rate: f64) -> u64 {
        let uniform = ((self.next() >> 11) as f64 + 1.0) / (1_u64 << 53) as f64;
        (-uniform.ln() / rate * 1e9) as u64
    }
}
