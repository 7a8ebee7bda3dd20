//! How loaded a server looks from here, and the choice between two.
//!
//! ```text
//! cost = estimated latency x (calls in flight + 1) x slow start
//! ```
//!
//! The estimate is a *peak* moving average: it jumps up to every slower answer and forgets
//! exponentially, so that a server which has become slow is noticed with its first slow answer. A
//! server that owes an answer counts with its silence as soon as that is longer than the estimate.
//! Without answers the estimate fades: a server that once was slow is tried again.
//!
//! Of two servers drawn at random the cheaper one is taken ("the power of two choices",
//! Mitzenmacher 2001): nearly as even as taking the cheapest of all, and without the herd that runs
//! to one server when many clients know the same figures.
//!
//! Where servers have different weights, each is as large as its weight says: calls in flight count for its size, and
//! no latency that is usual in this fleet counts. See `Fleet::draw_by_weight`.

use std::time::{Duration, Instant};

/// Time constant with which an estimate forgets. A hiccup of 100 times the usual latency is
/// forgotten after some five of these. The longer, the less even the shares of equal servers: each
/// hiccup keeps calls away for a few of these (at 250 ms, 10 % off over 20 s).
const FORGET: Duration = Duration::from_millis(50);

/// What a server is taken for before its first answer.
const UNKNOWN_LATENCY: Duration = Duration::from_millis(1);

/// No estimate falls below this: differences of a few microseconds are noise, and would send all
/// calls to one server.
const LEAST_US: f64 = 100.0;

/// A server that has just joined or come back reaches its full share after this time.
const SLOW_START: Duration = Duration::from_secs(2);

/// How much more a server costs in the first moment of its slow start.
const SLOW_START_FACTOR: f64 = 8.0;

/// The load of one server as seen by this client.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    estimate_us: f64,
    updated: Instant,
    in_flight: u32,
    /// Since when an answer is owed without any other having come: start of the first call in
    /// flight, or the last answer.
    waiting_since: Option<Instant>,
    /// When its slow start began.
    since: Instant,
}

impl Load {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            estimate_us: micros(UNKNOWN_LATENCY),
            updated: now,
            in_flight: 0,
            waiting_since: None,
            since: now,
        }
    }

    /// Begins the slow start anew: the server has come back.
    pub(crate) fn restart(&mut self, now: Instant) {
        self.since = now;
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight
    }

    pub(crate) fn started(&mut self, now: Instant) {
        self.in_flight = self.in_flight.saturating_add(1);
        self.waiting_since.get_or_insert(now);
    }

    /// An answer came after `latency`.
    pub(crate) fn answered(&mut self, latency: Duration, now: Instant) {
        self.leave();
        self.waiting_since = (self.in_flight > 0).then_some(now);
        let sample = micros(latency);
        let kept = self.kept(now);
        self.estimate_us = if sample > self.estimate_us {
            sample
        } else {
            self.estimate_us * kept + sample * (1.0 - kept)
        };
        self.updated = now;
    }

    /// A call was given up after `waited` without an answer: the latency is at least that.
    pub(crate) fn abandoned(&mut self, waited: Duration, now: Instant) {
        self.leave();
        self.estimate_us = self.faded(now).max(micros(waited));
        self.updated = now;
    }

    /// The connection is gone, and all calls on it.
    pub(crate) fn reset(&mut self) {
        self.in_flight = 0;
        self.waiting_since = None;
    }

    fn leave(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if self.in_flight == 0 {
            self.waiting_since = None;
        }
    }

    /// The share of the estimate that is still remembered.
    fn kept(&self, now: Instant) -> f64 {
        let elapsed = now.saturating_duration_since(self.updated);
        (-elapsed.as_secs_f64() / FORGET.as_secs_f64()).exp()
    }

    fn faded(&self, now: Instant) -> f64 {
        self.estimate_us * self.kept(now)
    }

    /// What one more call would cost here, in microseconds of expected waiting.
    pub(crate) fn cost(&self, now: Instant) -> f64 {
        self.cost_among(1.0, LEAST_US, now)
    }

    /// The same for one that is as large as `share` servers of the usual size, where no latency below `usual`
    /// counts against it.
    pub(crate) fn weighed_cost(&self, share: f64, usual: Duration, now: Instant) -> f64 {
        self.cost_among(share, micros(usual), now)
    }

    fn cost_among(&self, share: f64, least_us: f64, now: Instant) -> f64 {
        let silence = self
            .waiting_since
            .map_or(0.0, |since| micros(now.saturating_duration_since(since)));
        let latency = self.faded(now).max(silence).max(least_us);
        latency * (f64::from(self.in_flight) / share + 1.0) * self.slow_start(now)
    }

    /// Falls from [`SLOW_START_FACTOR`] to 1 over [`SLOW_START`].
    fn slow_start(&self, now: Instant) -> f64 {
        let age = now.saturating_duration_since(self.since).as_secs_f64();
        let left = (1.0 - age / SLOW_START.as_secs_f64()).max(0.0);
        1.0 + (SLOW_START_FACTOR - 1.0) * left
    }
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// Random numbers for choices that need to be spread, not secret (xorshift64*, Vigna 2016).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// A number below `bound`; 0 for a bound of 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let drawn = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        let bound = u64::try_from(bound).unwrap_or(1).max(1);
        usize::try_from(drawn % bound).unwrap_or(0)
    }

    /// The positions of two different weights out of two or more, each drawn as often as it weighs among those
    /// that are left.
    pub(crate) fn two_by_weight(
        &mut self,
        weights: impl Iterator<Item = u32> + Clone,
    ) -> (usize, usize) {
        let first = self.by_weight(weights.clone());
        let left = weights.enumerate();
        let left = left.map(|(position, weight)| if position == first { 0 } else { weight });
        (first, self.by_weight(left))
    }

    fn by_weight(&mut self, weights: impl Iterator<Item = u32> + Clone) -> usize {
        let weights = weights.map(|weight| usize::try_from(weight).unwrap_or(usize::MAX));
        let mut left = self.below(weights.clone().fold(0, usize::saturating_add));
        for (position, weight) in weights.enumerate() {
            match left.checked_sub(weight) {
                Some(rest) => left = rest,
                None => return position,
            }
        }
        0
    }

    /// Two different numbers below `bound`, or twice the same when there is only one.
    pub(crate) fn two_below(&mut self, bound: usize) -> (usize, usize) {
        let first = self.below(bound);
        let second = self.below(bound.saturating_sub(1));
        (
            first,
            if second >= first && bound > 1 {
                second + 1
            } else {
                second
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_slow_answer_counts_at_once_and_fades() {
        let start = Instant::now();
        let mut load = Load::new(start);
        let now = start + SLOW_START;
        load.started(now);
        load.answered(50 * MS, now);
        let peak = load.cost(now);
        assert!((49_000.0..51_000.0).contains(&peak), "{peak}");
        assert!(load.cost(now + FORGET * 5) < peak / 100.0);
    }

    #[test]
    fn silence_costs_while_an_answer_is_owed() {
        let start = Instant::now();
        let mut load = Load::new(start);
        let now = start + SLOW_START;
        load.started(now);
        let early = load.cost(now);
        assert!(load.cost(now + 300 * MS) > early * 100.0);
        load.answered(300 * MS, now + 300 * MS);
        assert!(load.cost(now + 300 * MS + FORGET * 8) < early * 2.0);
    }

    #[test]
    fn slow_start_ends() {
        let start = Instant::now();
        let load = Load::new(start);
        let first = load.slow_start(start);
        assert!((first - SLOW_START_FACTOR).abs() < 0.01);
        assert!((load.slow_start(start + SLOW_START) - 1.0).abs() < 0.01);
    }

    #[test]
    fn two_draws_differ() {
        let mut random = Random::new(7);
        for bound in 2..9 {
            let mut seen = vec![0_u32; bound];
            for _ in 0..2_000 {
                let (one, two) = random.two_below(bound);
                assert!(one != two && one < bound && two < bound);
                seen[one] += 1;
                seen[two] += 1;
            }
            let mean = 4_000 / u32::try_from(bound).unwrap();
            assert!(seen.iter().all(|&count| count > mean / 2), "{seen:?}");
        }
        assert_eq!(random.two_below(1), (0, 0));
    }

    #[test]
    fn weights_are_drawn_as_often_as_they_weigh() {
        let mut random = Random::new(7);
        for weights in [[1, 1, 1], [1, 2, 4], [1, 1000, 1000], [60_000, 1, 3000]] {
            let mut seen = [0_u32; 3];
            for _ in 0..100_000 {
                let (one, two) = random.two_by_weight(weights.into_iter());
                assert!(one != two && two < 3);
                seen[one] += 1;
            }
            let sum: u32 = weights.iter().sum();
            for (seen, weight) in seen.into_iter().zip(weights) {
                let share = 100_000.0 * f64::from(weight) / f64::from(sum);
                let off = (f64::from(seen) - share).abs();
                assert!(
                    off < 5.0 * share.sqrt() + 1.0,
                    "{weights:?}: {seen} for {share}"
                );
            }
        }
    }
}
