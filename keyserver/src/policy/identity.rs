//! Who a peer is, as far as its certificate proves it.

use std::fmt;

use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::Match;
use crate::tls;

/// What a client certificate says about its owner. The chain has been verified by TLS before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// DNS subject alternative names, in lower case.
    pub dns: Vec<String>,
    /// URI subject alternative names.
    pub uri: Vec<String>,
    /// The subject, `CN=edge-1,O=Bank`: in the order of the certificate, no spaces added.
    pub subject: String,
    /// SHA-256 over the DER SubjectPublicKeyInfo.
    pub spki_sha256: [u8; 32],
}

/// The certificate could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdentityError;

impl PeerIdentity {
    /// Reads the identity out of a leaf certificate.
    ///
    /// # Errors
    ///
    /// Fails when the certificate is not well-formed X.509.
    pub fn from_certificate(certificate: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| IdentityError)?;
        let mut identity = Self {
            dns: Vec::new(),
            uri: Vec::new(),
            subject: subject_text(&parsed),
            spki_sha256: tls::sha256(parsed.public_key().raw).ok_or(IdentityError)?,
        };
        let names = parsed
            .subject_alternative_name()
            .map_err(|_| IdentityError)?;
        for name in names
            .iter()
            .flat_map(|extension| &extension.value.general_names)
        {
            match name {
                GeneralName::DNSName(dns) => identity.dns.push(dns.to_ascii_lowercase()),
                GeneralName::URI(uri) => identity.uri.push((*uri).to_owned()),
                _ => {}
            }
        }
        Ok(identity)
    }

    /// Everything a `match` of the configuration could name this peer by.
    pub fn names(&self) -> impl Iterator<Item = Match> {
        let dns = self.dns.iter().cloned().map(Match::Dns);
        let uri = self.uri.iter().cloned().map(Match::Uri);
        dns.chain(uri).chain([
            Match::Subject(self.subject.clone()),
            Match::SpkiSha256(self.spki_sha256),
        ])
    }
}

impl fmt::Display for PeerIdentity {
    /// The subject and the alternative names, for logs. Certificates are chosen by their owner, so
    /// control characters are escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "subject:{}", self.subject.escape_debug())?;
        for dns in &self.dns {
            write!(f, " dns:{}", dns.escape_debug())?;
        }
        for uri in &self.uri {
            write!(f, " uri:{}", uri.escape_debug())?;
        }
        Ok(())
    }
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the client certificate is not well-formed X.509")
    }
}

impl std::error::Error for IdentityError {}

/// `CN=edge-1,O=Bank`. Attributes of one name are joined with `+` (RFC 4514), but the order is that
/// of the certificate: it is what `openssl x509 -subject` prints, and what people copy.
fn subject_text(certificate: &X509Certificate<'_>) -> String {
    let registry = x509_parser::objects::oid_registry();
    let mut text = String::new();
    for (position, name) in certificate.subject().iter_rdn().enumerate() {
        for (within, attribute) in name.iter().enumerate() {
            if within > 0 {
                text.push('+');
            } else if position > 0 {
                text.push(',');
            }
            let oid = attribute.attr_type();
            match x509_parser::objects::oid2abbrev(oid, registry) {
                Ok(short) => text.push_str(short),
                Err(_) => text.push_str(&oid.to_id_string()),
            }
            text.push('=');
            match attribute.as_str() {
                Ok(value) => escape_into(&mut text, value),
                // A string type that is not text for us: its bytes, so that it stays unique.
                Err(_) => {
                    text.push('#');
                    text.extend(
                        attribute
                            .as_slice()
                            .iter()
                            .map(|byte| format!("{byte:02x}")),
                    );
                }
            }
        }
    }
    text
}

/// Escapes the characters that structure a name (RFC 4514, section 2.4), so that an attribute
/// `edge,O=Bank` cannot pass for two, and none that begins with `#` for the bytes of another.
fn escape_into(text: &mut String, value: &str) {
    for (position, character) in value.chars().enumerate() {
        let begins_bytes = position == 0 && character == '#';
        if begins_bytes || matches!(character, ',' | '+' | '=' | '"' | '\\' | '<' | '>' | ';') {
            text.push('\\');
        }
        text.push(character);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_cannot_pass_for_structure() {
        for (value, escaped) in [
            ("edge-1", "edge-1"),
            ("edge,O=Bank", "edge\\,O\\=Bank"),
            ("#0c0141", "\\#0c0141"),
            ("edge#1", "edge#1"),
            ("\\#", "\\\\#"),
        ] {
            let mut text = String::new();
            escape_into(&mut text, value);
            assert_eq!(text, escaped);
        }
    }
}
