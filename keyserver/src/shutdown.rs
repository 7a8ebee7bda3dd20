//! How the server stops: not ready, no new connections, no new requests, what is in flight is
//! finished and delivered, every peer hears a goodbye, and only then do threads end.
//!
//! ```text
//! Draining::begin -> readiness off -> acceptor ends -> Command::Drain to every I/O thread
//!   each connection, at its time within the spread:
//!     no further request -> replies in flight -> close_notify -> FIN -> wait for the peer's FIN
//!   at the limit: what is left is cut -> I/O threads end -> crypto threads end
//! ```

use tokio::sync::watch;

use crate::config;

/// The switch that starts the drain. Anyone may hold a copy; the first to turn it wins.
#[derive(Debug, Clone)]
pub(crate) struct Draining {
    switch: watch::Sender<Option<config::Shutdown>>,
}

impl Draining {
    /// Not draining.
    pub(crate) fn new() -> Self {
        Self {
            switch: watch::Sender::new(None),
        }
    }

    /// Starts the drain, unless it has been started.
    pub(crate) fn begin(&self, how: config::Shutdown) {
        self.switch.send_if_modified(|state| {
            let first = state.is_none();
            if first {
                *state = Some(how);
            }
            first
        });
    }

    /// Waits for the start of the drain and says how it is to be done.
    pub(crate) async fn begun(&self) -> config::Shutdown {
        let mut receiver = self.switch.subscribe();
        loop {
            let state = *receiver.borrow_and_update();
            match state {
                Some(how) => return how,
                // The sender lives in `self`, so waiting cannot fail.
                None => drop(receiver.changed().await),
            }
        }
    }
}
