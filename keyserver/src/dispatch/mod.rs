//! From an admitted request to a finished job: translate, queue by class, run on a crypto thread,
//! hand back to the I/O thread that owns the connection.
//!
//! ```text
//!  I/O thread                       crypto threads                      I/O thread
//!  Admitted -> translate -> Job -> ClassQueues -> worker -> Engine -> CompletionRing -> reply
//!                          (pool)   (bounded)    (pinned)              (room for every job)
//! ```
//!
//! A [`Job`] is a box that goes round: taken from its I/O thread's pool, through the queue, back
//! over the completion ring, wiped, and into the pool again. Nothing is allocated on the way.

mod batching;
mod classqueue;
mod completion;
mod job;
mod translate;
mod worker;

pub use classqueue::{ClassQueues, Take};
pub(crate) use completion::CompletionRing;
pub(crate) use job::{Job, JobPool, Outcome};
pub(crate) use translate::translate;
pub(crate) use worker::{Dispatcher, WorkerContext, spawn_workers};
