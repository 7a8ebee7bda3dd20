//! HMAC-SHA-512 (FIPS 180-4, FIPS 198-1) of eight short messages under one key: the nonces of a batch.
//!
//! The hash works on words of 64 bits, so eight lanes hash eight messages with the instructions of one. Everything has a
//! fixed length: one block for the key, one for the message; nothing depends on their content.

use zeroize::Zeroize;

use crate::token::Path;
use crate::vector::{Kernel, LANES, Row, Vector, run};

/// Bytes of a result.
pub const TAG_LEN: usize = 64;
/// The longest message: a block less the byte that ends it and the 16 bytes of its length.
pub const MAX_MESSAGE: usize = BLOCK - 17;
/// Bytes of a block.
const BLOCK: usize = 128;
/// Words of a block.
const WORDS: usize = BLOCK / 8;

/// The fractional parts of the square roots of the first eight primes.
const START: [u64; 8] = [
    0x6a09_e667_f3bc_c908,
    0xbb67_ae85_84ca_a73b,
    0x3c6e_f372_fe94_f82b,
    0xa54f_f53a_5f1d_36f1,
    0x510e_527f_ade6_82d1,
    0x9b05_688c_2b3e_6c1f,
    0x1f83_d9ab_fb41_bd6b,
    0x5be0_cd19_137e_2179,
];

/// The fractional parts of the cube roots of the first eighty primes.
const ROUNDS: [u64; 80] = [
    0x428a_2f98_d728_ae22,
    0x7137_4491_23ef_65cd,
    0xb5c0_fbcf_ec4d_3b2f,
    0xe9b5_dba5_8189_dbbc,
    0x3956_c25b_f348_b538,
    0x59f1_11f1_b605_d019,
    0x923f_82a4_af19_4f9b,
    0xab1c_5ed5_da6d_8118,
    0xd807_aa98_a303_0242,
    0x1283_5b01_4570_6fbe,
    0x2431_85be_4ee4_b28c,
    0x550c_7dc3_d5ff_b4e2,
    0x72be_5d74_f27b_896f,
    0x80de_b1fe_3b16_96b1,
    0x9bdc_06a7_25c7_1235,
    0xc19b_f174_cf69_2694,
    0xe49b_69c1_9ef1_4ad2,
    0xefbe_4786_384f_25e3,
    0x0fc1_9dc6_8b8c_d5b5,
    0x240c_a1cc_77ac_9c65,
    0x2de9_2c6f_592b_0275,
    0x4a74_84aa_6ea6_e483,
    0x5cb0_a9dc_bd41_fbd4,
    0x76f9_88da_8311_53b5,
    0x983e_5152_ee66_dfab,
    0xa831_c66d_2db4_3210,
    0xb003_27c8_98fb_213f,
    0xbf59_7fc7_beef_0ee4,
    0xc6e0_0bf3_3da8_8fc2,
    0xd5a7_9147_930a_a725,
    0x06ca_6351_e003_826f,
    0x1429_2967_0a0e_6e70,
    0x27b7_0a85_46d2_2ffc,
    0x2e1b_2138_5c26_c926,
    0x4d2c_6dfc_5ac4_2aed,
    0x5338_0d13_9d95_b3df,
    0x650a_7354_8baf_63de,
    0x766a_0abb_3c77_b2a8,
    0x81c2_c92e_47ed_aee6,
    0x9272_2c85_1482_353b,
    0xa2bf_e8a1_4cf1_0364,
    0xa81a_664b_bc42_3001,
    0xc24b_8b70_d0f8_9791,
    0xc76c_51a3_0654_be30,
    0xd192_e819_d6ef_5218,
    0xd699_0624_5565_a910,
    0xf40e_3585_5771_202a,
    0x106a_a070_32bb_d1b8,
    0x19a4_c116_b8d2_d0c8,
    0x1e37_6c08_5141_ab53,
    0x2748_774c_df8e_eb99,
    0x34b0_bcb5_e19b_48a8,
    0x391c_0cb3_c5c9_5a63,
    0x4ed8_aa4a_e341_8acb,
    0x5b9c_ca4f_7763_e373,
    0x682e_6ff3_d6b2_b8a3,
    0x748f_82ee_5def_b2fc,
    0x78a5_636f_4317_2f60,
    0x84c8_7814_a1f0_ab72,
    0x8cc7_0208_1a64_39ec,
    0x90be_fffa_2363_1e28,
    0xa450_6ceb_de82_bde9,
    0xbef9_a3f7_b2c6_7915,
    0xc671_78f2_e372_532b,
    0xca27_3ece_ea26_619c,
    0xd186_b8c7_21c0_c207,
    0xeada_7dd6_cde0_eb1e,
    0xf57d_4f7f_ee6e_d178,
    0x06f0_67aa_7217_6fba,
    0x0a63_7dc5_a2c8_98a6,
    0x113f_9804_bef9_0dae,
    0x1b71_0b35_131c_471b,
    0x28db_77f5_2304_7d84,
    0x32ca_ab7b_40c7_2493,
    0x3c9e_be0a_15c9_bebc,
    0x431d_67c4_9c10_0d4c,
    0x4cc5_d4be_cb3e_42b6,
    0x597f_299c_fc65_7e2a,
    0x5fcb_6fab_3ad6_faec,
    0x6c44_198c_4a47_5817,
];

/// `HMAC-SHA-512(key, messages[l])` into `tags[l]`, for up to eight messages and a key of at most 128 bytes. A message comes
/// in `P` parts, which are joined and together have at most [`MAX_MESSAGE`] bytes. Says whether the lengths were such; if
/// not, no tag is written. Tags without a message keep their bytes.
pub fn hmac_sha512<const P: usize>(
    path: Path,
    key: &[u8],
    messages: &[[&[u8]; P]],
    tags: &mut [[u8; TAG_LEN]; LANES],
) -> bool {
    let length = |parts: &[&[u8]; P]| parts.iter().map(|part| part.len()).sum::<usize>();
    if key.len() > BLOCK
        || messages.len() > LANES
        || messages.iter().any(|parts| length(parts) > MAX_MESSAGE)
    {
        return false;
    }
    let mut work = Work::EMPTY;
    work.put_messages(messages);
    work.put_key(key);
    run(path, Hmac(&mut work));
    for (lane, tag) in tags.iter_mut().take(messages.len()).enumerate() {
        for (bytes, row) in tag.chunks_exact_mut(8).zip(&work.tags) {
            bytes.copy_from_slice(&row.0[lane].to_be_bytes());
        }
    }
    true
}

/// Everything secret of a batch, wiped when it ends.
struct Work {
    key: [u64; WORDS],
    /// The messages, padded.
    block: [Row; WORDS],
    /// The message schedule under way.
    schedule: [Row; WORDS],
    tags: [Row; 8],
}

impl Work {
    const EMPTY: Self = Self {
        key: [0; WORDS],
        block: [Row::ZERO; WORDS],
        schedule: [Row::ZERO; WORDS],
        tags: [Row::ZERO; 8],
    };

    fn put_messages<const P: usize>(&mut self, messages: &[[&[u8]; P]]) {
        // One buffer for all lanes in turn, wiped once.
        let mut bytes = [0; BLOCK];
        for (lane, parts) in messages.iter().enumerate() {
            let mut len = 0;
            for part in parts.iter().chain([&[0x80].as_slice()]) {
                bytes[len..len + part.len()].copy_from_slice(part);
                len += part.len();
            }
            bytes[len..].fill(0);
            for (row, word) in self.block.iter_mut().zip(bytes.chunks_exact(8)) {
                row.0[lane] = be_word(word);
            }
            // The key's block comes first and counts; the byte that ends the message does not.
            self.block[WORDS - 1].0[lane] = 8 * (BLOCK as u64 + len as u64 - 1);
        }
        bytes.zeroize();
    }

    fn put_key(&mut self, key: &[u8]) {
        let mut bytes = [0; BLOCK];
        bytes[..key.len()].copy_from_slice(key);
        for (word, bytes) in self.key.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = be_word(bytes);
        }
        bytes.zeroize();
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.key.zeroize();
        self.block.zeroize();
        self.schedule.zeroize();
        self.tags.zeroize();
    }
}

/// Eight bytes, big endian.
fn be_word(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(bytes);
    u64::from_be_bytes(word)
}

/// The whole computation: two blocks of the key, the message, the inner hash.
struct Hmac<'a>(&'a mut Work);

impl Kernel for Hmac<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, token: V::Token) {
        let Work {
            key,
            block,
            schedule,
            tags,
        } = self.0;
        let mut start = [V::splat(token, 0); 8];
        for (vector, word) in start.iter_mut().zip(START) {
            *vector = V::splat(token, word);
        }
        // Four times the same code: inner key, message, outer key, inner hash.
        let mut state = start;
        for stage in 0..4 {
            if stage == 2 {
                for (row, word) in tags.iter_mut().zip(state) {
                    word.store(row);
                }
                state = start;
            }
            match stage {
                0 | 2 => {
                    let pad = if stage == 0 { 0x36 } else { 0x5c };
                    for (row, word) in schedule.iter_mut().zip(key.iter()) {
                        *row = Row::splat(word ^ (pad * 0x0101_0101_0101_0101));
                    }
                }
                1 => *schedule = *block,
                _ => {
                    *schedule = [Row::ZERO; WORDS];
                    schedule[..8].copy_from_slice(&*tags);
                    schedule[8] = Row::splat(1 << 63);
                    schedule[WORDS - 1] = Row::splat(8 * (BLOCK as u64 + TAG_LEN as u64));
                }
            }
            state = compress(token, state, schedule);
        }
        for (row, word) in tags.iter_mut().zip(state) {
            word.store(row);
        }
    }
}

/// One block into the state (FIPS 180-4, section 6.4.2). The schedule is expanded in place.
#[inline(always)]
fn compress<V: Vector>(token: V::Token, state: [V; 8], schedule: &mut [Row; WORDS]) -> [V; 8] {
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = state;
    for (i, constant) in ROUNDS.iter().enumerate() {
        let mut word = V::load(token, &schedule[i % WORDS]);
        if i >= WORDS {
            let before = |k: usize| (i + WORDS - k) % WORDS;
            let w15 = V::load(token, &schedule[before(15)]);
            let w2 = V::load(token, &schedule[before(2)]);
            let w7 = V::load(token, &schedule[before(7)]);
            word = word
                .add(
                    rotate::<V, 1, 63>(w15)
                        .xor(rotate::<V, 8, 56>(w15))
                        .xor(w15.shr::<7>()),
                )
                .add(w7)
                .add(
                    rotate::<V, 19, 45>(w2)
                        .xor(rotate::<V, 61, 3>(w2))
                        .xor(w2.shr::<6>()),
                );
            word.store(&mut schedule[i % WORDS]);
        }
        let sum_1 = rotate::<V, 14, 50>(e)
            .xor(rotate::<V, 18, 46>(e))
            .xor(rotate::<V, 41, 23>(e));
        let choice = g.xor(e.and(f.xor(g)));
        let first = h
            .add(word.add(V::splat(token, *constant)))
            .add(choice)
            .add(sum_1);
        let sum_0 = rotate::<V, 28, 36>(a)
            .xor(rotate::<V, 34, 30>(a))
            .xor(rotate::<V, 39, 25>(a));
        let majority = a.and(b).or(c.and(a.or(b)));
        (h, g, f, e) = (g, f, e, d.add(first));
        (d, c, b, a) = (c, b, a, first.add(sum_0).add(majority));
    }
    let mut result = state;
    for (word, change) in result.iter_mut().zip([a, b, c, d, e, f, g, h]) {
        *word = word.add(change);
    }
    result
}

/// Rotates right by `R`; `L` is `64 - R`. The compiler knows the instruction.
#[inline(always)]
fn rotate<V: Vector, const R: u32, const L: u32>(word: V) -> V {
    const { assert!(R + L == 64) };
    word.shr::<R>().or(word.shl::<L>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let pairs = text.as_bytes().chunks_exact(2);
        pairs
            .map(|pair| u8::from_str_radix(core::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    /// RFC 4231, sections 4.2 to 4.4: key, message, tag.
    fn published() -> [(Vec<u8>, Vec<u8>, Vec<u8>); 3] {
        [
            (
                vec![0x0b; 20],
                b"Hi There".to_vec(),
                hex(
                    "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cde\
                     daa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854",
                ),
            ),
            (
                b"Jefe".to_vec(),
                b"what do ya want for nothing?".to_vec(),
                hex(
                    "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554\
                     9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
                ),
            ),
            (
                vec![0xaa; 20],
                vec![0xdd; 50],
                hex(
                    "fa73b0089d56a284efb0f0756c890be9b1b5dbdd8ee81a3655f83e33b2279d39\
                     bf3e848279a722c806b485a47e67c807b946a337bee8942674278859e13292fb",
                ),
            ),
        ]
    }

    #[test]
    fn the_published_tags_come_out_in_every_lane() {
        for path in Path::all() {
            for (key, message, tag) in published() {
                for lane in 0..LANES {
                    let mut messages: [[&[u8]; 2]; LANES] = [[b"an", b"other"]; LANES];
                    messages[lane] = message.split_at(message.len() / 3).into();
                    let mut tags = [[0; TAG_LEN]; LANES];
                    assert!(hmac_sha512(path, &key, &messages, &mut tags));
                    for (other, found) in tags.iter().enumerate() {
                        assert_eq!(found.as_slice() == tag, other == lane, "{}", path.name());
                    }
                }
            }
            eprintln!("HMAC-SHA-512 gives the published tags on {}", path.name());
        }
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        let long = [0; BLOCK + 1];
        let mut tags = [[7; TAG_LEN]; LANES];
        for path in Path::all() {
            assert!(!hmac_sha512(path, &long, &[[b""]], &mut tags));
            assert!(!hmac_sha512(
                path,
                b"",
                &[[&long[..=MAX_MESSAGE]]],
                &mut tags
            ));
            assert!(!hmac_sha512(path, b"", &[[b"".as_slice()]; 9], &mut tags));
            assert_eq!(tags, [[7; TAG_LEN]; LANES]);
            assert!(hmac_sha512(
                path,
                &long[..BLOCK],
                &[[&long[..MAX_MESSAGE]]],
                &mut tags
            ));
            assert_ne!(tags[0], [7; TAG_LEN]);
            assert_eq!(tags[1..], [[7; TAG_LEN]; LANES - 1]);
            tags[0] = [7; TAG_LEN];
        }
    }
}
