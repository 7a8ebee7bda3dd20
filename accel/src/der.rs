//! A small reader for the DER structures that hold private keys.
//!
//! AWS-LC parses the same bytes and decides whether a key is good; this reader exists because
//! AWS-LC does not hand out what it parsed, and the lane engine needs the primes and scalars. It borrows from its
//! input, copies nothing, and accepts distinguished encoding only: definite lengths in their
//! shortest form, minimal integers, no bytes left over.
//!
//! ```text
//! PKCS#8  OneAsymmetricKey ::= SEQUENCE { version, AlgorithmIdentifier, OCTET STRING,    RFC 5958
//!                                         [0] attributes OPTIONAL, [1] publicKey OPTIONAL }
//! PKCS#1  RSAPrivateKey    ::= SEQUENCE { 0, n, e, d, p, q, dp, dq, qinv }               RFC 8017, A.1.2
//! SEC 1   ECPrivateKey     ::= SEQUENCE { 1, OCTET STRING, [0] curve OPTIONAL,           RFC 5915
//!                                         [1] BIT STRING OPTIONAL }
//! ```

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const NULL: u8 = 0x05;
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const CONTEXT_0: u8 = 0xa0;
const CONTEXT_1: u8 = 0xa1;
/// `[1] IMPLICIT BIT STRING`, the public key of RFC 5958.
const CONTEXT_1_PRIMITIVE: u8 = 0x81;

/// The bytes are not the structure that was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DerError;

type Result<T> = std::result::Result<T, DerError>;

/// A cursor over DER elements.
#[derive(Clone, Debug)]
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    const fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(DerError)?;
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8> {
        let (first, rest) = self.rest.split_first().ok_or(DerError)?;
        self.rest = rest;
        Ok(*first)
    }

    fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// A length octet, or `0x81`/`0x82` and one or two more: nothing we read is longer than 64 KiB.
    fn length(&mut self) -> Result<usize> {
        let first = self.byte()?;
        match first {
            0..=0x7f => Ok(usize::from(first)),
            0x81 => {
                let length = self.byte()?;
                if length < 0x80 {
                    return Err(DerError);
                }
                Ok(usize::from(length))
            }
            0x82 => {
                let length = u16::from_be_bytes([self.byte()?, self.byte()?]);
                if length < 0x100 {
                    return Err(DerError);
                }
                Ok(usize::from(length))
            }
            _ => Err(DerError),
        }
    }

    /// The content of the next element, which must have this tag.
    fn element(&mut self, tag: u8) -> Result<&'a [u8]> {
        if self.byte()? != tag {
            return Err(DerError);
        }
        let length = self.length()?;
        self.take(length)
    }

    /// The same, if the next element has this tag at all.
    fn optional(&mut self, tag: u8) -> Result<Option<&'a [u8]>> {
        if self.peek() == Some(tag) {
            self.element(tag).map(Some)
        } else {
            Ok(None)
        }
    }

    /// A non-negative INTEGER without its sign byte; zero is one zero byte.
    fn unsigned(&mut self) -> Result<&'a [u8]> {
        let content = self.element(INTEGER)?;
        match content {
            [] => Err(DerError),
            [0, second, ..] if *second < 0x80 => Err(DerError),
            [0, _, ..] => content.get(1..).ok_or(DerError),
            [first, ..] if *first >= 0x80 => Err(DerError),
            _ => Ok(content),
        }
    }

    /// A positive INTEGER.
    fn positive(&mut self) -> Result<&'a [u8]> {
        let value = self.unsigned()?;
        if value == [0] {
            Err(DerError)
        } else {
            Ok(value)
        }
    }

    const fn finish(&self) -> Result<()> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(DerError)
        }
    }
}

/// A BIT STRING of whole bytes, its content after the count of unused bits.
fn whole_bytes(content: &[u8]) -> Result<&[u8]> {
    match content.split_first() {
        Some((0, bytes)) => Ok(bytes),
        _ => Err(DerError),
    }
}

/// Reads one SEQUENCE that fills `der`.
fn sequence(der: &[u8]) -> Result<Reader<'_>> {
    let mut outer = Reader::new(der);
    let inner = outer.element(SEQUENCE)?;
    outer.finish()?;
    Ok(Reader::new(inner))
}

/// Which of the three structures a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Container {
    /// `OneAsymmetricKey`.
    Pkcs8,
    /// `RSAPrivateKey`.
    Pkcs1,
    /// `ECPrivateKey`.
    Sec1,
    /// `EncryptedPrivateKeyInfo` (RFC 5958, section 3).
    Encrypted,
}

impl Container {
    /// Tells the structures apart by the elements they begin with.
    pub(crate) fn detect(der: &[u8]) -> Result<Self> {
        let mut reader = sequence(der)?;
        if reader.peek() == Some(SEQUENCE) {
            reader.element(SEQUENCE)?;
            reader.element(OCTET_STRING)?;
            return Ok(Self::Encrypted);
        }
        reader.unsigned()?;
        match reader.peek() {
            Some(SEQUENCE) => Ok(Self::Pkcs8),
            Some(INTEGER) => Ok(Self::Pkcs1),
            Some(OCTET_STRING) => Ok(Self::Sec1),
            _ => Err(DerError),
        }
    }
}

/// A decoded PKCS#8 wrapper.
#[derive(Clone, Debug)]
pub(crate) struct Pkcs8<'a> {
    /// Content of the algorithm's object identifier.
    pub(crate) algorithm: &'a [u8],
    /// Content of the object identifier in the parameters, which for EC keys names the curve.
    pub(crate) curve: Option<&'a [u8]>,
    /// The algorithm's own structure.
    pub(crate) private_key: &'a [u8],
    /// The public key, when the file carries one (version 2).
    pub(crate) public_key: Option<&'a [u8]>,
}

impl<'a> Pkcs8<'a> {
    pub(crate) fn decode(der: &'a [u8]) -> Result<Self> {
        let mut reader = sequence(der)?;
        let version = reader.unsigned()?;
        if !matches!(version, [0 | 1]) {
            return Err(DerError);
        }
        let mut identifier = Reader::new(reader.element(SEQUENCE)?);
        let algorithm = identifier.element(OBJECT_IDENTIFIER)?;
        let curve = identifier.optional(OBJECT_IDENTIFIER)?;
        if curve.is_none() && !matches!(identifier.optional(NULL)?, None | Some([])) {
            return Err(DerError);
        }
        identifier.finish()?;
        let private_key = reader.element(OCTET_STRING)?;
        reader.optional(CONTEXT_0)?;
        let public_key = reader
            .optional(CONTEXT_1_PRIMITIVE)?
            .map(whole_bytes)
            .transpose()?;
        if public_key.is_some() && version != [1] {
            return Err(DerError);
        }
        reader.finish()?;
        Ok(Self {
            algorithm,
            curve,
            private_key,
            public_key,
        })
    }
}

/// The numbers of a decoded `RSAPrivateKey` but d, big endian without leading zeros.
#[derive(Clone)]
pub(crate) struct RsaPrivateKey<'a> {
    pub(crate) n: &'a [u8],
    pub(crate) e: &'a [u8],
    pub(crate) p: &'a [u8],
    pub(crate) q: &'a [u8],
    pub(crate) dp: &'a [u8],
    pub(crate) dq: &'a [u8],
    pub(crate) qinv: &'a [u8],
}

impl<'a> RsaPrivateKey<'a> {
    /// Decodes a key of two primes; keys of more primes are refused.
    pub(crate) fn decode(der: &'a [u8]) -> Result<Self> {
        let mut reader = sequence(der)?;
        if reader.unsigned()? != [0] {
            return Err(DerError);
        }
        let (n, e) = (reader.positive()?, reader.positive()?);
        // d is not needed beside its two remainders. AWS-LC compares them.
        reader.positive()?;
        let key = Self {
            n,
            e,
            p: reader.positive()?,
            q: reader.positive()?,
            dp: reader.positive()?,
            dq: reader.positive()?,
            qinv: reader.positive()?,
        };
        reader.finish()?;
        Ok(key)
    }
}

/// A decoded `SubjectPublicKeyInfo` (RFC 5280, section 4.1).
#[cfg(feature = "pkcs11")]
#[derive(Clone, Debug)]
pub(crate) struct PublicKeyInfo<'a> {
    /// Content of the algorithm's object identifier.
    pub(crate) algorithm: &'a [u8],
    /// Content of the object identifier in the parameters, which for EC keys names the curve.
    pub(crate) curve: Option<&'a [u8]>,
    /// The bytes of `subjectPublicKey`.
    pub(crate) public_key: &'a [u8],
}

#[cfg(feature = "pkcs11")]
impl<'a> PublicKeyInfo<'a> {
    pub(crate) fn decode(der: &'a [u8]) -> Result<Self> {
        let mut reader = sequence(der)?;
        let mut identifier = Reader::new(reader.element(SEQUENCE)?);
        let algorithm = identifier.element(OBJECT_IDENTIFIER)?;
        let curve = identifier.optional(OBJECT_IDENTIFIER)?;
        if curve.is_none() && !matches!(identifier.optional(NULL)?, None | Some([])) {
            return Err(DerError);
        }
        identifier.finish()?;
        let public_key = whole_bytes(reader.element(BIT_STRING)?)?;
        reader.finish()?;
        Ok(Self {
            algorithm,
            curve,
            public_key,
        })
    }
}

/// Modulus and exponent of an `RSAPublicKey` (RFC 8017, section A.1.1), without leading zeros.
#[cfg(feature = "pkcs11")]
pub(crate) fn decode_rsa_public_key(der: &[u8]) -> Result<(&[u8], &[u8])> {
    let mut reader = sequence(der)?;
    let numbers = (reader.positive()?, reader.positive()?);
    reader.finish()?;
    Ok(numbers)
}

/// A decoded `ECPrivateKey`.
#[derive(Clone)]
pub(crate) struct EcPrivateKey<'a> {
    /// The scalar, big endian, as long as the file has it.
    pub(crate) scalar: &'a [u8],
    /// Content of the curve's object identifier.
    pub(crate) curve: Option<&'a [u8]>,
    /// The public point as stored.
    pub(crate) public_key: Option<&'a [u8]>,
}

impl<'a> EcPrivateKey<'a> {
    pub(crate) fn decode(der: &'a [u8]) -> Result<Self> {
        let mut reader = sequence(der)?;
        if reader.unsigned()? != [1] {
            return Err(DerError);
        }
        let scalar = reader.element(OCTET_STRING)?;
        let curve = match reader.optional(CONTEXT_0)? {
            None => None,
            Some(content) => {
                let mut inner = Reader::new(content);
                let curve = inner.element(OBJECT_IDENTIFIER)?;
                inner.finish()?;
                Some(curve)
            }
        };
        let public_key = match reader.optional(CONTEXT_1)? {
            None => None,
            Some(content) => {
                let mut inner = Reader::new(content);
                let bits = inner.element(BIT_STRING)?;
                inner.finish()?;
                Some(whole_bytes(bits)?)
            }
        };
        reader.finish()?;
        Ok(Self {
            scalar,
            curve,
            public_key,
        })
    }
}

/// The content of one OBJECT IDENTIFIER that fills `der`: the named curve of `CKA_EC_PARAMS`.
#[cfg(feature = "pkcs11")]
pub(crate) fn decode_object_identifier(der: &[u8]) -> Result<&[u8]> {
    let mut reader = Reader::new(der);
    let content = reader.element(OBJECT_IDENTIFIER)?;
    reader.finish()?;
    Ok(content)
}

/// The content of one OCTET STRING that fills `der`: the private key of RFC 8410.
pub(crate) fn octet_string(der: &[u8]) -> Result<&[u8]> {
    let mut reader = Reader::new(der);
    let content = reader.element(OCTET_STRING)?;
    reader.finish()?;
    Ok(content)
}

/// Appends one element. The content must be shorter than 64 KiB, as everything here is.
fn write_element(tag: u8, content: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    match u8::try_from(content.len()) {
        Ok(length @ 0..=0x7f) => out.push(length),
        Ok(length) => out.extend([0x81, length]),
        Err(_) => {
            out.push(0x82);
            let length = u16::try_from(content.len()).unwrap_or(u16::MAX);
            out.extend(length.to_be_bytes());
        }
    }
    out.extend_from_slice(content);
}

/// `ECPrivateKey` with nothing but the scalar.
pub(crate) fn write_ec_private_key(scalar: &[u8], out: &mut Vec<u8>) {
    let mut fields = zeroize::Zeroizing::new(Vec::with_capacity(scalar.len() + 8));
    write_element(INTEGER, &[1], &mut fields);
    write_element(OCTET_STRING, scalar, &mut fields);
    out.reserve_exact(fields.len() + 4);
    write_element(SEQUENCE, &fields, out);
}

/// `RSAPublicKey` (RFC 8017, section A.1.1).
pub(crate) fn rsa_public_key(n: &[u8], e: &[u8]) -> Vec<u8> {
    let mut fields = Vec::with_capacity(n.len() + 16);
    for number in [n, e] {
        let mut signed = Vec::with_capacity(number.len() + 1);
        if number.first().is_none_or(|top| *top >= 0x80) {
            signed.push(0);
        }
        signed.extend_from_slice(number);
        write_element(INTEGER, &signed, &mut fields);
    }
    let mut out = Vec::with_capacity(fields.len() + 4);
    write_element(SEQUENCE, &fields, &mut out);
    out
}

/// `SubjectPublicKeyInfo` (RFC 5280, section 4.1): `parameters` is the encoded element after the
/// algorithm's object identifier, or empty.
pub(crate) fn subject_public_key_info(
    algorithm: &[u8],
    parameters: &[u8],
    public_key: &[u8],
) -> Vec<u8> {
    let mut identifier = Vec::new();
    write_element(OBJECT_IDENTIFIER, algorithm, &mut identifier);
    identifier.extend_from_slice(parameters);
    let mut bits = vec![0];
    bits.extend_from_slice(public_key);
    let mut fields = Vec::new();
    write_element(SEQUENCE, &identifier, &mut fields);
    write_element(BIT_STRING, &bits, &mut fields);
    let mut out = Vec::with_capacity(fields.len() + 4);
    write_element(SEQUENCE, &fields, &mut out);
    out
}

/// `ECDSA-Sig-Value` (RFC 5480, appendix A) of two numbers, big endian, of any length.
#[cfg(feature = "pkcs11")]
pub(crate) fn ecdsa_signature(r: &[u8], s: &[u8]) -> Vec<u8> {
    let mut fields = Vec::with_capacity(r.len() + s.len() + 8);
    for number in [r, s] {
        let zeros = number.iter().take_while(|byte| **byte == 0).count();
        let mut signed = Vec::with_capacity(number.len() + 1);
        let number = number.get(zeros..).unwrap_or_default();
        if number.first().is_none_or(|top| *top >= 0x80) {
            signed.push(0);
        }
        signed.extend_from_slice(number);
        write_element(INTEGER, &signed, &mut fields);
    }
    let mut out = Vec::with_capacity(fields.len() + 4);
    write_element(SEQUENCE, &fields, &mut out);
    out
}

/// An encoded object identifier, as parameters for [`subject_public_key_info`].
pub(crate) fn object_identifier(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write_element(OBJECT_IDENTIFIER, content, &mut out);
    out
}

/// An encoded NULL, as parameters for [`subject_public_key_info`].
pub(crate) const NULL_PARAMETERS: &[u8] = &[NULL, 0];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_must_be_in_their_shortest_form() {
        for bytes in [
            &[0x04, 0x80][..],               // indefinite
            &[0x04, 0x81, 0x01, 0],          // 1 in the long form
            &[0x04, 0x82, 0x00, 0x80],       // 128 in two bytes
            &[0x04, 0x83, 0x01, 0x00, 0x00], // longer than anything we read
            &[0x04, 0x02, 0],                // cut short
            &[0x04],
            &[],
        ] {
            assert!(octet_string(bytes).is_err(), "{bytes:02x?}");
        }
        assert_eq!(octet_string(&[0x04, 1, 7]), Ok(&[7][..]));
        assert_eq!(
            octet_string(&[0x04, 1, 7, 0]),
            Err(DerError),
            "trailing byte"
        );
    }

    #[test]
    fn integers_must_be_minimal_and_not_negative() {
        let read = |bytes: &'static [u8]| Reader::new(bytes).unsigned();
        assert_eq!(read(&[2, 1, 0]), Ok(&[0][..]));
        assert_eq!(read(&[2, 2, 0, 0x80]), Ok(&[0x80][..]));
        assert_eq!(read(&[2, 0]), Err(DerError));
        assert_eq!(read(&[2, 1, 0x80]), Err(DerError));
        assert_eq!(read(&[2, 2, 0, 0x7f]), Err(DerError));
        assert_eq!(Reader::new(&[2, 1, 0]).positive(), Err(DerError));
    }

    #[test]
    fn what_is_written_is_read_back() {
        for length in [0, 1, 0x7f, 0x80, 0xff, 0x100, 0x1234] {
            let content = vec![7; length];
            let mut out = Vec::new();
            write_element(OCTET_STRING, &content, &mut out);
            assert_eq!(octet_string(&out), Ok(&content[..]));
        }
        let mut out = Vec::new();
        write_ec_private_key(&[9; 66], &mut out);
        let key = EcPrivateKey::decode(&out).unwrap();
        assert_eq!(key.scalar, [9; 66]);
        assert!(key.curve.is_none() && key.public_key.is_none());
    }
}
