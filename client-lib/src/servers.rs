//! The servers a client was told of.

use std::net::SocketAddr;

use crate::discovery::Source;
use crate::error::ConfigError;
use crate::fleet::Place;

/// Addresses, `host:port`, each with its place among the others. And names behind which there are more.
#[derive(Clone, Debug, Default)]
pub(crate) struct Servers {
    list: Vec<(String, Place)>,
    sources: Vec<Source>,
    /// Addresses given to [`Self::add_host`] that are none.
    wrong: Vec<String>,
    name_servers: Vec<SocketAddr>,
}

impl Servers {
    pub(crate) fn add(&mut self, address: String, tier: u16) {
        self.list.push((address, Place::of_tier(tier)));
    }

    pub(crate) fn add_service(&mut self, name: String) {
        self.sources.push(Source::Service(name));
    }

    pub(crate) fn add_host(&mut self, address: String) {
        match host_and_port(&address) {
            Some((host, port)) => self.sources.push(Source::Host(host.to_owned(), port)),
            None => self.wrong.push(address),
        }
    }

    pub(crate) fn add_name_server(&mut self, address: SocketAddr) {
        self.name_servers.push(address);
    }

    pub(crate) fn list(&self) -> &[(String, Place)] {
        &self.list
    }

    pub(crate) fn sources(&self) -> &[Source] {
        &self.sources
    }

    pub(crate) fn name_servers(&self) -> &[SocketAddr] {
        &self.name_servers
    }

    /// Finds what can be seen without connecting.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.list.is_empty() && self.sources.is_empty() && self.wrong.is_empty() {
            return Err(ConfigError::new("no server is given; name at least one"));
        }
        let addresses = self.list.iter().map(|(address, _)| address);
        for address in addresses.chain(&self.wrong) {
            if host_and_port(address).is_none() {
                return Err(ConfigError::new(format_args!(
                    "`{address}` is no address of a server; expected `host:port`"
                )));
            }
        }
        Ok(())
    }
}

fn host_and_port(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    Some((host, port.parse().ok()?))
}
