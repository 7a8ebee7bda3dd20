//! From an admitted request to a finished job: translate, queue by class and client, run on a
//! crypto thread, hand back to the I/O thread that owns the connection.
//!
//! ```text
//!  I/O thread                       crypto threads                    I/O thread
//!  Admitted -> translate -> Job -> Scheduler -> worker -> Engine -> CompletionRing -> reply
//!                          (pool)  (bounded)   (pinned)            (room for every job)
//! ```
//!
//! Jobs whose key is in a token take another road, see [`token`].
//!
//! A [`Job`] is a box that goes round: taken from its I/O thread's pool, through the queue, back
//! over the completion ring, wiped, and into the pool again. Nothing is allocated on the way.

mod completion;
mod dispatcher;
mod job;
mod results;
pub mod scheduler;
#[cfg(feature = "pkcs11")]
mod token;
mod translate;
mod worker;

pub(crate) use completion::CompletionRing;
pub(crate) use dispatcher::Dispatcher;
pub(crate) use job::{Job, JobPool, Outcome, Pending, client_of};
#[cfg(feature = "pkcs11")]
pub(crate) use token::submit as submit_to_slot;
pub(crate) use translate::{Task, signing_of, translate};
pub(crate) use worker::{WorkerContext, spawn_workers};
