//! What a client tells whoever wants to watch it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;

/// Something that happened to a client's servers. Servers are named as they were configured or
/// resolved: `host:port`.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A connection has been made and the server has let us in.
    Connected {
        /// Which server.
        server: &'a str,
    },
    /// A connection was lost, or could not be made.
    Lost {
        /// Which server.
        server: &'a str,
        /// Why.
        error: &'a Error,
    },
    /// A server answered, with a result or with a refusal that is final.
    Answered {
        /// Which server.
        server: &'a str,
        /// From sending to answer.
        latency: Duration,
        /// Calls on their way to this server now.
        in_flight: u32,
    },
    /// A server failed a call: no answer in time, a lost connection, an internal error, busy.
    Failed {
        /// Which server.
        server: &'a str,
        /// How.
        error: &'a Error,
        /// Calls on their way to this server now.
        in_flight: u32,
    },
    /// A call is asked again, here of this server.
    Retried {
        /// Which server is asked now.
        server: &'a str,
    },
    /// A call that waits unusually long is asked of a second server as well.
    Hedged {
        /// The second server.
        server: &'a str,
    },
    /// A retry or hedge would have helped but the budget for them is spent.
    BudgetSpent,
    /// A server failed too often in a row and gets no calls for a while.
    Ejected {
        /// Which server.
        server: &'a str,
        /// For how long.
        duration: Duration,
    },
    /// A server said that it drains; it gets no further calls.
    Draining {
        /// Which server.
        server: &'a str,
    },
}

/// Told of every [`Event`]. It is called with the client's lock held: be quick, do not block, and do
/// not call the client. Should it panic, that is all that happens.
///
/// ```
/// use keyserver_client::{Event, Observer};
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// #[derive(Default)]
/// struct Failures(AtomicU64);
///
/// impl Observer for Failures {
///     fn observe(&self, event: Event<'_>) {
///         if matches!(event, Event::Failed { .. }) {
///             self.0.fetch_add(1, Ordering::Relaxed);
///         }
///     }
/// }
/// ```
pub trait Observer: Send + Sync {
    /// Takes note of what happened.
    fn observe(&self, event: Event<'_>);
}

/// An observer whose panics end with it: what it is told happens in the middle of something, behind a lock, and on a
/// thread that others rely on. The panic itself is reported as always.
pub(crate) struct Contained(pub(crate) Arc<dyn Observer>);

impl Observer for Contained {
    fn observe(&self, event: Event<'_>) {
        let _ = catch_unwind(AssertUnwindSafe(|| self.0.observe(event)));
    }
}

/// Watches nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Silent;

impl Observer for Silent {
    fn observe(&self, _: Event<'_>) {}
}
