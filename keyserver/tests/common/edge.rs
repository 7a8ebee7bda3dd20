//! An edge that says exactly what a test wants it to.

pub(crate) mod delegating;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use keyserver_client::{Connection, ErrorCode, Opcode, Request, TlsIdentity};
use rcgen::{ExtendedKeyUsagePurpose, SanType};

use super::{Site, params};

/// What became of one request: the code of a refusal, and the time to retry after.
pub(crate) type Answer = (Option<ErrorCode>, Option<u32>);

/// An edge with one connection, which it drives itself.
pub(crate) struct Edge {
    pub(crate) connection: Connection,
    pub(crate) stream: TcpStream,
}

impl Edge {
    pub(crate) fn connect(identity: &TlsIdentity, address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        let limit = Some(Duration::from_secs(30));
        stream.set_read_timeout(limit).unwrap();
        let connection = Connection::new(identity, "localhost").unwrap();
        let mut edge = Self { connection, stream };
        edge.ask(&Request::new(0, Opcode::Ping), 1);
        assert_eq!(edge.answers(1), [(None, None)]);
        edge
    }

    /// Sends a request `count` times, in one write.
    pub(crate) fn ask(&mut self, request: &Request<'_>, count: u32) {
        for id in 0..count {
            self.connection.submit(&Request { id, ..*request }).unwrap();
        }
        self.transmit();
    }

    pub(crate) fn transmit(&mut self) {
        let mut out = Vec::new();
        self.connection.transmit(&mut out).unwrap();
        self.stream.write_all(&out).unwrap();
    }

    /// Waits for `count` answers.
    pub(crate) fn answers(&mut self, count: usize) -> Vec<Answer> {
        let mut answers = Vec::new();
        while answers.len() < count {
            let space = self.connection.read_space();
            let length = self.stream.read(space).unwrap();
            assert_ne!(length, 0, "the server has closed");
            self.connection.received(length).unwrap();
            while let Some(reply) = self.connection.next_reply() {
                answers.push((reply.outcome.err(), reply.retry_after_ms));
            }
            self.transmit();
        }
        answers
    }
}

/// The certificate of `edge-1`.
pub(crate) fn identity(site: &Site) -> TlsIdentity {
    let mut edge = params("edge-1");
    edge.subject_alt_names = vec![SanType::DnsName("edge-1".try_into().unwrap())];
    edge.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let (certificate, key) = site.issue(edge);
    site.write("edge.pem", &certificate.pem());
    site.write_private("edge-key.pem", &key.serialize_pem());
    TlsIdentity::from_files(
        site.path("pki/ca.pem"),
        site.path("edge.pem"),
        site.path("edge-key.pem"),
    )
    .unwrap()
}
