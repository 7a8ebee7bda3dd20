//! An edge that asks for delegated credentials, many at a time: their proofs are bound to its connection.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use keyless_protocol::delegation::{EXPORTER_LABEL, EXPORTER_LEN, Request as Wanted};
use keyless_protocol::{ErrorCode, Opcode, Reply, Request, SignatureScheme, Ski};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::common::{Site, params};

/// Which request has an answer, and the code of a refusal.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answered {
    pub(crate) id: u32,
    pub(crate) error: Option<ErrorCode>,
}

/// One connection, over TLS 1.3.
pub(crate) struct Delegating {
    stream: StreamOwned<ClientConnection, TcpStream>,
    /// What has come and is not looked at yet.
    received: Vec<u8>,
    ski: Ski,
    /// The payload of a request for a credential.
    wanted: Vec<u8>,
}

impl Delegating {
    pub(crate) fn connect(site: &Site, address: SocketAddr, ski: Ski) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        let limit = Some(Duration::from_secs(30));
        socket.set_read_timeout(limit).unwrap();
        let connection =
            ClientConnection::new(config(site), "localhost".try_into().unwrap()).unwrap();
        let mut stream = StreamOwned::new(connection, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).unwrap();
        }
        let exporter = (stream.conn)
            .export_keying_material([0; EXPORTER_LEN], EXPORTER_LABEL, None)
            .unwrap();
        let own = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let spki = own.public_key().as_der().unwrap();
        let bare = Wanted {
            lifetime: 600,
            algorithm: SignatureScheme::EcdsaP256Sha256.as_u16(),
            spki: spki.as_ref(),
            proof: &[],
        };
        let proof = own.sign(&SystemRandom::new(), &bare.proven(&exporter, &ski));
        let mut wanted = Vec::new();
        let proof = proof.unwrap();
        let proof = proof.as_ref();
        Wanted { proof, ..bare }.encode(&mut wanted);
        Self {
            stream,
            received: Vec::new(),
            ski,
            wanted,
        }
    }

    /// Asks for a credential under each of these numbers, in one write.
    pub(crate) fn delegate(&mut self, ids: Range<u32>) {
        let wanted = self.wanted.clone();
        let request = Request {
            ski: Some(self.ski),
            signature_scheme: Some(SignatureScheme::EcdsaP256Sha256.as_u16()),
            payload: &wanted,
            extended: true,
            ..Request::new(0, Opcode::DelegateCredential)
        };
        self.ask(&request, ids);
    }

    /// Sends a request under each of these numbers, in one write.
    pub(crate) fn ask(&mut self, request: &Request<'_>, ids: Range<u32>) {
        let mut out = Vec::new();
        for id in ids {
            Request { id, ..*request }.encode(&mut out).unwrap();
        }
        self.stream.write_all(&out).unwrap();
        self.stream.flush().unwrap();
    }

    /// Waits for the next answer.
    pub(crate) fn answer(&mut self) -> Answered {
        loop {
            if let Some((frame, length)) = keyless_protocol::split_frame(&self.received) {
                let reply = Reply::decode(frame).unwrap();
                let answered = Answered {
                    id: reply.id,
                    error: reply.outcome.err(),
                };
                self.received.drain(..length);
                return answered;
            }
            let mut bytes = [0; 4096];
            let length = self.stream.read(&mut bytes).unwrap();
            assert_ne!(length, 0, "the server has closed");
            self.received.extend_from_slice(&bytes[..length]);
        }
    }
}

/// That of `edge-1`, with a certificate of its own.
fn config(site: &Site) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(site.path("pki/ca.pem")).unwrap();
    roots.add(ca).unwrap();
    let mut edge = params("edge-1");
    edge.subject_alt_names = vec![rcgen::SanType::DnsName("edge-1".try_into().unwrap())];
    edge.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let (certificate, key) = site.issue(edge);
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate.der().clone()], key)
        .unwrap();
    Arc::new(config)
}
