//! The loop that both admin listeners share: a thread accepts, a short-lived thread per connection
//! answers, and their number is bounded. One peer that says nothing keeps nobody else waiting.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::SockRef;

/// Connections of one listener that are served at the same time; more are closed unanswered.
const CONNECTIONS_MAX: usize = 16;

/// How often an idle listener looks whether it should end.
const STOP_CHECK: Duration = Duration::from_millis(200);

/// A listener's thread.
#[derive(Debug)]
pub(super) struct AcceptThread {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl AcceptThread {
    /// Calls `serve` with every connection that `accept` yields, on a thread of its own.
    ///
    /// `socket` is the listener behind `accept`: waiting on it is limited, so that the thread can
    /// be stopped.
    pub(super) fn spawn<L, C>(
        name: &'static str,
        listener: L,
        accept: fn(&L) -> io::Result<C>,
        serve: impl Fn(C) + Send + Sync + 'static,
    ) -> io::Result<Self>
    where
        L: std::os::fd::AsFd + Send + 'static,
        C: Send + 'static,
    {
        // On Linux, a receive time-out of a listening socket limits accept (socket(7)).
        SockRef::from(&listener).set_read_timeout(Some(STOP_CHECK))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let serve = Arc::new(serve);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let busy = Arc::new(AtomicUsize::new(0));
            while !stopped.load(Ordering::Acquire) {
                match accept(&listener) {
                    Ok(connection) => dispatch(name, &busy, connection, &serve),
                    Err(error) if is_idle(&error) => {}
                    Err(error) => {
                        tracing::warn!(%error, "{name}: cannot accept connections for a moment");
                        std::thread::park_timeout(STOP_CHECK);
                    }
                }
            }
        })?;
        Ok(Self { stop, thread })
    }

    /// Ends the thread, at the latest after [`STOP_CHECK`].
    pub(super) fn stop(self) {
        self.stop.store(true, Ordering::Release);
        // A panic has been reported where it happened.
        let _ = self.thread.join();
    }
}

fn is_idle(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, Interrupted, TimedOut, WouldBlock};
    matches!(
        error.kind(),
        ConnectionAborted | Interrupted | TimedOut | WouldBlock
    )
}

fn dispatch<C: Send + 'static>(
    name: &'static str,
    busy: &Arc<AtomicUsize>,
    connection: C,
    serve: &Arc<impl Fn(C) + Send + Sync + 'static>,
) {
    // Only this thread adds, so the number cannot pass the bound in between.
    if busy.load(Ordering::Acquire) >= CONNECTIONS_MAX {
        tracing::debug!("{name}: connection closed, too many at once");
        return;
    }
    busy.fetch_add(1, Ordering::AcqRel);
    let place = Place(Arc::clone(busy));
    let serve = Arc::clone(serve);
    let spawned = std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let _place = place;
            serve(connection);
        });
    if let Err(error) = spawned {
        tracing::warn!(%error, "{name}: no thread for a connection");
    }
}

/// One of the [`CONNECTIONS_MAX`] places; given back when dropped, also by a panic.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
