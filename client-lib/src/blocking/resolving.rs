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
    threads: Vec<(Subject, JoinHandle<()>)>,
}

/// What a thread looks up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Addresses(ServerId),
    Servers(usize),
}

impl Resolving {
    /// Begins to look up `host:port`, unless that is still under way: then its answer counts. So a resolver that
    /// takes longer than one attempt to connect has one thread a server, and is heard in the end. An IP address is its
    /// own answer, given at once.
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
        let subject = Subject::Addresses(id);
        self.run(subject, look, waker).err().map(Err)
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
        self.run(Subject::Servers(number), look, waker)
    }

    fn run(
        &mut self,
        subject: Subject,
        look: impl FnOnce() -> Answer + Send + 'static,
        waker: &Arc<Waker>,
    ) -> io::Result<()> {
        self.threads.retain(|(_, thread)| !thread.is_finished());
        if self.threads.iter().any(|(other, _)| *other == subject) {
            return Ok(());
        }
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
        self.threads.push((subject, spawned?));
        Ok(())
    }

    /// Takes the answers that have come.
    pub(super) fn answers(&self) -> Vec<Answer> {
        std::mem::take(&mut *self.answers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The threads, to be waited for before the code they run may be unloaded.
    pub(super) fn take_threads(&mut self) -> Vec<JoinHandle<()>> {
        let threads = self.threads.drain(..);
        threads.map(|(_, thread)| thread).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{Fleet, Place};
    use crate::observe::Silent;
    use mio::{Poll, Token};
    use std::sync::mpsc;
    use std::time::Instant;

    #[test]
    fn a_look_up_under_way_is_not_begun_again() {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let mut fleet = Fleet::new(false, Arc::new(Silent), Instant::now());
        let [one, other] =
            ["one:1", "other:1"].map(|name| fleet.join(name, Place::of_tier(0), Instant::now()));
        let mut resolving = Resolving::default();
        let (release, released) = mpsc::channel::<()>();
        let slow = move || {
            let _ = released.recv();
            Answer::Addresses(one, Ok(Vec::new()))
        };
        let quick = |id| move || Answer::Addresses(id, Ok(Vec::new()));
        resolving
            .run(Subject::Addresses(one), slow, &waker)
            .unwrap();
        for _ in 0..100 {
            resolving
                .run(Subject::Addresses(one), quick(one), &waker)
                .unwrap();
        }
        resolving
            .run(Subject::Addresses(other), quick(other), &waker)
            .unwrap();
        assert!(resolving.threads.len() <= 2);
        drop(release);
        resolving
            .take_threads()
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        assert_eq!(resolving.answers().len(), 2);
        resolving
            .run(Subject::Addresses(one), quick(one), &waker)
            .unwrap();
        resolving
            .take_threads()
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        assert_eq!(resolving.answers().len(), 1);
    }
}
