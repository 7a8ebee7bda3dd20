//! Looking up names without waiting for the answer: each look-up has a thread of its own, which ends
//! with it.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use mio::Waker;

use crate::fleet::ServerId;

type Answer = (ServerId, io::Result<Vec<SocketAddr>>);

/// Look-ups under way and their answers.
#[derive(Default)]
pub(super) struct Resolving {
    answers: Arc<Mutex<Vec<Answer>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Resolving {
    /// Begins to look up `host:port`. An IP address is its own answer, given at once.
    pub(super) fn start(
        &mut self,
        id: ServerId,
        address: &str,
        waker: &Arc<Waker>,
    ) -> Option<io::Result<Vec<SocketAddr>>> {
        if let Ok(address) = address.parse() {
            return Some(Ok(vec![address]));
        }
        self.threads.retain(|thread| !thread.is_finished());
        let (answers, waker) = (Arc::clone(&self.answers), Arc::clone(waker));
        let address = address.to_owned();
        let spawned = thread::Builder::new()
            .name("keyserver-resolve".to_owned())
            .spawn(move || {
                let found = address.to_socket_addrs().map(Iterator::collect);
                let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
                answers.push((id, found));
                drop(answers);
                // Should it fail, the leader finds the answer when it wakes by itself.
                let _ = waker.wake();
            });
        match spawned {
            Ok(thread) => {
                self.threads.push(thread);
                None
            }
            Err(error) => Some(Err(error)),
        }
    }

    /// Takes the answers that have come.
    pub(super) fn answers(&self) -> Vec<Answer> {
        std::mem::take(&mut *self.answers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The threads, to be waited for before the code they run may be unloaded.
    pub(super) fn take_threads(&mut self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut self.threads)
    }
}
