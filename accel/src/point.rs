//! Public points: what a key exchange sends, as opposed to what a key holds.

use crate::aws_lc::Curve;

/// A curve whose points can be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PointCurve {
    /// NIST P-256.
    P256,
    /// NIST P-384.
    P384,
}

impl PointCurve {
    /// Whether `bytes` are a point of this curve: the byte 4 and two coordinates (SEC 1, section
    /// 2.3.3), both below the prime, that solve the equation of the curve. Points are public: the
    /// time depends on them.
    ///
    /// ```
    /// use accel::PointCurve;
    ///
    /// assert!(!PointCurve::P256.has_point(&[4; 65]));
    /// ```
    #[must_use]
    pub fn has_point(self, bytes: &[u8]) -> bool {
        match self {
            Self::P256 => Curve::P256.has_point(bytes),
            Self::P384 => Curve::P384.has_point(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, KeyPair,
    };

    use super::*;

    #[test]
    fn public_keys_are_points_and_their_neighbours_are_not() {
        for (curve, algorithm) in [
            (PointCurve::P256, &ECDSA_P256_SHA256_ASN1_SIGNING),
            (PointCurve::P384, &ECDSA_P384_SHA384_ASN1_SIGNING),
        ] {
            let pair = EcdsaKeyPair::generate(algorithm).unwrap();
            let point = pair.public_key().as_ref();
            assert!(curve.has_point(point));
            for at in 0..point.len() {
                let mut other = point.to_vec();
                other[at] ^= 1;
                assert!(!curve.has_point(&other), "{curve:?} {at}");
                assert!(!curve.has_point(&point[..at]), "{curve:?} {at}");
            }
            // The forms that TLS has done away with: compressed, hybrid, infinity.
            let parity = 2 | point[point.len() - 1] & 1;
            let compressed = [&[parity], &point[1..point.len().div_ceil(2)]].concat();
            let hybrid = [&[parity | 4], &point[1..]].concat();
            for other in [compressed, hybrid, vec![0]] {
                assert!(!curve.has_point(&other), "{other:02x?}");
            }
        }
    }
}
