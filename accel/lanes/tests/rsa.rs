//! Whole RSA operations over fixed keys, on every path.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure ends the test"
)]

use accel_lanes::rsa::{Blinding, Lane, Renewal, private, renew};
use accel_lanes::{LANES, Path, RsaKey, RsaNumbers, RsaSize};

struct TestKey {
    n: Vec<u8>,
    key: RsaKey,
}

/// The keys of the file whose modulus has `bits` bits.
fn keys(bits: usize) -> Vec<TestKey> {
    let text = include_str!("vectors/rsa_keys.txt");
    let blocks = text.split("\n\n").filter(|block| block.starts_with("bits"));
    let mut keys = Vec::new();
    for block in blocks {
        let field = |name: &str| {
            let mut fields = block.lines().filter_map(|line| line.split_once(" = "));
            fields.find(|(found, _)| *found == name).unwrap().1
        };
        if field("bits") != bits.to_string() {
            continue;
        }
        let [n, p, q, dp, dq, qinv] = ["n", "p", "q", "dp", "dq", "qinv"].map(|name| {
            let digits = field(name).as_bytes().chunks(2);
            let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
            digits.map(byte).collect::<Vec<u8>>()
        });
        let key = RsaKey::new(RsaNumbers {
            n: &n,
            p: &p,
            q: &q,
            dp: &dp,
            dq: &dq,
            qinv: &qinv,
        });
        keys.push(TestKey {
            n,
            key: key.unwrap(),
        });
    }
    assert!(keys.len() >= 3);
    keys
}

fn pairs(path: Path, keys: &[&RsaKey], seed: u8) -> Vec<Blinding> {
    let len = keys[0].size().bytes();
    let random: Vec<Vec<u8>> = (0..keys.len())
        .map(|l| {
            let byte = |i: usize| (i * i + 7 * l + 31 * usize::from(seed)) % 251;
            (0..len).map(|i| u8::try_from(byte(i)).unwrap()).collect()
        })
        .collect();
    let mut pairs: Vec<_> = keys.iter().map(|_| Blinding::empty()).collect();
    let mut rows: Vec<_> = (keys.iter().zip(&random).zip(&mut pairs))
        .map(|((key, random), blinding)| Renewal {
            key,
            random,
            blinding,
            correct: false,
        })
        .collect();
    renew(path, &mut rows);
    assert!(rows.iter().all(|row| row.correct));
    pairs
}

/// One batch; lane `l` has `keys[l]` and `inputs[l]`. `None` where the check failed.
fn run(
    path: Path,
    keys: &[&RsaKey],
    pairs: &mut [Blinding],
    inputs: &[Vec<u8>],
) -> Vec<Option<Vec<u8>>> {
    let mut outputs: Vec<_> = inputs.iter().map(|input| vec![0; input.len()]).collect();
    let mut lanes: Vec<_> = keys
        .iter()
        .zip(pairs)
        .zip(inputs.iter().zip(&mut outputs))
        .map(|((key, blinding), (input, output))| Lane {
            key,
            blinding,
            input,
            output,
            correct: false,
        })
        .collect();
    private(path, &mut lanes);
    let correct: Vec<bool> = lanes.iter().map(|lane| lane.correct).collect();
    outputs
        .into_iter()
        .zip(correct)
        .map(|(output, correct)| correct.then_some(output))
        .collect()
}

/// 0, 1, n - 1, all ones below n, and numbers with long runs.
fn inputs(n: &[u8]) -> Vec<Vec<u8>> {
    let len = n.len();
    let zero = vec![0; len];
    let mut one = zero.clone();
    one[len - 1] = 1;
    let mut minus_one = n.to_vec();
    minus_one[len - 1] &= 0xfe;
    let mut ones = vec![0xff; len];
    ones[0] = 0x7f;
    let mut low = zero.clone();
    low[len / 2..].fill(0xff);
    let mut high = ones.clone();
    high[len / 2..].fill(0);
    vec![
        zero,
        one,
        minus_one,
        ones,
        low,
        high,
        n[..len - 1].iter().copied().fold(vec![0], |mut all, byte| {
            all.push(byte);
            all
        }),
        vec![0x5a; len]
            .into_iter()
            .enumerate()
            .map(|(i, byte)| if i == 0 { 0 } else { byte })
            .collect(),
    ]
}

#[test]
fn every_path_gives_the_same_results_whatever_the_blinding() {
    eprintln!("RSA lanes run here on: {:?}", Path::all());
    for size in RsaSize::ALL {
        let keys = keys(size.bits());
        for key in &keys {
            let inputs = inputs(&key.n);
            let lanes = [&key.key; LANES];
            let mut expected = None;
            for (seed, path) in (1..).zip(Path::all()) {
                let mut pairs = pairs(path, &lanes, seed);
                let results = run(path, &lanes, &mut pairs, &inputs);
                assert!(
                    results.iter().all(Option::is_some),
                    "{} {size:?}",
                    path.name()
                );
                // 0, 1 and n - 1 are their own images.
                for l in 0..3 {
                    assert_eq!(results[l].as_ref(), Some(&inputs[l]));
                }
                assert_eq!(expected.get_or_insert_with(|| results.clone()), &results);
                if path == Path::detect() {
                    // Squared pairs blind as well.
                    assert_eq!(run(path, &lanes, &mut pairs, &inputs), results);
                }
            }
        }
    }
}

#[test]
fn lanes_do_not_mix_keys_or_fills() {
    let path = Path::detect();
    let keys = keys(2048);
    let one_by_one: Vec<_> = keys
        .iter()
        .map(|key| {
            let inputs = inputs(&key.n);
            let alone = |input: &Vec<u8>| {
                let mut pair = pairs(path, &[&key.key], 9);
                run(path, &[&key.key], &mut pair, std::slice::from_ref(input)).remove(0)
            };
            (inputs.iter().map(alone).collect::<Vec<_>>(), inputs)
        })
        .collect();
    for fill in 1..=LANES {
        let which = |l: usize| (l * 5 + fill) % keys.len();
        let lanes: Vec<&RsaKey> = (0..fill).map(|l| &keys[which(l)].key).collect();
        let batch: Vec<_> = (0..fill)
            .map(|l| one_by_one[which(l)].1[l].clone())
            .collect();
        let results = run(path, &lanes, &mut pairs(path, &lanes, 3), &batch);
        for (l, result) in results.iter().enumerate() {
            assert_eq!(result, &one_by_one[which(l)].0[l], "lane {l} of {fill}");
        }
    }
}

#[test]
fn a_foreign_blinding_pair_is_caught_in_its_lane_alone() {
    for path in Path::all() {
        let keys = keys(2048);
        let lanes = [&keys[0].key, &keys[1].key, &keys[2].key];
        let mut pairs = pairs(path, &[&keys[0].key, &keys[0].key, &keys[2].key], 5);
        let batch: Vec<_> = (0..3).map(|l| inputs(&keys[l].n).remove(4)).collect();
        let results = run(path, &lanes, &mut pairs, &batch);
        assert!(results[0].is_some() && results[2].is_some());
        assert_eq!(results[1], None);
    }
}

#[test]
fn lanes_of_another_size_are_left_alone() {
    let path = Path::detect();
    let (small, large) = (keys(2048), keys(3072));
    let lanes = [&small[0].key, &large[0].key];
    let mut pairs = vec![
        pairs(path, &lanes[..1], 1).remove(0),
        pairs(path, &lanes[1..], 1).remove(0),
    ];
    let batch = vec![inputs(&small[0].n).remove(3), inputs(&large[0].n).remove(3)];
    let results = run(path, &lanes, &mut pairs, &batch);
    assert!(results[0].is_some());
    assert_eq!(results[1], None);
}

#[test]
fn numbers_that_are_no_key_are_declined() {
    let n = [0xff; 256];
    let p = [0xff; 128];
    let sound = RsaNumbers {
        n: &n,
        p: &p,
        q: &p,
        dp: &p,
        dq: &p,
        qinv: &p,
    };
    assert!(
        RsaKey::new(sound).is_some(),
        "lengths are all that is asked"
    );
    let (short, even, long) = ([0xff; 127], [0xfe; 128], [0xff; 129]);
    assert!(RsaKey::new(RsaNumbers { p: &short, ..sound }).is_none());
    assert!(RsaKey::new(RsaNumbers { q: &even, ..sound }).is_none());
    assert!(RsaKey::new(RsaNumbers { dp: &long, ..sound }).is_none());
    assert!(
        RsaKey::new(RsaNumbers {
            n: &n[1..],
            ..sound
        })
        .is_none()
    );
    let low = [0x7f; 128];
    assert!(RsaKey::new(RsaNumbers { p: &low, ..sound }).is_none());
}
