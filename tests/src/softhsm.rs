//! A hardware security module in software, as the server's tests want it: SoftHSM with keys of the kinds that
//! the server knows, and the configuration that names them. `pkcs11_shim` makes the tokens.

use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use pkcs11_shim::Installed;

use crate::keys::KeyKind;

/// The PIN of every token. Long enough that it is found nowhere by chance.
pub const PIN: &str = pkcs11_shim::SoftHsm::PIN;

/// A directory with tokens, and the file that tells the module about it.
pub struct SoftHsm(pkcs11_shim::SoftHsm);

impl Deref for SoftHsm {
    type Target = pkcs11_shim::SoftHsm;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl SoftHsm {
    /// A module without tokens, or `None` after saying that the test is skipped.
    pub fn new() -> Option<Self> {
        pkcs11_shim::SoftHsm::new(&[]).map(Self)
    }

    /// A module that stands before a copy of this one and fails on demand. A process can hold several,
    /// which know nothing of each other. It brings the configuration along: no wrapper is needed.
    pub fn faulty(&self, name: &str) -> Installed {
        self.shim(name, true)
    }

    /// A command line that runs the rest of its arguments with the module's configuration in place.
    pub fn wrapper(&self) -> Vec<PathBuf> {
        let setting = format!("SOFTHSM2_CONF={}", self.configuration().display());
        vec!["/usr/bin/env".into(), setting.into()]
    }

    /// Makes a key in a token, under the label and the identifier given.
    pub fn add_key(&self, token: &str, kind: KeyKind, label: &str, id: u8) {
        let kind = match kind {
            KeyKind::Rsa2048 => "rsa:2048",
            KeyKind::Rsa3072 => "rsa:3072",
            KeyKind::Rsa4096 => "rsa:4096",
            KeyKind::P256 => "EC:prime256v1",
            KeyKind::P384 => "EC:secp384r1",
            KeyKind::P521 => "EC:secp521r1",
            KeyKind::Ed25519 => "EC:edwards25519",
            KeyKind::MlDsa44 | KeyKind::MlDsa65 | KeyKind::MlDsa87 => {
                panic!("SoftHSM has no {}", kind.name())
            }
        };
        self.generate(token, kind, label, &format!("{id:02x}"));
    }

    /// Puts a private key that was made elsewhere (PKCS#8 DER) into a token.
    pub fn import_der(&self, token: &str, pkcs8: &[u8], label: &str, id: u8) {
        let file = self.folder().join("import.pem");
        fs::write(&file, pem_of(pkcs8)).expect("a file");
        self.import(token, label, &format!("{id:02x}"), &file);
    }

    /// The public key with this identifier, DER `SubjectPublicKeyInfo`.
    pub fn public_key(&self, token: &str, kind: KeyKind, id: u8) -> Vec<u8> {
        let id = format!("{id:02x}");
        let select = ["--type", "pubkey", "--id", &id];
        // What stands before the point (RFC 5480, RFC 8410). pkcs11-tool itself writes RSA keys only.
        let header = match kind {
            KeyKind::P256 => "3059301306072a8648ce3d020106082a8648ce3d030107034200",
            KeyKind::P384 => "3076301006072a8648ce3d020106052b81040022036200",
            KeyKind::P521 => "30819b301006072a8648ce3d020106052b8104002303818600",
            KeyKind::Ed25519 => "302a300506032b6570032100",
            _ => {
                let file = self.folder().join("public.der");
                let path = file.to_str().expect("a path in UTF-8");
                let read = ["--read-object", "--output-file", path];
                self.tool(token, &[&read[..], &select].concat());
                return fs::read(&file).expect("the public key");
            }
        };
        // The listing holds every public key, whatever is asked for.
        let listing = self.ask_tool(token, &["--list-objects", "--type", "pubkey"]);
        let field = |object: &str, name: &str| {
            let line = object
                .lines()
                .find_map(|line| line.trim().strip_prefix(name));
            line.map(|value| value.trim().to_owned())
        };
        let mut objects = listing.split("Public Key Object;");
        let object = objects.find(|object| field(object, "ID:").as_ref() == Some(&id));
        let point = object.and_then(|object| field(object, "EC_POINT:"));
        let point = hex(&point.expect("a point"));
        // The point is an OCTET STRING; its header is 04, and the length in one byte or in 81 and one.
        let header_length = if point[1] == 0x81 { 3 } else { 2 };
        [hex(header), point[header_length..].to_vec()].concat()
    }

    /// The URI of a key, through `module`: this one, or one that forwards to it.
    pub fn uri_through(&self, module: &Path, token: &str, label: &str) -> String {
        format!(
            "pkcs11:token={token};object={label}?module-path={}",
            module.display()
        )
    }

    /// A `[[keys]]` entry for a key.
    pub fn entry(&self, token: &str, label: &str) -> String {
        self.entry_through(self.module(), token, label)
    }

    /// A `[[keys]]` entry for a key behind another module that forwards to this one.
    pub fn entry_through(&self, module: &Path, token: &str, label: &str) -> String {
        format!(
            "[[keys]]\nuri = \"{}\"\npin_source = \"file:{}\"\ndual_use_until = 2099-12-31\n",
            self.uri_through(module, token, label),
            self.pin_file().display()
        )
    }
}

/// PEM, which is what `softhsm2-util` reads.
fn pem_of(pkcs8: &[u8]) -> String {
    let body = base64::engine::general_purpose::STANDARD.encode(pkcs8);
    let lines: Vec<_> = body
        .as_bytes()
        .chunks(64)
        .map(|line| str::from_utf8(line).expect("base64 is ASCII"))
        .collect();
    format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        lines.join("\n")
    )
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| {
            u8::from_str_radix(text.get(at..at + 2).expect("pairs"), 16).expect("hexadecimal")
        })
        .collect()
}
