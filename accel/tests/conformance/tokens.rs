//! The test keys once more, in a token of SoftHSM: the suite runs over the twins there.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use accel::Key;
use accel::pkcs11::{Blocking, SlotChoice, SlotSettings, TokenKeySpec, Tokens};
use pkcs11_shim::SoftHsm;

/// Of each kind and size. `softhsm2-util` reads PKCS#8 only; the others are converted.
const NAMES: [&str; 17] = [
    "rsa2048.pkcs8.pem",
    "rsa2048-b.pkcs8.pem",
    "rsa2048-uneven.pkcs1.pem",
    "rsa2052.pkcs1.pem",
    "rsa2304.pkcs8.pem",
    "rsa3072.pkcs8.pem",
    "rsa3072-b.pkcs8.pem",
    "rsa4096.pkcs8.pem",
    "rsa4096-b.pkcs8.pem",
    "rsa8192.pkcs8.pem",
    "bad/exponent-3.pem",
    "p256.pkcs8.pem",
    "p256-b.pkcs8.pem",
    "p384.pkcs8.pem",
    "p384-b.pkcs8.pem",
    "p521.pkcs8.pem",
    "ed25519.pkcs8.pem",
];

/// What stays open until the process ends.
struct World {
    _hsm: SoftHsm,
    _tokens: Tokens,
    keys: Vec<Key>,
}

/// The backend over tokens; `None`, after saying so, on a machine without SoftHSM.
pub(crate) fn backend() -> Option<Blocking> {
    static WORLD: OnceLock<Option<World>> = OnceLock::new();
    let world = WORLD.get_or_init(open).as_ref()?;
    Some(Blocking::new(&world.keys))
}

fn open() -> Option<World> {
    let hsm = SoftHsm::new(&["twins"])?;
    let shim = hsm.shim("twins", false);
    for (number, name) in NAMES.iter().enumerate() {
        let id = format!("{:02x}", number + 1);
        hsm.import("twins", &label(name), &id, &as_pkcs8(&hsm, name));
    }
    let tokens = Tokens::new(SlotSettings {
        sessions: 2,
        // The module's threads are not in a call when the process ends, with what SoftHSM keeps.
        keepalive: Duration::from_secs(3600),
        ..SlotSettings::default()
    });
    let load = |name: &&str| {
        let uri = hsm.uri("twins", &label(name), &shim.module);
        let spec = TokenKeySpec {
            label: label(name),
            uris: vec![uri.parse().unwrap()],
            choice: SlotChoice::Ordered,
            pin: None,
            expected_spki: None,
        };
        tokens.load_key(&spec).unwrap()
    };
    let keys = NAMES.iter().map(load).collect();
    Some(World {
        keys,
        _hsm: hsm,
        _tokens: tokens,
    })
}

fn label(name: &str) -> String {
    name.replace(['/', '.'], "-")
}

fn as_pkcs8(hsm: &SoftHsm, name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/keys")
        .join(name);
    if name.contains(".pkcs8.") {
        return path;
    }
    let converted = hsm.folder().join(label(name));
    let mut openssl = Command::new("openssl");
    openssl
        .args(["pkcs8", "-topk8", "-nocrypt", "-in"])
        .arg(path);
    let status = openssl.arg("-out").arg(&converted).status().unwrap();
    assert!(status.success(), "{name}");
    converted
}

/// The suite is worth something over tokens only if they take the rows.
#[test]
fn tokens_take_every_operation_of_their_keys() {
    use accel::{Backend, Hash, Operation};

    let Some(backend) = backend() else { return };
    for name in NAMES {
        let key = super::key(name);
        for operation in [
            Operation::RsaPkcs1Sign(Hash::Sha256),
            Operation::RsaPssSign(Hash::Sha256),
            Operation::RsaPrivate,
            Operation::EcdsaSign(Hash::Sha256),
            Operation::Ed25519Sign,
        ] {
            let fits = key.supports(operation);
            assert_eq!(
                backend.accepts(&key, operation),
                fits,
                "{name} {operation:?}"
            );
        }
    }
}
