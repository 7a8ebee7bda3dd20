//! Policy and certificates, on real files.

#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::panic,
    clippy::assertions_on_result_states,
    reason = "test helpers fail the test; the lints exempt only the test functions themselves"
)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use common::{MINIMAL, Site, params};
use keyless_protocol::info::ski_to_hex;
use keyless_protocol::{ErrorCode, Opcode, Request};
use keyserver::clock;
use keyserver::config::Config;
use keyserver::policy::{
    self, Admitted, ClientId, Peer, PeerIdentity, Refusal, RefusalReason, Right, Unmet,
};
use keyserver::snapshot::{LoadError, Snapshot};
use keyserver::tokens::Tokens;
use rcgen::{ExtendedKeyUsagePurpose, SanType};
use rustls::HandshakeKind;

fn load(site: &Site) -> Result<Arc<Snapshot>, LoadError> {
    Snapshot::load(Config::load(&site.config())?, &Tokens::untouched(), None).map(Arc::new)
}

fn snapshot(site: &Site) -> Arc<Snapshot> {
    load(site).unwrap_or_else(|error| panic!("{error}"))
}

fn failure(site: &Site) -> String {
    let error = load(site).map(|_| "it loaded").unwrap_err().to_string();
    // Paths differ from run to run.
    error.replace(&site.path("").display().to_string(), "DIR/")
}

fn client(site: &Site, snapshot: &Snapshot, dns: &str) -> Option<ClientId> {
    let certificate = site.client(dns);
    let identity = PeerIdentity::from_certificate(certificate.der()).unwrap();
    snapshot.policy.client(&identity)
}

fn admit(
    snapshot: &Arc<Snapshot>,
    client: Option<ClientId>,
    request: &Request<'_>,
) -> Result<Admitted, Refusal> {
    let address = [192, 0, 2, 1].into();
    policy::admit(snapshot, &Peer { client, address }, request, clock::now())
}

#[test]
fn the_contract_is_accepted_to_the_letter() {
    let site = Site::new();
    site.add_key("shop");
    let snapshot = snapshot(&site);
    assert_eq!(snapshot.keys.len(), 1);
    let id = client(&site, &snapshot, "edge-1").unwrap();
    assert_eq!(snapshot.policy.client_name(id), "edge-1");
    let warnings = snapshot.warnings();
    assert_eq!(warnings.len(), 0, "{warnings:?}");
}

#[test]
fn a_request_is_admitted_with_its_key_or_refused_in_one_way() {
    let site = Site::new();
    site.add_key("shop");
    let snapshot = snapshot(&site);
    let (key, _) = snapshot.key_at(0).unwrap();
    let ski = key.ski();
    let granted = client(&site, &snapshot, "edge-1");
    let stranger = client(&site, &snapshot, "edge-2");
    assert_eq!(stranger, None);
    let ask = |client, ski, opcode| {
        let request = Request {
            ski,
            ..Request::new(1, opcode)
        };
        admit(&snapshot, client, &request)
    };

    let admitted = ask(granted, Some(ski), Opcode::EcdsaSignSha256).unwrap();
    assert_eq!(admitted.key().ski(), ski);
    assert_eq!(
        (admitted.opcode(), admitted.right()),
        (Opcode::EcdsaSignSha256, Right::SignDigest)
    );
    assert_eq!(Some(admitted.client()), granted);
    assert!(Arc::ptr_eq(admitted.snapshot(), &snapshot));

    // Whatever depends on keys and grants looks the same from outside.
    for (client, ski, opcode, reason) in [
        (
            granted,
            Some([9; 20]),
            Opcode::EcdsaSignSha256,
            RefusalReason::UnknownKey,
        ),
        (
            granted,
            None,
            Opcode::EcdsaSignSha256,
            RefusalReason::NoKeyNamed,
        ),
        (
            granted,
            Some(ski),
            Opcode::RsaDecrypt,
            RefusalReason::NoRight(Right::DecryptCompatible, Unmet::Allow),
        ),
        (
            granted,
            Some(ski),
            Opcode::RsaDecryptRaw,
            RefusalReason::NoRight(Right::DecryptRaw, Unmet::Allow),
        ),
        (
            stranger,
            Some(ski),
            Opcode::EcdsaSignSha256,
            RefusalReason::UnknownClient,
        ),
    ] {
        let refusal = ask(client, ski, opcode).unwrap_err();
        assert_eq!((refusal.code, refusal.reason), (ErrorCode::Denied, reason));
    }
    for opcode in [
        Opcode::Rpc,
        Opcode::Custom,
        Opcode::Tls12MasterProof,
        Opcode::ServerRandoms,
    ] {
        let refusal = ask(granted, Some(ski), opcode).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::BadOpcode, "{opcode:?}");
    }
}

#[test]
fn an_rsa_key_is_also_found_by_its_digest_but_never_against_its_ski() {
    let site = Site::new();
    let key = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048);
    site.write_private("keys/shop.key", &key.unwrap().serialize_pem());
    let snapshot = snapshot(&site);
    let (key, _) = snapshot.key_at(0).unwrap();
    let granted = client(&site, &snapshot, "edge-1");
    let digest = key.modulus_digest();
    assert!(digest.is_some());
    let request = Request {
        digest,
        ..Request::new(1, Opcode::RsaSignSha256)
    };
    assert!(admit(&snapshot, granted, &request).is_ok());
    // A digest does not override an SKI that names another key.
    let request = Request {
        ski: Some([9; 20]),
        ..request
    };
    let refusal = admit(&snapshot, granted, &request).unwrap_err();
    assert_eq!(refusal.reason, RefusalReason::UnknownKey);
}

#[test]
fn the_key_list_shows_what_the_client_can_use_and_nothing_else() {
    let site = Site::new();
    site.add_key("bank");
    site.add_key("shop");
    site.configure(&MINIMAL.replace(r#"["*"]"#, r#"["shop"]"#));
    let snapshot = snapshot(&site);
    let id = client(&site, &snapshot, "edge-1");
    let list = policy::key_list(&snapshot, id, 0, 65_528).list;
    let [entry] = list.keys.as_slice() else {
        panic!("{list:?}")
    };
    assert_eq!(
        (entry.label.as_str(), entry.key_type.as_str()),
        ("shop", "p-256")
    );
    assert_eq!(
        entry.operations,
        ["tls13-sign", "tls12-sign", "sign-digest"]
    );
    let (key, _) = snapshot.key_at(1).unwrap();
    assert_eq!(entry.ski, ski_to_hex(&key.ski()));
    assert_eq!(list.next, None);
    assert!(
        policy::key_list(&snapshot, None, 0, 65_528)
            .list
            .keys
            .is_empty()
    );
}

#[test]
fn a_long_key_list_comes_in_pages_that_fit_a_frame() {
    let site = Site::new();
    for number in 0..40 {
        site.add_key(&format!("key-{number:02}"));
    }
    let snapshot = snapshot(&site);
    let id = client(&site, &snapshot, "edge-1");
    let mut labels = Vec::new();
    let (mut first, mut pages) = (0, 0);
    loop {
        let page = policy::key_list(&snapshot, id, first, 4096).list;
        assert!(serde_json::to_vec(&page).unwrap().len() <= 4096);
        labels.extend(page.keys.iter().map(|key| key.label.clone()));
        pages += 1;
        match page.next {
            Some(next) if next > first => first = next,
            Some(next) => panic!("page {first} leads to {next}"),
            None => break,
        }
    }
    let expected: Vec<_> = (0..40).map(|number| format!("key-{number:02}")).collect();
    assert_eq!(labels, expected);
    assert!(pages > 2, "{pages}");
    assert!(
        policy::key_list(&snapshot, id, u32::MAX, 4096)
            .list
            .keys
            .is_empty()
    );
}

#[test]
fn identities_are_read_from_the_certificate() {
    let site = Site::new();
    let mut wanted = params("edge, O=Evil");
    wanted
        .distinguished_name
        .push(rcgen::DnType::OrganizationName, "Bank");
    wanted.subject_alt_names = vec![
        SanType::DnsName("Edge-1.Example".try_into().unwrap()),
        SanType::URI("spiffe://bank/edge".try_into().unwrap()),
        SanType::IpAddress("192.0.2.1".parse().unwrap()),
    ];
    let (certificate, key) = site.issue(wanted);
    let identity = PeerIdentity::from_certificate(certificate.der()).unwrap();
    assert_eq!(identity.dns, ["edge-1.example"]);
    assert_eq!(identity.uri, ["spiffe://bank/edge"]);
    // The comma cannot pass for the start of another attribute.
    assert_eq!(identity.subject, r"CN=edge\, O\=Evil,O=Bank");
    let spki = accel::Key::from_bytes(key.serialize_pem().as_bytes()).unwrap();
    let expected = aws_sha256(spki.spki_der());
    assert_eq!(identity.spki_sha256, expected);
    assert!(PeerIdentity::from_certificate(&b"junk"[..].into()).is_err());
}

/// SHA-256 by way of a hash that is known to be right: that of the TLS library.
fn aws_sha256(data: &[u8]) -> [u8; 32] {
    let suite = rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
    let hash = suite.tls13().unwrap().common.hash_provider.hash(data);
    hash.as_ref().try_into().unwrap()
}

#[test]
fn certificate_errors_name_the_file_and_the_way_out() {
    let site = Site::new();
    let (_, other) = site.issue(params("other"));
    let good = fs::read_to_string(site.path("pki/server-key.pem")).unwrap();

    site.write_private("pki/server-key.pem", &other.serialize_pem());
    assert_eq!(
        failure(&site),
        "tls.private_key (DIR/pki/server-key.pem): this key does not belong to the certificate \
         DIR/pki/server.pem; set tls.private_key and tls.certificate to files of one pair"
    );

    site.write_private("pki/server-key.pem", &good);
    fs::set_permissions(
        site.path("pki/server-key.pem"),
        fs::Permissions::from_mode(0o644),
    )
    .unwrap();
    assert_eq!(
        failure(&site),
        "tls.private_key (DIR/pki/server-key.pem): mode 0644 lets others than its owner at it; chmod \
         600 it, and make a new one if others may have read it"
    );

    let certificate = fs::read_to_string(site.path("pki/server.pem")).unwrap();
    site.write_private("pki/server-key.pem", &certificate);
    assert_eq!(
        failure(&site),
        "tls.private_key (DIR/pki/server-key.pem): there is no private key in it; give an \
         unencrypted PEM key: PKCS#8, PKCS#1 or SEC1"
    );

    site.write_private("pki/server-key.pem", &good);
    site.write("pki/ca.pem", "");
    assert_eq!(
        failure(&site),
        "tls.client_ca (DIR/pki/ca.pem): there is no certificate in it; give a PEM file with at \
         least one BEGIN CERTIFICATE block"
    );

    site.write("pki/server.pem", &good);
    assert!(failure(&site).starts_with("tls.certificate (DIR/pki/server.pem): there is no"));
}

#[test]
fn a_certificate_that_belongs_to_another_key_is_refused() {
    let site = Site::new();
    let key = site.add_key("shop");
    let (other, _) = site.issue(params("other"));
    let own = params("shop").self_signed(&key).unwrap();
    let config = MINIMAL.replace(
        "directory = \"keys\"",
        "file = \"keys/shop.key\"\ncertificate = \"shop-certificate.pem\"\nlabel = \"named\"",
    );
    site.configure(&config);
    site.write("shop-certificate.pem", &own.pem());
    assert_eq!(snapshot(&site).key_at(0).unwrap().1, "named");
    site.write("shop-certificate.pem", &other.pem());
    assert_eq!(
        failure(&site),
        "keys.certificate (DIR/shop-certificate.pem): it does not belong to the key \
         DIR/keys/shop.key; name the certificate that was issued for this key, or remove \
         `certificate`"
    );
}

#[test]
fn a_key_file_that_others_can_read_is_refused_unless_it_is_named() {
    let site = Site::new();
    site.add_key("shop");
    let readable = fs::Permissions::from_mode(0o644);
    fs::set_permissions(site.path("keys/shop.key"), readable).unwrap();
    let error = failure(&site);
    assert!(error.contains("keys/shop.key"), "{error}");
    let named = "directory = \"keys\"\nallow_weak_permissions = [\"shop\"]";
    site.configure(&MINIMAL.replace("directory = \"keys\"", named));
    assert_eq!(snapshot(&site).keys.len(), 1);
}

#[test]
fn client_certificates_are_demanded_as_documented() {
    let site = Site::new();
    let snapshot = snapshot(&site);
    // The rules sit in the TLS configuration; ask its verifier through a handshake of two ends.
    let handshake = |usages: Vec<ExtendedKeyUsagePurpose>, versions| {
        let mut wanted = params("edge-1");
        wanted.extended_key_usages = usages;
        let (certificate, key) = site.issue(wanted);
        let client = client_config(&site, Some((&certificate, &key)), versions);
        connect(client, Arc::clone(&snapshot.tls))
    };
    let both: &[_] = &[&rustls::version::TLS13, &rustls::version::TLS12];
    for versions in [&both[..1], &both[1..]] {
        assert_eq!(handshake(vec![], versions), Ok(()));
        assert_eq!(
            handshake(vec![ExtendedKeyUsagePurpose::ClientAuth], versions),
            Ok(())
        );
        assert!(handshake(vec![ExtendedKeyUsagePurpose::ServerAuth], versions).is_err());
        let anonymous = client_config(&site, None, versions);
        assert!(connect(anonymous, Arc::clone(&snapshot.tls)).is_err());
    }
}

#[test]
fn the_tls_policy_switches_hold() {
    let site = Site::new();
    let (certificate, key) = site.issue(params("edge-1"));
    let client = |versions| client_config(&site, Some((&certificate, &key)), versions);
    let (old, new): (&[_], &[_]) = (&[&rustls::version::TLS12], &[&rustls::version::TLS13]);

    site.configure(&MINIMAL.replace("[admin]", "minimum = \"1.3\"\n[admin]"));
    let strict = Arc::clone(&snapshot(&site).tls);
    assert!(connect(client(old), Arc::clone(&strict)).is_err());
    assert_eq!(connect(client(new), strict), Ok(()));

    site.configure(&MINIMAL.replace("[admin]", "require_post_quantum = true\n[admin]"));
    let quantum = Arc::clone(&snapshot(&site).tls);
    assert!(connect(client(old), Arc::clone(&quantum)).is_err());
    assert_eq!(connect(client(new), Arc::clone(&quantum)), Ok(()));
    let classical = rustls::crypto::CryptoProvider {
        kx_groups: vec![rustls::crypto::aws_lc_rs::kx_group::X25519],
        ..rustls::crypto::aws_lc_rs::default_provider()
    };
    let classical = client_with(&site, Some((&certificate, &key)), new, classical);
    assert!(connect(classical, quantum).is_err());
}

#[test]
fn tls_1_2_resumes_by_ticket_and_tls_1_3_gives_none() {
    let site = Site::new();
    let (certificate, key) = site.issue(params("edge-1"));
    let server = Arc::clone(&snapshot(&site).tls);
    let full = HandshakeKind::Full;
    for (version, second) in [
        (&rustls::version::TLS12, HandshakeKind::Resumed),
        (&rustls::version::TLS13, full),
    ] {
        let client = Arc::new(client_config(&site, Some((&certificate, &key)), &[version]));
        assert_eq!(
            handshake(Arc::clone(&client), Arc::clone(&server)),
            Ok(full)
        );
        assert_eq!(
            handshake(Arc::clone(&client), Arc::clone(&server)),
            Ok(second)
        );
        // After a reload nobody resumes: the trust of before may have ended.
        let reloaded = Arc::clone(&snapshot(&site).tls);
        assert_eq!(handshake(client, reloaded), Ok(full));
    }
}

#[test]
fn tls_1_2_speaks_aes_256_and_nothing_else() {
    let site = Site::new();
    let (certificate, key) = site.issue(params("edge-1"));
    let server = Arc::clone(&snapshot(&site).tls);
    let offers = |suite| {
        let provider = rustls::crypto::CryptoProvider {
            cipher_suites: vec![suite],
            ..rustls::crypto::aws_lc_rs::default_provider()
        };
        let versions = &[&rustls::version::TLS12];
        let client = client_with(&site, Some((&certificate, &key)), versions, provider);
        connect(client, Arc::clone(&server))
    };
    use rustls::crypto::aws_lc_rs::cipher_suite;
    assert_eq!(
        offers(cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
        Ok(())
    );
    assert!(offers(cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256).is_err());
    assert!(offers(cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256).is_err());
}

type Versions<'a> = &'a [&'static rustls::SupportedProtocolVersion];
type Pair<'a> = Option<(&'a rcgen::Certificate, &'a rcgen::KeyPair)>;

fn client_config(site: &Site, pair: Pair<'_>, versions: Versions<'_>) -> rustls::ClientConfig {
    client_with(
        site,
        pair,
        versions,
        rustls::crypto::aws_lc_rs::default_provider(),
    )
}

fn client_with(
    site: &Site,
    pair: Pair<'_>,
    versions: Versions<'_>,
    provider: rustls::crypto::CryptoProvider,
) -> rustls::ClientConfig {
    use rustls_pki_types::pem::PemObject;
    use rustls_pki_types::{CertificateDer, PrivateKeyDer};
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(site.path("pki/ca.pem")).unwrap())
        .unwrap();
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    match pair {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
            builder
                .with_client_auth_cert(vec![certificate.der().clone()], key)
                .unwrap()
        }
    }
}

fn connect(
    client: rustls::ClientConfig,
    server: Arc<rustls::ServerConfig>,
) -> Result<(), rustls::Error> {
    handshake(Arc::new(client), server).map(|_| ())
}

/// A handshake in memory.
fn handshake(
    client: Arc<rustls::ClientConfig>,
    server: Arc<rustls::ServerConfig>,
) -> Result<HandshakeKind, rustls::Error> {
    let name = "localhost".try_into().unwrap();
    let mut client = rustls::ClientConnection::new(client, name)?;
    let mut server = rustls::ServerConnection::new(server)?;
    for _ in 0..10 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut bytes = wire.as_slice();
        while !bytes.is_empty() {
            server.read_tls(&mut bytes).unwrap();
            server.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut bytes = wire.as_slice();
        while !bytes.is_empty() {
            client.read_tls(&mut bytes).unwrap();
            client.process_new_packets()?;
        }
        if !client.is_handshaking() && !server.is_handshaking() {
            assert!(
                server
                    .peer_certificates()
                    .is_some_and(|chain| !chain.is_empty())
            );
            // What the server sent last (a ticket) was read above.
            return Ok(server.handshake_kind().unwrap());
        }
    }
    panic!("the handshake does not end");
}
