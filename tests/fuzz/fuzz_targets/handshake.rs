//! What a TLS server signs: whatever the bytes, an answer; and a handshake that is read is one that
//! no cut of it is.

#![no_main]

use keyless_protocol::{Opcode, SignatureScheme};
use keyserver::handshake::{CertificateVerify, Claim, ServerKeyExchange, Statement, Transcript};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let is_tls13 = CertificateVerify::check(data).is_ok();
    let is_tls12 = ServerKeyExchange::read(data).is_ok();
    assert!(!(is_tls13 && is_tls12));
    if let Ok(transcript) = Transcript::read(data) {
        assert!(Transcript::read(&data[..data.len() - 1]).is_err());
        assert!(!transcript.public_key().is_empty());
    }
    for scheme in SignatureScheme::ALL {
        for opcode in [Opcode::SignTls13, Opcode::SignTls12] {
            if let Ok(Some(claim)) = Claim::read(opcode, Some(scheme.as_u16()), data) {
                assert!(claim.statement.version().knows(scheme));
                assert!(
                    matches!(claim.statement, Statement::Transcript(_)) || is_tls13 || is_tls12
                );
            }
        }
    }
});
