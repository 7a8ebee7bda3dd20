//! A certificate authority for one test.

use std::net::IpAddr;

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
    PKCS_RSA_SHA256, SanType,
};

use crate::keys::KeyKind;

/// What the extended key usage of a certificate says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Usage {
    /// `clientAuth` only.
    Client,
    /// `serverAuth` only.
    Server,
    /// No such extension: good for anything.
    Unrestricted,
}

/// A certificate chain and its private key, both PEM.
#[derive(Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// Its private key, PKCS#8.
    pub private_key: String,
}

/// A certificate authority, made anew for each test.
pub struct Pki {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Default for Pki {
    fn default() -> Self {
        Self::new()
    }
}

impl Pki {
    /// A new authority with a P-256 key. All made so have the same name and different keys.
    pub fn new() -> Self {
        Self::named("keyserver tests CA")
    }

    /// A new authority of this name.
    pub fn named(name: &str) -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a CA key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).expect("a CA certificate").pem();
        Self {
            certificate,
            issuer: Issuer::new(params, key),
        }
    }

    /// The authority's certificate, PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A server identity with a P-256 key for `localhost` and both loopback addresses.
    pub fn server(&self) -> Identity {
        self.server_with(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a server key"))
    }

    /// As [`Self::server`], with an RSA-2048 key, for cipher suites with RSA certificates.
    pub fn rsa_server(&self) -> Identity {
        self.server_with(KeyPair::generate_for(&PKCS_RSA_SHA256).expect("an RSA server key"))
    }

    /// The certificate, PEM, of a site `localhost` whose private key, PKCS#8 DER, is elsewhere.
    pub fn site(&self, private_key: &[u8]) -> String {
        let key = KeyPair::try_from(private_key).expect("a private key");
        self.server_with(key).certificate
    }

    /// As [`Self::site`], with leave to delegate (RFC 9345, section 4.2).
    pub fn delegating_site(&self, private_key: &[u8]) -> String {
        let key = KeyPair::try_from(private_key).expect("a private key");
        let mut params = named("localhost", Usage::Server);
        let usage = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 44363, 44], vec![5, 0]);
        params.custom_extensions = vec![usage];
        self.sign(&params, &key).certificate
    }

    fn server_with(&self, key: KeyPair) -> Identity {
        let mut params = named("localhost", Usage::Server);
        for address in ["127.0.0.1", "::1"] {
            let address: IpAddr = address.parse().expect("an address");
            params.subject_alt_names.push(SanType::IpAddress(address));
        }
        self.sign(&params, &key)
    }

    /// The identity of a web site with a key of this type, good for every kind of handshake.
    pub fn site_of_kind(&self, kind: KeyKind, names: &[&str]) -> Identity {
        let algorithm = match kind {
            KeyKind::Rsa2048 => &PKCS_RSA_SHA256,
            KeyKind::P256 => &PKCS_ECDSA_P256_SHA256,
            KeyKind::P384 => &PKCS_ECDSA_P384_SHA384,
            KeyKind::Ed25519 => &PKCS_ED25519,
            other => panic!("no certificate is made of a key of type {}", other.name()),
        };
        let key = KeyPair::generate_for(algorithm).expect("a site's key");
        let mut params = named(names[0], Usage::Unrestricted);
        for name in &names[1..] {
            let name = (*name).try_into().expect("a DNS name");
            params.subject_alt_names.push(SanType::DnsName(name));
        }
        if kind == KeyKind::Rsa2048 {
            params.key_usages.push(KeyUsagePurpose::KeyEncipherment);
        }
        self.sign(&params, &key)
    }

    /// A client identity with this DNS name, as most are.
    pub fn client(&self, name: &str) -> Identity {
        self.client_with(name, Usage::Client)
    }

    /// A client identity whose extended key usage says `usage`.
    pub fn client_with(&self, name: &str, usage: Usage) -> Identity {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a client key");
        self.sign(&named(name, usage), &key)
    }

    /// A client identity without a DNS name: with this URI, and a subject of this name and organisation.
    pub fn client_of(&self, organisation: &str, name: &str, uri: &str) -> Identity {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a client key");
        let mut params = named(name, Usage::Client);
        params.subject_alt_names = vec![SanType::URI(uri.try_into().expect("a URI"))];
        (params.distinguished_name).push(DnType::OrganizationName, organisation);
        self.sign(&params, &key)
    }

    fn sign(&self, params: &CertificateParams, key: &KeyPair) -> Identity {
        let certificate = params
            .signed_by(key, &self.issuer)
            .expect("a certificate")
            .pem();
        Identity {
            certificate,
            private_key: key.serialize_pem(),
        }
    }
}

fn named(name: &str, usage: Usage) -> CertificateParams {
    let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a DNS name");
    params.distinguished_name.push(DnType::CommonName, name);
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = match usage {
        Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
        Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
        Usage::Unrestricted => vec![],
    };
    params
}
