//! The extensions of a handshake message (RFC 8446, section 4.2).

use super::Fault;
use super::reader::Reader;

/// `server_name`
pub(super) const SERVER_NAME: u16 = 0;
/// `supported_groups`
pub(super) const SUPPORTED_GROUPS: u16 = 10;
/// `signature_algorithms`
pub(super) const SIGNATURE_ALGORITHMS: u16 = 13;
/// `application_layer_protocol_negotiation`
pub(super) const ALPN: u16 = 16;
/// `supported_versions`
pub(super) const SUPPORTED_VERSIONS: u16 = 43;
/// `cookie`
pub(super) const COOKIE: u16 = 44;
/// `key_share`
pub(super) const KEY_SHARE: u16 = 51;

/// Extensions of one message. Browsers send about twenty; the bound keeps the search for doubles
/// short.
const COUNT_MAX: usize = 64;

/// The extensions of one message, each at most once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extensions<'a> {
    list: &'a [u8],
}

impl<'a> Extensions<'a> {
    /// Reads a vector of extensions with a length of two bytes, which must be all that is left.
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, Fault> {
        let list = reader.vector16()?;
        let mut seen = [0; COUNT_MAX];
        let mut count = 0;
        let mut extensions = Reader::new(list);
        while !extensions.is_empty() {
            let kind = extensions.u16()?;
            extensions.vector16()?;
            let (before, free) = seen.split_at_mut(count);
            if before.contains(&kind) {
                return Err(Fault("a message has an extension twice"));
            }
            *free
                .first_mut()
                .ok_or(Fault("a message has more than 64 extensions"))? = kind;
            count += 1;
        }
        Ok(Self { list })
    }

    /// The extensions in their order.
    pub(super) fn iter(self) -> impl Iterator<Item = (u16, &'a [u8])> {
        let mut reader = Reader::new(self.list);
        // `read` has been through all of it without a fault.
        std::iter::from_fn(move || Some((reader.u16().ok()?, reader.vector16().ok()?)))
    }

    /// The data of one extension.
    pub(super) fn find(self, wanted: u16) -> Option<&'a [u8]> {
        self.iter()
            .find(|(kind, _)| *kind == wanted)
            .map(|(_, data)| data)
    }
}

/// The names in an ALPN extension (RFC 7301, section 3.1), each a vector with a length of one byte.
pub(super) fn protocols(data: &[u8]) -> Result<Reader<'_>, Fault> {
    let mut reader = Reader::new(data);
    let list = reader.vector16()?;
    reader.end()?;
    Ok(Reader::new(list))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(list: &[u8]) -> Result<Extensions<'_>, Fault> {
        Extensions::read(&mut Reader::new(list))
    }

    #[test]
    fn extensions_are_found_by_their_number() {
        let list = [0, 9, 0, 43, 0, 1, 7, 0, 16, 0, 0];
        let extensions = read(&list).unwrap();
        assert_eq!(extensions.find(SUPPORTED_VERSIONS), Some(&[7][..]));
        assert_eq!(extensions.find(ALPN), Some(&[][..]));
        assert_eq!(extensions.find(COOKIE), None);
        assert_eq!(extensions.iter().count(), 2);
    }

    #[test]
    fn doubles_cuts_and_crowds_are_refused() {
        read(&[0, 8, 0, 43, 0, 0, 0, 43, 0, 0]).unwrap_err();
        read(&[0, 3, 0, 43, 0]).unwrap_err();
        read(&[0, 5, 0, 43, 0, 2, 1]).unwrap_err();
        let crowd = |count: u16| {
            let mut list = (count * 4).to_be_bytes().to_vec();
            (0..count).for_each(|kind| list.extend([kind.to_be_bytes(), [0, 0]].concat()));
            list
        };
        read(&crowd(64)).unwrap();
        read(&crowd(65)).unwrap_err();
    }
}
