//! How long to wait for an answer before a second server is asked as well.

use std::time::Duration;

/// Each bucket is a quarter of a power of two wide: at most 19 % too long.
const BUCKETS_PER_OCTAVE: f64 = 4.0;
/// From 1 us to 2^24 us, which is 16 s.
const BUCKETS: usize = 96;
/// When so many answers are counted, all counts are halved, so that the figure follows the present.
const COUNTED_MAX: u32 = 2048;
/// Before so many answers, nothing is known.
const COUNTED_LEAST: u32 = 32;
/// The wait while nothing is known.
const UNKNOWN: Duration = Duration::from_millis(50);
/// Never shorter than this: below it the second request costs more than it saves.
const SHORTEST: Duration = Duration::from_millis(1);

/// The 95th percentile of recent answers.
///
/// A call that has waited longer than 95 of 100 others is likely to have met a server that stalls,
/// and asking a second one costs 5 % more requests (Dean and Barroso, "The Tail at Scale", 2013).
#[derive(Clone, Debug)]
pub(crate) struct HedgeDelay {
    counts: [u32; BUCKETS],
    counted: u32,
}

impl HedgeDelay {
    pub(crate) fn new() -> Self {
        Self {
            counts: [0; BUCKETS],
            counted: 0,
        }
    }

    pub(crate) fn answered(&mut self, latency: Duration) {
        if self.counted >= COUNTED_MAX {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.counted = self.counts.iter().sum();
        }
        if let Some(count) = self.counts.get_mut(bucket(latency)) {
            *count += 1;
            self.counted += 1;
        }
    }

    pub(crate) fn delay(&self) -> Duration {
        if self.counted < COUNTED_LEAST {
            return UNKNOWN;
        }
        let mut above = self.counted / 20;
        let last = self.counts.iter().rposition(|count| {
            let reached = *count > above;
            above = above.saturating_sub(*count);
            reached
        });
        last.map_or(UNKNOWN, upper_edge).max(SHORTEST)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a logarithm between 0 and 96; the conversion saturates"
)]
fn bucket(latency: Duration) -> usize {
    let octaves = (latency.as_secs_f64() * 1e6).max(1.0).log2();
    ((octaves * BUCKETS_PER_OCTAVE) as usize).min(BUCKETS - 1)
}

fn upper_edge(bucket: usize) -> Duration {
    let octaves = f64::from(u32::try_from(bucket).unwrap_or(0) + 1) / BUCKETS_PER_OCTAVE;
    Duration::from_secs_f64(octaves.exp2() / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_95th_percentile() {
        let mut delay = HedgeDelay::new();
        assert_eq!(delay.delay(), UNKNOWN);
        for number in 0..2_000_u64 {
            delay.answered(Duration::from_millis(if number % 25 == 0 {
                400
            } else {
                10
            }));
        }
        let now = delay.delay();
        assert!(
            now >= Duration::from_millis(10) && now < Duration::from_millis(12),
            "{now:?}"
        );
        for number in 0..20_000_u64 {
            delay.answered(Duration::from_millis(if number % 10 == 0 {
                400
            } else {
                10
            }));
        }
        let now = delay.delay();
        assert!(
            now >= Duration::from_millis(400) && now < Duration::from_millis(480),
            "{now:?}"
        );
    }

    #[test]
    fn extremes_have_buckets() {
        let mut delay = HedgeDelay::new();
        for _ in 0..40 {
            delay.answered(Duration::ZERO);
        }
        assert_eq!(delay.delay(), SHORTEST);
        for _ in 0..4_000 {
            delay.answered(Duration::from_secs(100));
        }
        assert!(delay.delay() > Duration::from_secs(10));
    }
}
