//! A network that a client may connect from.

use std::fmt;
use std::net::IpAddr;

/// The addresses that share their first bits: `10.1.0.0/16`, `2001:db8::/32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    network: IpAddr,
    bits: u8,
}

impl Prefix {
    /// Reads `10.1.0.0/16`, or one address. Nothing where bits behind the prefix are set: what is meant by
    /// `10.1.2.3/8` is anybody's guess. Nor for `::ffff:10.1.0.0/112`: as [`Self::contains`] reads addresses, none would
    /// be in it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let network: IpAddr = address.parse().ok()?;
        let most = if network.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => bits.parse().ok()?,
            Some(_) => return None,
        };
        let prefix = Self { network, bits };
        let is_exact = prefix.masked(network) == Some(network);
        let is_canonical = network.to_canonical() == network;
        (bits <= most && is_exact && is_canonical).then_some(prefix)
    }

    /// Whether `address` is in it. An IPv4 address that came mapped into IPv6 is an IPv4 address.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        self.masked(address.to_canonical()) == Some(self.network)
    }

    /// `address` with what is behind the prefix cleared; nothing for the other family.
    fn masked(self, address: IpAddr) -> Option<IpAddr> {
        let behind = |width: u32| width.saturating_sub(u32::from(self.bits));
        match (address, self.network) {
            (IpAddr::V4(address), IpAddr::V4(_)) => {
                let mask = u32::MAX.checked_shl(behind(32)).unwrap_or(0);
                Some(IpAddr::V4((address.to_bits() & mask).into()))
            }
            (IpAddr::V6(address), IpAddr::V6(_)) => {
                let mask = u128::MAX.checked_shl(behind(128)).unwrap_or(0);
                Some(IpAddr::V6((address.to_bits() & mask).into()))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_hold_what_they_say() {
        for (prefix, address, holds) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("10.0.0.0/8", "::10.1.2.3", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.6", false),
            ("2001:db8::/33", "2001:db8:7fff::1", true),
            ("2001:db8::/33", "2001:db8:8000::1", false),
            ("::/0", "2001:db8::1", true),
            ("::1", "::1", true),
        ] {
            let found = Prefix::parse(prefix).unwrap();
            assert_eq!(
                found.contains(address.parse().unwrap()),
                holds,
                "{prefix} {address}"
            );
            assert_eq!(Prefix::parse(&found.to_string()), Some(found));
        }
    }

    #[test]
    fn what_is_no_prefix_is_none() {
        for text in [
            "",
            "10.0.0.0/33",
            "10.1.2.3/8",
            "10.0.0/8",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "::/129",
            "edge-1",
            "2001:db8::1/64",
            "::ffff:10.1.2.3",
            "::ffff:10.1.0.0/112",
        ] {
            assert_eq!(Prefix::parse(text), None, "{text:?}");
        }
    }
}
