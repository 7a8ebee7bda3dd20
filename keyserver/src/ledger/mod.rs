//! The decrypt-once ledger: a recorded handshake cannot be opened a second time.
//!
//! Who records a TLS session with RSA key exchange and later gets at an edge, or at its certificate, could
//! send the recorded ciphertext again and read the session. The ledger remembers every ciphertext
//! that was answered, on disk and *before* the answer leaves, so that no crash forgets one. A second
//! request is answered only if it is an honest retry: the same client, the same handshake, within ten
//! seconds, at most three tries. Anything else gets the generic refusal, and an alarm.
//!
//! ```text
//!  I/O thread ──▶ class queue ──▶ crypto thread ──▶ I/O thread ── opened ──▶ ledger thread: decide, write,
//!      ▲            │ busy, late, stopped: nothing is recorded               sync once for all that waited
//!      └────────────┴───────────────── answer, or refusal ◀──────────────────────┘
//! ```
//!
//! What is recorded has been opened already and lacks nothing but this. So a request that is refused for another
//! reason (its queue is full, its deadline passed, its key was stopped, its device failed) takes none of its
//! three tries, and a replay costs its sender as much as an honest request.
//!
//! | module | its one noun |
//! |---|---|
//! | `rule` | when a ciphertext may be answered |
//! | `tag` | the name of a ciphertext |
//! | `store` | what is remembered, and how it fails |
//! | `files` | what is on disk |
//! | `identity` | which ledger it is |
//! | `pace` | how often is written |
//! | `thread` | the thread between the I/O threads and the disk |
//! | `health` | how it is, for the operator |
//! | `watch` | the alarm when something is replayed |

mod files;
mod health;
mod identity;
mod pace;
mod rule;
mod store;
mod tag;
mod thread;
mod watch;

pub use health::{LedgerHealth, LedgerReport};
pub use rule::{Binding, Entry, RETRY_WINDOW, TRIES_MAX, Verdict};
pub use store::{LedgerError, Question, Size, Store};
pub use tag::{TAG_LEN, Tag, Tagger};
pub(crate) use thread::{Ledger, Opened, open};
