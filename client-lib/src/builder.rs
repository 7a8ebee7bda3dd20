//! Describing a client before it connects.

use std::sync::Arc;
use std::time::Duration;

use crate::backoff::Backoff;
use crate::calls::{Calls, Link, SLOTS_MAX};
use crate::client::Client;
use crate::driver;
use crate::error::{ConfigError, Error};
use crate::link::{Target, establish};
use crate::settings::LONGEST;
use crate::tls::TlsIdentity;

/// The settings of a [`Client`], each with a default that suits a TLS terminator.
#[derive(Clone, Debug)]
#[must_use]
pub struct ClientBuilder {
    target: Target,
    deadline: Duration,
    in_flight: usize,
    queue: usize,
}

impl ClientBuilder {
    pub(crate) fn new(address: String, server_name: String, identity: TlsIdentity) -> Self {
        let (connect_limit, silence) = (Duration::from_secs(5), Duration::from_secs(5));
        Self {
            target: Target {
                address,
                server_name,
                identity,
                connect_limit,
                silence,
                wait_longest: Backoff::LONGEST,
            },
            deadline: Duration::from_secs(2),
            in_flight: 256,
            queue: 4096,
        }
    }

    /// How long a call may take, all told, a day at most. Default 2 s.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// How long one attempt to connect may take, the TLS handshake included. Default 5 s.
    pub fn connect_limit(mut self, limit: Duration) -> Self {
        self.target.connect_limit = limit.min(LONGEST);
        self
    }

    /// How long the server may say nothing at all while an answer is awaited. After this time it is
    /// asked for a sign of life, and after as long again the connection is given up and made anew:
    /// this finds hosts that lost power and firewalls that forgot. Default 5 s.
    pub fn silence(mut self, silence: Duration) -> Self {
        self.target.silence = silence.min(LONGEST);
        self
    }

    /// Calls on their way at once, 1 to 32,768. Default 256, which is what servers take from one
    /// connection before they stop reading.
    pub fn in_flight(mut self, calls: usize) -> Self {
        self.in_flight = calls;
        self
    }

    /// Calls that may wait for one of those places. With more, calls fail with
    /// [`Error::Overloaded`] at once. Default 4,096.
    pub fn queue(mut self, calls: usize) -> Self {
        self.queue = calls;
        self
    }

    /// Connects, shakes hands, and asks the server one question, so that a wrong address, name or
    /// certificate is known now rather than with the first call. Needs a tokio runtime with I/O and
    /// time; the connection is kept by a task of its own on that runtime.
    ///
    /// # Errors
    ///
    /// [`Error::Configuration`], [`Error::Network`], [`Error::Tls`], or [`Error::Protocol`] when
    /// what answers is no key server.
    pub async fn connect(self) -> Result<Client, Error> {
        if self.in_flight == 0 || self.in_flight > SLOTS_MAX {
            return Err(ConfigError::new(format_args!(
                "`in_flight` must be 1 to {SLOTS_MAX} and is {}",
                self.in_flight
            ))
            .into());
        }
        let established = establish(&self.target).await?;
        let calls = Arc::new(Calls::new(self.in_flight, self.queue));
        calls.set_link(Link::Up {
            capabilities: established.capabilities.clone(),
        });
        let run = driver::run(Arc::clone(&calls), self.target, Some(established), |_| {});
        tokio::spawn(run);
        Ok(Client::new(calls, self.deadline))
    }
}
