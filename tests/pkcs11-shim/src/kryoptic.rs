//! A token of Kryoptic, a module with PKCS#11 3.2, in a temporary directory: real ML-DSA keys behind a real
//! module. SoftHSM 2.6 has none.

use std::env;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use cryptoki_sys::{CKP_ML_DSA_44, CKP_ML_DSA_65, CKP_ML_DSA_87};

use crate::bare::Bare;
use crate::install::{Installed, install};
use crate::softhsm::{is_there, missing};

/// Where distributions put the module.
const MODULES: [&str; 3] = [
    "/usr/lib64/pkcs11/libkryoptic_pkcs11.so",
    "/usr/lib/pkcs11/libkryoptic_pkcs11.so",
    "/usr/lib/x86_64-linux-gnu/pkcs11/libkryoptic_pkcs11.so",
];

/// The one token, `bank`, which is gone with this value.
#[derive(Debug)]
pub struct Kryoptic {
    folder: tempfile::TempDir,
    module: PathBuf,
}

#[expect(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "for tests: tools that fail end the test"
)]
impl Kryoptic {
    /// The PIN of the token.
    pub const PIN: &'static str = crate::SoftHsm::PIN;

    /// Makes the token; `None`, after saying so, on a machine without the module, which `tests/kryoptic`
    /// builds, or `pkcs11-tool`.
    #[must_use]
    pub fn new() -> Option<Self> {
        let Some(module) = module().filter(|_| is_there("pkcs11-tool")) else {
            missing("Kryoptic (tests/kryoptic) or pkcs11-tool (Debian: opensc)");
            return None;
        };
        let folder = tempfile::tempdir().expect("a temporary folder");
        let text = format!(
            "[[slots]]\nslot = 7\ndbtype = \"sqlite\"\ndbargs = \"{}\"\n",
            folder.path().join("token.sql").display()
        );
        fs::write(folder.path().join("kryoptic.conf"), text).expect("a configuration");
        let pin = folder.path().join("pin");
        fs::write(&pin, Self::PIN).expect("a PIN file");
        fs::set_permissions(&pin, Permissions::from_mode(0o600)).expect("a PIN file of one's own");
        let token = Self { folder, module };
        let officer = ["--slot", "7", "--so-pin", Self::PIN];
        token.tool(&[&["--init-token", "--label", "bank"], &officer[..]].concat());
        let set = ["--login", "--login-type", "so", "--init-pin", "--pin"];
        token.tool(&[&set[..], &[Self::PIN], &officer].concat());
        Some(token)
    }

    /// A file with the PIN in it.
    #[must_use]
    pub fn pin_file(&self) -> PathBuf {
        self.folder.path().join("pin")
    }

    /// Has the token make a key pair: `kind` as `pkcs11-tool` wants it, `EC:prime256v1` or `rsa:2048`.
    pub fn generate(&self, kind: &str, label: &str, id: &str) {
        let login = ["--token-label", "bank", "--login", "--pin", Self::PIN];
        let kind = ["--keypairgen", "--key-type", kind];
        self.tool(&[&login[..], &kind, &["--label", label, "--id", id]].concat());
    }

    /// Has the token make ML-DSA-44, -65 and -87 keys of these names, through `shim`, in this process: the
    /// `pkcs11-tool` of Debian does not know them.
    pub fn generate_ml_dsa(&self, shim: &Installed) {
        let bare = Bare::load(&shim.module);
        for (at, set) in [CKP_ML_DSA_44, CKP_ML_DSA_65, CKP_ML_DSA_87]
            .into_iter()
            .enumerate()
        {
            let label = ["ml-dsa-44", "ml-dsa-65", "ml-dsa-87"][at];
            let id = [0x40 + u8::try_from(at).expect("a small number")];
            bare.generate_ml_dsa(7, Self::PIN, set, label, &id);
        }
        bare.finalize();
    }

    /// A copy of the shim before this module.
    #[must_use]
    pub fn shim(&self) -> Installed {
        let configuration = self.folder.path().join("kryoptic.conf");
        let configuration = configuration.to_str().expect("a path in UTF-8");
        let environment = [("KRYOPTIC_CONF", configuration)];
        install(
            self.folder.path(),
            "kryoptic-shim",
            &self.module,
            &environment,
        )
    }

    /// The URI of a key, through a module.
    #[must_use]
    pub fn uri(&self, label: &str, module: &Path) -> String {
        format!(
            "pkcs11:token=bank;object={label};type=private?module-path={}&pin-source=file:{}",
            module.display(),
            self.pin_file().display()
        )
    }

    fn tool(&self, arguments: &[&str]) {
        let mut command = Command::new("pkcs11-tool");
        command.arg("--module").arg(&self.module).args(arguments);
        command.env("KRYOPTIC_CONF", self.folder.path().join("kryoptic.conf"));
        let output = command.output().expect("the tool runs");
        assert!(
            output.status.success(),
            "{command:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// Where the system has it, or where `tests/kryoptic` has put it: beside the folder of the running test.
fn module() -> Option<PathBuf> {
    let test = env::current_exe().ok()?;
    let built = test
        .ancestors()
        .map(|folder| folder.join("kryoptic/libkryoptic_pkcs11.so"));
    MODULES
        .iter()
        .map(PathBuf::from)
        .chain(built)
        .find(|path| path.exists())
}
