//! A connection to a key server on which every byte of a frame can be seen.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use keyless_protocol::{ErrorCode, HEADER_LEN, Reply, Request, split_frame};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::fixture::Fixture;

/// One TLS connection; a request at a time.
pub struct Wire<S: Read + Write = TcpStream> {
    tls: StreamOwned<ClientConnection, S>,
    frame: Vec<u8>,
}

/// An answer: the output, or the code and the milliseconds after which to ask again.
pub type Answer = Result<Vec<u8>, (ErrorCode, Option<u32>)>;

impl Wire {
    /// Connects with the identity `pki/NAME.pem` of a fixture.
    pub fn connect(fixture: &Fixture, server: SocketAddr, name: &str) -> Self {
        let stream = TcpStream::connect(server).expect("the server listens");
        let patience = Duration::from_secs(60);
        stream.set_read_timeout(Some(patience)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Self::over(fixture, stream, name)
    }
}

impl<S: Read + Write> Wire<S> {
    /// Over a connection that is there, with the identity `pki/NAME.pem` of a fixture.
    pub fn over(fixture: &Fixture, stream: S, name: &str) -> Self {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(fixture.path("pki/ca.pem")).expect("a CA");
        roots.add(ca).expect("a root");
        let chain = CertificateDer::from_pem_file(fixture.path(format!("pki/{name}.pem")));
        let key = PrivateKeyDer::from_pem_file(fixture.path(format!("pki/{name}-key.pem")));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![chain.expect("a certificate")], key.expect("a key"))
            .expect("an identity");
        let host = "localhost".try_into().expect("a name");
        let tls = ClientConnection::new(Arc::new(config), host).expect("a session");
        Self {
            tls: StreamOwned::new(tls, stream),
            frame: Vec::new(),
        }
    }

    /// Sends a request and gives the whole frame of the answer.
    pub fn exchange(&mut self, request: &Request<'_>) -> &[u8] {
        self.send(std::slice::from_ref(request));
        self.receive()
    }

    /// Sends requests in one go.
    pub fn send(&mut self, requests: &[Request<'_>]) {
        self.frame.clear();
        for request in requests {
            request.encode(&mut self.frame).expect("a frame");
        }
        self.tls.write_all(&self.frame).expect("they are sent");
    }

    /// The whole frame of the next answer.
    pub fn receive(&mut self) -> &[u8] {
        self.frame.resize(HEADER_LEN, 0);
        self.tls.read_exact(&mut self.frame).expect("a header");
        let length = usize::from(u16::from_be_bytes([self.frame[2], self.frame[3]]));
        self.frame.resize(HEADER_LEN + length, 0);
        self.tls
            .read_exact(&mut self.frame[HEADER_LEN..])
            .expect("a body");
        &self.frame
    }

    /// Sends a request and reads the answer.
    ///
    /// # Errors
    ///
    /// The server answered with an error.
    pub fn ask(&mut self, request: &Request<'_>) -> Answer {
        let (frame, _) = split_frame(self.exchange(request)).expect("a whole frame");
        let reply = Reply::decode(frame).expect("a reply");
        assert_eq!(reply.id, request.id);
        reply
            .outcome
            .map(<[u8]>::to_vec)
            .map_err(|code| (code, reply.retry_after_ms))
    }
}
