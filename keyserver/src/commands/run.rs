//! `keyserver run`: the server under the care of systemd, or of a terminal.
//!
//! | signal | effect |
//! |---|---|
//! | SIGTERM, SIGINT | drain: finish what is in flight, say goodbye, end. A second one cuts |
//! | SIGHUP | load keys, certificates and grants again |

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Failure;
use super::notify::Notifier;
use crate::config::Config;
use crate::state::ServerState;
use crate::{Server, StartError, os};

/// Without a watchdog of systemd, the health is still looked at this often.
const WATCH_INTERVAL: Duration = Duration::from_secs(5);

/// Serves until told to stop.
pub(crate) fn run(path: &Path) -> Result<(), Failure> {
    os::forbid_dumps();
    let config = Config::load(path).map_err(Failure::start)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::start(format!("the system gives no event loop: {error}")))?;
    // Signals are taken over before the server starts, so that none falls in between.
    let signals = {
        let _context = runtime.enter();
        Signals::new().map_err(|error| Failure::start(format!("signals: {error}")))?
    };
    let server = Server::start(config).map_err(|error| match error {
        StartError::Load(error) => Failure::load(&error),
        other => Failure::start(other),
    })?;
    for warning in server.state().snapshot.load().warnings() {
        tracing::warn!("{warning}");
    }
    let status = format!("Serving on {}", server.local_addr());
    let notifier = Arc::new(Notifier::start());
    notifier.tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
    runtime.block_on(until_end(server, signals, &notifier));
    // After a second signal the drain still waits in its thread; the process does not.
    runtime.shutdown_background();
    tracing::info!("stopped");
    Ok(())
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

enum Event {
    Stop,
    Reload,
    Watch,
}

async fn until_end(server: Server, mut signals: Signals, notifier: &Arc<Notifier>) {
    let state = Arc::clone(server.state());
    let interval = sd_notify::watchdog_enabled().map_or(WATCH_INTERVAL, |limit| limit / 3);
    let mut watch = tokio::time::interval(interval.max(Duration::from_millis(10)));
    loop {
        let event = tokio::select! {
            _ = signals.terminate.recv() => Event::Stop,
            _ = signals.interrupt.recv() => Event::Stop,
            _ = signals.hangup.recv() => Event::Reload,
            _ = watch.tick() => Event::Watch,
        };
        match event {
            Event::Stop => break,
            Event::Watch => report_health(&state, notifier),
            Event::Reload => {
                // On a thread of its own: the watchdog must go on while keys are tested.
                let (state, notifier) = (Arc::clone(&state), Arc::clone(notifier));
                drop(tokio::task::spawn_blocking(move || {
                    reload(&state, &notifier);
                }));
            }
        }
    }
    notifier.tell(&[NotifyState::Stopping, NotifyState::Status("Draining")]);
    tracing::info!("draining; a second signal cuts the connections");
    server.drain();
    let mut ended = tokio::task::spawn_blocking(move || server.join());
    loop {
        tokio::select! {
            result = &mut ended => {
                if let Err(error) = result {
                    tracing::error!(%error, "a thread of the server panicked");
                }
                return;
            }
            () = signals.stop() => {
                tracing::warn!("second signal: connections are cut");
                // The process ends, and with it every connection: nothing is left to save.
                return;
            }
            _ = watch.tick() => report_health(&state, notifier),
        }
    }
}

fn reload(state: &ServerState, notifier: &Notifier) {
    // systemd wants to know when the reload began, by the monotonic clock.
    let reloading = NotifyState::monotonic_usec_now();
    if let Ok(now) = reloading {
        notifier.tell(&[NotifyState::Reloading, now]);
    }
    // Success and failure are both logged and counted where they happen.
    let status = match state.reload_at_signal() {
        // The one that waits tells how it ended.
        None => return,
        Some(Ok(report)) => format!("Serving {} keys", report.keys),
        Some(Err(_)) => "Serving; the last reload failed, see the log".to_owned(),
    };
    notifier.tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

/// Tells systemd that all is well, or the log that it is not; systemd then restarts the server.
fn report_health(state: &ServerState, notifier: &Notifier) {
    let stuck = state.health.stuck();
    if stuck.is_empty() {
        notifier.tell(&[NotifyState::Watchdog]);
    } else {
        tracing::error!(threads = stuck.join(", "), "threads do not turn");
    }
}
