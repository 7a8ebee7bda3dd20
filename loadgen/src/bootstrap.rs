//! Confidence intervals for percentiles that respect how latencies hang together in time.
//!
//! Neighbouring requests share a queue, so that a million of them are far fewer independent observations. The textbook
//! interval takes them for a million and comes out several times too narrow near saturation. Drawing whole blocks of
//! time with replacement (a block bootstrap: Künsch, "The jackknife and the bootstrap for general stationary
//! observations", 1989) keeps each block's inner dependence.

use crate::random::Random;
use crate::record::{Latencies, add, latencies};

/// Blocks kept; with more seconds than that, neighbours are joined.
const BLOCKS_MAX: usize = 64;
/// Fewer blocks than this say nothing about their spread.
const BLOCKS_MIN: usize = 8;
/// Draws of a whole run.
const REPLICATES: usize = 200;

/// The latencies of a run in blocks of equal time.
#[derive(Clone, Debug, Default)]
pub struct Blocks {
    blocks: Vec<Latencies>,
    /// Seconds joined in each block; doubles when the blocks run out.
    seconds_per_block: usize,
    seconds_in_last: usize,
}

impl Blocks {
    /// Adds the next second.
    pub fn push(&mut self, second: Latencies) {
        self.seconds_per_block = self.seconds_per_block.max(1);
        match self.blocks.last_mut() {
            Some(last) if self.seconds_in_last < self.seconds_per_block => {
                add(last, &second);
                self.seconds_in_last += 1;
            }
            _ => {
                if self.blocks.len() == BLOCKS_MAX {
                    self.join_pairs();
                }
                self.blocks.push(second);
                self.seconds_in_last = 1;
            }
        }
    }

    /// The 95 % interval of each of these quantiles, in their order; nothing when the run is too short to tell.
    #[must_use]
    pub fn intervals(&self, quantiles: &[f64], seed: u64) -> Option<Vec<(u64, u64)>> {
        if self.blocks.len() < BLOCKS_MIN {
            return None;
        }
        let mut random = Random::new(seed, u64::MAX - 1);
        let mut drawn = latencies();
        let mut values = vec![Vec::with_capacity(REPLICATES); quantiles.len()];
        for _ in 0..REPLICATES {
            drawn.reset();
            for _ in 0..self.blocks.len() {
                let pick = usize::try_from(random.below(self.blocks.len() as u64)).unwrap_or(0);
                if let Some(block) = self.blocks.get(pick) {
                    add(&mut drawn, block);
                }
            }
            for (values, quantile) in values.iter_mut().zip(quantiles) {
                values.push(drawn.value_at_quantile(*quantile));
            }
        }
        // 2.5 % of the replicates lie outside on each side.
        let outside = REPLICATES / 40;
        let bounds = values.into_iter().map(|mut values| {
            values.sort_unstable();
            let at = |index: usize| values.get(index).copied().unwrap_or(0);
            (at(outside), at(REPLICATES - 1 - outside))
        });
        Some(bounds.collect())
    }

    fn join_pairs(&mut self) {
        self.blocks = self
            .blocks
            .chunks(2)
            .map(|pair| {
                let mut sum = latencies();
                pair.iter().for_each(|block| add(&mut sum, block));
                sum
            })
            .collect();
        self.seconds_per_block *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Exponential latencies around a mean of 1 ms times the block's own factor.
    fn block(random: &mut Random, factor: f64) -> Latencies {
        let mut block = latencies();
        for _ in 0..1000 {
            let value = -random.unit().ln() * 1e6 * factor;
            block.saturating_record(crate::units::ns_from_f64(value).max(1));
        }
        block
    }

    #[test]
    fn the_interval_holds_the_truth_and_widens_when_seconds_differ() {
        let mut random = Random::new(5, 0);
        let (mut steady, mut unsteady) = (Blocks::default(), Blocks::default());
        for second in 0..12 {
            steady.push(block(&mut random, 1.0));
            unsteady.push(block(&mut random, if second % 3 == 0 { 3.0 } else { 1.0 }));
        }
        // The 99th percentile of an exponential is ln(100) means.
        let (low, high) = steady.intervals(&[0.99], 1).unwrap()[0];
        assert!((low..=high).contains(&4_605_170), "{low}..{high}");
        let (wide_low, wide_high) = unsteady.intervals(&[0.99], 1).unwrap()[0];
        assert!(wide_high - wide_low > 2 * (high - low));
    }

    #[test]
    fn short_runs_have_none_and_long_runs_stay_bounded() {
        let mut random = Random::new(6, 0);
        let mut blocks = Blocks::default();
        for _ in 0..BLOCKS_MIN - 1 {
            blocks.push(block(&mut random, 1.0));
        }
        assert_eq!(blocks.intervals(&[0.5], 1), None);
        for _ in 0..500 {
            let mut tiny = latencies();
            tiny.saturating_record(1000);
            blocks.push(tiny);
        }
        assert!(blocks.blocks.len() <= BLOCKS_MAX);
        let counted: u64 = blocks.blocks.iter().map(Latencies::len).sum();
        assert_eq!(counted, 500 + 1000 * (BLOCKS_MIN as u64 - 1));
    }
}
