//! When requests are meant to leave: the arrival processes of an open loop.
//!
//! An open loop does not wait for answers. The times are fixed beforehand by the process and the seed, and a request's
//! latency is counted from the time it was meant to leave, whether or not it could. Otherwise a server that stalls
//! would also stall the questions, and the stall would be counted once instead of for everyone who had to wait
//! ("coordinated omission").

use std::fmt;
use std::str::FromStr;

use crate::random::Random;
use crate::units::{NS_PER_S, float, ns_from_f64};

/// How arrivals are spaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Independent users: exponential gaps. The default, and the one whose queueing resembles production.
    Poisson,
    /// One request every 1/rate. Kinder than reality: no two users ever collide.
    Constant,
    /// This many at once, every n/rate: handshakes that come in flocks.
    Burst(u32),
}

impl FromStr for Arrival {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "poisson" => Ok(Self::Poisson),
            "constant" => Ok(Self::Constant),
            other => {
                let size = other
                    .strip_prefix("burst:")
                    .and_then(|size| size.parse().ok());
                match size {
                    Some(size) if size > 0 => Ok(Self::Burst(size)),
                    _ => Err(format!(
                        "`{text}` is not poisson, constant or burst:N with N above zero"
                    )),
                }
            }
        }
    }
}

impl fmt::Display for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Poisson => f.write_str("poisson"),
            Self::Constant => f.write_str("constant"),
            Self::Burst(size) => write!(f, "burst:{size}"),
        }
    }
}

/// The intended send times of one thread, in nanoseconds from the start of the load.
#[derive(Debug)]
pub struct Schedule {
    arrival: Arrival,
    /// Mean gap between two requests of this thread.
    gap_ns: f64,
    next_ns: f64,
    /// Requests of the current burst still to come at `next_ns`.
    left_in_burst: u32,
    random: Random,
}

impl Schedule {
    /// The times of thread `thread` of `threads`, which together make `rate` requests per second.
    ///
    /// Constant and burst arrivals of several threads are interleaved evenly; Poisson streams add up to one Poisson
    /// stream by themselves.
    #[must_use]
    pub fn new(arrival: Arrival, rate: f64, thread: usize, threads: usize, random: Random) -> Self {
        let (thread, threads) = (float(thread as u64), float(threads.max(1) as u64));
        let gap_ns = float(NS_PER_S) * threads / rate;
        let mut schedule = Self {
            arrival,
            gap_ns,
            next_ns: 0.0,
            left_in_burst: 0,
            random,
        };
        match arrival {
            Arrival::Poisson => schedule.advance(),
            Arrival::Constant => schedule.next_ns = gap_ns * thread / threads,
            Arrival::Burst(size) => {
                schedule.next_ns = gap_ns * f64::from(size) * thread / threads;
                schedule.left_in_burst = size;
            }
        }
        schedule
    }

    /// When the next request is meant to leave.
    #[must_use]
    pub fn next_ns(&self) -> u64 {
        ns_from_f64(self.next_ns)
    }

    /// Moves on to the request after that.
    pub fn advance(&mut self) {
        match self.arrival {
            Arrival::Poisson => self.next_ns -= self.random.unit().ln() * self.gap_ns,
            Arrival::Constant => self.next_ns += self.gap_ns,
            Arrival::Burst(size) => {
                self.left_in_burst -= 1;
                if self.left_in_burst == 0 {
                    self.next_ns += self.gap_ns * f64::from(size);
                    self.left_in_burst = size;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(arrival: Arrival, rate: f64, thread: usize, threads: usize, n: usize) -> Vec<u64> {
        let mut schedule = Schedule::new(
            arrival,
            rate,
            thread,
            threads,
            Random::new(1, thread as u64),
        );
        (0..n)
            .map(|_| {
                let at = schedule.next_ns();
                schedule.advance();
                at
            })
            .collect()
    }

    #[test]
    fn processes_parse_and_print() {
        for text in ["poisson", "constant", "burst:8"] {
            assert_eq!(text.parse::<Arrival>().unwrap().to_string(), text);
        }
        for bad in ["", "burst", "burst:", "burst:0", "burst:-1", "uniform"] {
            assert!(bad.parse::<Arrival>().is_err(), "{bad} was accepted");
        }
    }

    #[test]
    fn constant_gaps_are_equal_and_threads_interleave() {
        assert_eq!(
            times(Arrival::Constant, 1000.0, 0, 1, 3),
            [0, 1_000_000, 2_000_000]
        );
        assert_eq!(times(Arrival::Constant, 1000.0, 0, 2, 2), [0, 2_000_000]);
        assert_eq!(
            times(Arrival::Constant, 1000.0, 1, 2, 2),
            [1_000_000, 3_000_000]
        );
    }

    #[test]
    fn bursts_come_together_and_keep_the_rate() {
        assert_eq!(
            times(Arrival::Burst(3), 3000.0, 0, 1, 7),
            [0, 0, 0, 1_000_000, 1_000_000, 1_000_000, 2_000_000]
        );
    }

    #[test]
    fn poisson_gaps_have_the_mean_and_the_spread_of_an_exponential() {
        let times = times(Arrival::Poisson, 1_000_000.0, 0, 1, 200_001);
        let gaps: Vec<f64> = times
            .windows(2)
            .map(|pair| float(pair[1] - pair[0]))
            .collect();
        let n = float(gaps.len() as u64);
        let mean = gaps.iter().sum::<f64>() / n;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / n;
        // Standard error of the mean is 1000 / sqrt(200,000) = 2.2 ns; rounding to 1 ns adds nothing visible.
        assert!((mean - 1000.0).abs() < 12.0, "mean {mean}");
        // The coefficient of variation of an exponential is 1.
        assert!(
            (variance.sqrt() / mean - 1.0).abs() < 0.02,
            "cv {}",
            variance.sqrt() / mean
        );
        // And 1/e of the gaps are longer than the mean.
        let long = gaps.iter().filter(|&&gap| gap > 1000.0).count();
        assert!((float(long as u64) / n - 0.3679).abs() < 0.006);
    }
}
