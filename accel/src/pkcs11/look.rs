//! Calls into a module that somebody waits for, on a thread of their own: one that hangs does not hang the caller.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::error::TokenError;
use super::module::lock;

/// Looks into modules, one at a time. While one is stuck in a module, nobody else looks into that: each would leave
/// a thread behind.
#[derive(Debug, Default)]
pub(super) struct Looks {
    stuck: Mutex<Vec<(PathBuf, JoinHandle<()>)>>,
}

impl Looks {
    /// Does `work` in the module at `path`, and waits for it as long as `limit`.
    pub(super) fn within<T: Send + 'static>(
        &self,
        path: &Path,
        limit: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, TokenError> {
        let hung = || TokenError::Hung {
            path: path.to_owned(),
        };
        let mut stuck = lock(&self.stuck);
        stuck.retain(|(_, thread)| !thread.is_finished());
        if stuck.iter().any(|(at, _)| at == path) {
            return Err(hung());
        }
        let (reply, answer) = mpsc::channel();
        let started = thread::Builder::new()
            .name("hsm-look".into())
            .spawn(move || {
                // Whoever asked may have stopped waiting.
                let _ = reply.send(work());
            });
        let thread = started.map_err(|error| TokenError::Module {
            path: path.to_owned(),
            reason: format!("no thread can be started: {error}"),
        })?;
        answer.recv_timeout(limit).map_err(|_| {
            stuck.push((path.to_owned(), thread));
            hung()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn nobody_looks_into_a_module_in_which_a_look_is_stuck() {
        let (looks, short, long) = (
            Looks::default(),
            Duration::from_millis(20),
            Duration::from_secs(60),
        );
        let (hangs, well) = (Path::new("/hangs.so"), Path::new("/well.so"));
        let (release, held) = mpsc::channel::<()>();
        let stuck = looks.within(hangs, short, move || held.recv().is_ok());
        assert!(matches!(stuck, Err(TokenError::Hung { .. })), "{stuck:?}");
        // At once, and without doing anything.
        for _ in 0..3 {
            let next = looks.within(hangs, long, || "a second thread");
            assert!(matches!(next, Err(TokenError::Hung { .. })), "{next:?}");
        }
        assert_eq!(looks.within(well, long, || 7).unwrap(), 7);
        drop(release);
        let end = Instant::now() + long;
        while looks.within(hangs, long, || 7).is_err() {
            assert!(Instant::now() < end, "it has returned");
            thread::yield_now();
        }
        assert!(lock(&looks.stuck).is_empty());
    }
}
