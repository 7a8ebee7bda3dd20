//! RSA key exchange through each of the three clients: secrets that come out as the RFCs derive them, once.

use aws_lc_rs::hmac;
use aws_lc_rs::rsa::{Pkcs1PublicEncryptingKey, PublicEncryptingKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyserver_client::{
    Client, Error, ErrorCode, KeyId, MasterRequest, MasterSeed, Pool, PrfHash, blocking,
};
use keyserver_tests::{ClientRule, KeyKind, ServerConfig};

use crate::{World, on_both_backends};

on_both_backends!(every_client_opens_a_key_exchange_once);

/// What TLS 1.2 derives (RFC 5246, section 5), by hand.
fn prf(algorithm: hmac::Algorithm, secret: &[u8], label: &[u8], seed: &[u8]) -> Vec<u8> {
    let key = hmac::Key::new(algorithm, secret);
    let seed = [label, seed].concat();
    let (mut a, mut out) = (seed.clone(), Vec::new());
    while out.len() < 48 {
        a = hmac::sign(&key, &a).as_ref().to_vec();
        out.extend_from_slice(hmac::sign(&key, &[&a[..], &seed].concat()).as_ref());
    }
    out.truncate(48);
    out
}

/// A premaster secret that no other call of the test uses, and its ciphertext.
fn encrypted(public: &Pkcs1PublicEncryptingKey, number: u8) -> ([u8; 48], Vec<u8>) {
    let mut secret = [number; 48];
    secret[..2].copy_from_slice(&[3, 3]);
    let mut ciphertext = vec![0; 256];
    public.encrypt(&secret, &mut ciphertext).unwrap();
    (secret, ciphertext)
}

/// The three clients, for the same questions.
struct Clients {
    one: Client,
    pool: Pool,
    blocking: blocking::Client,
}

impl Clients {
    async fn of(world: &World) -> Self {
        let address = world.server.address().to_string();
        let patience = std::time::Duration::from_secs(60);
        let pool = Pool::builder("localhost", world.identity())
            .server(&address)
            .deadline(patience);
        let blocking = blocking::Client::builder("localhost", world.identity())
            .server(&address)
            .deadline(patience);
        Self {
            one: world.client().await,
            pool: pool.connect().await.unwrap(),
            blocking: blocking.build().unwrap(),
        }
    }

    async fn master(
        &self,
        key: &KeyId,
        request: &MasterRequest<'_>,
        which: usize,
    ) -> Result<Vec<u8>, Error> {
        match which {
            0 => self.one.tls12_master(key, request).await,
            1 => self.pool.tls12_master(key, request).await,
            _ => tokio::task::block_in_place(|| self.blocking.tls12_master(key, request)),
        }
        .map(|secret| secret.to_vec())
    }

    async fn premaster(
        &self,
        key: &KeyId,
        ciphertext: &[u8],
        which: usize,
    ) -> Result<Vec<u8>, Error> {
        let version = [3, 3];
        match which {
            0 => self.one.decrypt_premaster(key, version, ciphertext).await,
            1 => self.pool.decrypt_premaster(key, version, ciphertext).await,
            _ => tokio::task::block_in_place(|| {
                self.blocking.decrypt_premaster(key, version, ciphertext)
            }),
        }
        .map(|secret| secret.to_vec())
    }
}

async fn every_client_opens_a_key_exchange_once(backend: &str) {
    let config = ServerConfig {
        clients: vec![ClientRule::new(
            "edge-1",
            &["tls12-master", "decrypt-premaster"],
        )],
        extra: "[ledger]\ndirectory = \"ledger\"\n".into(),
        ..ServerConfig::default().io_backend(backend)
    };
    let world = World::with_config(&[KeyKind::Rsa2048], &config);
    let clients = Clients::of(&world).await;
    let entry = &clients.one.keys().await.unwrap()[0];
    let key = KeyId::try_from(entry).unwrap();
    let spki = STANDARD.decode(&entry.spki).unwrap();
    let public = PublicEncryptingKey::from_der(&spki).unwrap();
    let public = Pkcs1PublicEncryptingKey::new(public).unwrap();
    let mut number = 10;
    let mut next = || {
        number += 1;
        encrypted(&public, number)
    };
    for which in 0..3 {
        master_secrets(&clients, &key, which, &mut next).await;
        premaster_secrets(&clients, &key, which, next()).await;
    }
}

/// With both hashes and both kinds of seed.
async fn master_secrets(
    clients: &Clients,
    key: &KeyId,
    which: usize,
    next: &mut impl FnMut() -> ([u8; 48], Vec<u8>),
) {
    let (short, long, randoms) = ([1; 32], [2; 48], [3; 64]);
    let extended = "extended master secret";
    for (hash, seed, label, bytes) in [
        (
            PrfHash::Sha256,
            MasterSeed::Randoms(&randoms),
            "master secret",
            &randoms[..],
        ),
        (
            PrfHash::Sha256,
            MasterSeed::SessionHash(&short),
            extended,
            &short,
        ),
        (
            PrfHash::Sha384,
            MasterSeed::SessionHash(&long),
            extended,
            &long,
        ),
    ] {
        let (secret, ciphertext) = next();
        let request = MasterRequest {
            client_version: [3, 3],
            prf: hash,
            seed,
            ciphertext: &ciphertext,
        };
        let algorithm = match hash {
            PrfHash::Sha256 => hmac::HMAC_SHA256,
            PrfHash::Sha384 => hmac::HMAC_SHA384,
        };
        let master = clients.master(key, &request, which).await.unwrap();
        assert_eq!(
            master,
            prf(algorithm, &secret, label.as_bytes(), bytes),
            "{which}"
        );
        // The same ciphertext for another handshake: a recording.
        let replay = MasterRequest {
            seed: MasterSeed::Randoms(&[9; 64]),
            ..request
        };
        let refused = clients.master(key, &replay, which).await.unwrap_err();
        assert!(
            matches!(refused, Error::Refused(ErrorCode::Denied)),
            "{refused}"
        );
    }
}

async fn premaster_secrets(
    clients: &Clients,
    key: &KeyId,
    which: usize,
    fresh: ([u8; 48], Vec<u8>),
) {
    let (secret, ciphertext) = fresh;
    let opened = clients.premaster(key, &ciphertext, which).await.unwrap();
    assert_eq!(opened, secret, "{which}");
    // What conforms to nothing is answered as well, with something that nobody can tell from a secret.
    let nonsense = [u8::try_from(which + 1).unwrap(); 256];
    let odd = clients.premaster(key, &nonsense, which).await.unwrap();
    assert_eq!((odd.len(), &odd[..2]), (48, &[3, 3][..]), "{which}");
    let cut = clients
        .premaster(key, &ciphertext[1..], which)
        .await
        .unwrap_err();
    assert!(matches!(cut, Error::Refused(_)), "{cut}");
}
