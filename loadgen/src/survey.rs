//! What has to be known before the load: where the targets are, what the first says of itself, and which keys there are.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::time::Duration;

use keyless_protocol::{DEFAULT_PORT, ServerInfo};
use keyserver_client::{Client, Error, Fault, TlsIdentity};

use crate::cli::RunArgs;
use crate::drive::Endpoint;
use crate::error::RunError;
use crate::keys::{PublicKey, read_directory};
use crate::mix::Class;

/// Time for each question to the server.
const QUESTION_LIMIT: Duration = Duration::from_secs(10);

/// What was found out.
#[derive(Debug)]
pub(crate) struct Survey {
    pub(crate) endpoints: Vec<Endpoint>,
    /// What the first target says of itself; `None` for a stock server.
    pub(crate) server: Option<ServerInfo>,
    pub(crate) keys: Vec<PublicKey>,
}

/// Looks up the targets and asks the first one for its keys, unless they are given.
pub(crate) async fn survey(args: &RunArgs, identity: &TlsIdentity) -> Result<Survey, RunError> {
    let endpoints = endpoints(args)?;
    let needs_keys = args
        .mix
        .parts()
        .iter()
        .any(|(class, _)| *class != Class::Ping);
    let given = match &args.public_keys {
        Some(directory) => Some(read_directory(directory).map_err(RunError::Usage)?),
        None => None,
    };
    let Some(first) = endpoints.first() else {
        return Err(RunError::Usage("no --target".to_owned()));
    };
    let blame = |error: Error| match error.fault() {
        Fault::Configuration => RunError::Usage(error.to_string()),
        Fault::Caller | Fault::Network | Fault::Server | Fault::Load => {
            RunError::Target(format!("{}: {error}", first.name))
        }
    };
    let client = Client::builder(
        first.address.to_string(),
        &first.server_name,
        identity.clone(),
    )
    .deadline(QUESTION_LIMIT)
    .connect()
    .await
    .map_err(blame)?;
    let server = client.server_info().await.map_err(blame)?;
    let keys = match (given, &server) {
        (Some(keys), _) => keys,
        (None, _) if !needs_keys => Vec::new(),
        (None, Some(_)) => listed_keys(&client.keys().await.map_err(blame)?)?,
        (None, None) => {
            return Err(RunError::Usage(format!(
                "{} cannot list its keys (a stock server); give their certificates or public keys with --public-keys DIR",
                first.name
            )));
        }
    };
    client.close();
    Ok(Survey {
        endpoints,
        server,
        keys,
    })
}

fn listed_keys(entries: &[keyless_protocol::KeyEntry]) -> Result<Vec<PublicKey>, RunError> {
    let mut keys = Vec::new();
    for entry in entries {
        keys.extend(PublicKey::from_entry(entry).map_err(RunError::Target)?);
    }
    Ok(keys)
}

fn endpoints(args: &RunArgs) -> Result<Vec<Endpoint>, RunError> {
    args.targets
        .iter()
        .map(|name| {
            let (host, address) = resolve(name).map_err(RunError::Usage)?;
            let server_name = args.server_name.clone().unwrap_or(host);
            Ok(Endpoint {
                name: name.clone(),
                address,
                server_name,
            })
        })
        .collect()
}

/// The host and the first address of `host:port`, `[v6]:port` or a host alone.
fn resolve(target: &str) -> Result<(String, SocketAddr), String> {
    let (host, port) = match target.rsplit_once(':') {
        // A bare IPv6 address has colons of its own.
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
            let port = port
                .parse()
                .map_err(|_| format!("--target {target}: `{port}` is not a port"))?;
            (host, port)
        }
        _ => (target, DEFAULT_PORT),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return Err(format!("--target {target}: no host; write HOST:PORT"));
    }
    let address = (host, port)
        .to_socket_addrs()
        .map_err(|error| format!("--target {target}: cannot look up `{host}`: {error}"))?
        .next()
        .ok_or_else(|| format!("--target {target}: `{host}` has no address"))?;
    Ok((host.to_owned(), address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_take_names_addresses_and_ports() {
        let address = |text| resolve(text).map(|(host, address)| format!("{host} {address}"));
        assert_eq!(address("127.0.0.1:9").unwrap(), "127.0.0.1 127.0.0.1:9");
        assert_eq!(address("127.0.0.1").unwrap(), "127.0.0.1 127.0.0.1:2407");
        assert_eq!(address("[::1]:9").unwrap(), "::1 [::1]:9");
        assert_eq!(address("::1").unwrap(), "::1 [::1]:2407");
        assert!(address(":9").unwrap_err().contains("HOST:PORT"));
        assert!(address("127.0.0.1:http").unwrap_err().contains("http"));
    }
}
