//! The one source of chance: small, fast, and the same for the same seed on every machine.
//!
//! A run is repeated by its seed, so the generator must not change under a dependency update. This is xoshiro256++
//! (Blackman and Vigna, "Scrambled linear pseudorandom number generators", 2021), seeded through SplitMix64 as its
//! authors advise. Nothing secret is ever drawn from it.

use crate::units::float;

/// A seeded generator.
#[derive(Clone, Debug)]
pub struct Random {
    state: [u64; 4],
}

impl Random {
    /// A generator for one stream of a run: threads take different streams of one seed.
    #[must_use]
    pub fn new(seed: u64, stream: u64) -> Self {
        // Streams start far apart in SplitMix64's sequence: its increment is odd, so the products are distinct.
        let mut x = seed.wrapping_add(stream.wrapping_mul(0xD1B5_4A32_D192_ED03));
        let mut split_mix = || {
            x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = x;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^ (z >> 31)
        };
        Self {
            state: [split_mix(), split_mix(), split_mix(), split_mix()],
        }
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        let [s0, s1, s2, s3] = self.state;
        let result = s0.wrapping_add(s3).rotate_left(23).wrapping_add(s0);
        let (s2, s3) = (s2 ^ s0, s3 ^ s1);
        self.state = [s0 ^ s3, s1 ^ s2, s2 ^ (s1 << 17), s3.rotate_left(45)];
        result
    }

    /// A number below `bound` (0 when the bound is 0), by multiplication; the bias is below `bound` / 2^64.
    pub fn below(&mut self, bound: u64) -> u64 {
        let product = u128::from(self.bits()) * u128::from(bound);
        u64::try_from(product >> 64).unwrap_or(0)
    }

    /// A number in (0, 1]: never zero, so that its logarithm is finite.
    pub fn unit(&mut self) -> f64 {
        float((self.bits() >> 11) + 1) / float(1 << 53)
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            for (byte, random) in chunk.iter_mut().zip(self.bits().to_le_bytes()) {
                *byte = random;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_promise() {
        let draw = |seed, stream| {
            let mut random = Random::new(seed, stream);
            [random.bits(), random.bits(), random.bits()]
        };
        assert_eq!(draw(42, 0), draw(42, 0));
        assert_ne!(draw(42, 0), draw(42, 1));
        assert_ne!(draw(42, 0), draw(43, 0));
    }

    #[test]
    fn reference_outputs_of_xoshiro256_plus_plus() {
        // State 1, 2, 3, 4: the first outputs of the authors' C code.
        let mut random = Random {
            state: [1, 2, 3, 4],
        };
        assert_eq!(
            [random.bits(), random.bits(), random.bits(), random.bits()],
            [
                41_943_041,
                58_720_359,
                3_588_806_011_781_223,
                3_591_011_842_654_386
            ]
        );
    }

    #[test]
    fn draws_stay_in_range_and_spread() {
        let mut random = Random::new(7, 0);
        let mut hits = [0_u32; 10];
        let mut sum = 0.0;
        for _ in 0..100_000 {
            hits[usize::try_from(random.below(10)).unwrap()] += 1;
            let unit = random.unit();
            assert!(unit > 0.0 && unit <= 1.0);
            sum += unit;
        }
        // Ten thousand expected per bin, standard deviation 95: six of them are 570.
        assert!(
            hits.iter().all(|&n| (9_430..10_570).contains(&n)),
            "{hits:?}"
        );
        assert!((sum / 100_000.0 - 0.5).abs() < 0.006);
        assert_eq!(random.below(0), 0);
        let mut bytes = [0; 13];
        random.fill(&mut bytes);
        assert!(bytes.iter().any(|&b| b != 0));
    }
}
