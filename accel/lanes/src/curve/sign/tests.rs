//! Published signatures, useless nonces, wrong lengths.

use super::*;

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks_exact(2);
    digits
        .map(|pair| u8::from_str_radix(core::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// A known nonce as a wide one.
fn wide(nonce: &[u8]) -> [u8; NONCE_LEN] {
    let mut wide = [0; NONCE_LEN];
    wide[NONCE_LEN - nonce.len()..].copy_from_slice(nonce);
    wide
}

/// The leftmost `len` bytes, or zeros and all of it.
fn leftmost(digest: &[u8], len: usize) -> Vec<u8> {
    let taken = &digest[..digest.len().min(len)];
    let mut result = vec![0; len - taken.len()];
    result.extend_from_slice(taken);
    result
}

/// `[digest, key, nonce, r, s]` of one curve.
fn vectors(curve: &str) -> Vec<[Vec<u8>; 5]> {
    include_str!("../vectors/rfc6979.txt")
        .lines()
        .filter_map(|line| line.strip_prefix(curve))
        .map(|line| {
            let fields: Vec<_> = line.split_whitespace().map(bytes).collect();
            fields.try_into().unwrap()
        })
        .collect()
}

/// Signs with each vector in every fill from 1 to 8, vectors changing from lane to lane.
fn check_vectors<const B: usize>(
    vectors: &[[Vec<u8>; 5]],
    sign: impl Fn(Path, &[Request<'_>]) -> [Result<Signature<B>, SignError>; LANES],
    prepare: impl Fn(Path, &[[u8; NONCE_LEN]; LANES], &mut [Prepared; LANES]),
    sign_prepared: impl Fn(Path, &[PreparedRequest<'_>]) -> [Result<Signature<B>, SignError>; LANES],
) {
    assert_eq!(vectors.len(), 10);
    for path in Path::all() {
        for fill in 1..=LANES {
            for start in 0..vectors.len() {
                let chosen: Vec<_> = (0..fill)
                    .map(|i| &vectors[(start + i) % vectors.len()])
                    .collect();
                let digests: Vec<_> = chosen.iter().map(|v| leftmost(&v[0], B)).collect();
                let nonces: Vec<_> = chosen.iter().map(|v| wide(&v[2])).collect();
                let requests: Vec<_> = chosen
                    .iter()
                    .zip(digests.iter().zip(&nonces))
                    .map(|(v, (digest, nonce))| Request {
                        key: &v[1],
                        digest,
                        nonce,
                    })
                    .collect();
                let mut wide = [[0; NONCE_LEN]; LANES];
                wide[..fill].copy_from_slice(&nonces);
                let mut prepared = [Prepared::EMPTY; LANES];
                prepare(path, &wide, &mut prepared);
                let later: Vec<_> = requests
                    .iter()
                    .zip(&prepared)
                    .map(|(request, nonce)| PreparedRequest {
                        key: request.key,
                        digest: request.digest,
                        nonce,
                    })
                    .collect();
                let signatures = sign(path, &requests);
                assert_eq!(sign_prepared(path, &later), signatures, "{}", path.name());
                for (lane, signature) in signatures.iter().enumerate() {
                    let expected = chosen.get(lane).map_or(Err(SignError::Length), |v| {
                        Ok(Signature {
                            r: v[3].as_slice().try_into().unwrap(),
                            s: v[4].as_slice().try_into().unwrap(),
                        })
                    });
                    assert_eq!(*signature, expected, "{} fill {fill}", path.name());
                }
            }
        }
        eprintln!(
            "fixed nonces give the published signatures on {}",
            path.name()
        );
    }
}

#[test]
fn p256_gives_the_published_signatures() {
    check_vectors::<32>(
        &vectors("p256 "),
        sign_p256,
        prepare_p256,
        sign_prepared_p256,
    );
}

#[test]
fn p384_gives_the_published_signatures() {
    check_vectors::<48>(
        &vectors("p384 "),
        sign_p384,
        prepare_p384,
        sign_prepared_p384,
    );
}

/// Zero and the order make no pair, and what would be signed with an empty one is refused.
#[test]
fn an_empty_pair_signs_nothing() {
    let vector = &vectors("p256 ")[2];
    let digest = leftmost(&vector[0], 32);
    let order = bytes("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551");
    for path in Path::all() {
        let mut nonces = [wide(&vector[2]); LANES];
        nonces[3] = wide(&order);
        nonces[6] = [0; NONCE_LEN];
        let mut prepared = [Prepared::EMPTY; LANES];
        prepare_p256(path, &nonces, &mut prepared);
        for (lane, nonce) in prepared.iter().enumerate() {
            let useless = lane == 3 || lane == 6;
            assert_eq!(*nonce == Prepared::EMPTY, useless);
            let request = PreparedRequest {
                key: &vector[1],
                digest: &digest,
                nonce,
            };
            let [signature, ..] = sign_prepared_p256(path, &[request]);
            assert_eq!(signature.is_err(), useless, "{}", path.name());
            assert!(!useless || signature == Err(SignError::Nonce));
        }
    }
}

#[test]
fn a_useless_nonce_fails_alone() {
    let vector = &vectors("p256 ")[2];
    let digest = leftmost(&vector[0], 32);
    let good = wide(&vector[2]);
    let order = bytes("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551");
    // Zero, the order, and the order times 2^256.
    let mut shifted = [0; NONCE_LEN];
    shifted[..32].copy_from_slice(&order);
    for path in Path::all() {
        for bad in [[0; NONCE_LEN], wide(&order), shifted] {
            let nonces = [&good, &bad, &good, &good, &bad, &good, &good, &good];
            let requests = nonces.map(|nonce| Request {
                key: &vector[1],
                digest: &digest,
                nonce,
            });
            let signatures = sign_p256(path, &requests);
            for (lane, signature) in signatures.iter().enumerate() {
                match lane {
                    1 | 4 => assert_eq!(*signature, Err(SignError::Nonce)),
                    _ => assert_eq!(signature.unwrap().r.as_slice(), vector[3]),
                }
            }
        }
    }
}

#[test]
fn zero_s_is_refused() {
    // With r = x(G) and k = 1: s = e + r d = 0 for e = n - r d; with d = 1, e = n - r.
    let r = bytes("6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296");
    let e = bytes("94e82e0c1ed3bdb90743191a9c5bbf0d45e37d2c792c6ae3ff18917d23ca62bb");
    let mut key = [0; 32];
    key[31] = 1;
    let nonce = wide(&key);
    for path in Path::all() {
        let request = Request {
            key: &key,
            digest: &e,
            nonce: &nonce,
        };
        assert_eq!(sign_p256(path, &[request])[0], Err(SignError::Nonce));
        let request = Request {
            digest: &r,
            ..request
        };
        let signature = sign_p256(path, &[request])[0].unwrap();
        assert_eq!(signature.r.as_slice(), r);
    }
}

#[test]
fn a_wide_nonce_is_taken_modulo_the_order() {
    let vector = &vectors("p256 ")[4];
    let digest = leftmost(&vector[0], 32);
    // k + 0xffff_ffff * n, which is wider than the order.
    let mut sum = [0u64; 16];
    let order = bytes("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551");
    let word = |bytes: &[u8], i: usize| {
        bytes.rchunks(4).nth(i).map_or(0, |chunk| {
            u64::from(u32::from_be_bytes(chunk.try_into().unwrap()))
        })
    };
    let mut carry = 0;
    for (i, digit) in sum.iter_mut().enumerate() {
        let total = word(&vector[2], i) + word(&order, i) * 0xffff_ffff + carry;
        *digit = total & 0xffff_ffff;
        carry = total >> 32;
    }
    let mut nonce = [0; NONCE_LEN];
    for (chunk, digit) in nonce.rchunks_mut(4).zip(sum) {
        chunk.copy_from_slice(&u32::try_from(digit).unwrap().to_be_bytes());
    }
    for path in Path::all() {
        let request = Request {
            key: &vector[1],
            digest: &digest,
            nonce: &nonce,
        };
        let signature = sign_p256(path, &[request])[0].unwrap();
        assert_eq!(signature.r.as_slice(), vector[3]);
        assert_eq!(signature.s.as_slice(), vector[4]);
    }
}

#[test]
fn wrong_lengths_are_refused() {
    let nonce = [1; NONCE_LEN];
    let long = [1; 48];
    let requests = [
        Request {
            key: &long[..32],
            digest: &long[..32],
            nonce: &nonce,
        },
        Request {
            key: &long[..31],
            digest: &long[..32],
            nonce: &nonce,
        },
        Request {
            key: &long[..32],
            digest: &long[..33],
            nonce: &nonce,
        },
        Request {
            key: &long,
            digest: &long,
            nonce: &nonce,
        },
    ];
    for path in Path::all() {
        let [a, b, c, d, ..] = sign_p256(path, &requests);
        assert_eq!(a.map(drop), Ok(()));
        assert_eq!([b, c, d], [Err(SignError::Length); 3]);
        let [a, b, c, d, ..] = sign_p384(path, &requests);
        assert_eq!([a, b, c], [Err(SignError::Length); 3]);
        assert_eq!(d.map(drop), Ok(()));
    }
}
