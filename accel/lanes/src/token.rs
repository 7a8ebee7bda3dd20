//! Which path runs: a CPU feature is a value that only detection hands out.

use core::fmt;

/// Proof that this CPU, and the operating system on it, can run 512-bit integer multiply-adds.
///
/// The only way to get one is [`Ifma::detect`]; whoever holds one may therefore call functions compiled for
/// `avx512f,avx512ifma`. It is a zero-sized `Copy` type, so passing it around costs nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Ifma(());

impl Ifma {
    /// Asks the CPU. `None` on any other architecture, on a CPU without AVX-512 IFMA, and where the operating system
    /// does not save 512-bit registers.
    #[must_use]
    pub fn detect() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx512f")
            && std::arch::is_x86_feature_detected!("avx512ifma")
        {
            return Some(Self(()));
        }
        None
    }
}

impl fmt::Debug for Ifma {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ifma")
    }
}

/// The portable twin needs no proof; this is the token that fills the place.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Portable;

/// The path a batch takes: chosen once at start, carried by whoever calls a kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Path {
    /// AVX-512 IFMA, eight 64-bit lanes in one register.
    Ifma(Ifma),
    /// The same algorithms over arrays of eight `u64`: for tests and for CPUs without the feature. Correct, not fast.
    Portable(Portable),
}

impl Path {
    /// The fastest path this CPU can run.
    #[must_use]
    pub fn detect() -> Self {
        Ifma::detect().map_or(Self::Portable(Portable), Self::Ifma)
    }

    /// The portable twin, on any CPU.
    #[must_use]
    pub const fn portable() -> Self {
        Self::Portable(Portable)
    }

    /// Every path this CPU can run, the portable one first: tests run each kernel over all of them.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut paths = vec![Self::portable()];
        paths.extend(Ifma::detect().map(Self::Ifma));
        paths
    }

    /// `"ifma"` or `"portable"`, for logs, metrics and test output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ifma(_) => "ifma",
            Self::Portable(_) => "portable",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_portable_path_is_always_there() {
        let paths = Path::all();
        assert_eq!(paths.first(), Some(&Path::portable()));
        assert_eq!(paths.last(), Some(&Path::detect()));
        eprintln!("lane kernels run here on: {paths:?}");
    }
}
