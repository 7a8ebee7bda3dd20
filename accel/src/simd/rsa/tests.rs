//! RSA in lanes against AWS-LC, in every fill, with mixed keys, and with a fault.

use accel_lanes::{Path, RsaNumbers};
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{KeyPair, KeySize};

use aws_lc_rs::rand;

use super::*;
use crate::backend::Backend;
use crate::class::Class;
use crate::engine::{Engine, EngineChoice, EngineConfig};
use crate::job::Hash;
use crate::simd::{Lanes, cases};
use crate::single::Single;
use crate::verify::result_is_correct;

fn fresh_key(size: KeySize) -> Key {
    let pair = KeyPair::generate(size).unwrap();
    Key::from_bytes(pair.as_der().unwrap().as_ref()).unwrap()
}

fn fixed_key(der: &[u8]) -> Key {
    Key::from_bytes(der).unwrap()
}

/// One key of each length.
fn keys() -> [Key; 3] {
    [
        fixed_key(include_bytes!("../../calibrate/rsa-2048.der")),
        fixed_key(include_bytes!("../../calibrate/rsa-3072.der")),
        fixed_key(include_bytes!("../../calibrate/rsa-4096.der")),
    ]
}

/// Every backend of lanes this processor can run.
fn backends() -> Vec<Lanes> {
    let mut backends = vec![Lanes::portable()];
    backends.extend(Lanes::detect());
    let names: Vec<_> = backends.iter().map(Backend::name).collect();
    eprintln!("RSA in lanes runs here on: {names:?}");
    backends
}

/// Inputs of the bare operation with patterns at the edges of what is allowed: 2, n - 2, all ones below
/// n, and others.
fn edge_inputs(n: &[u8]) -> Vec<Vec<u8>> {
    let len = n.len();
    let mut two = vec![0; len];
    two[len - 1] = 2;
    let mut minus_two = n.to_vec();
    // n is odd: n - 2 borrows only where n ends in 1.
    let mut at = len - 1;
    let (low, mut borrow) = minus_two[at].overflowing_sub(2);
    minus_two[at] = low;
    while borrow {
        at -= 1;
        (minus_two[at], borrow) = minus_two[at].overflowing_sub(1);
    }
    let mut ones = vec![0xff; len];
    ones[0] = 0x7f;
    let mut high_half = vec![0; len];
    high_half[..len / 2].fill(0xff);
    high_half[0] = 0x7f;
    let mut low_half = vec![0; len];
    low_half[len / 2..].fill(0xff);
    let mut power = vec![0; len];
    power[0] = 0x40;
    let mut pattern = vec![0x5a; len];
    pattern[0] = 0;
    let mut top = n.to_vec();
    top[len - 8..].fill(0);
    vec![
        two, minus_two, ones, high_half, low_half, power, pattern, top,
    ]
}

#[test]
fn the_bare_operation_agrees_with_aws_lc_at_the_edges() {
    for key in keys() {
        let inputs = edge_inputs(&key.rsa_parts().unwrap().n);
        let operation = Operation::RsaPrivate;
        let mut expected = vec![Vec::new(); inputs.len()];
        for (input, output) in inputs.iter().zip(&mut expected) {
            let mut job = Job::new(&key, operation, input, output);
            Single.run(std::slice::from_mut(&mut job));
            assert_eq!(job.result, Ok(()));
        }
        for backend in backends() {
            let mut outputs = vec![Vec::new(); inputs.len()];
            let mut jobs: Vec<_> = inputs
                .iter()
                .zip(&mut outputs)
                .map(|(input, output)| Job::new(&key, operation, input, output))
                .collect();
            backend.run(&mut jobs);
            assert!(jobs.iter().all(|job| job.result.is_ok()));
            assert_eq!(outputs, expected, "{}", backend.name());
        }
    }
}

/// Runs `rounds` full batches of random inputs and compares each with AWS-LC.
fn agree_on_random_inputs(key: &Key, backend: Lanes, rounds: usize) {
    let len = key.rsa_parts().unwrap().n.len();
    for round in 0..rounds {
        let mut inputs = vec![vec![0; len]; LANES];
        for input in &mut inputs {
            rand::fill(input).unwrap();
            // Below n, whose top bit is set.
            input[0] &= 0x7f;
        }
        let mut outputs = vec![Vec::new(); LANES];
        let mut jobs: Vec<_> = inputs
            .iter()
            .zip(&mut outputs)
            .map(|(input, output)| Job::new(key, Operation::RsaPrivate, input, output))
            .collect();
        backend.run(&mut jobs);
        for job in &jobs {
            assert_eq!(job.result, Ok(()), "round {round}");
            // Raising to e is a bijection, so this says the same as a second private operation, sooner.
            assert!(result_is_correct(job), "round {round}");
        }
    }
}

#[test]
fn random_inputs_agree_with_aws_lc() {
    for key in keys() {
        for backend in backends() {
            // The portable twin's own long run is the one of its kernels; here it would take hours.
            let cases = if backend.name() == "lanes-portable" {
                8
            } else {
                cases(800)
            };
            agree_on_random_inputs(&key, backend, cases / LANES);
        }
    }
}

#[test]
fn every_fill_with_mixed_keys_and_operations() {
    let keys: Vec<Key> = (0..3).map(|_| fresh_key(KeySize::Rsa2048)).collect();
    let values: Vec<(Operation, Vec<u8>)> = Hash::ALL
        .into_iter()
        .flat_map(|hash| {
            let value = vec![0x11; hash.len()];
            [
                (Operation::RsaPkcs1Sign(hash), value.clone()),
                (Operation::RsaPssSign(hash), value),
            ]
        })
        .filter(|(operation, _)| *operation != Operation::RsaPssSign(Hash::Md5Sha1))
        .collect();
    for backend in backends() {
        for fill in 1..=LANES {
            let mut outputs = vec![Vec::new(); fill];
            let mut jobs: Vec<_> = outputs
                .iter_mut()
                .enumerate()
                .map(|(i, output)| {
                    let (operation, value) = &values[(i * 5 + fill) % values.len()];
                    Job::new(
                        &keys[(i * 7 + fill) % keys.len()],
                        *operation,
                        value,
                        output,
                    )
                })
                .collect();
            backend.run(&mut jobs);
            for job in &jobs {
                assert_eq!(job.result, Ok(()), "fill {fill}, {:?}", job.operation);
                assert!(result_is_correct(job), "fill {fill}, {:?}", job.operation);
            }
        }
    }
}

#[test]
fn bad_jobs_do_not_disturb_their_neighbours() {
    let key = fixed_key(include_bytes!("../../calibrate/rsa-2048.der"));
    let good = [0x22; 32];
    let mut outputs = vec![vec![1, 2, 3]; 4];
    let [first, second, third, fourth] = outputs.as_mut_slice() else {
        panic!("four outputs");
    };
    let sign = Operation::RsaPkcs1Sign(Hash::Sha256);
    let mut jobs = [
        Job::new(&key, sign, &good[..31], first),
        Job::new(&key, sign, &good, second),
        Job::new(&key, Operation::EcdsaSign(Hash::Sha256), &good, third),
        Job::new(&key, Operation::RsaPrivate, &good, fourth),
    ];
    for backend in backends() {
        backend.run(&mut jobs);
        assert_eq!(jobs[0].result, Err(JobError::Input));
        assert_eq!(jobs[1].result, Ok(()));
        assert_eq!(jobs[2].result, Err(JobError::WrongKey));
        assert_eq!(jobs[3].result, Err(JobError::Input));
        assert!(
            jobs[0].output.is_empty() && jobs[2].output.is_empty() && jobs[3].output.is_empty()
        );
    }
}

/// The key with its constants for the lanes replaced by ones in which a bit of dq has flipped, and with
/// blinding pairs made before the fault.
fn faulty(key: &Key) {
    let parts = key.rsa_parts().unwrap();
    let sound = RsaLanes::new(constants(parts).unwrap());
    let mut dq = parts.dq.clone();
    dq[40] ^= 4;
    let broken = RsaKey::new(RsaNumbers {
        n: &parts.n,
        p: &parts.p,
        q: &parts.q,
        dp: &parts.dp,
        dq: &dq,
        qinv: &parts.qinv,
    });
    let broken = RsaLanes::new(broken.unwrap());
    for pair in pairs_for(Path::detect(), &[&sound; LANES]) {
        broken.keep(pair.unwrap_or_else(|error| panic!("{error}")));
    }
    key.lane_state().rsa.0.set(Some(Box::new(broken))).unwrap();
}

#[test]
fn a_faulty_lane_is_caught_redone_and_counted() {
    let sound = fixed_key(include_bytes!("../../calibrate/rsa-2048.der"));
    let broken = fresh_key(KeySize::Rsa2048);
    faulty(&broken);
    for backend in backends() {
        let run = |engine: Option<&Engine>| {
            let mut outputs = vec![Vec::new(); LANES];
            let mut jobs: Vec<_> = outputs
                .iter_mut()
                .enumerate()
                .map(|(i, output)| {
                    let key = if i == 3 { &broken } else { &sound };
                    Job::new(
                        key,
                        Operation::RsaPkcs1Sign(Hash::Sha256),
                        &[0x33; 32],
                        output,
                    )
                })
                .collect();
            match engine {
                Some(engine) => engine.run(&mut jobs),
                None => backend.run(&mut jobs),
            }
            let correct: Vec<bool> = jobs.iter().map(|job| result_is_correct(job)).collect();
            let results: Vec<_> = jobs.iter().map(|job| job.result).collect();
            (results, correct, outputs)
        };

        // The backend by itself withholds the result, of this lane alone.
        let (results, _, outputs) = run(None);
        for (i, (result, output)) in results.iter().zip(&outputs).enumerate() {
            let expected = if i == 3 {
                Err(JobError::CheckFailed)
            } else {
                Ok(())
            };
            assert_eq!(*result, expected, "lane {i}");
            assert_eq!(output.is_empty(), i == 3, "lane {i}");
        }

        // The engine redoes it on the reference and counts.
        let config = EngineConfig {
            engine: EngineChoice::Lanes,
            calibration: std::time::Duration::ZERO,
            ..EngineConfig::default()
        };
        let engine = Engine::with_lanes(config, Some(Box::new(backend))).unwrap();
        let (results, correct, _) = run(Some(&engine));
        assert!(results.iter().all(Result::is_ok));
        assert!(correct.iter().all(|correct| *correct));
        let counters = engine.counters();
        assert_eq!(
            (
                counters.check_failures,
                counters.fallbacks,
                counters.batched
            ),
            (1, 1, 8)
        );
    }
}

/// A pair that belongs to another key fails every time, so it must be gone after the first.
#[test]
fn a_pair_whose_lane_failed_is_dropped() {
    let owner = fresh_key(KeySize::Rsa2048);
    for backend in backends() {
        let key = fresh_key(KeySize::Rsa2048);
        let foreign = pairs_for(Path::detect(), &[lanes_of(&owner).unwrap()]).remove(0);
        let foreign = foreign.unwrap_or_else(|error| panic!("{error}"));
        lanes_of(&key).unwrap().keep(foreign);
        let run = || {
            let mut output = Vec::new();
            let operation = Operation::RsaPkcs1Sign(Hash::Sha256);
            let mut jobs = [Job::new(&key, operation, &[0x55; 32], &mut output)];
            backend.run(&mut jobs);
            jobs[0].result
        };
        assert_eq!(run(), Err(JobError::CheckFailed));
        for _ in 0..3 {
            assert_eq!(run(), Ok(()), "{}", backend.name());
        }
    }
}

#[test]
fn pairs_outlive_batches_and_are_renewed() {
    let key = fixed_key(include_bytes!("../../calibrate/rsa-2048.der"));
    let backend = backends().pop().unwrap();
    // More uses than one set of pairs has.
    agree_on_random_inputs(&key, backend, 300);
}

#[test]
fn keys_the_lanes_cannot_take_are_declined() {
    let backend = Lanes::portable();
    let long = fixed_key(include_bytes!("../../calibrate/rsa-8192.der"));
    assert!(!backend.accepts(&long, Operation::RsaPrivate));
    assert_eq!(backend.lanes(Class::RsaOther), 1);
    let mut output = Vec::new();
    let input = [0x44; 32];
    let mut job = Job::new(
        &long,
        Operation::RsaPkcs1Sign(Hash::Sha256),
        &input,
        &mut output,
    );
    backend.run(std::slice::from_mut(&mut job));
    assert_eq!(job.result, Err(JobError::Failed));
}
