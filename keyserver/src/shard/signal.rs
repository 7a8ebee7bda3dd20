//! A wake-up between two tasks of one thread: no atomics, no allocation, at most one waiter.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// Remembers one notification until its waiter takes it.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    raised: Cell<bool>,
    waiter: RefCell<Option<Waker>>,
}

impl Signal {
    /// Wakes the waiter, now or when it next waits. Raising twice is raising once.
    pub(crate) fn raise(&self) {
        if self.raised.replace(true) {
            return;
        }
        // Taken out first: the waker may run code that waits again.
        let waiter = self.waiter.borrow_mut().take();
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }

    /// Waits until the signal is raised, and lowers it.
    pub(crate) async fn wait(&self) {
        poll_fn(|context| {
            if self.raised.replace(false) {
                return Poll::Ready(());
            }
            *self.waiter.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Wake};

    use super::*;

    #[derive(Default)]
    struct Counter(AtomicUsize);
    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_raise_before_the_wait_is_not_lost_and_counts_once() {
        let counter = Arc::new(Counter::default());
        let waker = counter.clone().into();
        let mut context = Context::from_waker(&waker);
        let signal = Signal::default();
        signal.raise();
        signal.raise();
        assert!(pin!(signal.wait()).poll(&mut context).is_ready());
        let mut second = pin!(signal.wait());
        assert!(second.as_mut().poll(&mut context).is_pending());
        signal.raise();
        assert_eq!(counter.0.load(Ordering::Relaxed), 1);
        assert!(second.poll(&mut context).is_ready());
    }
}
