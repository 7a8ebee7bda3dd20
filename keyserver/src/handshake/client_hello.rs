//! What a client offers (RFC 8446, section 4.1.2).

use super::Fault;
use super::extensions::{
    ALPN, Extensions, KEY_SHARE, SERVER_NAME, SIGNATURE_ALGORITHMS, SUPPORTED_GROUPS,
    SUPPORTED_VERSIONS, protocols,
};
use super::reader::{Reader, lists};

/// `legacy_version` of TLS 1.2 and 1.3.
pub(super) const TLS_1_2: u16 = 0x0303;
/// TLS 1.3, in `supported_versions` only.
pub(super) const TLS_1_3: u16 = 0x0304;

/// A client's offer, as far as a server's answer can be held against it.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClientHello<'a> {
    random: &'a [u8; 32],
    pub(super) session_id: &'a [u8],
    suites: &'a [u8],
    groups: &'a [u8],
    schemes: &'a [u8],
    shares: &'a [u8],
    alpn: Option<&'a [u8]>,
    /// The host name it asked for.
    pub(super) server_name: Option<&'a [u8]>,
}

impl<'a> ClientHello<'a> {
    /// Reads the body of a `ClientHello` that offers TLS 1.3.
    pub(super) fn read(body: &'a [u8]) -> Result<Self, Fault> {
        let mut reader = Reader::new(body);
        if reader.u16()? != TLS_1_2 {
            return Err(Fault(
                "the ClientHello has another legacy_version than 0303",
            ));
        }
        let random = reader.array()?;
        let session_id = reader.vector8()?;
        let suites = reader.vector16()?;
        let compression = reader.vector8()?;
        let extensions = Extensions::read(&mut reader)?;
        reader.end()?;
        if session_id.len() > 32 || compression != [0] {
            return Err(Fault("the ClientHello is not one of TLS 1.3"));
        }
        let list16 = |kind, missing| {
            let mut data = Reader::new(extensions.find(kind).ok_or(Fault(missing))?);
            let list = data.vector16()?;
            data.end().map(|()| list)
        };
        let mut versions = Reader::new(extensions.find(SUPPORTED_VERSIONS).unwrap_or_default());
        if !lists(versions.vector8()?, TLS_1_3) {
            return Err(Fault("the ClientHello does not offer TLS 1.3"));
        }
        versions.end()?;
        Ok(Self {
            random,
            session_id,
            suites,
            groups: list16(SUPPORTED_GROUPS, "the ClientHello offers no groups")?,
            schemes: list16(
                SIGNATURE_ALGORITHMS,
                "the ClientHello offers no signature schemes",
            )?,
            shares: list16(KEY_SHARE, "the ClientHello has no key_share extension")?,
            alpn: extensions.find(ALPN),
            server_name: extensions.find(SERVER_NAME).map(host_name).transpose()?,
        })
    }

    pub(super) fn offers_suite(&self, suite: u16) -> bool {
        lists(self.suites, suite)
    }

    pub(super) fn offers_group(&self, group: u16) -> bool {
        lists(self.groups, group)
    }

    pub(super) fn offers_scheme(&self, scheme: u16) -> bool {
        lists(self.schemes, scheme)
    }

    /// Whether it brought a key share of this group.
    pub(super) fn shares(&self, group: u16) -> bool {
        let mut shares = Reader::new(self.shares);
        std::iter::from_fn(|| {
            let group = shares.u16().ok()?;
            shares.vector16().ok().map(|_| group)
        })
        .any(|shared| shared == group)
    }

    /// Whether it offered this application protocol.
    pub(super) fn offers_protocol(&self, wanted: &[u8]) -> bool {
        let Some(Ok(mut names)) = self.alpn.map(protocols) else {
            return false;
        };
        std::iter::from_fn(|| names.vector8().ok()).any(|name| name == wanted)
    }

    /// Whether `self` may follow `first` after a `HelloRetryRequest`: the same offer by the same
    /// client, but for what the request asked to change (RFC 8446, section 4.1.2).
    pub(super) fn repeats(&self, first: &Self) -> bool {
        self.random == first.random
            && self.session_id == first.session_id
            && self.suites == first.suites
            && self.groups == first.groups
            && self.schemes == first.schemes
            && self.alpn == first.alpn
            && self.server_name == first.server_name
    }
}

/// The one host name in a `server_name` extension (RFC 6066, section 3).
fn host_name(data: &[u8]) -> Result<&[u8], Fault> {
    let mut reader = Reader::new(data);
    let mut list = Reader::new(reader.vector16()?);
    reader.end()?;
    let kind = list.u8()?;
    let name = list.vector16()?;
    list.end()?;
    if kind != 0 || name.is_empty() {
        return Err(Fault(
            "the server_name extension does not hold one host name",
        ));
    }
    Ok(name)
}
