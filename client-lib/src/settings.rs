//! What both clients of several servers are told, [`crate::Pool`] and [`crate::blocking::Client`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::error::ConfigError;
use crate::observe::{Observer, Silent};
use crate::servers::Servers;
use crate::tls::TlsIdentity;

/// The longest time that anything may take. A longer one would not fit every clock, and nobody waits for it.
pub(crate) const LONGEST: Duration = Duration::from_hours(24);

#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) servers: Servers,
    pub(crate) server_name: String,
    pub(crate) identity: TlsIdentity,
    pub(crate) deadline: Duration,
    pub(crate) connect_limit: Duration,
    pub(crate) silence: Duration,
    pub(crate) queue: usize,
    pub(crate) hedging: bool,
    pub(crate) observer: Arc<dyn Observer>,
}

impl Settings {
    pub(crate) fn new(server_name: String, identity: TlsIdentity) -> Self {
        Self {
            servers: Servers::default(),
            server_name,
            identity,
            deadline: Duration::from_secs(2),
            connect_limit: Duration::from_secs(1),
            silence: Duration::from_secs(5),
            queue: 4096,
            hedging: true,
            observer: Arc::new(Silent),
        }
    }

    /// Finds what can be seen without connecting.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        TlsIdentity::server_name(&self.server_name)?;
        self.servers.check()
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("servers", &self.servers)
            .field("server_name", &self.server_name)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

/// The methods of a builder with a field `settings`.
macro_rules! setters {
    () => {
        /// Adds a server, `host:port`. A name is looked up at each attempt to connect.
        pub fn server(mut self, address: impl Into<String>) -> Self {
            self.settings.servers.add(address.into(), 0);
            self
        }

        /// Adds a server that is used only while none of the others can be: one in another zone.
        pub fn distant_server(mut self, address: impl Into<String>) -> Self {
            self.settings.servers.add(address.into(), 1);
            self
        }

        /// Adds the servers of a service, by the SRV records of a name such as
        /// `_keyserver._tcp.internal` (RFC 2782). It is looked up again when the records have
        /// expired, at most every second and at least every five minutes; while that fails, the
        /// servers stay as they are. Those of a higher priority number are used only while none of a
        /// lower one can be. Servers of one priority get calls by their weights, as long as each answers
        /// as fast as is usual; beside others, one of weight 0 gets hardly any.
        pub fn service(mut self, name: impl Into<String>) -> Self {
            self.settings.servers.add_service(name.into());
            self
        }

        /// Adds every address of a name, `host:port`, as a server of its own, by its A and AAAA
        /// records, looked up again as for a service. While one of the two kinds cannot be looked up,
        /// the servers of that kind stay as they are.
        pub fn every_address(mut self, address: impl Into<String>) -> Self {
            self.settings.servers.add_host(address.into());
            self
        }

        /// Who is asked about services and their addresses. Default: the first three name servers
        /// of `/etc/resolv.conf`. The hosts that a service names are looked up by the system.
        pub fn name_server(mut self, address: std::net::SocketAddr) -> Self {
            self.settings.servers.add_name_server(address);
            self
        }

        /// How long a call may take, all told, a day at most. Default 2 s.
        pub fn deadline(mut self, deadline: std::time::Duration) -> Self {
            self.settings.deadline = deadline;
            self
        }

        /// How long one attempt to connect may take, the TLS handshake included. Default 1 s.
        pub fn connect_limit(mut self, limit: std::time::Duration) -> Self {
            self.settings.connect_limit = limit.min(crate::settings::LONGEST);
            self
        }

        /// How long a server may leave a question about its health unanswered before its connection
        /// is given up and made anew. Default 5 s. It gets no calls long before that.
        pub fn silence(mut self, silence: std::time::Duration) -> Self {
            self.settings.silence = silence.min(crate::settings::LONGEST);
            self
        }

        /// Whether a signature that takes longer than 95 of 100 others is asked of a second server as
        /// well. Default: yes. Decryptions never are.
        pub fn hedging(mut self, enabled: bool) -> Self {
            self.settings.hedging = enabled;
            self
        }

        /// Who is told what happens to the servers.
        pub fn observer(mut self, observer: std::sync::Arc<dyn crate::observe::Observer>) -> Self {
            self.settings.observer = observer;
            self
        }
    };
}

pub(crate) use setters;
