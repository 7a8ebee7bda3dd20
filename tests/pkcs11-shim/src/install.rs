//! A copy of the module in a directory, with its configuration, ready to be loaded.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::control::Control;

/// A copy that is ready.
#[derive(Clone, Debug)]
pub struct Installed {
    /// What to load.
    pub module: PathBuf,
    /// How to tell it what to do, once it is loaded.
    pub control: Control,
}

impl Installed {
    /// Has a command that needs no loaded module, such as `fail`, carried out as soon as it is loaded.
    ///
    /// # Panics
    ///
    /// When the configuration cannot be written.
    #[expect(clippy::expect_used, reason = "for tests: a failure ends the test")]
    pub fn from_the_start(&self, command: &str) {
        let path = self.module.with_extension("conf");
        let mut text = fs::read_to_string(&path).expect("the configuration");
        text.push_str("\ndo=");
        text.push_str(command);
        fs::write(path, text).expect("the configuration");
    }
}

/// Copies the module to `directory` under `name`, to stand before `real` with this environment.
///
/// # Panics
///
/// When the module was not built beside the running test, or cannot be copied.
#[expect(
    clippy::expect_used,
    clippy::panic,
    reason = "for tests: without the module there is nothing to test"
)]
#[must_use]
pub fn install(
    directory: &Path,
    name: &str,
    real: &Path,
    environment: &[(&str, &str)],
) -> Installed {
    let test = env::current_exe().expect("the path of this test");
    // Cargo puts the library beside the tests that depend on it.
    let built = test
        .ancestors()
        .skip(1)
        .take(2)
        .flat_map(|folder| [folder.to_owned(), folder.join("deps")])
        .map(|folder| folder.join("libpkcs11_shim.so"))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("libpkcs11_shim.so was not built beside {}", test.display()));
    let module = directory.join(format!("{name}.so"));
    let socket = directory.join(format!("{name}.sock"));
    fs::copy(&built, &module).expect("a copy of the module");
    let mut lines = vec![
        format!("module={}", real.display()),
        format!("socket={}", socket.display()),
    ];
    lines.extend(
        environment
            .iter()
            .map(|(name, value)| format!("env {name}={value}")),
    );
    fs::write(module.with_extension("conf"), lines.join("\n")).expect("a configuration");
    Installed {
        control: Control::new(&socket),
        module,
    }
}
