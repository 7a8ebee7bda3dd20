//! PEM text (RFC 7468) to DER, in buffers that are wiped.

use zeroize::{Zeroize, Zeroizing};

use crate::error::KeyError;

/// One block between `-----BEGIN label-----` and `-----END label-----`.
pub(crate) struct Section<'a> {
    /// The label: `PRIVATE KEY`, `CERTIFICATE`.
    pub(crate) label: &'a str,
    /// The decoded content.
    pub(crate) der: Zeroizing<Vec<u8>>,
}

/// Whether the bytes look like PEM text rather than DER.
pub(crate) fn looks_like_pem(bytes: &[u8]) -> bool {
    bytes
        .windows(BEGIN.len())
        .any(|window| window == BEGIN.as_bytes())
}

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

/// Every block of the text, in order. Text between blocks is ignored, as tools write comments there.
///
/// Fails on a block that does not end, on characters that are not base64, and on blocks with
/// headers (`Proc-Type: 4,ENCRYPTED`), which only encrypted keys have.
pub(crate) fn sections(text: &[u8]) -> Result<Vec<Section<'_>>, KeyError> {
    let text = str::from_utf8(text).map_err(|_| KeyError::Malformed)?;
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(label) = boundary(line, BEGIN) else {
            continue;
        };
        let mut decoder = Decoder::with_capacity(text.len() / 4 * 3);
        loop {
            let line = lines.next().ok_or(KeyError::Malformed)?;
            if let Some(end) = boundary(line, END) {
                if end != label {
                    return Err(KeyError::Malformed);
                }
                break;
            }
            if line.contains(':') {
                return Err(if line.contains("ENCRYPTED") {
                    KeyError::Encrypted
                } else {
                    KeyError::Malformed
                });
            }
            decoder.push(line.trim().as_bytes())?;
        }
        found.push(Section {
            label,
            der: decoder.finish()?,
        });
    }
    Ok(found)
}

fn boundary<'a>(line: &'a str, start: &str) -> Option<&'a str> {
    line.trim().strip_prefix(start)?.strip_suffix(DASHES)
}

/// Base64 (RFC 4648, section 4) without a table, so that no memory access depends on a key's bytes.
struct Decoder {
    out: Zeroizing<Vec<u8>>,
    bits: u32,
    count: u32,
    padding: u32,
}

impl Drop for Decoder {
    fn drop(&mut self) {
        self.bits.zeroize();
    }
}

impl Decoder {
    fn with_capacity(bytes: usize) -> Self {
        Self {
            out: Zeroizing::new(Vec::with_capacity(bytes + 3)),
            bits: 0,
            count: 0,
            padding: 0,
        }
    }

    fn push(&mut self, line: &[u8]) -> Result<(), KeyError> {
        for character in line {
            if *character == b'=' {
                self.padding += 1;
                continue;
            }
            let value = sextet(*character);
            if value > 63 || self.padding > 0 {
                return Err(KeyError::Malformed);
            }
            self.bits = (self.bits << 6) | value;
            self.count += 1;
            if self.count == 4 {
                let [_, bytes @ ..] = self.bits.to_be_bytes();
                self.out.extend_from_slice(&bytes);
                self.bits = 0;
                self.count = 0;
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        // Two characters left over are one byte and four zero bits, three are two bytes and two.
        let (spare, bytes) = match (self.count, self.padding) {
            (0, 0) => (0, 0),
            (2, 2) => (4, 1),
            (3, 1) => (2, 2),
            _ => return Err(KeyError::Malformed),
        };
        if self.bits & ((1 << spare) - 1) != 0 {
            return Err(KeyError::Malformed);
        }
        let [_, b1, b2, b3] = (self.bits >> spare).to_be_bytes();
        match bytes {
            1 => self.out.push(b3),
            2 => self.out.extend_from_slice(&[b2, b3]),
            _ => debug_assert_eq!((b1, b2, b3), (0, 0, 0)),
        }
        Ok(std::mem::take(&mut self.out))
    }
}

/// The value of a base64 character, above 63 when it is none; the same steps for every character.
fn sextet(character: u8) -> u32 {
    let c = i32::from(character);
    // (low - c) & (c - high) is negative when low < c < high; the shift makes it a mask of ones.
    let inside = |low: i32, high: i32| ((low - c) & (c - high)) >> 8;
    let value = (inside(0x40, 0x5b) & (c - 64))
        | (inside(0x60, 0x7b) & (c - 70))
        | (inside(0x2f, 0x3a) & (c + 5))
        | (inside(0x2a, 0x2c) & 63)
        | (inside(0x2e, 0x30) & 64);
    value.wrapping_sub(1).cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(text: &str) -> Result<Vec<u8>, KeyError> {
        let mut decoder = Decoder::with_capacity(text.len());
        decoder.push(text.as_bytes())?;
        decoder.finish().map(|out| out.to_vec())
    }

    #[test]
    fn every_character_has_the_value_of_the_alphabet() {
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        for character in 0..=255_u8 {
            let expected = alphabet.iter().position(|c| *c == character);
            let value = usize::try_from(sextet(character)).unwrap();
            assert_eq!((value < 64).then_some(value), expected, "{character}");
        }
    }

    #[test]
    fn base64_is_strict_about_its_end() {
        assert_eq!(decode("").unwrap(), b"");
        assert_eq!(decode("Zg==").unwrap(), b"f");
        assert_eq!(decode("Zm8=").unwrap(), b"fo");
        assert_eq!(decode("Zm9v").unwrap(), b"foo");
        for bad in [
            "Z", "Zg", "Zg=", "Zh==", "Zm8", "Zm9=", "Zg==Zg==", "Zm9v=", "Z*9v", "====",
        ] {
            assert!(decode(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn blocks_are_found_between_comments() {
        let text = "comment\r\n-----BEGIN A-----\r\nZm9v\r\n-----END A-----\r\nmore\n-----BEGIN B B-----\n-----END B B-----";
        let found = sections(text.as_bytes()).unwrap();
        let summary: Vec<_> = found.iter().map(|s| (s.label, s.der.to_vec())).collect();
        assert_eq!(summary, [("A", b"foo".to_vec()), ("B B", Vec::new())]);
    }

    #[test]
    fn broken_blocks_are_refused() {
        for (text, error) in [
            ("-----BEGIN A-----\nZm9v", KeyError::Malformed),
            (
                "-----BEGIN A-----\nZm9v\n-----END B-----",
                KeyError::Malformed,
            ),
            (
                "-----BEGIN A-----\nname: value\n-----END A-----",
                KeyError::Malformed,
            ),
            (
                "-----BEGIN A-----\nProc-Type: 4,ENCRYPTED\n-----END A-----",
                KeyError::Encrypted,
            ),
        ] {
            assert_eq!(sections(text.as_bytes()).err(), Some(error), "{text}");
        }
    }
}
