//! What the people who run the server see: metrics and health over HTTP, and the control socket
//! of `ksctl`. All of it lives on threads of its own; a scrape never waits for a key operation,
//! and a key operation never waits for a scrape.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::Config;
use crate::state::ServerState;

mod accept;
pub mod acl;
pub mod engine;
pub mod horizon;
pub mod http;
pub mod ledger;
pub mod metrics;
mod process;
pub mod protocol;
mod queues;
mod shards;
mod slots;
pub mod socket;
pub mod status;
pub mod stopping;
mod summary;

/// The listeners that the configuration asks for, each with its thread.
#[derive(Debug)]
pub struct AdminThreads {
    http: Option<http::HttpListener>,
    socket: Option<socket::ControlSocket>,
}

impl AdminThreads {
    /// Starts what `config` names.
    ///
    /// # Errors
    ///
    /// An address or path cannot be used; the error names it.
    pub fn start(state: &Arc<ServerState>, config: &Config) -> io::Result<Self> {
        let http = config
            .metrics
            .address
            .map(|address| http::HttpListener::start(address, state));
        let socket = config
            .admin
            .socket
            .as_deref()
            .map(|path| socket::ControlSocket::start(path, state));
        let threads = Self {
            http: http.transpose()?,
            socket: socket.transpose()?,
        };
        if let Some(address) = threads.metrics_addr() {
            tracing::info!(%address, "metrics and health");
        }
        Ok(threads)
    }

    /// Where metrics are served, if they are.
    #[must_use]
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(http::HttpListener::address)
    }

    /// Ends the listeners; answers that are being written are still finished.
    pub fn stop(self) {
        if let Some(http) = self.http {
            http.stop();
        }
        if let Some(socket) = self.socket {
            socket.stop();
        }
    }
}
