use aws_lc_rs::cipher::{AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::{hmac, tls_prf};

use super::*;

const K: usize = 256;

fn substitutes() -> Substitutes {
    let mut secret = [0x11; K];
    secret[0] = 0;
    Substitutes::new(&secret)
}

/// A block `00 02 PS 00 secret` with a filler of `fill`.
fn block(secret: &[u8; SECRET_LEN], fill: u8) -> Vec<u8> {
    let mut block = vec![fill; K];
    block[..2].copy_from_slice(&[0, 2]);
    block[K - SECRET_LEN - 1] = 0;
    block[K - SECRET_LEN..].copy_from_slice(secret);
    block
}

fn answer(exchange: KeyExchange, ciphertext: &[u8], block: &[u8]) -> Vec<u8> {
    let mut output = block.to_vec();
    exchange
        .answer_with(&substitutes(), ciphertext, &mut output)
        .expect("memory");
    output
}

const PREMASTER: KeyExchange = KeyExchange::Premaster {
    client_version: [3, 3],
};

/// Ways to spoil a block, one for each thing an attacker has varied in the literature.
fn spoilt(secret: &[u8; SECRET_LEN]) -> Vec<(&'static str, Vec<u8>)> {
    let changed = |position: usize, value: u8| {
        let mut block = block(secret, 0x77);
        block[position] = value;
        block
    };
    vec![
        ("leading byte", changed(0, 1)),
        ("block type of a signature", changed(1, 1)),
        ("first byte of the filler", changed(2, 0)),
        ("filler shorter than eight bytes", changed(9, 0)),
        ("separator too early", changed(K - SECRET_LEN - 2, 0)),
        ("no separator", changed(K - SECRET_LEN - 1, 7)),
        ("nothing of it", vec![0; K]),
        ("all ones", vec![0xff; K]),
    ]
}

#[test]
fn a_good_block_gives_its_secret_with_the_version_overwritten() {
    let mut secret = [0x42; SECRET_LEN];
    // A wrong version inside is nobody's business.
    for version in [[3, 3], [3, 1], [0, 0]] {
        secret[..2].copy_from_slice(&version);
        let got = answer(PREMASTER, b"c", &block(&secret, 1));
        assert_eq!(got[..2], [3, 3]);
        assert_eq!(got[2..], secret[2..]);
    }
}

#[test]
fn a_bad_block_gives_the_substitute_of_its_ciphertext_and_key_alone() {
    let secret = [0x42; SECRET_LEN];
    let mut seen = std::collections::BTreeSet::new();
    for ciphertext in [&b"one"[..], b"two"] {
        let answers: std::collections::BTreeSet<_> = spoilt(&secret)
            .into_iter()
            .map(|(what, block)| {
                let got = answer(PREMASTER, ciphertext, &block);
                assert_eq!(got.len(), SECRET_LEN, "{what}");
                assert_ne!(got[2..], secret[2..], "{what}");
                got
            })
            .collect();
        assert_eq!(answers.len(), 1, "every way to be wrong has one answer");
        seen.extend(answers);
    }
    assert_eq!(seen.len(), 2, "another ciphertext has another");
}

/// For `rsa2048-uneven`, computed from its numbers with hashlib of Python.
const UNEVEN_SUBSTITUTE: &str =
    "6989ba2982ebeed497086a30d4c2e31ae7b7b9cf17ba0dd9de8ad805ef5e7f399f3de07a6868ae505aeeed770dc8";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// For the key of these tests and this ciphertext, made by Python's `hashlib` and `hmac` and `openssl enc -aes-256-ctr`.
const PREMASTER_SUBSTITUTE: &str = "0000d93afc2b7406ddd59956d6d22d5941021b92ff992a0d638355e06ae88fe4\
    269ce932a553a0f94917de4efc2f82d6";
const BLOCK_SUBSTITUTE: &str = "\
    8cdf0821ce5f624e52177b2c9a4784c78dda08b6db0c55141773673c4a81d1a859d506e8c2f5df9e926f402def359bba\
    71efb9593b46d9e24425dbe049cdc39c14dc141989ab9685fdb8a60c4124ebbf8df43330cf384223752171548ed2793f\
    b6eeea8cf08f7e602010d3a53205891707011ab540e4334e5c7f713bfa9a0a93f097813c55dc2df5b61bf3b2bcb2885d\
    a969548f75b92064c55ad88877ccd8435706d1009760a4d95895f5ede2349d2fab6304b58d3039919f0e14072ac6bc20\
    e0980668833caf2dd7f7176df008b026e7eed116cb454c61aa574b31b74050409d7a1d4a2f7795aeca9d5da0873c6119\
    cad73e58fc0eaa44dca0a4e7c69b0744";
/// SHA-256 of what a token opens in place of its exponent.
const CHALLENGE: &str = "8ef1624cea11d2e34fb11efd3719bf429921f411128fd656ac0a03004dc3c499";

/// These values are a contract between all servers that hold a key, of whatever version: where two of them answer a bad
/// block with different substitutes, and a good one alike, asking both is a padding oracle. A change of the derivation
/// breaks every fleet in which the old and the new version serve one key, so it needs a form of its own.
#[test]
fn the_substitutes_are_those_of_every_version() {
    let substitutes = substitutes();
    let premaster = substitutes.premaster(b"ciphertext");
    assert_eq!(hex(&premaster[..]), PREMASTER_SUBSTITUTE);
    let mut block = [0; K];
    substitutes
        .block(b"ciphertext", &mut block)
        .expect("a block");
    assert_eq!(hex(&block), BLOCK_SUBSTITUTE);
    let challenge = challenge(b"public key", K);
    let sum = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &challenge);
    assert_eq!(hex(sum.as_ref()), CHALLENGE);
}

/// Two servers that have one key in two forms are an oracle together if their substitutes differ.
#[test]
fn the_substitutes_do_not_depend_on_how_the_key_is_written() {
    let of_a_file = |pem: &[u8]| {
        let key = Key::from_bytes(pem).expect("a key");
        let substitutes = key.substitutes().expect("an RSA key");
        hex(&substitutes.premaster(b"ciphertext")[2..])
    };
    let one = of_a_file(include_bytes!("../../tests/keys/rsa2048-uneven.pkcs1.pem"));
    let other = of_a_file(include_bytes!(
        "../../tests/keys/rsa2048-uneven-otherwise.pkcs1.pem"
    ));
    assert_eq!([one.as_str(), other.as_str()], [UNEVEN_SUBSTITUTE; 2]);
    // And it does on the key.
    let another = of_a_file(include_bytes!("../../tests/keys/rsa2048.pkcs1.pem"));
    assert_ne!(one, another);
}

/// What depends on the ciphertext, written down once more from its definition.
fn code(text: &[u8]) -> hmac::Tag {
    let padded: Vec<u8> = std::iter::once(0).chain([0x11; K - 1]).collect();
    let d = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &padded);
    let kdk = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, d.as_ref()), b"kdk1");
    let key = hmac::Key::new(hmac::HMAC_SHA384, kdk.as_ref());
    hmac::sign(&key, text)
}

#[test]
fn the_substitute_is_the_documented_one() {
    let got = answer(PREMASTER, b"ciphertext", &[0; K]);
    assert_eq!(got[2..], code(b"pmsciphertext").as_ref()[..46]);
}

/// The stream of it block by block, so that counter mode is what it says.
#[test]
fn the_substitute_for_a_block_is_the_documented_one() {
    let code = code(b"blockciphertext");
    let (key, start) = code.as_ref().split_at(32);
    let start = u128::from_be_bytes(start.try_into().expect("sixteen bytes"));
    let mut stream = Vec::new();
    for number in 0..(K / 16) as u128 {
        let key = UnboundCipherKey::new(&AES_256, key).expect("a key");
        let key = EncryptingKey::ecb(key).expect("a key");
        let mut counter = start.wrapping_add(number).to_be_bytes();
        key.less_safe_encrypt(&mut counter, EncryptionContext::None)
            .expect("a block");
        stream.extend_from_slice(&counter);
    }
    let got = answer(KeyExchange::Compatible, b"ciphertext", &[0; K]);
    assert_eq!(got[..2], [0, 2]);
    for (got, of_stream) in got[2..K - 49].iter().zip(&stream[2..]) {
        assert_eq!(*got, (*of_stream).max(1));
    }
    assert_eq!(got[K - 49], 0);
    assert_eq!(got[K - 48..], stream[K - 48..]);
}

#[test]
fn the_compatible_answer_is_well_formed_whatever_came() {
    let secret = [0x42; SECRET_LEN];
    let mut blocks = spoilt(&secret);
    blocks.push(("good", block(&secret, 0x77)));
    blocks.push(("good, another filler", block(&secret, 0x78)));
    for (what, original) in &blocks {
        let got = answer(KeyExchange::Compatible, b"c", original);
        assert_eq!(got.len(), K);
        assert_eq!(got[..2], [0, 2], "{what}");
        assert!(got[2..K - 49].iter().all(|byte| *byte != 0), "{what}");
        assert_eq!(got[K - 49], 0, "{what}");
        assert_eq!(got[K - 48..] == secret, what.starts_with("good"), "{what}");
        // The padding is a function of the ciphertext: it tells nothing of the true one.
        let other = answer(KeyExchange::Compatible, b"c", &blocks[0].1);
        assert_eq!(got[..K - 48], other[..K - 48], "{what}");
    }
}

/// The secret inside the block is kept whole: stock edges compare its version by themselves.
#[test]
fn the_compatible_answer_keeps_the_version_inside() {
    let mut secret = [0x42; SECRET_LEN];
    secret[..2].copy_from_slice(&[3, 0]);
    let got = answer(KeyExchange::Compatible, b"c", &block(&secret, 9));
    assert_eq!(got[K - 48..], secret);
}

#[test]
fn the_master_secret_is_that_of_the_standard() {
    let mut secret = [0x42; SECRET_LEN];
    secret[..2].copy_from_slice(&[3, 3]);
    let cases: [(_, _, _, &[u8], _); 3] = [
        (
            Seed::Randoms([5; 64]),
            Prf::Sha256,
            &tls_prf::P_SHA256,
            b"master secret",
            vec![5; 64],
        ),
        (
            Seed::SessionHash256([6; 32]),
            Prf::Sha256,
            &tls_prf::P_SHA256,
            b"extended master secret",
            vec![6; 32],
        ),
        (
            Seed::SessionHash384([7; 48]),
            Prf::Sha384,
            &tls_prf::P_SHA384,
            b"extended master secret",
            vec![7; 48],
        ),
    ];
    for (seed, prf, algorithm, label, bytes) in cases {
        let exchange = KeyExchange::Master {
            client_version: [3, 3],
            prf,
            seed,
        };
        let got = answer(exchange, b"c", &block(&secret, 1));
        // P_hash by hand: A(1) = HMAC(secret, label || seed), out = HMAC(secret, A(1) || label || seed) ..
        let hash = match prf {
            Prf::Sha256 => hmac::HMAC_SHA256,
            Prf::Sha384 => hmac::HMAC_SHA384,
        };
        let key = hmac::Key::new(hash, &secret);
        let text = [label, &bytes].concat();
        let mut a = hmac::sign(&key, &text);
        let mut expected = Vec::new();
        while expected.len() < 48 {
            expected.extend_from_slice(hmac::sign(&key, &[a.as_ref(), &text].concat()).as_ref());
            a = hmac::sign(&key, a.as_ref());
        }
        assert_eq!(got, expected[..48]);
        let library = tls_prf::Secret::new(algorithm, &secret).expect("secret");
        let library = library.derive(label, &bytes, 48).expect("derive");
        assert_eq!(got, library.as_ref());
    }
}

#[test]
fn a_block_too_short_for_any_key_is_an_error_and_wiped() {
    for exchange in [PREMASTER, KeyExchange::Compatible] {
        let mut output = vec![7; 20];
        let error = exchange.answer_with(&substitutes(), b"c", &mut output);
        assert_eq!(error, Err(JobError::Failed));
        assert!(output.is_empty());
    }
}
