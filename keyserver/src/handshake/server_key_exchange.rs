//! What a TLS 1.2 server signs in an ECDHE handshake (RFC 8422, section 5.4).
//!
//! ```text
//! client_random[32] || server_random[32] || 0x03 || named_curve[2] || length[1] || point
//! ```
//!
//! 100 bytes with X25519, 133 with P-256, 165 with P-384: `0x03` says that a named curve follows,
//! and these are the curves. A point must be one that a peer can use safely: on its curve, and on
//! X25519 not of low order, where the shared secret would be known to everybody.

use accel::PointCurve;

use super::Fault;
use super::foreign::is_signed_elsewhere;
use super::reader::Reader;

/// A curve of the key exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamedCurve {
    /// `secp256r1`, 23.
    P256,
    /// `secp384r1`, 24.
    P384,
    /// `x25519`, 29.
    X25519,
}

/// The last eight bytes of `server_random` when a server that speaks TLS 1.3 agrees to TLS 1.2
/// (RFC 8446, section 4.1.3). A client that speaks TLS 1.3 then knows that somebody meddled.
pub const DOWNGRADE_TO_TLS12: [u8; 8] = *b"DOWNGRD\x01";

/// The same for TLS 1.1 and older.
pub const DOWNGRADE_TO_TLS11: [u8; 8] = *b"DOWNGRD\x00";

/// `ECCurveType.named_curve`.
const NAMED_CURVE: u8 = 3;

/// Both randoms.
const RANDOMS: usize = 64;

/// The parameters of a key exchange with what precedes them, as they are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerKeyExchange {
    /// The curve of the server's point.
    pub curve: NamedCurve,
    /// Whether `server_random` ends in [`DOWNGRADE_TO_TLS12`].
    pub says_downgrade: bool,
}

impl ServerKeyExchange {
    /// Reads a string to be signed.
    ///
    /// # Errors
    ///
    /// The string is not one that a TLS 1.2 server signs in an ECDHE handshake, or its point is
    /// not one that a peer can use safely.
    pub fn read(string: &[u8]) -> Result<Self, Fault> {
        let mut reader = Reader::new(string);
        let randoms = reader.array::<RANDOMS>()?;
        if reader.u8()? != NAMED_CURVE {
            return Err(Fault("the parameters are not those of a named curve"));
        }
        let curve = NamedCurve::from_number(reader.u16()?)?;
        let point = reader.vector8()?;
        reader.end()?;
        if !curve.accepts(point) {
            return Err(Fault(
                "the point of the key exchange is not on its curve, or of low order",
            ));
        }
        if is_signed_elsewhere(string) {
            return Err(Fault(
                "the randoms make the string one that is signed outside of TLS too",
            ));
        }
        Ok(Self {
            curve,
            says_downgrade: randoms.ends_with(&DOWNGRADE_TO_TLS12),
        })
    }
}

impl NamedCurve {
    fn from_number(number: u16) -> Result<Self, Fault> {
        match number {
            23 => Ok(Self::P256),
            24 => Ok(Self::P384),
            29 => Ok(Self::X25519),
            _ => Err(Fault("the key exchange is not on X25519, P-256 or P-384")),
        }
    }

    fn accepts(self, point: &[u8]) -> bool {
        match self {
            Self::P256 => PointCurve::P256.has_point(point),
            Self::P384 => PointCurve::P384.has_point(point),
            Self::X25519 => <[u8; 32]>::try_from(point).is_ok_and(|point| !has_low_order(point)),
        }
    }
}

/// The points of order 1, 2, 4 and 8 on Curve25519 and its twist, as little-endian numbers below
/// 2^255; p and p+1 are 0 and 1 written another way (RFC 7748, section 5 reads them so). With any of
/// them the shared secret is zero (section 6.1).
const LOW_ORDER: [[u8; 32]; 7] = [
    [0; 32],
    small(1),
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4,
        0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49,
        0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef,
        0x5b, 0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f,
        0x11, 0x57,
    ],
    near_prime(0xec),
    near_prime(0xed),
    near_prime(0xee),
];

const fn small(number: u8) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[0] = number;
    bytes
}

/// p = 2^255 - 19 ends (little endian: begins) in 0xed.
const fn near_prime(first: u8) -> [u8; 32] {
    let mut bytes = [0xff; 32];
    bytes[0] = first;
    bytes[31] = 0x7f;
    bytes
}

fn has_low_order(mut point: [u8; 32]) -> bool {
    // The top bit is ignored by whoever computes with the point.
    point[31] &= 0x7f;
    LOW_ORDER.contains(&point)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const P256_BASE: &str = "04\
        6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296\
        4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5";
    const P384_BASE: &str = "04\
        aa87ca22be8b05378eb1c71ef320ad746e1d3b628ba79b9859f741e082542a385502f25dbf55296c3a545e3872760ab7\
        3617de4a96262c6f5d9e98bf9292dc29f8f41dbd289a147ce9da3113b5f0b8c00a60b1ce1d7e819d7a431d7c90ea0e5f";

    fn hex(text: &str) -> Vec<u8> {
        text.as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    fn string(curve: u16, point: &[u8]) -> Vec<u8> {
        let length = u8::try_from(point.len()).unwrap();
        let mut bytes = vec![0x11; 32];
        bytes.extend([0x22; 32]);
        bytes.push(3);
        bytes.extend(curve.to_be_bytes());
        bytes.push(length);
        bytes.extend(point);
        bytes
    }

    fn good() -> [(NamedCurve, Vec<u8>); 3] {
        let mut nine = [0; 32];
        nine[0] = 9;
        [
            (NamedCurve::X25519, string(29, &nine)),
            (NamedCurve::P256, string(23, &hex(P256_BASE))),
            (NamedCurve::P384, string(24, &hex(P384_BASE))),
        ]
    }

    #[test]
    fn each_curve_has_one_length() {
        for ((curve, string), length) in good().into_iter().zip([100, 133, 165]) {
            let read = ServerKeyExchange::read(&string).unwrap();
            assert_eq!((read.curve, read.says_downgrade), (curve, false));
            assert_eq!(string.len(), length);
        }
    }

    #[test]
    fn every_cut_and_every_extension_is_refused() {
        for (_, string) in good() {
            for length in 0..string.len() {
                assert!(
                    ServerKeyExchange::read(&string[..length]).is_err(),
                    "{length}"
                );
            }
            for more in 1..80 {
                let long = [&string[..], &vec![0; more]].concat();
                assert!(ServerKeyExchange::read(&long).is_err(), "{more}");
            }
        }
    }

    /// Type of curve, curve, length and form of the point: every value but the right one.
    #[test]
    fn every_changed_byte_of_the_head_is_refused() {
        for (_, string) in good() {
            let form = if string.len() == 100 { 68 } else { 69 };
            for at in 64..form {
                for value in (0..=255).filter(|value| *value != string[at]) {
                    let mut other = string.clone();
                    other[at] = value;
                    assert!(ServerKeyExchange::read(&other).is_err(), "{at} {value}");
                }
            }
        }
    }

    #[test]
    fn a_point_beside_its_curve_is_refused() {
        for (_, string) in &good()[1..] {
            for at in 69..string.len() {
                let mut other = string.clone();
                other[at] ^= 1;
                assert!(ServerKeyExchange::read(&other).is_err(), "{at}");
            }
        }
        // x and y are not below the prime, or both zero.
        for byte in [0xff, 0x00] {
            let mut point = vec![byte; 65];
            point[0] = 4;
            ServerKeyExchange::read(&string(23, &point)).unwrap_err();
        }
    }

    #[test]
    fn points_of_low_order_are_refused_however_they_are_written() {
        for point in LOW_ORDER {
            for top in [0, 0x80] {
                let mut point = point;
                point[31] |= top;
                assert!(
                    ServerKeyExchange::read(&string(29, &point)).is_err(),
                    "{point:02x?}"
                );
            }
        }
    }

    /// The list is complete: a point of low order times the cofactor 8 is zero, and nothing else
    /// in the neighbourhood of the list is. AWS-LC refuses an all-zero shared secret.
    #[test]
    fn aws_lc_refuses_the_same_points() {
        use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
        let private = PrivateKey::generate(&X25519).unwrap();
        let agrees = |point: &[u8; 32]| {
            agree(&private, UnparsedPublicKey::new(&X25519, point), (), |_| {
                Ok(())
            })
            .is_ok()
        };
        for point in LOW_ORDER {
            assert!(!agrees(&point), "{point:02x?}");
            for byte in 0..32 {
                let mut other = point;
                other[byte] ^= 4;
                assert_eq!(agrees(&other), !has_low_order(other), "{other:02x?}");
            }
        }
    }

    #[test]
    fn the_downgrade_sentinel_is_seen_at_the_end_of_server_random_only() {
        for (_, mut string) in good() {
            string[56..64].copy_from_slice(b"DOWNGRD\x01");
            assert!(ServerKeyExchange::read(&string).unwrap().says_downgrade);
            string[63] = 0;
            assert!(!ServerKeyExchange::read(&string).unwrap().says_downgrade);
            string[24..32].copy_from_slice(b"DOWNGRD\x01");
            assert!(!ServerKeyExchange::read(&string).unwrap().says_downgrade);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = ServerKeyExchange::read(&bytes);
        }

        /// The randoms and, on X25519, nearly every point are free, but for what would be an object of something else.
        #[test]
        fn the_randoms_are_free(randoms in proptest::collection::vec(any::<u8>(), 64), point: [u8; 32]) {
            let mut string = string(29, &point);
            string[..64].copy_from_slice(&randoms);
            let is_free = !has_low_order(point) && !is_signed_elsewhere(&string);
            prop_assert_eq!(ServerKeyExchange::read(&string).is_ok(), is_free);
        }
    }
}
