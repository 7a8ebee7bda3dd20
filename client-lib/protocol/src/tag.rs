//! The tags an item may carry.

use std::fmt;

/// What an item's value means. Tags below 0x30 are version 1 as every peer speaks it; 0x30 and
/// above are additions that stock peers skip.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum Tag {
    /// 32 bytes: SHA-256 of the upper-case hexadecimal text of the RSA modulus. The lookup key of
    /// old clients.
    CertificateDigest = 0x01,
    /// Text: the server name the visitor asked for.
    Sni = 0x02,
    /// 4 or 16 bytes: the visitor's address.
    ClientIp = 0x03,
    /// 20 bytes: SHA-1 of the subjectPublicKey bits (RFC 5280, section 4.2.1.2, method 1). The
    /// lookup key.
    Ski = 0x04,
    /// 4 or 16 bytes: the address the visitor connected to.
    ServerIp = 0x05,
    /// Text: names a certificate in a private store.
    CertificateId = 0x06,
    /// 1 byte: the operation. Every frame needs one.
    Opcode = 0x11,
    /// Bytes: the operation's input or output; the item is left out when they are empty.
    Payload = 0x12,
    /// Text: the function meant by the custom operation.
    CustomFunction = 0x13,
    /// Bytes with a meaning private to the peers.
    Extra = 0x14,
    /// A tracing span, binary or text; anything is tolerated.
    Trace = 0x15,
    /// A JSON object with the key `request_id`; anything is tolerated.
    RequestContext = 0x16,
    /// 1 byte: a compliance region.
    Region = 0x17,
    /// Ignored bytes that bring a frame to its least size.
    Padding = 0x20,
    /// Addition. `u32`: microseconds for which the client will still wait.
    Deadline = 0x30,
    /// Addition. `u16`: a TLS `SignatureScheme`.
    SignatureScheme = 0x31,
    /// Addition. Empty: the sender understands the items and error codes of this list.
    Extended = 0x32,
    /// Addition, in replies. `u32`: milliseconds after which asking again makes sense.
    RetryAfter = 0x33,
    /// Addition, in replies. Bytes: proof that the operation was recorded.
    AuditReceipt = 0x34,
}

impl Tag {
    /// Every tag, by rising byte.
    pub const ALL: [Self; 19] = [
        Self::CertificateDigest,
        Self::Sni,
        Self::ClientIp,
        Self::Ski,
        Self::ServerIp,
        Self::CertificateId,
        Self::Opcode,
        Self::Payload,
        Self::CustomFunction,
        Self::Extra,
        Self::Trace,
        Self::RequestContext,
        Self::Region,
        Self::Padding,
        Self::Deadline,
        Self::SignatureScheme,
        Self::Extended,
        Self::RetryAfter,
        Self::AuditReceipt,
    ];

    /// The tag of this byte; `None` for one to be skipped.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0x01 => Self::CertificateDigest,
            0x02 => Self::Sni,
            0x03 => Self::ClientIp,
            0x04 => Self::Ski,
            0x05 => Self::ServerIp,
            0x06 => Self::CertificateId,
            0x11 => Self::Opcode,
            0x12 => Self::Payload,
            0x13 => Self::CustomFunction,
            0x14 => Self::Extra,
            0x15 => Self::Trace,
            0x16 => Self::RequestContext,
            0x17 => Self::Region,
            0x20 => Self::Padding,
            0x30 => Self::Deadline,
            0x31 => Self::SignatureScheme,
            0x32 => Self::Extended,
            0x33 => Self::RetryAfter,
            0x34 => Self::AuditReceipt,
            _ => return None,
        })
    }

    /// The byte on the wire.
    #[must_use]
    pub const fn as_byte(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?} (0x{:02x})", self.as_byte())
    }
}

/// Which known tags a frame has carried so far: one bit each.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TagSet(u64);

impl TagSet {
    /// Adds a tag; false when it was there already.
    pub(crate) const fn insert(&mut self, tag: Tag) -> bool {
        let bit = 1 << tag.as_byte();
        let fresh = self.0 & bit == 0;
        self.0 |= bit;
        fresh
    }
}

// `TagSet` has a bit for every known tag.
const _: () = assert!(
    Tag::AuditReceipt.as_byte() < 64,
    "the highest tag needs a bit in TagSet"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_tags_agree_both_ways() {
        let known: Vec<Tag> = (0..=u8::MAX).filter_map(Tag::from_byte).collect();
        assert_eq!(known, Tag::ALL);
        for tag in Tag::ALL {
            assert_eq!(Tag::from_byte(tag.as_byte()), Some(tag));
            assert!(tag.as_byte() < 64, "{tag} needs a bit in TagSet");
        }
    }

    #[test]
    fn a_set_notices_the_second_of_each_tag() {
        let mut seen = TagSet::default();
        assert!(Tag::ALL.into_iter().all(|tag| seen.insert(tag)));
        assert!(!Tag::ALL.into_iter().any(|tag| seen.insert(tag)));
    }
}
