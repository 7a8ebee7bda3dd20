//! Which threads there are and where they run.
//!
//! | CPUs | I/O threads | crypto threads |
//! |---|---|---|
//! | 1-4 | one, shares the CPUs | one per CPU, pinned, nicer than the I/O thread |
//! | 5 and more | one per 8 CPUs | one per remaining CPU, pinned |
//!
//! The affinity mask and the cgroup's CPU quota decide how many CPUs there are, not the machine.
//! Under a quota no thread is pinned: the kernel throttles the group as a whole, and a pinned
//! thread would wait on its own CPU while another idles.

use crate::os;

/// The numbers of threads, and the CPUs of those that are pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// Threads that read, seal and write.
    pub io_threads: usize,
    /// Threads that run the engine.
    pub crypto_threads: usize,
    /// CPUs for the crypto threads, in turn. Empty: none is pinned.
    pub crypto_cpus: Vec<usize>,
}

impl Placement {
    /// The placement for this process as the system describes it; configured numbers win.
    #[must_use]
    pub fn detect(io_threads: Option<usize>, crypto_threads: Option<usize>) -> Self {
        let cpus = os::allowed_cpus();
        let quota = std::thread::available_parallelism().map_or(1, usize::from);
        Self::design(&cpus, quota, io_threads, crypto_threads)
    }

    /// The placement for `cpus`, of which a cgroup allows the use of `quota` at a time.
    #[must_use]
    pub fn design(
        cpus: &[usize],
        quota: usize,
        io_threads: Option<usize>,
        crypto_threads: Option<usize>,
    ) -> Self {
        let usable = quota.min(cpus.len().max(1)).max(1);
        let exclusive = usable > 4;
        let designed = if exclusive { usable.div_ceil(8) } else { 1 };
        let io = io_threads.unwrap_or(designed).max(1);
        let left = if exclusive {
            usable.saturating_sub(io).max(1)
        } else {
            usable
        };
        let crypto = crypto_threads.unwrap_or(left).max(1);
        let crypto_cpus = if quota < cpus.len() {
            Vec::new()
        } else if exclusive {
            cpus.iter()
                .copied()
                .skip(io.min(cpus.len().saturating_sub(1)))
                .collect()
        } else {
            cpus.to_vec()
        };
        Self {
            io_threads: io,
            crypto_threads: crypto,
            crypto_cpus,
        }
    }

    /// The CPU that crypto thread number `index` is pinned to, if any.
    #[must_use]
    pub fn cpu_of_crypto_thread(&self, index: usize) -> Option<usize> {
        let turn = index.checked_rem(self.crypto_cpus.len())?;
        self.crypto_cpus.get(turn).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpus(count: usize) -> Vec<usize> {
        (0..count).collect()
    }

    #[test]
    fn small_machines_share() {
        for count in 1..=4 {
            let placement = Placement::design(&cpus(count), count, None, None);
            assert_eq!((placement.io_threads, placement.crypto_threads), (1, count));
            assert_eq!(placement.crypto_cpus, cpus(count));
        }
    }

    #[test]
    fn large_machines_keep_io_cpus_for_io() {
        for (count, io) in [(8, 1), (16, 2), (32, 4), (64, 8)] {
            let placement = Placement::design(&cpus(count), count, None, None);
            assert_eq!(
                (placement.io_threads, placement.crypto_threads),
                (io, count - io)
            );
            assert_eq!(placement.cpu_of_crypto_thread(0), Some(io));
            assert_eq!(placement.cpu_of_crypto_thread(count - io), Some(io));
        }
    }

    #[test]
    fn a_quota_unpins_and_an_affinity_mask_is_kept() {
        let quota = Placement::design(&cpus(16), 2, None, None);
        assert_eq!(
            (quota.crypto_threads, quota.cpu_of_crypto_thread(0)),
            (2, None)
        );
        let masked = Placement::design(&[5, 9], 2, None, None);
        assert_eq!(masked.cpu_of_crypto_thread(1), Some(9));
    }

    #[test]
    fn configured_numbers_win_and_nothing_is_ever_zero() {
        let placement = Placement::design(&[], 0, Some(0), Some(3));
        assert_eq!((placement.io_threads, placement.crypto_threads), (1, 3));
        assert_eq!(placement.cpu_of_crypto_thread(1), None);
    }
}
