//! What is measured, in histograms and counters, per interval of one second.
//!
//! Each thread fills an [`Interval`] and hands it over when its second is up; the main thread adds them. So the hot path
//! shares nothing, and the sum is exact: histograms of the same shape add bucket by bucket.

use hdrhistogram::Histogram;
use keyless_protocol::ErrorCode;

/// Latencies in nanoseconds.
pub type Latencies = Histogram<u64>;

/// The longest latency told apart from longer ones: one hour.
const LATENCY_NS_MAX: u64 = 3_600_000_000_000;
/// Three significant digits: every value is kept to within 0.1 %.
const SIGNIFICANT_DIGITS: u8 = 3;

/// An empty histogram from 1 ns to one hour.
#[must_use]
pub fn latencies() -> Latencies {
    #[expect(
        clippy::unreachable,
        reason = "the bounds are constants, and the tests make one"
    )]
    let Ok(histogram) = Histogram::new_with_bounds(1, LATENCY_NS_MAX, SIGNIFICANT_DIGITS) else {
        unreachable!("constant bounds")
    };
    histogram
}

/// Why a request got no usable answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The server answered with an error.
    Code(ErrorCode),
    /// The connection was lost while the request was in flight.
    Disconnected,
    /// No answer within `--timeout`.
    Timeout,
    /// Waited for a free place as long as `--timeout` and never left.
    Unsent,
    /// A pong that does not repeat its ping.
    WrongEcho,
}

/// Counts per kind of failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failures {
    codes: [u64; 256],
    disconnected: u64,
    timeouts: u64,
    unsent: u64,
    wrong_echoes: u64,
}

impl Default for Failures {
    fn default() -> Self {
        Self {
            codes: [0; 256],
            disconnected: 0,
            timeouts: 0,
            unsent: 0,
            wrong_echoes: 0,
        }
    }
}

impl Failures {
    /// Counts one.
    pub fn count(&mut self, failure: Failure) {
        let counter = match failure {
            Failure::Code(code) => match self.codes.get_mut(usize::from(code.as_byte())) {
                Some(counter) => counter,
                None => return,
            },
            Failure::Disconnected => &mut self.disconnected,
            Failure::Timeout => &mut self.timeouts,
            Failure::Unsent => &mut self.unsent,
            Failure::WrongEcho => &mut self.wrong_echoes,
        };
        *counter += 1;
    }

    /// All failures.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.codes.iter().sum::<u64>()
            + self.disconnected
            + self.timeouts
            + self.unsent
            + self.wrong_echoes
    }

    /// Requests that were given up before they left.
    #[must_use]
    pub fn unsent(&self) -> u64 {
        self.unsent
    }

    /// Pongs that did not repeat their ping.
    #[must_use]
    pub fn wrong_echoes(&self) -> u64 {
        self.wrong_echoes
    }

    /// Each kind that occurred, by name, with its count.
    #[must_use]
    pub fn named(&self) -> Vec<(String, u64)> {
        let codes = self.codes.iter().zip(0..=u8::MAX).map(|(count, byte)| {
            let name = ErrorCode::from_byte(byte)
                .map_or_else(|| format!("error-{byte}"), |code| code.name().to_owned());
            (name, *count)
        });
        let others = [
            ("disconnected", self.disconnected),
            ("timeout", self.timeouts),
            ("unsent", self.unsent),
            ("wrong-echo", self.wrong_echoes),
        ];
        codes
            .chain(others.map(|(name, count)| (name.to_owned(), count)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    fn add(&mut self, other: &Self) {
        for (sum, count) in self.codes.iter_mut().zip(other.codes) {
            *sum += count;
        }
        self.disconnected += other.disconnected;
        self.timeouts += other.timeouts;
        self.unsent += other.unsent;
        self.wrong_echoes += other.wrong_echoes;
    }
}

/// What is kept per part of the mix.
#[derive(Clone, Debug)]
pub struct ClassRecord {
    /// From the intended send time to the answer.
    pub response: Latencies,
    /// From the actual send time to the answer.
    pub service: Latencies,
    /// Requests that failed, timeouts among them.
    pub failed: u64,
    /// Requests given up, sent or not; they are in `response`, too.
    pub timed_out: u64,
}

impl ClassRecord {
    fn new() -> Self {
        Self {
            response: latencies(),
            service: latencies(),
            failed: 0,
            timed_out: 0,
        }
    }
}

/// Everything measured in one stretch of time by one thread, or the sum of such.
#[derive(Clone, Debug)]
pub struct Interval {
    /// Start, in nanoseconds after the measurement began.
    pub start_ns: u64,
    /// End, likewise.
    pub end_ns: u64,
    /// Requests that were meant to leave in this time (open loop), or left (closed loop).
    pub offered: u64,
    /// Right answers that arrived in this time, whenever their requests left: the throughput.
    pub completed: u64,
    /// Of those, requests that never left because every connection was at its in-flight limit: until the end, or until
    /// they were given up, which is a failure.
    pub unsent: u64,
    /// Requests that had to wait for a place because every connection was at its in-flight limit.
    pub held_back: u64,
    /// How late requests left through the generator's own doing: not counting the wait for a place.
    pub send_lag: Latencies,
    /// Per part of the mix.
    pub classes: Vec<ClassRecord>,
    /// Failures by kind, all classes.
    pub failures: Failures,
    /// Refusals that said when to try again.
    pub retry_after: u64,
    /// Connections that were lost.
    pub connections_lost: u64,
}

impl Interval {
    /// An empty record for a mix of so many parts.
    #[must_use]
    pub fn new(parts: usize) -> Self {
        Self {
            start_ns: 0,
            end_ns: 0,
            offered: 0,
            completed: 0,
            unsent: 0,
            held_back: 0,
            send_lag: latencies(),
            classes: (0..parts).map(|_| ClassRecord::new()).collect(),
            failures: Failures::default(),
            retry_after: 0,
            connections_lost: 0,
        }
    }

    /// Counts an answer to a request of this part.
    pub fn answered(&mut self, part: usize, response_ns: u64, service_ns: u64) {
        if let Some(class) = self.classes.get_mut(part) {
            class.response.saturating_record(response_ns);
            class.service.saturating_record(service_ns);
        }
    }

    /// Counts a request of this part that got no usable answer.
    pub fn failed(&mut self, part: usize, failure: Failure) {
        self.failures.count(failure);
        if let Some(class) = self.classes.get_mut(part) {
            class.failed += 1;
        }
    }

    /// Counts a request given up after so long. Its time goes into `response` and `service` as the least it can have
    /// been: leaving it out would make the tail look better the more requests time out.
    pub fn timed_out(&mut self, part: usize, response_ns: u64, service_ns: u64) {
        self.answered(part, response_ns, service_ns);
        self.failed(part, Failure::Timeout);
        if let Some(class) = self.classes.get_mut(part) {
            class.timed_out += 1;
        }
    }

    /// Counts a request of this part that waited for a place so long and was given up there. It has been on its way for
    /// nobody, so only `response` knows it.
    pub fn never_left(&mut self, part: usize, response_ns: u64) {
        self.unsent += 1;
        self.failed(part, Failure::Unsent);
        if let Some(class) = self.classes.get_mut(part) {
            class.response.saturating_record(response_ns);
            class.timed_out += 1;
        }
    }

    /// Requests of this time that were answered, whenever the answer came; without those that failed.
    #[must_use]
    pub fn ok(&self) -> u64 {
        let in_histograms: u64 = self.classes.iter().map(|class| class.response.len()).sum();
        in_histograms.saturating_sub(self.failures.timeouts + self.failures.unsent)
    }

    /// Adds another record; the time span grows to cover both.
    pub fn add(&mut self, other: &Self) {
        self.end_ns = self.end_ns.max(other.end_ns);
        self.offered += other.offered;
        self.completed += other.completed;
        self.unsent += other.unsent;
        self.held_back += other.held_back;
        self.retry_after += other.retry_after;
        self.connections_lost += other.connections_lost;
        add(&mut self.send_lag, &other.send_lag);
        self.failures.add(&other.failures);
        for (sum, class) in self.classes.iter_mut().zip(&other.classes) {
            add(&mut sum.response, &class.response);
            add(&mut sum.service, &class.service);
            sum.failed += class.failed;
            sum.timed_out += class.timed_out;
        }
    }

    /// `response` of all classes together.
    #[must_use]
    pub fn response(&self) -> Latencies {
        sum(self.classes.iter().map(|class| &class.response))
    }

    /// `service` of all classes together.
    #[must_use]
    pub fn service(&self) -> Latencies {
        sum(self.classes.iter().map(|class| &class.service))
    }
}

/// Adds `other` to `sum`. Both have the shape of [`latencies`], so that every count finds its bucket.
pub fn add(sum: &mut Latencies, other: &Latencies) {
    let added = sum.add(other);
    debug_assert!(added.is_ok(), "all histograms here have one shape");
}

fn sum<'a>(parts: impl Iterator<Item = &'a Latencies>) -> Latencies {
    let mut total = latencies();
    for part in parts {
        add(&mut total, part);
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_exact() {
        let mut one = Interval::new(2);
        one.answered(0, 1000, 900);
        one.failed(1, Failure::Code(ErrorCode::KeyNotFound));
        one.offered = 2;
        one.end_ns = 5;
        let mut sum = Interval::new(2);
        sum.add(&one);
        sum.add(&one);
        assert_eq!(
            (
                sum.ok(),
                sum.offered,
                sum.failures.total(),
                sum.classes[1].failed
            ),
            (2, 4, 2, 2)
        );
        assert_eq!(sum.response().len(), 2);
    }

    #[test]
    fn timeouts_are_failures_that_stay_in_the_tail() {
        let mut interval = Interval::new(1);
        interval.answered(0, 1_000_000, 1_000_000);
        interval.timed_out(0, 2_000_000_000, 2_000_000_000);
        assert_eq!(interval.ok(), 1);
        assert!(interval.response().max() >= 2_000_000_000);
        assert_eq!(interval.failures.named(), [("timeout".to_owned(), 1)]);
    }

    #[test]
    fn values_are_kept_to_a_thousandth_and_clamped_at_an_hour() {
        let mut histogram = latencies();
        histogram.saturating_record(123_456_789);
        let kept = histogram.max();
        assert!(kept.abs_diff(123_456_789) < 123_457, "{kept}");
        histogram.saturating_record(u64::MAX);
        assert_eq!(histogram.len(), 2);
    }
}
