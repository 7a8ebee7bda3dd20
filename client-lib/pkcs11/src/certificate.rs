//! The configured certificates: a directory of PEM files whose private keys are on the server.

use std::fs;
use std::path::Path;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::der::{EXPLICIT_0, INTEGER, Reader, SEQUENCE};
use crate::failure::Failure;
use crate::public_key::PublicKey;

/// A certificate, with the parts that PKCS#11 asks for one by one. All of them are DER.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Certificate {
    /// The file's name without its ending.
    pub(crate) label: String,
    pub(crate) der: Vec<u8>,
    pub(crate) serial_number: Vec<u8>,
    pub(crate) issuer: Vec<u8>,
    pub(crate) subject: Vec<u8>,
    pub(crate) key: PublicKey,
}

/// Files with these endings are certificates; anything else in the directory is not looked at.
const ENDINGS: [&str; 3] = ["pem", "crt", "cer"];

/// Most certificates that are read. Hosts list all objects, so more would make them slow.
const CERTIFICATES_MAX: usize = 10_000;

/// Reads the first certificate of each file, ordered by file name. A file with a certificate of a
/// key type that PKCS#11 hosts cannot use is left out.
pub(crate) fn read_directory(directory: &Path) -> Result<Vec<Certificate>, Failure> {
    let failed = |error: std::io::Error| {
        let directory = directory.display();
        Failure::configuration(format!("`certificates`: cannot read {directory}: {error}"))
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let ending = path.extension().and_then(|ending| ending.to_str());
        if ending.is_some_and(|ending| ENDINGS.contains(&ending)) {
            paths.push(path);
        }
    }
    if paths.len() > CERTIFICATES_MAX {
        return Err(Failure::configuration(format!(
            "`certificates`: {} holds {} certificates, more than {CERTIFICATES_MAX}",
            directory.display(),
            paths.len()
        )));
    }
    paths.sort();
    let mut certificates = Vec::new();
    for path in paths {
        certificates.extend(read_file(&path)?);
    }
    Ok(certificates)
}

fn read_file(path: &Path) -> Result<Option<Certificate>, Failure> {
    let failed =
        |why: String| Failure::configuration(format!("`certificates`: {}: {why}", path.display()));
    let text = fs::read(path).map_err(|error| failed(format!("cannot be read: {error}")))?;
    let first = CertificateDer::from_pem_slice(&text)
        .map_err(|error| failed(format!("no PEM certificate in it: {error}")))?;
    let label = path.file_stem().unwrap_or_default().to_string_lossy();
    match take_apart(label.into_owned(), &first) {
        Parts::Usable(certificate) => Ok(Some(*certificate)),
        Parts::OtherKeyType => Ok(None),
        Parts::Broken => Err(failed("its certificate cannot be read".into())),
    }
}

enum Parts {
    Usable(Box<Certificate>),
    OtherKeyType,
    Broken,
}

fn take_apart(label: String, der: &[u8]) -> Parts {
    let fields = || {
        let mut outer = Reader::new(der);
        let mut fields = outer.sequence()?.sequence()?;
        if fields.peek() == Some(EXPLICIT_0) {
            fields.next(EXPLICIT_0)?; // version, absent in version 1
        }
        let serial_number = fields.next(INTEGER)?.whole;
        fields.next(SEQUENCE)?; // signature algorithm
        let issuer = fields.next(SEQUENCE)?.whole;
        fields.next(SEQUENCE)?; // validity
        let subject = fields.next(SEQUENCE)?.whole;
        let spki = fields.next(SEQUENCE)?.whole;
        outer
            .is_empty()
            .then_some((serial_number, issuer, subject, spki))
    };
    let Some((serial_number, issuer, subject, spki)) = fields() else {
        return Parts::Broken;
    };
    let Some(key) = PublicKey::from_spki(spki) else {
        return Parts::OtherKeyType;
    };
    Parts::Usable(Box::new(Certificate {
        label,
        der: der.to_vec(),
        serial_number: serial_number.to_vec(),
        issuer: issuer.to_vec(),
        subject: subject.to_vec(),
        key,
    }))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A certificate of this key type, as PEM.
    pub(crate) fn pem(algorithm: &'static rcgen::SignatureAlgorithm) -> String {
        let pair = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let parameters = rcgen::CertificateParams::new(["a.example".to_owned()]).unwrap();
        parameters.self_signed(&pair).unwrap().pem()
    }

    #[test]
    fn labels_are_file_names_and_other_files_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("shop.pem", &pem(&rcgen::PKCS_ECDSA_P256_SHA256));
        write("blog.example.crt", &pem(&rcgen::PKCS_ED25519));
        write("README", "not a certificate");
        let found = read_directory(folder.path()).unwrap();
        let labels: Vec<&str> = found.iter().map(|it| it.label.as_str()).collect();
        assert_eq!(labels, ["blog.example", "shop"]);
        assert_eq!(found[0].subject, found[0].issuer);
        assert_eq!(found[0].serial_number[0], INTEGER);

        write("key.pem", "-----BEGIN X-----\nAAAA\n-----END X-----\n");
        let failure = read_directory(folder.path()).unwrap_err();
        assert!(failure.why.contains("key.pem"), "{}", failure.why);
        read_directory(&folder.path().join("none")).unwrap_err();
    }
}
