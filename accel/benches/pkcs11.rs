//! What the pool makes of a token, beside threads that do nothing but sign (`tests/pkcs11-shim/src/bare.rs`).
//!
//! ```sh
//! cargo bench -p accel --bench pkcs11              # everything, about a minute
//! cargo bench -p accel --bench pkcs11 -- device    # a device of 5 ms that runs 16 at once
//! cargo bench -p accel --bench pkcs11 -- module    # SoftHSM at full speed
//! ```
//!
//! `device`: the shim makes SoftHSM a device whose every signature takes 5 ms, 16 at a time, so 3,200/s and no
//! more. The pool starts with a limit of 4, then of 64, and 64 callers keep it busy. Ideal is what 16 bare
//! threads get from the same device. The latency is that of the device as the pool sees it, from the call to
//! the checked signature; ideal is 5 ms.
//!
//! `module`: bare threads and the pool take turns on the same cores, each in front of a copy of SoftHSM of its
//! own. The pool verifies every signature, which the bare threads do not; the last column says what that alone
//! costs. Figures per second of CPU time bear a busy machine; those per second do not.

#![expect(
    clippy::print_stdout,
    clippy::expect_used,
    reason = "a command for people; a failure ends it"
)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use accel::pkcs11::{SlotChoice, SlotSettings, TokenKeySpec, Tokens};
use accel::{Backend, Hash, Job, Key, Operation};
use nix::time::{ClockId, clock_gettime};
use pkcs11_shim::{Installed, SoftHsm, bare_loop};

/// `CKM_RSA_PKCS` and `CKM_ECDSA`.
const RSA_PKCS: u64 = 1;
const ECDSA: u64 = 0x1041;

const WARM_UP: Duration = Duration::from_secs(6);
const MEASURED: Duration = Duration::from_secs(4);

fn main() {
    let Some(hsm) = SoftHsm::new(&["bench"]) else {
        return;
    };
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keys");
    for (label, id) in [("p256", "01"), ("rsa2048", "02")] {
        hsm.import("bench", label, id, &keys.join(format!("{label}.pkcs8.pem")));
    }
    let wanted: Vec<_> = std::env::args()
        .skip(1)
        .filter(|it| !it.starts_with("--"))
        .collect();
    let wants = |name: &str| wanted.is_empty() || wanted.iter().any(|it| it == name);
    let (bare, pool) = (hsm.shim("bare", true), hsm.shim("pool", true));
    if wants("module") {
        module(&hsm, &bare, &pool);
    }
    if wants("device") {
        device(&hsm, &bare, &pool);
    }
}

fn load(hsm: &SoftHsm, shim: &Installed, label: &str, settings: SlotSettings) -> (Tokens, Key) {
    let tokens = Tokens::new(settings);
    let uri = hsm.uri("bench", label, &shim.module);
    let spec = TokenKeySpec {
        label: label.into(),
        uris: vec![uri.parse().expect("a URI")],
        choice: SlotChoice::Ordered,
        pin: None,
        expected_spki: None,
    };
    let key = tokens.load_key(&spec).expect("a key");
    (tokens, key)
}

/// Keeps `callers` operations going for a while and returns how many were done.
fn drive(key: &Arc<Key>, operation: Operation, callers: usize, duration: Duration) -> u64 {
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..callers {
            scope.spawn(|| {
                let mut output = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let mut job = [Job::new(key, operation, &[7; 32], &mut output)];
                    accel::Single.run(&mut job);
                    job[0].result.expect("a signature");
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        thread::sleep(duration);
        stop.store(true, Ordering::Relaxed);
    });
    done.into_inner()
}

#[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
const fn rate(operations: u64, time: Duration) -> f64 {
    operations as f64 / time.as_secs_f64()
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).expect("a clock");
    time.into()
}

fn device(hsm: &SoftHsm, bare: &Installed, pool: &Installed) {
    println!("a device of 5 ms that runs 16 at once, P-256, 64 callers");
    let torment = |shim: &Installed| {
        shim.control.tell("latency C_Sign 5000");
        shim.control.tell("width 16");
    };
    // The first loads the module; it takes commands from then on.
    let _ = bare_loop(
        &bare.module,
        SoftHsm::PIN,
        "p256",
        ECDSA,
        &[7; 32],
        1,
        Duration::ZERO,
    );
    torment(bare);
    let made = bare_loop(
        &bare.module,
        SoftHsm::PIN,
        "p256",
        ECDSA,
        &[7; 32],
        16,
        MEASURED,
    );
    let ideal = rate(made, MEASURED);
    println!("16 bare threads: {ideal:.0}/s");
    println!(
        "start limit   limit found   per second   of the bare   p50 ms   p99 ms   p99 of ideal"
    );
    for start in [4, 64] {
        let settings = SlotSettings {
            sessions: 64,
            start_limit: Some(start),
            queue: Some(256),
            ..SlotSettings::default()
        };
        let (tokens, key) = load(hsm, pool, "p256", settings);
        torment(pool);
        let (key, operation) = (Arc::new(key), Operation::EcdsaSign(Hash::Sha256));
        drive(&key, operation, 64, WARM_UP);
        let done = drive(&key, operation, 64, MEASURED);
        let status = tokens.slots().pop().expect("a slot");
        let rate = rate(done, MEASURED);
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        println!(
            "{start:11}   {:11}   {rate:10.0}   {:10.1} %   {:6.2}   {:6.2}   {:12.2}",
            status.limit,
            100.0 * rate / ideal,
            millis(status.p50),
            millis(status.p99),
            millis(status.p99) / 5.0,
        );
        tokens.stop();
        pool.control.tell("reset");
    }
    bare.control.tell("reset");
}

fn module(hsm: &SoftHsm, bare: &Installed, pool: &Installed) {
    let threads = thread::available_parallelism().map_or(2, usize::from);
    println!(
        "SoftHSM at full speed, {threads} bare threads, {} callers",
        8 * threads
    );
    println!(
        "key       bare/s   pool/s   ratio   bare/CPU s   pool/CPU s   ratio   without verifying"
    );
    let operations = [
        (
            "rsa2048",
            RSA_PKCS,
            Operation::RsaPkcs1Sign(Hash::Sha256),
            3,
        ),
        ("p256", ECDSA, Operation::EcdsaSign(Hash::Sha256), 3),
    ];
    for (label, mechanism, operation, rounds) in operations {
        let settings = SlotSettings {
            sessions: threads,
            queue: Some(256),
            ..SlotSettings::default()
        };
        let (tokens, key) = load(hsm, pool, label, settings);
        let key = Arc::new(key);
        let verifying = verification(label, operation);
        let (mut made, mut done) = (0, 0);
        let (mut bare_cpu, mut pool_cpu) = (Duration::ZERO, Duration::ZERO);
        let turn = MEASURED / 4;
        for _ in 0..rounds {
            let begun = cpu_time();
            made += bare_loop(
                &bare.module,
                SoftHsm::PIN,
                label,
                mechanism,
                &[7; 32],
                threads,
                turn,
            );
            bare_cpu += cpu_time() - begun;
            let begun = cpu_time();
            done += drive(&key, operation, 8 * threads, turn);
            pool_cpu += cpu_time() - begun;
        }
        tokens.stop();
        let wall = turn * rounds;
        let per_cpu = (rate(made, bare_cpu), rate(done, pool_cpu));
        let unverified = 1.0 / (1.0 / per_cpu.1 - verifying.as_secs_f64());
        println!(
            "{label:7} {:8.0} {:8.0} {:6.1} % {:11.0} {:12.0} {:6.1} % {:15.1} %",
            rate(made, wall),
            rate(done, wall),
            100.0 * rate(done, wall) / rate(made, wall),
            per_cpu.0,
            per_cpu.1,
            100.0 * per_cpu.1 / per_cpu.0,
            100.0 * unverified / per_cpu.0,
        );
    }
}

/// CPU time of verifying one signature, with `aws-lc-rs` as the pool does with AWS-LC.
fn verification(label: &str, operation: Operation) -> Duration {
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_ASN1, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
    };

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/keys/{label}.pkcs8.pem"));
    let key = Key::from_bytes(&std::fs::read(path).expect("a key file")).expect("a key");
    let message = b"verified again and again";
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, message);
    let mut signature = Vec::new();
    let mut job = [Job::new(&key, operation, digest.as_ref(), &mut signature)];
    accel::Single.run(&mut job);
    job[0].result.expect("a signature");
    let spki = key.spki_der();
    // The bits behind the header of the SubjectPublicKeyInfo: 26 bytes for P-256, 24 for RSA-2048.
    let (bits, rsa) = match operation {
        Operation::EcdsaSign(_) => (spki.get(26..), false),
        _ => (spki.get(24..), true),
    };
    let bits = bits.expect("a public key");
    let count = 500;
    let begun = Instant::now();
    let cpu = cpu_time();
    for _ in 0..count {
        let verified = if rsa {
            UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, bits).verify(message, &signature)
        } else {
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, bits).verify(message, &signature)
        };
        verified.expect("a good signature");
    }
    assert!(!begun.elapsed().is_zero());
    (cpu_time() - cpu) / count
}
