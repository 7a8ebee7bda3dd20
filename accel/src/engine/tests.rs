//! Quarantine and alarms of a machine that is broken, and how an engine is chosen.

use super::*;
use crate::alarm::MAX_ALARMS;
use crate::job::Hash;
use crate::key::Key;

/// A reference that is wrong every time: the machine is broken.
struct Broken;

impl Backend for Broken {
    fn name(&self) -> &'static str {
        "broken"
    }

    fn lanes(&self, _: Class) -> usize {
        1
    }

    fn checks_results(&self) -> bool {
        true
    }

    fn run(&self, jobs: &mut [Job<'_>]) {
        Single.run(jobs);
        for job in jobs {
            if let Some(last) = job.output.last_mut() {
                *last ^= 1;
            }
        }
    }
}

#[test]
fn a_result_that_fails_twice_is_withheld() {
    let config = EngineConfig {
        engine: EngineChoice::Single,
        verify_ecdsa: VerifyRate::ALWAYS,
        calibration: Duration::ZERO,
    };
    let mut engine = Engine::with_lanes(config, None).unwrap();
    engine.reference = Box::new(Broken);
    let key = Key::from_bytes(include_bytes!("../calibrate/p256.der")).unwrap();
    let mut output = Vec::new();
    let operation = Operation::EcdsaSign(Hash::Sha256);
    let mut jobs = [Job::new(&key, operation, &[3; 32], &mut output)];
    engine.run(&mut jobs);
    assert_eq!(jobs[0].result, Err(JobError::CheckFailed));
    assert!(output.is_empty());
    let counters = engine.counters();
    assert_eq!((counters.check_failures, counters.fallbacks), (2, 1));
    assert_eq!(engine.trust(Class::P256), Trust::Refused);
    // One alarm for each, and none of them says that it came right in the end.
    let alarms = engine.take_alarms();
    assert_eq!((alarms.events.len(), alarms.more), (2, 0));
    for alarm in alarms.events {
        assert_eq!((alarm.backend, alarm.redone), ("broken", false));
        assert_eq!((alarm.check, alarm.ski), (Check::Verification, key.ski()));
    }
    assert_eq!(engine.take_alarms(), Alarms::default());
}

/// What fails for one class is not asked again, and does not stop the others.
#[test]
fn a_refused_class_computes_nothing_until_it_is_proved() {
    let config = EngineConfig {
        engine: EngineChoice::Single,
        verify_ecdsa: VerifyRate::ALWAYS,
        calibration: Duration::ZERO,
    };
    let mut engine = Engine::with_backends(config, Box::new(Broken), None).unwrap();
    let keys = [
        include_bytes!("../calibrate/p256.der").as_slice(),
        include_bytes!("../calibrate/ed25519.der"),
    ];
    let [p256, ed25519] = keys.map(|der| Key::from_bytes(der).unwrap());
    let run = |engine: &Engine| {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        let operation = Operation::EcdsaSign(Hash::Sha256);
        let mut jobs = [
            Job::new(&p256, operation, &[3; 32], &mut first),
            Job::new(&ed25519, Operation::Ed25519Sign, &[3; 32], &mut second),
        ];
        engine.run(&mut jobs);
        jobs.map(|job| job.result)
    };
    assert_eq!(run(&engine), [Err(JobError::CheckFailed); 2]);
    assert_eq!(run(&engine), [Err(JobError::Quarantined); 2]);
    assert!(!engine.try_single(Class::P256), "it is still wrong");
    assert_eq!(engine.release(Class::P256), Err(ProofError::Wrong));
    // The machine comes to its senses.
    engine.reference = Box::new(Single);
    assert_eq!(run(&engine), [Err(JobError::Quarantined); 2]);
    assert!(engine.try_single(Class::P256));
    assert!(!engine.try_single(Class::P256), "it goes on already");
    assert_eq!(engine.trust(Class::P256), Trust::Single);
    assert_eq!(run(&engine), [Ok(()), Err(JobError::Quarantined)]);
    engine.release(Class::Ed25519).unwrap();
    assert_eq!(run(&engine), [Ok(()); 2]);
    assert_eq!(engine.trust(Class::Ed25519), Trust::Trusted);
}

#[test]
fn a_flood_of_alarms_is_kept_short_and_counted() {
    let config = EngineConfig {
        engine: EngineChoice::Single,
        verify_ecdsa: VerifyRate::ALWAYS,
        calibration: Duration::ZERO,
    };
    let mut engine = Engine::with_lanes(config, None).unwrap();
    engine.reference = Box::new(Broken);
    let key = Key::from_bytes(include_bytes!("../calibrate/p256.der")).unwrap();
    let mut outputs = vec![Vec::new(); MAX_ALARMS];
    let operation = Operation::EcdsaSign(Hash::Sha256);
    let mut jobs: Vec<_> = (outputs.iter_mut())
        .map(|output| Job::new(&key, operation, &[3; 32], output))
        .collect();
    engine.run(&mut jobs);
    let alarms = engine.take_alarms();
    assert_eq!(alarms.events.len(), MAX_ALARMS);
    assert_eq!(alarms.more, engine.counters().check_failures - 16);
    assert_eq!(engine.take_alarms(), Alarms::default());
}

#[test]
fn the_callers_mistakes_are_not_redone() {
    let config = EngineConfig {
        calibration: Duration::ZERO,
        ..EngineConfig::default()
    };
    let engine = Engine::new(config).unwrap();
    let key = Key::from_bytes(include_bytes!("../calibrate/p256.der")).unwrap();
    let (mut first, mut second) = (vec![1], vec![2]);
    let mut jobs = [
        Job::new(
            &key,
            Operation::EcdsaSign(Hash::Sha256),
            &[3; 31],
            &mut first,
        ),
        Job::new(&key, Operation::RsaPrivate, &[3; 32], &mut second),
    ];
    engine.run(&mut jobs);
    assert_eq!(jobs[0].result, Err(JobError::Input));
    assert_eq!(jobs[1].result, Err(JobError::WrongKey));
    assert!(first.is_empty() && second.is_empty());
    assert_eq!(engine.counters().fallbacks, 0);
}
