//! The thread that writes meters down, so that no I/O thread waits for a disk.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use crate::limits;
use crate::state::ServerState;

/// The running thread.
#[derive(Debug)]
pub(crate) struct Thread {
    handle: JoinHandle<()>,
    over: Arc<AtomicBool>,
    state: Arc<ServerState>,
}

/// Starts it.
///
/// It has no heartbeat: whether the disk answers is told by [`super::MetersHealth`], and a disk that does not must not
/// end a server that can still sign.
///
/// # Errors
///
/// The system refused a thread.
pub(crate) fn start(state: &Arc<ServerState>) -> io::Result<Thread> {
    let over = Arc::new(AtomicBool::new(false));
    let (its_state, its_over) = (Arc::clone(state), Arc::clone(&over));
    let handle = thread::Builder::new()
        .name("meters".to_owned())
        .spawn(move || run(&its_state, &its_over))?;
    Ok(Thread {
        handle,
        over,
        state: Arc::clone(state),
    })
}

impl Thread {
    /// Ends it when nothing is admitted any more, with what was used on disk: to be joined. If it panics or the disk keeps it
    /// waiting, what it had written down ahead counts as used.
    pub(crate) fn stop(self) -> JoinHandle<()> {
        self.over.store(true, Ordering::Release);
        self.state.meters.bell.ring();
        self.handle.thread().unpark();
        self.handle
    }
}

fn run(state: &ServerState, over: &AtomicBool) {
    let meters = &state.meters;
    let mut failed = false;
    let mut day_failed = false;
    let mut was_behind = false;
    while !over.load(Ordering::Acquire) {
        if failed {
            // Every request rings now; a disk that refuses is not asked for each of them.
            thread::park_timeout(limits::HEARTBEAT);
        } else {
            meters.bell.wait(limits::HEARTBEAT);
        }
        if meters.is_low() || failed {
            let result = meters.write();
            // Said once, not every second.
            if let (Err(error), false) = (&result, failed) {
                tracing::error!(
                    alarm = "meters_unwritable",
                    "{error}: grants with `daily` give nothing more until it can be written; others go on"
                );
            }
            failed = result.is_err();
        }
        meters.alarm();
        let result = meters.write_day(super::today());
        if let (Err(error), false) = (&result, day_failed) {
            tracing::error!(
                alarm = "calendar_unwritable",
                "{error}: should the clock be set back, a restart gives back what has ended by its date today"
            );
        }
        day_failed = result.is_err();
        let behind = meters.clock_is_behind();
        if let (Some(behind), false) = (&behind, was_behind) {
            tracing::warn!("{behind}");
        }
        was_behind = behind.is_some();
    }
    if let Err(error) = meters.close() {
        tracing::error!("{error}: what was written down ahead counts as used");
    }
}
