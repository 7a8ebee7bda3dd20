//! Looking up names without waiting for the answer: each look-up has a thread of its own, which ends
//! with it.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use mio::Waker;

use crate::discovery::{Found, Source};
use crate::fleet::ServerId;

/// An answer.
pub(super) enum Answer {
    /// The addresses of a server.
    Addresses(ServerId, io::Result<Vec<SocketAddr>>),
    /// The servers of the source with this number.
    Servers(usize, io::Result<Found>),
}

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
        let address = address.to_owned();
        let look = move || {
            let found = address.to_socket_addrs().map(Iterator::collect);
            Answer::Addresses(id, found)
        };
        self.run(look, waker).err().map(Err)
    }

    /// Begins to look up servers.
    pub(super) fn find(
        &mut self,
        number: usize,
        source: Source,
        name_servers: Vec<SocketAddr>,
        waker: &Arc<Waker>,
    ) -> io::Result<()> {
        let look = move || Answer::Servers(number, source.look_up(&name_servers));
        self.run(look, waker)
    }

    fn run(
        &mut self,
        look: impl FnOnce() -> Answer + Send + 'static,
        waker: &Arc<Waker>,
    ) -> io::Result<()> {
        self.threads.retain(|thread| !thread.is_finished());
        let (answers, waker) = (Arc::clone(&self.answers), Arc::clone(waker));
        let spawned = thread::Builder::new()
            .name("keyserver-resolve".to_owned())
            .spawn(move || {
                let answer = look();
                let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
                answers.push(answer);
                drop(answers);
                // Should it fail, the leader finds the answer when it wakes by itself.
                let _ = waker.wake();
            });
        self.threads.push(spawned?);
        Ok(())
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
