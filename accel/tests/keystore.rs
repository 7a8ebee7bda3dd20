//! Key files and the rules for taking them: each refusal names the file, the fault and the fix.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests: a failure ends the test"
)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use accel::{
    KeyFileError, KeyIndex, KeyTable, LoadRules, WARMED_AT_ONCE, load_directory, load_file,
};
use tempfile::TempDir;

fn fixture(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys")).join(name)
}

/// A directory of key files with the permissions a key file should have.
struct Store(TempDir);

impl Store {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        self.set_mode(name, 0o600);
        path
    }

    fn add(&self, name: &str, from: &str) -> PathBuf {
        self.write(name, &fs::read(fixture(from)).unwrap())
    }

    fn set_mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }
}

/// The error's text must name the file and hold these words.
fn expect_error<T>(result: Result<T, KeyFileError>, path: &Path, words: &[&str]) {
    let error = result
        .err()
        .unwrap_or_else(|| panic!("{} was taken", path.display()));
    let text = error.to_string();
    assert!(text.contains(&*path.to_string_lossy()), "{text}");
    for word in words {
        assert!(text.contains(word), "no `{word}` in: {text}");
    }
}

fn load(path: &Path) -> Result<accel::LoadedKey, KeyFileError> {
    load_file(path, &LoadRules::default())
}

#[test]
fn a_good_file_is_loaded_under_its_stem() {
    let store = Store::new();
    let path = store.add("shop.example.key", "p256.sec1.pem");
    let loaded = load(&path).unwrap();
    assert_eq!(loaded.label, "shop.example");
    assert_eq!(loaded.path, path);
    assert_eq!(loaded.key.key_type().name(), "p-256");
}

#[test]
fn others_must_have_no_rights_to_the_file() {
    let store = Store::new();
    let path = store.add("a.key", "p256.pkcs8.pem");
    for mode in [0o640, 0o604, 0o620, 0o602, 0o660, 0o644] {
        store.set_mode("a.key", mode);
        expect_error(load(&path), &path, &[&format!("{mode:04o}"), "chmod 600"]);
    }
    for mode in [0o400, 0o600] {
        store.set_mode("a.key", mode);
        load(&path).unwrap();
    }
    store.set_mode("a.key", 0o644);
    let mut rules = LoadRules::default();
    rules.allow_weak_permissions.insert("b".into());
    assert!(load_file(&path, &rules).is_err(), "permission is by name");
    rules.allow_weak_permissions.insert("a".into());
    load_file(&path, &rules).unwrap();
}

#[test]
fn an_unusual_exponent_is_allowed_by_name() {
    let store = Store::new();
    let path = store.add("old.key", "bad/exponent-3.pem");
    expect_error(load(&path), &path, &["exponent is 3", "by name"]);
    let mut rules = LoadRules::default();
    rules.allow_exponents.insert("old".into());
    load_file(&path, &rules).unwrap();
}

#[test]
fn bad_content_names_the_file_and_the_fix() {
    let store = Store::new();
    for (from, words) in [
        ("bad/rsa1024.pem", &["1024 bits", "2048", "new key"][..]),
        ("bad/close-primes.pem", &["close", "revoke"]),
        ("bad/equal-primes.pem", &["same number", "revoke"]),
        ("bad/encrypted.pem", &["pass phrase", "openssl pkey"]),
        ("bad/two-keys.pem", &["2 private keys", "file of its own"]),
        ("bad/public-only.pem", &["no `PRIVATE KEY` block"]),
        ("bad/truncated.pem", &["cut short", "copy it again"]),
        ("bad/wrong-modulus.pem", &["do not belong together"]),
        (
            "bad/p256-other-public.pem",
            &["public key stored in it is not"],
        ),
        ("bad/secp256k1.pem", &["not supported", "P-256"]),
    ] {
        let path = store.add("bad.key", from);
        expect_error(load(&path), &path, words);
    }
    let path = store.write("bad.key", b"");
    expect_error(load(&path), &path, &["empty"]);
    let path = store.write("bad.key", &vec![b'x'; 70_000]);
    expect_error(load(&path), &path, &["70000 bytes", "limit"]);
}

#[test]
fn only_regular_files_are_read() {
    let store = Store::new();
    let missing = store.path("missing.key");
    expect_error(load(&missing), &missing, &["cannot be read"]);
    let directory = store.path("directory.key");
    fs::create_dir(&directory).unwrap();
    expect_error(load(&directory), &directory, &["not a regular file"]);
    expect_error(
        load(Path::new("/dev/zero")),
        Path::new("/dev/zero"),
        &["not a regular file"],
    );
    // A link to a file is how some systems mount secrets.
    let target = store.add("target", "p256.pkcs8.pem");
    let link = store.path("link.key");
    symlink(target, &link).unwrap();
    assert_eq!(load(&link).unwrap().label, "link");
}

#[test]
fn a_certificate_beside_the_key_must_match() {
    for (key, ending, certificate) in [
        ("rsa2048.pkcs8.pem", "crt", "rsa2048.crt"),
        ("rsa2048.pkcs1.der", "pem", "rsa2048.crt"),
        ("rsa2048.pkcs1.der", "cer", "rsa2048.crt.der"),
        ("p256.sec1.pem", "pem", "p256.crt"),
        ("p256-compressed.sec1.pem", "crt", "p256.crt"),
        ("ed25519.pkcs8.pem", "crt", "ed25519.crt"),
    ] {
        let store = Store::new();
        let path = store.add("site.key", key);
        let beside = store.add(&format!("site.{ending}"), certificate);
        load(&path).unwrap();
        let other = store.add("other.key", "p384.pkcs8.pem");
        fs::rename(&beside, store.path(&format!("other.{ending}"))).unwrap();
        expect_error(
            load(&other),
            &other,
            &[&format!("other.{ending}"), "for another key"],
        );
    }
}

#[test]
fn a_certificate_in_the_key_file_must_match() {
    let store = Store::new();
    let both = |key: &str, certificate: &str| {
        let mut content = fs::read(fixture(certificate)).unwrap();
        content.extend(fs::read(fixture(key)).unwrap());
        store.write("both.key", &content)
    };
    load(&both("p256.pkcs8.pem", "p256.crt")).unwrap();
    let path = both("p256.pkcs8.pem", "rsa2048.crt");
    expect_error(load(&path), &path, &["certificate", "for another key"]);
}

#[test]
fn an_unreadable_certificate_is_an_error_and_an_unrelated_file_is_not() {
    let store = Store::new();
    let path = store.add("site.key", "p256.pkcs8.pem");
    store.write(
        "site.pem",
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
    );
    load(&path).unwrap();
    for (name, content) in [
        ("site.crt", &b"nonsense"[..]),
        (
            "site.crt",
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ),
        ("site.pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n"),
    ] {
        let beside = store.write(name, content);
        expect_error(load(&path), &path, &[name, "cannot be read"]);
        fs::remove_file(beside).unwrap();
    }
}

#[test]
fn a_directory_is_loaded_in_name_order() {
    let store = Store::new();
    for name in ["b.key", "a.key", "c.key", "ignored.pem", "ignored.key.old"] {
        store.add(name, "p256.pkcs8.pem");
    }
    fs::create_dir(store.path("sub.key")).unwrap();
    let rules = LoadRules::default();
    let keys = load_directory(store.0.path(), &rules).unwrap();
    let labels: Vec<_> = keys.iter().map(|loaded| loaded.label.as_str()).collect();
    assert_eq!(labels, ["a", "b", "c"]);

    store.add("b.key", "bad/rsa1024.pem");
    store.add("c.key", "bad/rsa1024.pem");
    let first = store.path("b.key");
    expect_error(
        load_directory(store.0.path(), &rules),
        &first,
        &["1024 bits"],
    );
    let missing = store.path("missing");
    expect_error(
        load_directory(&missing, &rules),
        &missing,
        &["cannot be read"],
    );
}

#[test]
fn keys_are_found_by_both_identifiers() {
    let store = Store::new();
    store.add("a.key", "rsa2048.pkcs8.pem");
    store.add("b.key", "p256.pkcs8.pem");
    let keys = load_directory(store.0.path(), &LoadRules::default()).unwrap();
    let (rsa, p256) = (keys[0].key.clone(), keys[1].key.clone());
    let table = KeyTable::new(keys).unwrap();
    assert_eq!(table.len(), 2);
    let (index, found) = table.by_ski(&p256.ski()).unwrap();
    assert_eq!((index, found.ski()), (KeyIndex(1), p256.ski()));
    let (index, found) = table.by_digest(&rsa.modulus_digest().unwrap()).unwrap();
    assert_eq!((index, found.ski()), (KeyIndex(0), rsa.ski()));
    assert!(table.by_ski(&[0; 20]).is_none() && table.by_digest(&[0; 32]).is_none());
    // The same hash, and another identifier.
    let (mut ski, mut digest) = (p256.ski(), rsa.modulus_digest().unwrap());
    ski[19] ^= 1;
    digest[31] ^= 1;
    assert!(table.by_ski(&ski).is_none() && table.by_digest(&digest).is_none());
    let listed: Vec<_> = table
        .iter()
        .map(|(at, loaded)| (at.0, loaded.label.clone()))
        .collect();
    assert_eq!(listed, [(0, "a".into()), (1, "b".into())]);
    assert_eq!(table.get(KeyIndex(1)).unwrap().label, "b");
    assert!(table.get(KeyIndex(2)).is_none());
}

#[test]
fn keys_are_warmed_at_their_places() {
    let store = Store::new();
    store.add("a.key", "rsa2048.pkcs8.pem");
    store.add("b.key", "p256.pkcs8.pem");
    let keys = load_directory(store.0.path(), &LoadRules::default()).unwrap();
    let [rsa, p256] = [&keys[0], &keys[1]].map(|loaded| loaded.key.ski());
    let table = KeyTable::new(keys).unwrap();
    let warm = |skis: &[[u8; 20]]| table.warm(skis).map(|index| index.0).collect::<Vec<_>>();
    assert_eq!(warm(&[p256, rsa, p256]), [1, 0, 1]);
    // For a key that does not exist any other, always the same.
    let ghosts = [[0x11; 20], [0x5a; 20], [0xff; 20]];
    assert_eq!(warm(&ghosts).len(), ghosts.len());
    assert!(warm(&ghosts).iter().all(|place| *place < 2));
    assert_eq!(warm(&ghosts), warm(&ghosts));
    assert!(warm(&[]).is_empty());
    assert_eq!(warm(&[rsa; WARMED_AT_ONCE + 1]), [0; WARMED_AT_ONCE]);
    let empty = KeyTable::default();
    assert_eq!(empty.warm(&ghosts).count(), 0);
}

#[test]
fn a_table_adopts_the_objects_of_the_same_keys() {
    let store = Store::new();
    store.add("a.key", "rsa2048.pkcs8.pem");
    store.add("b.key", "p256.pkcs8.pem");
    let load = || {
        let keys = load_directory(store.0.path(), &LoadRules::default()).unwrap();
        KeyTable::new(keys).unwrap()
    };
    let key = |table: &KeyTable, at| table.get(KeyIndex(at)).unwrap().key.clone();
    let (old, mut new) = (load(), load());
    new.adopt(&old, |key| key.modulus_len().is_none());
    assert!(!Arc::ptr_eq(&key(&old, 0), &key(&new, 0)));
    assert!(Arc::ptr_eq(&key(&old, 1), &key(&new, 1)));
    new.adopt(&KeyTable::default(), |_| true);
    new.adopt(&old, |_| true);
    assert!(Arc::ptr_eq(&key(&old, 0), &key(&new, 0)));
}

#[test]
fn the_same_key_twice_names_both_files() {
    let store = Store::new();
    store.add("a.key", "rsa2048.pkcs8.pem");
    store.add("b.key", "rsa2048.pkcs1.der");
    let keys = load_directory(store.0.path(), &LoadRules::default()).unwrap();
    let error = KeyTable::new(keys);
    expect_error(
        error,
        &store.path("b.key"),
        &["a.key", "same key", "remove"],
    );
}
