//! Tokens of SoftHSM in a temporary directory: real keys behind a real module.

use std::env;
use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::install::{Installed, install};

/// Where distributions put the module.
const MODULES: [&str; 4] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
];

/// Tokens that are gone with this value.
#[derive(Debug)]
pub struct SoftHsm {
    folder: tempfile::TempDir,
    module: PathBuf,
}

#[expect(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "for tests: tools that fail end the test"
)]
impl SoftHsm {
    /// The PIN of every token. Long enough that it is found nowhere by chance.
    pub const PIN: &'static str = "73915028461937";

    /// Makes tokens with these labels; `None`, after saying so, on a machine without SoftHSM or
    /// `pkcs11-tool` (Debian: softhsm2, opensc).
    #[must_use]
    pub fn new(tokens: &[&str]) -> Option<Self> {
        let module = MODULES.iter().map(PathBuf::from).find(|path| path.exists());
        let tools = ["softhsm2-util", "pkcs11-tool"];
        let Some(module) = module.filter(|_| tools.iter().all(|tool| is_there(tool))) else {
            missing("SoftHSM 2 or pkcs11-tool (Debian: softhsm2, opensc)");
            return None;
        };
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = folder.path().join("tokens");
        fs::create_dir(&store).expect("a folder for tokens");
        let text = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n\
             slots.removable = false\n",
            store.display()
        );
        fs::write(folder.path().join("softhsm2.conf"), text).expect("a configuration");
        let pin = folder.path().join("pin");
        // With the line end that editors leave.
        fs::write(&pin, format!("{}\n", Self::PIN)).expect("a PIN file");
        fs::set_permissions(&pin, Permissions::from_mode(0o600)).expect("a PIN file of one's own");
        let hsm = Self { folder, module };
        tokens.iter().for_each(|label| hsm.add_token(label));
        Some(hsm)
    }

    /// Makes a token.
    pub fn add_token(&self, label: &str) {
        let wanted = ["--init-token", "--free", "--label", label];
        self.util(&[&wanted[..], &["--so-pin", Self::PIN]].concat());
    }

    /// The real module.
    #[must_use]
    pub fn module(&self) -> &Path {
        &self.module
    }

    /// The folder of everything.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What `SOFTHSM2_CONF` must say in a process that loads the real module.
    #[must_use]
    pub fn configuration(&self) -> PathBuf {
        self.folder.path().join("softhsm2.conf")
    }

    /// A file with the PIN in it.
    #[must_use]
    pub fn pin_file(&self) -> PathBuf {
        self.folder.path().join("pin")
    }

    /// Puts a private key, PEM in PKCS#8, and its public half on a token.
    pub fn import(&self, token: &str, label: &str, id: &str, pem: &Path) {
        let pem = pem.to_str().expect("a path in UTF-8");
        self.util(&[
            "--import", pem, "--token", token, "--label", label, "--id", id,
        ]);
    }

    /// Has a token make a key pair: `kind` as `pkcs11-tool` wants it, `EC:prime256v1` or `rsa:2048`.
    pub fn generate(&self, token: &str, kind: &str, label: &str, id: &str) {
        let kind = ["--keypairgen", "--key-type", kind];
        self.tool(
            token,
            &[&kind[..], &["--label", label, "--id", id]].concat(),
        );
    }

    /// Runs `pkcs11-tool` on a token, logged in; returns what it printed.
    #[must_use]
    pub fn ask_tool(&self, token: &str, arguments: &[&str]) -> String {
        let module = self.module.to_str().expect("a path in UTF-8");
        let mut command = Command::new("pkcs11-tool");
        command.args(["--module", module, "--token-label", token, "--login"]);
        command.args(["--pin", Self::PIN]).args(arguments);
        self.run(&mut command)
    }

    /// The same for what is done for its effect.
    pub fn tool(&self, token: &str, arguments: &[&str]) {
        drop(self.ask_tool(token, arguments));
    }

    /// A copy of the shim before this module. With `private`, before a copy of the real module too, so that
    /// two of them in one process know nothing of each other.
    #[must_use]
    pub fn shim(&self, name: &str, private: bool) -> Installed {
        let configuration = self.configuration();
        let configuration = configuration.to_str().expect("a path in UTF-8");
        let real = if private {
            let copy = self.folder.path().join(format!("{name}-softhsm.so"));
            fs::copy(&self.module, &copy).expect("a copy of the module");
            copy
        } else {
            self.module.clone()
        };
        let environment = [("SOFTHSM2_CONF", configuration)];
        install(self.folder.path(), name, &real, &environment)
    }

    /// The URI of a key, through a module.
    #[must_use]
    pub fn uri(&self, token: &str, label: &str, module: &Path) -> String {
        format!(
            "pkcs11:token={token};object={label};type=private?module-path={}&pin-source=file:{}",
            module.display(),
            self.pin_file().display()
        )
    }

    fn util(&self, arguments: &[&str]) {
        let mut command = Command::new("softhsm2-util");
        command.args(arguments).args(["--pin", Self::PIN]);
        drop(self.run(&mut command));
    }

    fn run(&self, command: &mut Command) -> String {
        command.env("SOFTHSM2_CONF", self.configuration());
        let output = command.output().expect("the tool runs");
        assert!(
            output.status.success(),
            "{command:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

pub(crate) fn is_there(tool: &str) -> bool {
    let mut command = Command::new(tool);
    command
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok()
}

/// Says that a test is skipped because `what` is missing, or fails in continuous integration.
#[expect(clippy::print_stderr, reason = "the output of a test")]
pub(crate) fn missing(what: &str) {
    let in_ci = env::var("CI").is_ok_and(|value| value == "true");
    assert!(
        !in_ci,
        "{what} is missing, and in CI nothing may be skipped"
    );
    eprintln!("SKIPPED: {what} is missing");
    // tests/run names every skip in its closing lines. A list that cannot be written hides nothing that
    // the test's own output does not say.
    if let Some(list) = env::var_os("KEYSERVER_TEST_SKIPS") {
        let file = OpenOptions::new().append(true).create(true).open(list);
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        drop(file.and_then(|mut file| writeln!(file, "{test}: {what} is missing")));
    }
}
