//! What must hold for any keys, digests and nonces: every path gives the same signatures and the same refusals, and a
//! refused nonce does not disturb its neighbours. Included by the fuzz target `lanes_ec` and by the test that replays
//! its corpus.

use accel_lanes::curve::{NONCE_LEN, Request, SignError, Signature, sign_p256, sign_p384};
use accel_lanes::{LANES, Path};

/// Bytes of a scalar on the longer curve.
const LONG: usize = 48;
/// Bytes of a scalar on the shorter curve.
const SHORT: usize = 32;
/// Bytes of one lane: a key, a digest and a nonce.
const LANE: usize = 2 * LONG + NONCE_LEN;

type Signatures<const B: usize> = [Result<Signature<B>, SignError>; LANES];

/// Cuts the bytes into up to eight lanes (the last one filled with zeros) and signs them all, then each alone.
pub(crate) fn lanes_ec(data: &[u8]) {
    let lanes: Vec<[u8; LANE]> = data
        .chunks(LANE)
        .take(LANES)
        .map(|chunk| {
            let mut lane = [0; LANE];
            lane.iter_mut()
                .zip(chunk)
                .for_each(|(to, from)| *to = *from);
            lane
        })
        .collect();
    agree(&lanes, SHORT, sign_p256);
    agree(&lanes, LONG, sign_p384);
}

fn agree<const B: usize>(
    lanes: &[[u8; LANE]],
    len: usize,
    sign: impl Fn(Path, &[Request<'_>]) -> Signatures<B>,
) {
    // Keys below the order: the callers of the kernels refuse others when they load them.
    let keys: Vec<Vec<u8>> = lanes
        .iter()
        .map(|lane| {
            let mut key = lane[..len].to_vec();
            key[0] &= 0x7f;
            key
        })
        .collect();
    let requests: Vec<Request<'_>> = lanes
        .iter()
        .zip(&keys)
        .map(|(lane, key)| Request {
            key,
            digest: &lane[LONG..LONG + len],
            nonce: lane.last_chunk().expect("a lane ends with its nonce"),
        })
        .collect();
    let expected = sign(Path::portable(), &requests);
    for path in Path::all() {
        assert_eq!(sign(path, &requests), expected, "{}", path.name());
        for (request, expected) in requests.iter().zip(&expected) {
            let [alone, ..] = sign(path, &[*request]);
            assert_eq!(alone, *expected, "{} alone", path.name());
        }
    }
    for signature in expected.iter().take(requests.len()) {
        match signature {
            Ok(signature) => assert!(signature.r != [0; B] && signature.s != [0; B]),
            Err(error) => assert_eq!(*error, SignError::Nonce),
        }
    }
}
