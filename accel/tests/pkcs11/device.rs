//! A token with keys, and load on it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use accel::pkcs11::{
    BreakerState, SlotChoice, SlotSettings, SlotStatus, TokenFailure, TokenJob, TokenKeySpec,
    Tokens,
};
use accel::{Hash, Key, Operation};
use aws_lc_rs::digest;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use pkcs11_shim::{Installed, SoftHsm};

/// How long a test waits for something that should happen soon. Machines of continuous integration are slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Two tokens that hold the same P-256 key, `shop`, behind one module each.
pub(crate) struct Device {
    pub(crate) hsm: SoftHsm,
    pub(crate) one: Installed,
    pub(crate) two: Installed,
    pub(crate) tokens: Tokens,
}

impl Drop for Device {
    fn drop(&mut self) {
        self.tokens.stop();
    }
}

/// Few sessions and short times, so that tests see the end of them.
pub(crate) fn settings() -> SlotSettings {
    SlotSettings {
        sessions: 4,
        keepalive: Duration::from_millis(500),
        call_timeout: Duration::from_secs(2),
        ..SlotSettings::default()
    }
}

impl Device {
    /// `None` where SoftHSM is missing.
    pub(crate) fn new(settings: SlotSettings) -> Option<Self> {
        let hsm = SoftHsm::new(&["one", "two"])?;
        let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keys");
        for token in ["one", "two"] {
            hsm.import(token, "shop", "01", &keys.join("p256.pkcs8.pem"));
        }
        Some(Self {
            one: hsm.shim("one", true),
            two: hsm.shim("two", true),
            hsm,
            tokens: Tokens::new(settings),
        })
    }

    pub(crate) fn uri(&self, token: &str) -> String {
        let module = match token {
            "one" => &self.one.module,
            _ => &self.two.module,
        };
        self.hsm.uri(token, "shop", module)
    }

    pub(crate) fn spec(&self, tokens: &[&str]) -> TokenKeySpec {
        TokenKeySpec {
            label: "shop".into(),
            uris: tokens
                .iter()
                .map(|token| self.uri(token).parse().unwrap())
                .collect(),
            choice: SlotChoice::Ordered,
            pin: None,
            expected_spki: None,
        }
    }

    pub(crate) fn load(&self, tokens: &[&str]) -> Arc<Key> {
        Arc::new(self.tokens.load_key(&self.spec(tokens)).unwrap())
    }

    /// Loads a key that a certificate describes, whether its slots are up or not.
    pub(crate) fn load_anyway(&self, tokens: &[&str]) -> Arc<Key> {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keys/p256.pkcs8.pem");
        let twin = Key::from_bytes(&std::fs::read(file).unwrap()).unwrap();
        let mut spec = self.spec(tokens);
        spec.expected_spki = Some(twin.spki_der().to_vec());
        Arc::new(self.tokens.load_key(&spec).unwrap())
    }

    pub(crate) fn status(&self, token: &str) -> SlotStatus {
        self.tokens
            .slots()
            .into_iter()
            .find(|slot| slot.token_label == token)
            .unwrap()
    }

    /// Waits until a slot looks as wanted.
    pub(crate) fn wait_for(&self, token: &str, wanted: impl Fn(&SlotStatus) -> bool) -> SlotStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            let status = self.status(token);
            if wanted(&status) {
                return status;
            }
            assert!(Instant::now() < end, "{status:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn is_ready(status: &SlotStatus) -> bool {
        status.ready && status.breaker == BreakerState::Closed
    }

    /// How often a slot has seen an error.
    pub(crate) fn errors(&self, token: &str, name: &str) -> u64 {
        let errors = self.status(token).errors;
        errors
            .into_iter()
            .find(|(at, _)| at == name)
            .map_or(0, |(_, count)| count)
    }
}

/// What became of operations under load.
#[derive(Debug, Default)]
pub(crate) struct Outcomes {
    pub(crate) good: AtomicUsize,
    pub(crate) wrong: AtomicUsize,
    pub(crate) busy: AtomicUsize,
    pub(crate) deadline: AtomicUsize,
    pub(crate) unavailable: AtomicUsize,
    pub(crate) failed: AtomicUsize,
}

impl Outcomes {
    pub(crate) fn good(&self) -> usize {
        self.good.load(Ordering::Relaxed)
    }

    /// Every operation that did not succeed.
    pub(crate) fn lost(&self) -> usize {
        [
            &self.wrong,
            &self.busy,
            &self.deadline,
            &self.unavailable,
            &self.failed,
        ]
        .into_iter()
        .map(|count| count.load(Ordering::Relaxed))
        .sum()
    }
}

/// Keeps some operations going, each signature verified, until it is stopped.
pub(crate) struct Load {
    pub(crate) outcomes: Arc<Outcomes>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    pub(crate) fn start(key: &Arc<Key>, callers: usize) -> Self {
        let outcomes = Arc::new(Outcomes::default());
        let stop = Arc::new(AtomicBool::new(false));
        let caller = |number: usize| {
            let (key, outcomes, stop) = (Arc::clone(key), Arc::clone(&outcomes), Arc::clone(&stop));
            move || {
                let mut turn = number;
                while !stop.load(Ordering::Relaxed) {
                    turn += callers;
                    let message = turn.to_le_bytes();
                    let result = sign(&key, &message, Duration::from_secs(10));
                    count(&outcomes, &key, &message, result);
                }
            }
        };
        let threads = (0..callers)
            .map(|number| thread::spawn(caller(number)))
            .collect();
        Self {
            outcomes,
            stop,
            threads,
        }
    }

    /// Waits until so many more operations have succeeded.
    pub(crate) fn more(&self, device: &Device, operations: usize) {
        let (begun, end) = (self.outcomes.good(), Instant::now() + PATIENCE);
        while self.outcomes.good() < begun + operations {
            assert!(
                Instant::now() < end,
                "{:?} {:#?}",
                self.outcomes,
                device.tokens.slots()
            );
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Ends the load; no operation may have been lost.
    pub(crate) fn stop_without_loss(self, device: &Device) {
        let outcomes = self.stop();
        assert_eq!(
            outcomes.lost(),
            0,
            "{outcomes:?} {:#?}",
            device.tokens.slots()
        );
    }

    pub(crate) fn stop(self) -> Arc<Outcomes> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        self.outcomes
    }
}

fn count(outcomes: &Outcomes, key: &Key, message: &[u8], result: Result<Vec<u8>, TokenFailure>) {
    let counter = match result {
        Ok(signature) if verifies(key, message, &signature) => &outcomes.good,
        Ok(_) => &outcomes.wrong,
        Err(TokenFailure::Busy) => &outcomes.busy,
        Err(TokenFailure::Deadline) => &outcomes.deadline,
        Err(TokenFailure::Unavailable) => {
            // A program would not ask in a tight loop either.
            thread::sleep(Duration::from_millis(5));
            &outcomes.unavailable
        }
        Err(TokenFailure::Job(_)) => &outcomes.failed,
    };
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Judged by `aws-lc-rs`, not by the code under test.
pub(crate) fn verifies(key: &Key, message: &[u8], signature: &[u8]) -> bool {
    // The point of a P-256 key is the last 65 bytes of its SubjectPublicKeyInfo.
    let spki = key.spki_der();
    let point = &spki[spki.len() - 65..];
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point)
        .verify(message, signature)
        .is_ok()
}

/// Signs a message and waits for the answer.
pub(crate) fn sign(key: &Key, message: &[u8], limit: Duration) -> Result<Vec<u8>, TokenFailure> {
    let (reply, answer) = std::sync::mpsc::sync_channel(1);
    let job = Box::new(Waiting {
        digest: digest::digest(&digest::SHA256, message),
        deadline: Instant::now() + limit,
        reply,
    });
    if key.token().unwrap().submit(job).is_err() {
        return Err(TokenFailure::Busy);
    }
    answer.recv_timeout(limit + PATIENCE).unwrap()
}

struct Waiting {
    digest: digest::Digest,
    deadline: Instant,
    reply: std::sync::mpsc::SyncSender<Result<Vec<u8>, TokenFailure>>,
}

impl TokenJob for Waiting {
    fn operation(&self) -> Operation {
        Operation::EcdsaSign(Hash::Sha256)
    }

    fn input(&self) -> &[u8] {
        self.digest.as_ref()
    }

    fn deadline(&self) -> Instant {
        self.deadline
    }

    fn finish(self: Box<Self>, outcome: Result<&[u8], TokenFailure>, _: Duration) {
        self.reply.send(outcome.map(<[u8]>::to_vec)).unwrap();
    }
}
