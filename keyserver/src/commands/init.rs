//! `keyserver init`: a directory to start from.

use std::path::{Path, PathBuf};

use super::trial::{self, Pki};
use super::{Failure, output};

/// The arguments of `keyserver init`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Directory to write to; made if there is none
    directory: PathBuf,
    /// Name or address that clients will use for this server; may be given several times
    #[arg(long = "server-name", value_name = "NAME")]
    server_names: Vec<String>,
}

/// Names that the trial certificate always has.
pub(crate) const LOCAL_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// The configuration that `init` writes. It is read in the tests.
const TEMPLATE: &str = include_str!("keyserver.toml");

pub(crate) fn init(arguments: &Arguments) -> Result<(), Failure> {
    let directory = &arguments.directory;
    let config = directory.join("keyserver.toml");
    let pki = Pki::in_directory(directory);
    refuse_to_overwrite(&pki, &config)?;
    let names: Vec<String> = LOCAL_NAMES
        .into_iter()
        .map(str::to_owned)
        .chain(arguments.server_names.iter().cloned())
        .collect();
    trial::private_directory(&directory.join("pki"))?;
    trial::private_directory(&directory.join("keys"))?;
    trial::private_directory(&directory.join("state"))?;
    trial::write_pki(&pki, &names)?;
    trial::public_file(&config, TEMPLATE)?;
    output::print(&next_steps(directory, &config, &pki));
    Ok(())
}

fn refuse_to_overwrite(pki: &Pki, config: &Path) -> Result<(), Failure> {
    let found: Vec<String> = [config]
        .into_iter()
        .chain(pki.files())
        .filter(|path| path.symlink_metadata().is_ok())
        .map(|path| path.display().to_string())
        .collect();
    if found.is_empty() {
        return Ok(());
    }
    Err(Failure::start(format!(
        "these files exist and are not overwritten: {}; choose another directory, or move them away",
        found.join(", ")
    )))
}

fn next_steps(directory: &Path, config: &Path, pki: &Pki) -> String {
    let (config, client) = (config.display(), pki.client.display());
    let (ca, client_key) = (pki.ca.display(), pki.client_key.display());
    let keys = directory.join("keys");
    let key = keys.join("shop.key");
    let key = key.display();
    format!(
        "\
Wrote {config}
and, for trials only, a certificate authority with certificates for the server and a client.

1. Make a key to serve:
     (umask 077; openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {key})
2. See whether all is well:
     keyserver check --config {config}
3. Serve:
     keyserver run --config {config}

A client connects with the certificate {client},
its key {client_key} and the authority {ca}.
For production, put the files of your own authority in their place, and remove ca-key.pem.
"
    )
}
