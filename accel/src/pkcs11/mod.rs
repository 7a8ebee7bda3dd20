//! Keys that stay in hardware security modules, reached through PKCS#11.
//!
//! The device is slow, has a limit of sessions, hangs, restarts and forgets. This module gets out of it all that
//! it can give, and keeps its bad days to itself.
//!
//! ```text
//!  TokenKey::submit --> Routes (which slot?) --> Slot: queue --> Worker: one thread, one session
//!                          ^                       |  |               | C_SignInit, C_Sign, verify
//!                          |                       |  |               v
//!                          +----- another slot ----+  |    answer, or the table in failure.rs
//!                                                     |
//!                          Keeper: login, keys, probe, keepalive     Watchdog: deadlines, stuck threads
//! ```
//!
//! | file | noun |
//! |---|---|
//! | `uri.rs`, `pin.rs` | a PKCS#11 URI (RFC 7512); where a PIN is, and the PIN |
//! | `pins.rs` | the PINs that were offered for a token, and which is tried |
//! | `tokens.rs`, `token_key.rs` | all slots of the process; a key in one or several of them, and the choice |
//! | `look.rs` | calls that somebody waits for, at load |
//! | `ticket.rs` | a request on its way |
//! | `slot.rs`, `state.rs` | a slot and how its threads meet there; what changes, under its lock |
//! | `worker.rs`, `keeper.rs`, `watchdog.rs` | the three kinds of threads |
//! | `keeper/finding.rs` | where the keys of a slot are |
//! | `probe.rs` | one signature, to see whether a slot works again |
//! | `limiter.rs`, `breaker.rs`, `latency.rs` | how much at once; whether at all; how long it takes |
//! | `failure.rs`, `error.rs` | what a return code means and what is done; what people are told |
//! | `session.rs` | a session, and whether it is still ours |
//! | `mechanism.rs`, `object.rs` | an operation in the token's terms; a key on a token |
//! | `module.rs`, `raw.rs` | a loaded module; the calls made directly, the only `unsafe` here |
//! | `listing.rs`, `blocking.rs` | what a module offers; the pool as a backend |

mod blocking;
mod breaker;
mod error;
mod failure;
mod keeper;
mod latency;
mod limiter;
mod listing;
mod look;
mod mechanism;
mod module;
mod object;
mod pin;
mod pins;
mod probe;
mod raw;
mod session;
mod settings;
mod slot;
mod state;
mod ticket;
mod token_key;
mod tokens;
mod uri;
mod watchdog;
mod worker;

pub use blocking::Blocking;
pub use error::{TokenError, TokenFailure};
pub use listing::{ModuleListing, ObjectListing, SlotListing, list_module};
pub use pin::{Pin, PinError, PinSource, PinSourceError};
pub use settings::{BreakerState, SlotChoice, SlotSettings, SlotStatus, TokenKeySpec};
pub use ticket::TokenJob;
pub use token_key::TokenKey;
pub use tokens::{Tokens, UnusablePlace};
pub use uri::{TokenUri, UriError};
