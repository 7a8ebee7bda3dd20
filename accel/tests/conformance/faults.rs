//! A backend that lies must never be believed.

use std::sync::atomic::{AtomicUsize, Ordering};

use accel::{
    Backend, Check, Class, Engine, EngineChoice, EngineConfig, EngineError, Hash, Job, JobError,
    Key, Operation, Single, Trust, VerifyRate,
};

use super::oracle::RsaPublic;
use super::{key, random};

/// What the liar does to its second row.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Lie {
    /// Flips one bit of the result.
    FlipBit,
    /// Cuts the result short.
    Truncate,
    /// Says that all went well and returns nothing.
    Nothing,
    /// Hands out the result of another input.
    OtherInput,
    /// Gives up, honestly.
    GiveUp,
    /// Reports that its own check failed, and leaves the bad bytes in place.
    OwnCheckFailed,
}

const LIES: [Lie; 6] = [
    Lie::FlipBit,
    Lie::Truncate,
    Lie::Nothing,
    Lie::OtherInput,
    Lie::GiveUp,
    Lie::OwnCheckFailed,
];

/// Eight lanes on AWS-LC, one of which goes wrong.
struct Liar {
    lie: Lie,
}

impl Backend for Liar {
    fn name(&self) -> &'static str {
        "liar"
    }

    fn lanes(&self, _: Class) -> usize {
        8
    }

    fn checks_results(&self) -> bool {
        false
    }

    fn run(&self, jobs: &mut [Job<'_>]) {
        Single.run(jobs);
        let Some(job) = jobs.get_mut(1) else { return };
        match self.lie {
            Lie::FlipBit => {
                let middle = job.output.len() / 2;
                job.output[middle] ^= 0x10;
            }
            Lie::Truncate => {
                job.output.pop();
            }
            Lie::Nothing => job.output.clear(),
            Lie::OtherInput => {
                let mut other = job.input.to_vec();
                other[1] ^= 1;
                let mut output = Vec::new();
                let mut wrong = Job::new(job.key, job.operation, &other, &mut output);
                Single.run(std::slice::from_mut(&mut wrong));
                *job.output = output;
            }
            Lie::GiveUp => job.fail(JobError::Failed),
            Lie::OwnCheckFailed => job.result = Err(JobError::CheckFailed),
        }
    }
}

fn engine(lie: Lie, verify_ecdsa: VerifyRate) -> Engine {
    let config = EngineConfig {
        engine: EngineChoice::Lanes,
        verify_ecdsa,
        calibration: std::time::Duration::ZERO,
    };
    Engine::with_lanes(config, Some(Box::new(Liar { lie }))).unwrap()
}

/// Runs four rows, the second of which is lied about, and returns the outputs.
fn run_four(engine: &Engine, key: &Key, operation: Operation, input: &[u8]) -> Vec<Vec<u8>> {
    let mut outputs = vec![Vec::new(); 4];
    let mut jobs: Vec<_> = outputs
        .iter_mut()
        .map(|output| Job::new(key, operation, input, output))
        .collect();
    engine.run(&mut jobs);
    for job in &jobs {
        assert_eq!(job.result, Ok(()), "{operation:?}");
    }
    outputs
}

fn expect_one_fault(engine: &Engine, key: &Key, lie: Lie) {
    // Who lied is not asked again. To give up is no lie.
    let trust = if lie == Lie::GiveUp {
        Trust::Trusted
    } else {
        Trust::Single
    };
    assert_eq!(engine.trust(key.class()), trust, "{lie:?}");
    let counters = engine.counters();
    assert_eq!(counters.fallbacks, 1, "{lie:?}");
    assert_eq!(
        counters.check_failures,
        u64::from(lie != Lie::GiveUp),
        "{lie:?}"
    );
    assert_eq!(counters.batched, 4);
    let alarms = engine.take_alarms();
    let kept: Vec<_> = (alarms.events.iter())
        .map(|alarm| (alarm.backend, alarm.ski, alarm.check, alarm.redone))
        .collect();
    let expected = match lie {
        // It gave up, it did not err.
        Lie::GiveUp => vec![],
        Lie::OwnCheckFailed => vec![("liar", key.ski(), Check::Backend, true)],
        _ => vec![("liar", key.ski(), Check::Verification, true)],
    };
    assert_eq!((kept, alarms.more), (expected, 0), "{lie:?}");
}

#[test]
fn no_wrong_rsa_result_is_released_whatever_the_verify_rate() {
    let key = key("rsa2048.pkcs8.pem");
    let public = RsaPublic::of(&key);
    for lie in LIES {
        let digest = random(32);
        let engine_pkcs1 = engine(lie, VerifyRate::NEVER);
        let operation = Operation::RsaPkcs1Sign(Hash::Sha256);
        for signature in run_four(&engine_pkcs1, &key, operation, &digest) {
            assert!(
                public.verify_pkcs1(Hash::Sha256, &digest, &signature),
                "{lie:?}"
            );
        }
        expect_one_fault(&engine_pkcs1, &key, lie);

        let engine_pss = engine(lie, VerifyRate::NEVER);
        let operation = Operation::RsaPssSign(Hash::Sha256);
        for signature in run_four(&engine_pss, &key, operation, &digest) {
            assert!(
                public.verify_pss(Hash::Sha256, &digest, &signature),
                "{lie:?}"
            );
        }
        expect_one_fault(&engine_pss, &key, lie);

        let engine_raw = engine(lie, VerifyRate::NEVER);
        let ciphertext = vec![0x42; public.k];
        for block in run_four(&engine_raw, &key, Operation::RsaPrivate, &ciphertext) {
            assert_eq!(
                public.public(&block).as_deref(),
                Some(&ciphertext[..]),
                "{lie:?}"
            );
        }
        expect_one_fault(&engine_raw, &key, lie);
    }
}

#[test]
fn verified_signatures_are_never_wrong() {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ED25519, ML_DSA_65, UnparsedPublicKey};

    let message = random(64);
    let digest = super::oracle::hash_of(Hash::Sha256, &message);
    let ecdsa = Operation::EcdsaSign(Hash::Sha256);
    for lie in LIES {
        let check = |name, operation, input: &[u8], algorithm| {
            let key = key(name);
            let engine = engine(lie, VerifyRate::ALWAYS);
            let bits = super::oracle::public_bits(&key);
            let public = UnparsedPublicKey::<Vec<u8>>::new(algorithm, bits);
            for signature in run_four(&engine, &key, operation, input) {
                assert!(
                    public.verify(&message, &signature).is_ok(),
                    "{lie:?} {name}"
                );
            }
            expect_one_fault(&engine, &key, lie);
        };
        check("p256.pkcs8.pem", ecdsa, &digest, &ECDSA_P256_SHA256_ASN1);
        check(
            "ed25519.pkcs8.pem",
            Operation::Ed25519Sign,
            &message,
            &ED25519,
        );
        check(
            "ml-dsa-65.pkcs8.pem",
            Operation::MlDsaSign,
            &message,
            &ML_DSA_65,
        );
    }
}

/// Half the rate finds half the lies, each on an engine that has found none yet; and with rate zero all are
/// believed, which shows that the test above can fail.
#[test]
fn the_rate_decides_how_many_lies_are_found() {
    let key = key("p256.pkcs8.pem");
    let operation = Operation::EcdsaSign(Hash::Sha256);
    for (rate, expected) in [(0, 0..=0), (500, 30..=70), (1000, 100..=100)] {
        let (mut batched, mut found) = (engine(Lie::Nothing, VerifyRate::permille(rate)), 0);
        let empty = AtomicUsize::new(0);
        for round in 0..100 {
            // Rounds of different lengths, so that the liar's place does not always meet the same sample.
            let mut outputs = vec![Vec::new(); 2 + round % 3];
            let mut jobs: Vec<_> = outputs
                .iter_mut()
                .map(|output| Job::new(&key, operation, &[9; 32], output))
                .collect();
            batched.run(&mut jobs);
            // Lanes that were caught are not asked again; another engine goes on where the sampler was.
            if batched.trust(Class::P256) != Trust::Trusted {
                found += batched.counters().check_failures;
                batched = engine(Lie::Nothing, VerifyRate::permille(rate));
                let skipped = Operation::EcdsaSign(Hash::Sha256);
                let mut output = Vec::new();
                for _ in 0..round % 2 {
                    let job = Job::new(&key, skipped, &[9; 32], &mut output);
                    batched.run(&mut [job]);
                }
            }
            empty.fetch_add(
                outputs.iter().filter(|o| o.is_empty()).count(),
                Ordering::Relaxed,
            );
        }
        found += batched.counters().check_failures;
        assert!(expected.contains(&found), "rate {rate}: {found}");
        assert_eq!(u64::try_from(empty.into_inner()).unwrap(), 100 - found);
    }
}

/// Eight lanes, all of which go wrong.
struct Broken;

impl Backend for Broken {
    fn name(&self) -> &'static str {
        "broken"
    }

    fn lanes(&self, _: Class) -> usize {
        8
    }

    fn checks_results(&self) -> bool {
        false
    }

    fn run(&self, jobs: &mut [Job<'_>]) {
        for job in jobs {
            job.output.clear();
            job.result = Ok(());
        }
    }
}

/// The rate has one in four looked at, the fourth of this batch; those before it leave with it.
#[test]
fn when_one_is_wrong_all_of_its_batch_are_looked_at() {
    let config = EngineConfig {
        engine: EngineChoice::Lanes,
        verify_ecdsa: VerifyRate::permille(250),
        calibration: std::time::Duration::ZERO,
    };
    let engine = Engine::with_lanes(config, Some(Box::new(Broken))).unwrap();
    let key = key("p256.pkcs8.pem");
    let mut outputs = vec![Vec::new(); 8];
    let mut jobs: Vec<_> = (outputs.iter_mut())
        .map(|output| Job::new(&key, Operation::EcdsaSign(Hash::Sha256), &[9; 32], output))
        .collect();
    engine.run(&mut jobs);
    assert!(jobs.iter().all(|job| job.result == Ok(())));
    assert!(outputs.iter().all(|output| !output.is_empty()));
    assert_eq!(engine.counters().check_failures, 8);
}

/// Eight singles of a long class in one batch, as when its lanes were wrong, keep brief ones waiting for one of them only.
#[test]
fn other_work_may_be_slipped_in_between_singles() {
    let engine = engine(Lie::Nothing, VerifyRate::NEVER);
    let key = key("rsa2048.pkcs8.pem");
    let operation = Operation::RsaPkcs1Sign(Hash::Sha256);
    run_four(&engine, &key, operation, &[9; 32]);
    assert_eq!(engine.trust(key.class()), Trust::Single);
    let mut outputs = vec![Vec::new(); 8];
    let mut jobs: Vec<_> = (outputs.iter_mut())
        .map(|output| Job::new(&key, operation, &[9; 32], output))
        .collect();
    let mut slipped_in = 0;
    engine.run_yielding(&mut jobs, &mut || slipped_in += 1);
    assert_eq!(slipped_in, 8);
}

#[test]
fn lanes_on_demand_need_lanes() {
    let config = EngineConfig {
        engine: EngineChoice::Lanes,
        ..EngineConfig::default()
    };
    assert!(matches!(
        Engine::with_lanes(config, None),
        Err(EngineError::LanesUnavailable)
    ));
}

/// Lanes that lie once and are right ever after: the operator's release is what brings them back.
struct Once {
    lied: AtomicUsize,
}

impl Backend for Once {
    fn name(&self) -> &'static str {
        "once"
    }

    fn lanes(&self, _: Class) -> usize {
        8
    }

    fn checks_results(&self) -> bool {
        false
    }

    fn run(&self, jobs: &mut [Job<'_>]) {
        Single.run(jobs);
        if self.lied.fetch_add(1, Ordering::Relaxed) == 0 {
            jobs[0].output[20] ^= 1;
        }
    }
}

/// In quarantine nothing runs in lanes, and every result is verified whatever the rate; other classes go on. After the
/// release lanes are used again.
#[test]
fn lanes_that_erred_are_left_until_they_are_released() {
    let config = EngineConfig {
        engine: EngineChoice::Lanes,
        verify_ecdsa: VerifyRate::NEVER,
        calibration: std::time::Duration::ZERO,
    };
    let lanes = Once {
        lied: AtomicUsize::new(0),
    };
    let engine = Engine::with_lanes(config, Some(Box::new(lanes))).unwrap();
    let (rsa, p256) = (key("rsa2048.pkcs8.pem"), key("p256.pkcs8.pem"));
    let run = |key: &Key, operation| {
        let before = engine.counters();
        run_four(&engine, key, operation, &[9; 32]);
        let after = engine.counters();
        (after.batched - before.batched, after.single - before.single)
    };
    let (sign_rsa, sign_p256) = (
        Operation::RsaPkcs1Sign(Hash::Sha256),
        Operation::EcdsaSign(Hash::Sha256),
    );
    assert_eq!(run(&rsa, sign_rsa), (4, 0));
    assert_eq!(engine.trust(rsa.class()), Trust::Single);
    assert_eq!(run(&rsa, sign_rsa), (0, 4));
    assert_eq!(run(&p256, sign_p256), (4, 0), "another class");
    engine.release(rsa.class()).unwrap();
    assert_eq!(run(&rsa, sign_rsa), (4, 0));
}

/// A backend that leaves its jobs alone.
struct Idle;

impl Backend for Idle {
    fn name(&self) -> &'static str {
        "idle"
    }

    fn lanes(&self, _: Class) -> usize {
        8
    }

    fn checks_results(&self) -> bool {
        true
    }

    fn run(&self, _: &mut [Job<'_>]) {}
}

/// Also where the caller has put a success there, and an older result is still in the output.
#[test]
fn what_a_backend_passes_over_has_failed() {
    for choice in [EngineChoice::Single, EngineChoice::Lanes] {
        let config = EngineConfig {
            engine: choice,
            verify_ecdsa: VerifyRate::ALWAYS,
            calibration: std::time::Duration::ZERO,
        };
        let lanes = Some(Box::new(Idle) as Box<dyn Backend>);
        let engine = Engine::with_backends(config, Box::new(Idle), lanes).unwrap();
        let key = key("p256.pkcs8.pem");
        let mut outputs = vec![b"old".to_vec(); 8];
        let operation = Operation::EcdsaSign(Hash::Sha256);
        let mut jobs: Vec<_> = (outputs.iter_mut())
            .map(|output| Job {
                result: Ok(()),
                ..Job::new(&key, operation, &[3; 32], output)
            })
            .collect();
        engine.run(&mut jobs);
        assert!(jobs.iter().all(|job| job.result == Err(JobError::Failed)));
    }
}
