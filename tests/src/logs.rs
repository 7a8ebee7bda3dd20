//! What a process printed.

use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The lines printed so far, growing while the process runs. Clones share them.
#[derive(Clone, Default)]
pub struct Log {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    lines: Mutex<Vec<String>>,
    grown: Condvar,
    readers: Mutex<Vec<JoinHandle<()>>>,
}

impl Log {
    /// Reads lines from a pipe on a thread of its own until the pipe closes.
    pub fn follow(&self, pipe: impl Read + Send + 'static) {
        let log = self.clone();
        let reader = thread::spawn(move || {
            let mut reader = BufReader::new(pipe);
            let mut line = Vec::new();
            while reader
                .read_until(b'\n', &mut line)
                .is_ok_and(|read| read > 0)
            {
                log.push(String::from_utf8_lossy(&line).trim_end().to_owned());
                line.clear();
            }
        });
        self.shared
            .readers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(reader);
    }

    /// Waits for the last words of a process that has ended: until its pipes are closed.
    pub fn wait_until_closed(&self) {
        let mut readers = self
            .shared
            .readers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for reader in readers.drain(..) {
            reader.join().expect("reading a pipe does not panic");
        }
    }

    fn push(&self, line: String) {
        let lines = &self.shared.lines;
        lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(line);
        self.shared.grown.notify_all();
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<String> {
        self.shared
            .lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The lines so far that contain `text`.
    pub fn matching(&self, text: &str) -> Vec<String> {
        self.lines()
            .into_iter()
            .filter(|line| line.contains(text))
            .collect()
    }

    /// Waits until a line satisfies `wanted`, and returns it.
    pub fn wait_for(&self, limit: Duration, wanted: impl Fn(&str) -> bool) -> Option<String> {
        self.wait_until(limit, |lines| {
            lines.iter().find(|line| wanted(line)).cloned()
        })
    }

    /// Waits until at least `count` lines contain `text`, or the time is over: how many there are is for the caller to judge. A
    /// line may still be on its way here when what it is about can be seen elsewhere.
    pub fn wait_for_matching(&self, limit: Duration, text: &str, count: usize) -> Vec<String> {
        let is_there = |lines: &[String]| {
            let matching = lines.iter().filter(|line| line.contains(text));
            (matching.count() >= count).then_some(())
        };
        self.wait_until(limit, is_there);
        self.matching(text)
    }

    /// Waits until something is found among the lines.
    fn wait_until<T>(&self, limit: Duration, found: impl Fn(&[String]) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + limit;
        let mut lines = self
            .shared
            .lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(found) = found(&lines) {
                return Some(found);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            (lines, _) = self
                .shared
                .grown
                .wait_timeout(lines, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The whole log, for the message of a failed test.
impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.lines();
        if lines.is_empty() {
            return f.write_str("(it printed nothing)");
        }
        f.write_str(&lines.join("\n"))
    }
}
