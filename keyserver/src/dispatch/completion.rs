//! Finished jobs on their way back to the I/O thread that owns the connection.

use crossbeam_queue::ArrayQueue;
use tokio::sync::Notify;

use super::job::Job;

/// A bounded ring with one reader. It has a place for every job of the reader's pool, so a push
/// always finds room: the place was reserved when the job was taken from the pool.
#[derive(Debug)]
pub(crate) struct CompletionRing {
    ring: ArrayQueue<Box<Job>>,
    ready: Notify,
}

impl CompletionRing {
    /// A ring with a place for each of `jobs` jobs.
    pub(crate) fn new(jobs: usize) -> Self {
        Self {
            ring: ArrayQueue::new(jobs),
            ready: Notify::new(),
        }
    }

    /// Puts a finished job in. The reader is woken by [`Self::notify`], once a batch.
    pub(crate) fn push(&self, job: Box<Job>) {
        let pushed = self.ring.push(job);
        debug_assert!(pushed.is_ok(), "a job without a reserved place");
    }

    /// Wakes the reader.
    pub(crate) fn notify(&self) {
        self.ready.notify_one();
    }

    /// The next finished job, if there is one.
    pub(crate) fn pop(&self) -> Option<Box<Job>> {
        self.ring.pop()
    }

    /// Waits until [`Self::notify`] was called since the last wait.
    pub(crate) async fn ready(&self) {
        self.ready.notified().await;
    }
}
