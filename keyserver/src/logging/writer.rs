//! Writes the log from a thread of its own, so that a reader that stands still holds nobody else.
//!
//! Standard error is mostly a pipe, and somebody at its other end writes to a disk. When that disk hangs, the pipe is full
//! soon, and whoever writes to it waits: an I/O thread that tells of a refusal would serve nobody until then. So lines
//! wait in a bounded queue here, and those that do not fit it are dropped, counted, and told of.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

use crate::clock;

/// Lines that wait for the reader of the log.
const WAITING_MAX: usize = 4096;

/// Pause before room is looked for again by one who waits for the last lines.
const PAUSE: Duration = Duration::from_millis(1);

/// The way to the thread that writes. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Lines {
    entries: SyncSender<Entry>,
    lost: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Entry {
    Line(Vec<u8>),
    /// Everything before this is out when the other end is dropped.
    Mark {
        _written: SyncSender<()>,
    },
}

impl Lines {
    /// Starts a thread that writes to `out`.
    ///
    /// # Errors
    ///
    /// The system gives no thread.
    pub(crate) fn to(out: impl Write + Send + 'static) -> io::Result<Self> {
        let (entries, waiting) = mpsc::sync_channel(WAITING_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let lines = Self {
            entries,
            lost: Arc::clone(&lost),
        };
        let thread = thread::Builder::new().name("log".to_owned());
        thread.spawn(move || write(&waiting, &lost, out))?;
        Ok(lines)
    }

    /// Waits until what was said so far is written, but no longer than this. Whether it is.
    pub(crate) fn flush(&self, limit: Duration) -> bool {
        let end = clock::now() + limit;
        let (written, done) = mpsc::sync_channel(0);
        let mut mark = Entry::Mark { _written: written };
        while let Err(TrySendError::Full(back)) = self.entries.try_send(mark) {
            if clock::now() >= end {
                return false;
            }
            mark = back;
            thread::sleep(PAUSE);
        }
        let left = end.saturating_duration_since(clock::now());
        done.recv_timeout(left) == Err(mpsc::RecvTimeoutError::Disconnected)
    }
}

fn write(waiting: &Receiver<Entry>, lost: &AtomicU64, mut out: impl Write) {
    for entry in waiting {
        if let Entry::Line(line) = entry {
            // Nobody is there to be told that the log cannot be written.
            let _ = out.write_all(&line);
        }
        let lost = lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            tracing::warn!(
                lost,
                "lines of the log were lost: its reader did not keep up"
            );
        }
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

/// One call is one line: that is how the formatter writes.
impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.entries.try_send(Entry::Line(line.to_vec())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes when it is let.
    struct Gated {
        may_write: Receiver<()>,
        written: Arc<AtomicU64>,
    }

    impl Write for Gated {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            // Let for good once nobody can hold it any more.
            let _ = self.may_write.recv();
            self.written.fetch_add(1, Ordering::Relaxed);
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_stands_still_holds_nobody_and_what_is_lost_is_counted() {
        let (hold, may_write) = mpsc::channel();
        let written = Arc::new(AtomicU64::new(0));
        let gated = Gated {
            may_write,
            written: Arc::clone(&written),
        };
        let lines = Lines::to(gated).unwrap();
        let all = 2 * WAITING_MAX;
        for _ in 0..all {
            (&lines).write_all(b"a line\n").unwrap();
        }
        let lost = lines.lost.load(Ordering::Relaxed);
        // One may be in the writer's hands.
        assert!([all, all - 1].contains(&(WAITING_MAX + usize::try_from(lost).unwrap())));
        assert!(!lines.flush(Duration::from_millis(20)));
        drop(hold);
        assert!(lines.flush(Duration::from_secs(60)));
        assert_eq!(written.load(Ordering::Relaxed) + lost, all as u64);
        assert_eq!(lines.lost.load(Ordering::Relaxed), 0);
    }
}
