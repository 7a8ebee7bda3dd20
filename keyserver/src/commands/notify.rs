//! Tells systemd how the server is, without ever waiting for systemd.
//!
//! The notification socket is a queue of a few datagrams. Sending to it blocks when nobody reads,
//! and whoever sends here is the loop that handles signals. So a thread of its own sends, and what
//! does not fit its queue is dropped: the next sign of life follows in a few seconds.

use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use sd_notify::NotifyState;

/// Messages that wait for systemd to read.
const WAITING_MAX: usize = 16;

/// At the end of the process, how long the last messages may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The way to systemd; silent when there is none.
#[derive(Debug)]
pub(super) struct Notifier {
    messages: Option<SyncSender<String>>,
    /// Ends when everything was sent. In a mutex, because reloads share this.
    sent: Mutex<Receiver<()>>,
}

impl Notifier {
    /// Starts to tell systemd, if it started us and wants to know.
    pub(super) fn start() -> Self {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            let (_, sent) = mpsc::channel();
            return Self {
                messages: None,
                sent: Mutex::new(sent),
            };
        }
        Self::sending_to(|message| sd_notify::notify(&[NotifyState::Custom(message)]))
    }

    fn sending_to(send: impl Fn(&str) -> io::Result<()> + Send + 'static) -> Self {
        let (messages, waiting) = mpsc::sync_channel::<String>(WAITING_MAX);
        let (done, sent) = mpsc::channel();
        let thread = thread::Builder::new().name("notify".to_owned());
        let started = thread.spawn(move || {
            for message in waiting {
                if let Err(error) = send(&message) {
                    tracing::debug!(%error, "systemd was not told");
                }
            }
            // Whoever waits for the last words learns that they are out.
            drop(done);
        });
        if let Err(error) = &started {
            tracing::warn!(%error, "no thread to tell systemd from");
        }
        Self {
            messages: started.is_ok().then_some(messages),
            sent: Mutex::new(sent),
        }
    }

    /// Tells systemd, soon.
    pub(super) fn tell(&self, state: &[NotifyState<'_>]) {
        let Some(messages) = &self.messages else {
            return;
        };
        let lines: Vec<String> = state.iter().map(ToString::to_string).collect();
        if messages.try_send(lines.join("\n")).is_err() {
            tracing::debug!("systemd does not read what it is told");
        }
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        if self.messages.take().is_some() {
            let sent = self.sent.get_mut().unwrap_or_else(PoisonError::into_inner);
            match sent.recv_timeout(LAST_WORDS) {
                Err(RecvTimeoutError::Timeout) => tracing::debug!("systemd was not told the last"),
                Ok(()) | Err(RecvTimeoutError::Disconnected) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock;

    #[test]
    fn messages_go_out_in_order_and_the_last_before_the_end() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&told);
        let notifier = Notifier::sending_to(move |message| {
            log.lock().unwrap().push(message.to_owned());
            Ok(())
        });
        notifier.tell(&[NotifyState::Ready, NotifyState::Status("Serving")]);
        notifier.tell(&[NotifyState::Stopping]);
        drop(notifier);
        assert_eq!(
            *told.lock().unwrap(),
            ["READY=1\nSTATUS=Serving", "STOPPING=1"]
        );
    }

    #[test]
    fn a_reader_that_sleeps_keeps_nobody_waiting() {
        let (wake, asleep) = mpsc::channel::<()>();
        let asleep = Mutex::new(asleep);
        let notifier = Notifier::sending_to(move |_| {
            let _ = asleep.lock().unwrap().recv();
            Ok(())
        });
        let began = clock::now();
        for _ in 0..10_000 {
            notifier.tell(&[NotifyState::Watchdog]);
        }
        drop(notifier);
        assert!(began.elapsed() < LAST_WORDS * 10);
        drop(wake);
    }
}
