//! Wakes the thread that writes meters down.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// A bell: rung from any thread, heard by one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bell(Arc<(Mutex<bool>, Condvar)>);

impl Bell {
    /// Rings. Costs a lock that nobody holds for long.
    pub(crate) fn ring(&self) {
        let (rung, heard) = &*self.0;
        let before = std::mem::replace(
            &mut *rung.lock().unwrap_or_else(PoisonError::into_inner),
            true,
        );
        if !before {
            heard.notify_one();
        }
    }

    /// Waits until it has been rung since the last wait, but not for longer than `limit`.
    pub(crate) fn wait(&self, limit: Duration) {
        let (rung, heard) = &*self.0;
        let guard = rung.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = heard.wait_timeout_while(guard, limit, |rung| !*rung);
        let (mut rung, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *rung = false;
    }
}
