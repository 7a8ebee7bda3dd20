//! The servers a client was told of.

use crate::error::ConfigError;

/// Addresses, `host:port`, each with its tier: servers of a lower tier are preferred while one of
/// them can be used.
#[derive(Clone, Debug, Default)]
pub(crate) struct Servers {
    list: Vec<(String, u16)>,
}

impl Servers {
    pub(crate) fn add(&mut self, address: String, tier: u16) {
        self.list.push((address, tier));
    }

    pub(crate) fn list(&self) -> &[(String, u16)] {
        &self.list
    }

    /// Finds what can be seen without connecting.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.list.is_empty() {
            return Err(ConfigError::new("no server is given; name at least one"));
        }
        for (address, _) in &self.list {
            let port = address
                .rsplit_once(':')
                .map(|(_, port)| port.parse::<u16>());
            if !matches!(port, Some(Ok(_))) {
                return Err(ConfigError::new(format_args!(
                    "`{address}` is no address of a server; expected `host:port`"
                )));
            }
        }
        Ok(())
    }
}
