//! Session tickets that any edge can resume, without a store and without replication.
//!
//! ```text
//!                      epoch, an hour each
//!   master ── HKDF ──▶ (purpose, epoch, generation, SKI) ──▶ name[16] key[32]
//!   file               │        │         └ raised by stopping a key or a client, kept with the stops
//!                      │        └ seconds since 1970 / 3600
//!                      └ 1: handed to edges (0x46)   2: stays here (0x21, 0x22)
//! ```
//!
//! Every server with the same master derives the same keys. An edge gets those of the epoch that runs, of the next one, so
//! that it outlives an outage and a clock that is ahead, and of two old ones, whose tickets are still about. A generation
//! that is raised makes other keys of the same epochs: tickets of the old ones are worth nothing to whoever asks from
//! then on. The two purposes have keys of their own: who holds those of an edge cannot open what was sealed here.
//!
//! | module | its one noun |
//! |---|---|
//! | `master` | the secret that all keys come from |
//! | `epoch` | which keys there are at a time |
//! | `sealed` | a blob of 0x21 |
//! | `ends` | when what was handed out has no worth any more, and who has it |
//! | `ageing` | things that are forgotten after a time |

mod ageing;
mod ends;
mod epoch;
mod master;
mod sealed;

pub use ends::TicketEnds;
pub use epoch::{EPOCH, handed_out};
pub use master::{Master, MasterError, Purpose, create};
pub use sealed::{SEALED_MAX, SealError, seal, unseal};
