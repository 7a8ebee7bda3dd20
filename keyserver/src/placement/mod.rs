//! Which threads there are and where they run.
//!
//! | CPUs | cells | I/O threads | crypto threads | without work they |
//! |---|---|---|---|---|
//! | 1-4 | one | one, shares the CPUs | one per CPU, pinned, nicer than the I/O thread | sleep |
//! | 5-7 | one | one, a CPU of its own | one per remaining CPU, pinned | sleep |
//! | 8-63 | one | one per 8 CPUs, each a CPU of its own | likewise | look for 30 us, then sleep |
//! | 64 and more | one per shared cache or memory node | likewise in each cell | likewise | likewise |
//!
//! A cell is a machine of its own but for the listening socket: connections are spread over the I/O
//! threads of all cells, and a job stays in the cell of its connection. One queue for all threads
//! serves best, as long as the threads are near each other; where they are not, its lock and its
//! jobs travel between caches. The keys stay where they were loaded: a table of a few kilobytes is
//! read, never written, so each cache soon has its own copy.
//!
//! The affinity mask and the cgroup's CPU quota decide how many CPUs there are, not the machine.
//! Under a quota no thread is pinned and none looks for work: the kernel throttles the group as a
//! whole, a pinned thread would wait on its own CPU while another idles, and looking uses up what
//! could have computed.

mod quota;
mod topology;

use std::path::Path;
use std::time::Duration;

use crate::os;

/// From this many CPUs on, I/O threads have CPUs of their own.
const EXCLUSIVE_FROM: usize = 5;

/// From this many CPUs on, a thread that finds no work looks for a moment before it sleeps.
const SPIN_FROM: usize = 8;

/// How long it looks: as long as a wake-up takes.
const SPIN: Duration = Duration::from_micros(30);

/// From this many CPUs on, there is more than one cell where the machine has parts.
const CELLS_FROM: usize = 64;

/// The fewest CPUs of a cell: with fewer, threads idle too often while others have work waiting.
const CELL_CPUS_MIN: usize = 8;

/// CPUs for which one I/O thread is enough.
const CPUS_PER_IO_THREAD: usize = 8;

/// What a machine lets this process use.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Machine {
    /// The CPUs of the affinity mask.
    pub cpus: Vec<usize>,
    /// CPU time per time that the cgroup may use, if it is limited.
    pub quota: Option<f64>,
    /// CPUs by the last cache that they share, those outside the mask too.
    pub caches: Vec<Vec<usize>>,
    /// CPUs by memory node, likewise.
    pub nodes: Vec<Vec<usize>>,
}

/// The threads of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// At least one.
    pub cells: Vec<Cell>,
    /// How long a crypto thread without work looks for some before it sleeps.
    pub spin: Duration,
}

/// Threads that share queues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// Threads that read, seal and write.
    pub io_threads: usize,
    /// Threads that run the engine.
    pub crypto_threads: usize,
    /// CPUs for the I/O threads, in turn. Empty: none is pinned.
    pub io_cpus: Vec<usize>,
    /// CPUs for the crypto threads, likewise.
    pub crypto_cpus: Vec<usize>,
}

impl Machine {
    /// The machine as the system describes it.
    #[must_use]
    pub fn detect() -> Self {
        Self::read(Path::new("/"), os::allowed_cpus())
    }

    /// The machine as the files below `root` describe it: `sys` and `proc`.
    fn read(root: &Path, cpus: Vec<usize>) -> Self {
        Self {
            quota: quota::read(root),
            caches: topology::caches(root, &cpus),
            nodes: topology::nodes(root),
            cpus,
        }
    }

    /// CPUs that can be busy at the same time, on average.
    fn usable(&self) -> usize {
        let cpus = self.cpus.len().max(1);
        // At least one whole CPU, and no thread for the rest of a share.
        (1..=cpus)
            .rev()
            .find(|count| self.quota.is_none_or(|quota| *count as f64 <= quota))
            .unwrap_or(1)
    }

    /// The CPUs of the mask in the parts that cells are made of.
    fn parts(&self) -> Vec<Vec<usize>> {
        let within = |domains: &[Vec<usize>]| -> Vec<Vec<usize>> {
            let allowed = |domain: &Vec<usize>| {
                let cpus = domain.iter().filter(|cpu| self.cpus.contains(cpu));
                cpus.copied().collect::<Vec<_>>()
            };
            domains
                .iter()
                .map(allowed)
                .filter(|part| !part.is_empty())
                .collect()
        };
        let is_good = |parts: &Vec<Vec<usize>>| {
            let counted: usize = parts.iter().map(Vec::len).sum();
            counted == self.cpus.len() && parts.iter().all(|part| part.len() >= CELL_CPUS_MIN)
        };
        [within(&self.caches), within(&self.nodes)]
            .into_iter()
            .find(is_good)
            .unwrap_or_else(|| vec![self.cpus.clone()])
    }
}

impl Placement {
    /// The placement for this process; configured numbers win.
    #[must_use]
    pub fn detect(io_threads: Option<usize>, crypto_threads: Option<usize>) -> Self {
        Self::design(&Machine::detect(), io_threads, crypto_threads)
    }

    /// The placement for a machine. Configured numbers are those of all cells together; where they
    /// do not give each cell a thread, there is one cell.
    #[must_use]
    pub fn design(
        machine: &Machine,
        io_threads: Option<usize>,
        crypto_threads: Option<usize>,
    ) -> Self {
        let usable = machine.usable();
        let limited = machine.quota.is_some();
        let mut parts = if usable >= CELLS_FROM && !limited {
            machine.parts()
        } else {
            vec![machine.cpus.clone()]
        };
        let fewest = io_threads.into_iter().chain(crypto_threads).min();
        if fewest.is_some_and(|threads| threads < parts.len()) {
            parts = vec![machine.cpus.clone()];
        }
        let count = parts.len();
        let cells = (0..)
            .zip(&parts)
            .map(|(index, cpus)| {
                let of_cell = |threads: Option<usize>| threads.map(|all| share(all, index, count));
                let usable = if count == 1 { usable } else { cpus.len() };
                Cell::design(
                    cpus,
                    usable,
                    limited,
                    of_cell(io_threads),
                    of_cell(crypto_threads),
                )
            })
            .collect();
        let spins = usable >= SPIN_FROM && !limited;
        Self {
            cells,
            spin: if spins { SPIN } else { Duration::ZERO },
        }
    }

    /// I/O threads of all cells.
    #[must_use]
    pub fn io_threads(&self) -> usize {
        self.cells.iter().map(|cell| cell.io_threads).sum()
    }

    /// Crypto threads of all cells.
    #[must_use]
    pub fn crypto_threads(&self) -> usize {
        self.cells.iter().map(|cell| cell.crypto_threads).sum()
    }
}

impl Cell {
    fn design(
        cpus: &[usize],
        usable: usize,
        limited: bool,
        io_threads: Option<usize>,
        crypto_threads: Option<usize>,
    ) -> Self {
        let exclusive = usable >= EXCLUSIVE_FROM;
        let designed = if exclusive {
            usable.div_ceil(CPUS_PER_IO_THREAD)
        } else {
            1
        };
        let io = io_threads.unwrap_or(designed).max(1);
        let left = if exclusive {
            usable.saturating_sub(io).max(1)
        } else {
            usable
        };
        let (io_cpus, crypto_cpus) = if limited {
            (Vec::new(), Vec::new())
        } else if exclusive {
            let (io, crypto) = cpus.split_at(io.min(cpus.len().saturating_sub(1)));
            (io.to_vec(), crypto.to_vec())
        } else {
            (Vec::new(), cpus.to_vec())
        };
        Self {
            io_threads: io,
            crypto_threads: crypto_threads.unwrap_or(left).max(1),
            io_cpus,
            crypto_cpus,
        }
    }

    /// The CPU that I/O thread number `index` of the cell is pinned to, if any.
    #[must_use]
    pub fn cpu_of_io_thread(&self, index: usize) -> Option<usize> {
        in_turn(&self.io_cpus, index)
    }

    /// The CPU that crypto thread number `index` of the cell is pinned to, if any.
    #[must_use]
    pub fn cpu_of_crypto_thread(&self, index: usize) -> Option<usize> {
        in_turn(&self.crypto_cpus, index)
    }
}

fn in_turn(cpus: &[usize], index: usize) -> Option<usize> {
    cpus.get(index.checked_rem(cpus.len())?).copied()
}

/// The part of the cell at `index` in `all` threads: they differ by one at most.
fn share(all: usize, index: usize, cells: usize) -> usize {
    all / cells + usize::from(index < all % cells)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn machine(cpus: usize) -> Machine {
        Machine {
            cpus: (0..cpus).collect(),
            ..Machine::default()
        }
    }

    /// CPUs in parts of `size`.
    fn parts(cpus: usize, size: usize) -> Vec<Vec<usize>> {
        let all: Vec<usize> = (0..cpus).collect();
        all.chunks(size).map(<[usize]>::to_vec).collect()
    }

    #[test]
    fn small_machines_share() {
        for count in 1..=4 {
            let placement = Placement::design(&machine(count), None, None);
            let [cell] = &placement.cells[..] else {
                panic!("{placement:?}")
            };
            assert_eq!((cell.io_threads, cell.crypto_threads), (1, count));
            assert_eq!(
                (&cell.io_cpus, &cell.crypto_cpus),
                (&vec![], &machine(count).cpus)
            );
            assert_eq!(placement.spin, Duration::ZERO);
        }
    }

    #[test]
    fn large_machines_keep_io_cpus_for_io() {
        for (count, io) in [(5, 1), (8, 1), (16, 2), (32, 4), (63, 8), (64, 8)] {
            let placement = Placement::design(&machine(count), None, None);
            let [cell] = &placement.cells[..] else {
                panic!("{placement:?}")
            };
            assert_eq!((cell.io_threads, cell.crypto_threads), (io, count - io));
            assert_eq!(cell.cpu_of_io_thread(io - 1), Some(io - 1));
            assert_eq!(cell.cpu_of_crypto_thread(0), Some(io));
            assert_eq!(cell.cpu_of_crypto_thread(count - io), Some(io));
            assert_eq!(placement.spin.is_zero(), count < 8);
        }
    }

    #[test]
    fn very_large_machines_are_made_of_cells() {
        // One socket of 96 CPUs in parts of 16 that share a cache.
        let caches = Machine {
            caches: parts(96, 16),
            nodes: parts(96, 96),
            ..machine(96)
        };
        let placement = Placement::design(&caches, None, None);
        assert_eq!(placement.cells.len(), 6);
        for (index, cell) in placement.cells.iter().enumerate() {
            assert_eq!((cell.io_threads, cell.crypto_threads), (2, 14));
            assert_eq!(cell.cpu_of_io_thread(1), Some(16 * index + 1));
            assert_eq!(cell.cpu_of_crypto_thread(13), Some(16 * index + 15));
        }
        assert_eq!(
            (placement.io_threads(), placement.crypto_threads()),
            (12, 84)
        );
        // Caches that few CPUs share are too small for a cell; two sockets are not.
        let small = Machine {
            caches: parts(128, 4),
            nodes: parts(128, 64),
            ..machine(128)
        };
        let placement = Placement::design(&small, None, None);
        assert_eq!(placement.cells.len(), 2);
        assert_eq!(
            (
                placement.cells[1].io_threads,
                placement.cells[1].crypto_cpus.len()
            ),
            (8, 56)
        );
        // A mask that leaves a part with too few CPUs: one cell.
        let masked = Machine {
            cpus: (0..66).collect(),
            ..small.clone()
        };
        assert_eq!(Placement::design(&masked, None, None).cells.len(), 1);
        // Configured numbers are shared, or make one cell.
        let some = Placement::design(&small, Some(3), Some(21));
        let threads: Vec<_> = some
            .cells
            .iter()
            .map(|cell| (cell.io_threads, cell.crypto_threads))
            .collect();
        assert_eq!(threads, [(2, 11), (1, 10)]);
        assert_eq!(Placement::design(&small, Some(1), None).cells.len(), 1);
    }

    #[test]
    fn a_quota_unpins_and_an_affinity_mask_is_kept() {
        let quota = |quota, cpus| Machine {
            quota: Some(quota),
            caches: parts(cpus, 16),
            ..machine(cpus)
        };
        for (machine, crypto) in [
            (quota(2.5, 16), 2),
            (quota(0.2, 16), 1),
            (quota(96.0, 96), 84),
        ] {
            let placement = Placement::design(&machine, None, None);
            assert_eq!(
                (placement.cells.len(), placement.crypto_threads()),
                (1, crypto)
            );
            assert_eq!(placement.cells[0].cpu_of_crypto_thread(0), None);
            assert_eq!(placement.cells[0].cpu_of_io_thread(0), None);
            assert!(placement.spin.is_zero());
        }
        let masked = Machine {
            cpus: vec![5, 9],
            ..Machine::default()
        };
        let masked = Placement::design(&masked, None, None);
        assert_eq!(masked.cells[0].cpu_of_crypto_thread(1), Some(9));
    }

    #[test]
    fn configured_numbers_win_and_nothing_is_ever_zero() {
        let placement = Placement::design(&Machine::default(), Some(0), Some(3));
        assert_eq!((placement.io_threads(), placement.crypto_threads()), (1, 3));
        assert_eq!(placement.cells[0].cpu_of_crypto_thread(1), None);
    }

    /// The files of a machine with two sockets, as the kernel writes them.
    #[test]
    fn a_machine_is_read_from_its_files() {
        let root = tempfile::tempdir().expect("a directory");
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(path, text).expect("a file");
        };
        write("sys/devices/system/node/node0/cpulist", "0-1,4-5\n");
        write("sys/devices/system/node/node1/cpulist", "2-3,6-7\n");
        for cpu in 0..8 {
            let cache = format!("sys/devices/system/cpu/cpu{cpu}/cache");
            write(&format!("{cache}/index0/level"), "1\n");
            write(&format!("{cache}/index3/level"), "3\n");
            let list = if cpu % 4 < 2 {
                "0-1,4-5\n"
            } else {
                "2-3,6-7\n"
            };
            write(&format!("{cache}/index3/shared_cpu_list"), list);
        }
        let machine = Machine::read(root.path(), (0..7).collect());
        let expected = vec![vec![0, 1, 4, 5], vec![2, 3, 6, 7]];
        assert_eq!((&machine.caches, &machine.nodes), (&expected, &expected));
        assert_eq!(machine.quota, None);
    }

    #[test]
    fn this_machine_can_be_read() {
        let machine = Machine::detect();
        let expected = std::thread::available_parallelism().map_or(1, usize::from);
        assert!(!machine.cpus.is_empty());
        assert_eq!(machine.usable(), expected, "{machine:?}");
    }
}
