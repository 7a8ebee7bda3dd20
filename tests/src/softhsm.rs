//! A hardware security module in software: SoftHSM with tokens of its own for one test, and keys that
//! `pkcs11-tool` made in them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pkcs11_shim::Installed;
use tempfile::TempDir;

use crate::keys::KeyKind;
use crate::parts;

/// The PIN of every token. Long enough that it is found nowhere by chance.
pub const PIN: &str = "73915028461937";

/// Where distributions put the module.
const MODULES: [&str; 4] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
];

/// A directory with tokens, and the file that tells the module about it.
pub struct SoftHsm {
    directory: TempDir,
    module: PathBuf,
}

impl SoftHsm {
    /// A module without tokens, or `None` after saying that the test is skipped.
    pub fn new() -> Option<Self> {
        let module = MODULES.iter().map(Path::new).find(|path| path.exists());
        let (Some(module), true) = (module, has_tools()) else {
            parts::missing("SoftHSM with pkcs11-tool (Debian: softhsm2 opensc)");
            return None;
        };
        let directory = tempfile::Builder::new().prefix("keyserver-hsm-").tempdir();
        let directory = directory.expect("a temporary directory");
        let tokens = directory.path().join("tokens");
        fs::create_dir(&tokens).expect("a directory");
        let configuration = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n",
            tokens.display()
        );
        fs::write(directory.path().join("softhsm2.conf"), configuration).expect("a file");
        let pin = directory.path().join("pin");
        fs::write(pin, format!("{PIN}\n")).expect("a file");
        Some(Self {
            directory,
            module: module.into(),
        })
    }

    /// The module.
    pub fn module(&self) -> &Path {
        &self.module
    }

    /// The value of `SOFTHSM2_CONF` for processes that load the module.
    pub fn configuration(&self) -> PathBuf {
        self.directory.path().join("softhsm2.conf")
    }

    /// A module that stands before a copy of this one and fails on demand. A process can hold several,
    /// which know nothing of each other. It brings the configuration along: no wrapper is needed.
    pub fn faulty(&self, name: &str) -> Installed {
        let copy = self.directory.path().join(format!("{name}-softhsm.so"));
        fs::copy(&self.module, &copy).expect("a copy of the module");
        let configuration = self.configuration();
        let configuration = configuration.to_str().expect("a path in UTF-8");
        let environment = [("SOFTHSM2_CONF", configuration)];
        pkcs11_shim::install(self.directory.path(), name, &copy, &environment)
    }

    /// A file with [`PIN`].
    pub fn pin_file(&self) -> PathBuf {
        self.directory.path().join("pin")
    }

    /// A command line that runs the rest of its arguments with the module's configuration in place.
    pub fn wrapper(&self) -> Vec<PathBuf> {
        let setting = format!("SOFTHSM2_CONF={}", self.configuration().display());
        vec!["/usr/bin/env".into(), setting.into()]
    }

    /// Makes a token.
    pub fn add_token(&self, label: &str) {
        let arguments = [
            "--init-token",
            "--free",
            "--label",
            label,
            "--so-pin",
            PIN,
            "--pin",
            PIN,
        ];
        self.run("softhsm2-util", &arguments);
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
        let id = format!("{id:02x}");
        self.tool(
            token,
            &[
                "--keypairgen",
                "--key-type",
                kind,
                "--label",
                label,
                "--id",
                &id,
            ],
        );
    }

    /// Puts a private key that was made elsewhere (PKCS#8 PEM) into a token.
    pub fn import_key(&self, token: &str, pem: &str, label: &str, id: u8) {
        let file = self.directory.path().join("import.pem");
        fs::write(&file, pem).expect("a file");
        let id = format!("{id:02x}");
        let file = file.to_str().expect("a path in UTF-8");
        let arguments = [
            "--import", file, "--token", token, "--label", label, "--id", &id, "--pin", PIN,
        ];
        self.run("softhsm2-util", &arguments);
    }

    /// Runs `pkcs11-tool` on a token, logged in; returns what it printed.
    pub fn tool(&self, token: &str, arguments: &[&str]) -> String {
        let module = self.module.to_str().expect("a path in UTF-8");
        let mut all = vec![
            "--module",
            module,
            "--token-label",
            token,
            "--login",
            "--pin",
            PIN,
        ];
        all.extend(arguments);
        self.run("pkcs11-tool", &all)
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
                let file = self.directory.path().join("public.der");
                let path = file.to_str().expect("a path in UTF-8");
                let read = ["--read-object", "--output-file", path];
                self.tool(token, &[&read[..], &select].concat());
                return fs::read(&file).expect("the public key");
            }
        };
        // The listing holds every public key, whatever is asked for.
        let listing = self.tool(token, &["--list-objects", "--type", "pubkey"]);
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
        self.entry_through(&self.module, token, label)
    }

    /// A `[[keys]]` entry for a key behind another module that forwards to this one.
    pub fn entry_through(&self, module: &Path, token: &str, label: &str) -> String {
        format!(
            "[[keys]]\nuri = \"{}\"\npin_source = \"file:{}\"\ndual_use_until = 2099-12-31\n",
            self.uri_through(module, token, label),
            self.pin_file().display()
        )
    }

    fn run(&self, program: &str, arguments: &[&str]) -> String {
        let output = Command::new(program)
            .args(arguments)
            .env("SOFTHSM2_CONF", self.configuration())
            .output()
            .unwrap_or_else(|error| panic!("{program} does not start: {error}"));
        assert!(
            output.status.success(),
            "{program} {arguments:?} failed:\n{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| {
            u8::from_str_radix(text.get(at..at + 2).expect("pairs"), 16).expect("hexadecimal")
        })
        .collect()
}

fn has_tools() -> bool {
    ["softhsm2-util", "pkcs11-tool"].iter().all(|program| {
        // Each prints its usage; what counts is that it starts.
        Command::new(program).arg("--help").output().is_ok()
    })
}
