//! The configuration file: which servers, as whom, and which keys.

use std::env;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::failure::Failure;

/// Names the file.
const VARIABLE: &str = "KEYSERVER_PKCS11_CONFIG";
/// The file, when the variable is not set.
const DEFAULT_FILE: &str = "/etc/keyserver/pkcs11.toml";

/// How long one signature or decryption may take, when the file does not say.
const DEADLINE: Duration = Duration::from_secs(2);
/// Bounds of `deadline`. A worker of a proxy stands still while it waits.
const DEADLINE_MIN: Duration = Duration::from_millis(10);
const DEADLINE_MAX: Duration = Duration::from_secs(60);

/// A token's label has 32 bytes.
const LABEL_MAX: usize = 32;

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    servers: Vec<String>,
    service: Option<String>,
    name_server: Option<SocketAddr>,
    server_name: Option<String>,
    ca: PathBuf,
    certificate: PathBuf,
    private_key: PathBuf,
    certificates: Option<PathBuf>,
    token_label: Option<String>,
    deadline: Option<String>,
}

/// The file, checked. Paths are relative to the file's own folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// `host:port` each.
    pub(crate) servers: Vec<String>,
    /// The name of a service, whose SRV records name more.
    pub(crate) service: Option<String>,
    /// Who is asked about the service, instead of the system's name servers.
    pub(crate) name_server: Option<SocketAddr>,
    /// The name in the servers' certificates; the host of the first when it is not given.
    pub(crate) server_name: String,
    pub(crate) ca: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) private_key: PathBuf,
    pub(crate) certificates: Option<PathBuf>,
    pub(crate) token_label: String,
    pub(crate) deadline: Duration,
}

impl Config {
    /// Reads the file that the environment names.
    pub(crate) fn load() -> Result<Self, Failure> {
        let path = env::var_os(VARIABLE).map_or_else(|| DEFAULT_FILE.into(), PathBuf::from);
        let text = fs::read_to_string(&path).map_err(|error| {
            Failure::configuration(format!(
                "cannot read {}: {error}; {VARIABLE} names another file",
                path.display()
            ))
        })?;
        let folder = path.parent().unwrap_or_else(|| Path::new(""));
        Self::parse(&text, folder)
            .map_err(|why| Failure::configuration(format!("{}: {why}", path.display())))
    }

    fn parse(text: &str, folder: &Path) -> Result<Self, String> {
        let raw: Raw = toml::from_str(text).map_err(|error| error.to_string())?;
        let mut hosts = Vec::new();
        for server in &raw.servers {
            hosts.push(host(server)?);
        }
        let server_name = match (raw.server_name, hosts.first(), &raw.service) {
            (_, None, None) => {
                return Err("`servers` is empty; name at least one, or a `service`".into());
            }
            (Some(name), _, _) => name,
            (None, Some(first), _) => (*first).into(),
            (None, None, Some(_)) => {
                return Err(
                    "a `service` needs a `server_name`: the name in its servers' certificates"
                        .into(),
                );
            }
        };
        let token_label = raw.token_label.unwrap_or_else(|| "keyserver".into());
        if token_label.is_empty() || token_label.len() > LABEL_MAX {
            return Err(format!(
                "`token_label` has {} bytes; it must have 1 to {LABEL_MAX}",
                token_label.len()
            ));
        }
        let deadline = raw.deadline.map_or(Ok(DEADLINE), |text| duration(&text))?;
        Ok(Self {
            servers: raw.servers,
            service: raw.service,
            name_server: raw.name_server,
            server_name,
            ca: folder.join(raw.ca),
            certificate: folder.join(raw.certificate),
            private_key: folder.join(raw.private_key),
            certificates: raw.certificates.map(|path| folder.join(path)),
            token_label,
            deadline,
        })
    }
}

/// The host of `host:port`.
fn host(server: &str) -> Result<&str, String> {
    match server
        .rsplit_once(':')
        .map(|(host, port)| (host, port.parse()))
    {
        Some((host, Ok(1..=u16::MAX))) if !host.is_empty() => {
            Ok(host.trim_start_matches('[').trim_end_matches(']'))
        }
        _ => Err(format!("`servers`: `{server}` is not `host:port`")),
    }
}

/// Reads `2s` or `500ms`.
fn duration(text: &str) -> Result<Duration, String> {
    let number = |unit: &str| {
        text.strip_suffix(unit)
            .and_then(|number| number.parse().ok())
    };
    let duration = number("ms")
        .map(Duration::from_millis)
        .or_else(|| number("s").map(Duration::from_secs));
    match duration {
        Some(duration) if (DEADLINE_MIN..=DEADLINE_MAX).contains(&duration) => Ok(duration),
        _ => Err(format!(
            "`deadline`: `{text}` is not a time from 10ms to 60s, such as `2s` or `500ms`"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "servers = [\"keys:2407\"]\nca = \"ca.pem\"\ncertificate = \"edge.pem\"\n\
                         private_key = \"/secret/edge-key.pem\"\n";

    fn parse(more: &str) -> Result<Config, String> {
        Config::parse(&format!("{LEAST}{more}"), Path::new("/etc/keyserver"))
    }

    #[test]
    fn the_least_there_can_be_and_everything() {
        let config = parse("").unwrap();
        assert_eq!(config.deadline, Duration::from_secs(2));
        assert_eq!(config.ca, Path::new("/etc/keyserver/ca.pem"));
        assert_eq!(config.private_key, Path::new("/secret/edge-key.pem"));
        assert_eq!(config.token_label, "keyserver");
        assert_eq!(config.server_name, "keys");
        assert_eq!(host("[::1]:2407").unwrap(), "::1");
        let config = parse(
            "server_name = \"keys\"\ncertificates = \"sites\"\ntoken_label = \"shop\"\n\
             deadline = \"250ms\"\n",
        )
        .unwrap();
        assert_eq!(config.deadline, Duration::from_millis(250));
        assert_eq!(
            config.certificates.as_deref(),
            Some(Path::new("/etc/keyserver/sites"))
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (more, named) in [
            ("sever_name = \"x\"", "sever_name"),
            ("deadline = \"2\"", "`deadline`"),
            ("deadline = \"0s\"", "`deadline`"),
            ("deadline = \"61s\"", "`deadline`"),
            ("token_label = \"\"", "`token_label`"),
        ] {
            let why = parse(more).unwrap_err();
            assert!(why.contains(named), "{more}: {why}");
        }
        for bad in ["keys", "keys:", ":1", "keys:0", "keys:70000"] {
            let text = LEAST.replace("keys:2407", bad);
            let why = Config::parse(&text, Path::new("")).unwrap_err();
            assert!(why.contains(&format!("`{bad}`")), "{why}");
        }
        let none = LEAST.replace("\"keys:2407\"", "");
        let why = Config::parse(&none, Path::new("")).unwrap_err();
        assert!(why.contains("at least one"), "{why}");
        let why = Config::parse("", Path::new("")).unwrap_err();
        assert!(why.contains("missing field"), "{why}");
        let service = LEAST.replace("servers = [\"keys:2407\"]", "service = \"_keys._tcp.x\"");
        let why = Config::parse(&service, Path::new("")).unwrap_err();
        assert!(why.contains("`server_name`"), "{why}");
        let named = format!("{service}server_name = \"keys\"\nname_server = \"127.0.0.1:53\"\n");
        let config = Config::parse(&named, Path::new("")).unwrap();
        assert_eq!(config.service.as_deref(), Some("_keys._tcp.x"));
    }
}
