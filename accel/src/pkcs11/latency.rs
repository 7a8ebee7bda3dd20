//! The last latencies of a slot, for percentiles that follow the device as it is now.

use std::time::Duration;

/// How many are kept: a tenth of a second of a quick device, a minute of a slow one.
const KEPT: usize = 1024;

/// A ring of latencies in microseconds.
#[derive(Debug, Default)]
pub(super) struct Latencies {
    micros: Vec<u32>,
    next: usize,
}

impl Latencies {
    pub(super) fn add(&mut self, latency: Duration) {
        let micros = u32::try_from(latency.as_micros()).unwrap_or(u32::MAX);
        match self.micros.get_mut(self.next) {
            Some(place) => *place = micros,
            None => self.micros.push(micros),
        }
        self.next = (self.next + 1) % KEPT;
    }

    /// The latencies that half and ninety-nine of a hundred operations stayed within; zero before the first.
    pub(super) fn p50_and_p99(&self) -> (Duration, Duration) {
        let mut sorted = self.micros.clone();
        sorted.sort_unstable();
        let at = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
            sorted.get(rank).copied().unwrap_or(0)
        };
        let duration = |micros: u32| Duration::from_micros(u64::from(micros));
        (duration(at(50)), duration(at(99)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_last_thousand() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.p50_and_p99(), (Duration::ZERO, Duration::ZERO));
        for micros in (0..2000).chain(1..=1024) {
            latencies.add(Duration::from_micros(micros));
        }
        let (p50, p99) = latencies.p50_and_p99();
        assert_eq!(p50, Duration::from_micros(512));
        assert_eq!(p99, Duration::from_micros(1014));
    }
}
