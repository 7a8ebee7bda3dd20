//! Whether two sets of times differ.
//!
//! The rank test of Mann and Whitney: sort all times, and look whether those of one class stand further to the front
//! than chance would put them. Only the order counts, so one time that is a thousand times too long (another program
//! ran) weighs no more than one that is a little too long, and nothing is assumed about how times are spread. The
//! requests of the classes are interleaved at random, so that whatever else goes on meets each class alike: then the
//! statistic is standard normal when there is no difference, on a busy machine too.

use std::time::Duration;

/// |z| from which on two classes count as different. Chance reaches it once in 1.7 million comparisons.
pub(super) const THRESHOLD: f64 = 5.0;

/// How two classes of times compare.
#[derive(Debug, Clone, Copy)]
pub(super) struct Comparison {
    /// Standard deviations by which the ranks of the second class are off; positive where it is slower.
    pub(super) z: f64,
    /// The median of the second class less that of the first, in microseconds.
    pub(super) median_us: f64,
}

impl Comparison {
    /// Compares `b` with `a`. With fewer than two times in either nothing differs.
    pub(super) fn of(a: &[Duration], b: &[Duration]) -> Self {
        let (m, n) = (count(a.len()), count(b.len()));
        let mut all: Vec<(Duration, bool)> = (a.iter().map(|time| (*time, false)))
            .chain(b.iter().map(|time| (*time, true)))
            .collect();
        all.sort_by_key(|(time, _)| *time);
        let (mut rank, mut sum_b, mut ties) = (1.0, 0.0, 0.0);
        for equal in all.chunk_by(|one, other| one.0 == other.0) {
            let length = count(equal.len());
            let mean_rank = rank + (length - 1.0) / 2.0;
            sum_b += mean_rank * count(equal.iter().filter(|(_, is_b)| *is_b).count());
            ties += length.powi(3) - length;
            rank += length;
        }
        let total = m + n;
        let expected = n * (total + 1.0) / 2.0;
        let variance = m * n / 12.0 * (total + 1.0 - ties / (total * (total - 1.0)));
        let z = (sum_b - expected) / variance.sqrt();
        Self {
            z: if z.is_finite() { z } else { 0.0 },
            median_us: median_us(b) - median_us(a),
        }
    }

    /// Whether the classes differ by more than chance would make them.
    pub(super) fn differs(&self) -> bool {
        self.z.abs() >= THRESHOLD
    }
}

/// The middle of some times, in microseconds.
pub(super) fn median_us(times: &[Duration]) -> f64 {
    let mut times = times.to_vec();
    times.sort_unstable();
    let middle = times.get(times.len() / 2).copied().unwrap_or_default();
    middle.as_secs_f64() * 1e6
}

/// As a float. Nobody takes 2^32 samples.
fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(microseconds: impl IntoIterator<Item = u64>) -> Vec<Duration> {
        microseconds
            .into_iter()
            .map(Duration::from_micros)
            .collect()
    }

    /// Numbers without a pattern: xorshift.
    fn noise(mut state: u64) -> impl Iterator<Item = u64> {
        std::iter::repeat_with(move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state >> 40
        })
    }

    #[test]
    fn the_example_of_a_textbook() {
        // Ranks of b: 2, 5, 6, 7, 8 of 9; U = 13 of 20 at most 10 expected... by hand: z = (28 - 25) / sqrt(50/3).
        let comparison = Comparison::of(&times([1, 3, 4, 9]), &times([2, 5, 6, 7, 8]));
        assert!((comparison.z - 3.0 / (50.0_f64 / 3.0).sqrt()).abs() < 1e-9);
        assert!((comparison.median_us - 2.0).abs() < 1e-9);
    }

    #[test]
    fn equal_times_do_not_differ_and_do_not_divide_by_zero() {
        assert!(!Comparison::of(&times([5; 50]), &times([5; 50])).differs());
        assert!(!Comparison::of(&[], &times([1])).differs());
    }

    #[test]
    fn noise_does_not_differ_from_noise_and_a_shift_is_seen_through_outliers() {
        let spread = |seed| noise(seed).map(|n| 1000 + n % 200).take(1000);
        let (a, b) = (times(spread(7)), times(spread(11)));
        assert!(!Comparison::of(&a, &b).differs());
        // Every tenth time is lost to something else entirely, in both classes.
        let outliers = |(i, n): (usize, u64)| if i % 10 == 0 { n * 1000 } else { n };
        let a = times(spread(7).enumerate().map(outliers));
        let b = times(spread(11).map(|n| n + 40).enumerate().map(outliers));
        let comparison = Comparison::of(&a, &b);
        assert!(comparison.differs() && comparison.z > 0.0, "{comparison:?}");
        assert!(!Comparison::of(&a[..20], &b[..20]).differs());
    }
}
