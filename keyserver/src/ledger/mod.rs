//! The decrypt-once ledger: a recorded handshake cannot be opened a second time.
//!
//! Who records a TLS session with RSA key exchange and later gets at an edge, or at its certificate, could
//! send the recorded ciphertext again and read the session. The ledger remembers every ciphertext
//! that was answered, on disk and *before* the answer leaves, so that no crash forgets one. A second
//! request is answered only if it is an honest retry: the same client, the same handshake, within ten
//! seconds, at most three tries. Anything else gets the generic refusal, and an alarm.
//!
//! ```text
//!  I/O thread ── jobs ──▶ ledger thread: decide, write, sync once for all that waited ──▶ class queues
//!                              │ replay, or the disk fails
//!                              └──────────────────────────▶ completion ring, refused
//! ```
//!
//! | module | its one noun |
//! |---|---|
//! | `rule` | when a ciphertext may be answered |
//! | `tag` | the name of a ciphertext |
//! | `store` | what is on disk |
//! | `thread` | the thread between the I/O threads and the queues |
//! | `watch` | the alarm when something is replayed |

mod rule;
mod store;
mod tag;
mod thread;
mod watch;

pub use store::LedgerError;
pub(crate) use thread::{Ledger, Opened, Route, open};
