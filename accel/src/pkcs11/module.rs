//! A loaded module: one context for each path in a process, used by all its slots.
//!
//! Concurrent initialization crashes some modules, and a module keeps process-wide state, so there is one
//! registry for the process, and a gate on each module:
//!
//! ```text
//! call:          enter (counts) ---- C_* ---- leave
//! initialize again:   close the gate, wait until nobody is inside, C_Finalize, C_Initialize, epoch + 1, open
//! ```
//!
//! A session belongs to the epoch in which it was opened. After C_Finalize its number may be given to
//! another session, so it is forgotten, never closed.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};

use super::failure::{Class, Failure};
use super::raw::Raw;
use super::slot::Slot;

/// Every module of the process, by its path without links. A module that was loaded stays so.
static MODULES: OnceLock<Mutex<HashMap<PathBuf, Arc<Module>>>> = OnceLock::new();

/// Longest wait at a closed gate. Initializing takes milliseconds for software and a few seconds for some
/// devices.
const GATE_WAIT: Duration = Duration::from_secs(10);

/// A module and the gate before it.
#[derive(Debug)]
pub(super) struct Module {
    path: PathBuf,
    raw: Raw,
    gate: Mutex<Gate>,
    changed: Condvar,
    slots: Mutex<Vec<Weak<Slot>>>,
    holders: Mutex<Holders>,
}

/// Who holds which session, see `session.rs`.
#[derive(Debug, Default)]
pub(super) struct Holders {
    /// How many sessions were ever given out.
    pub(super) given: u64,
    /// By the session's number, which of these holds it now.
    pub(super) by_number: HashMap<u64, u64>,
}

#[derive(Debug, Default)]
struct Gate {
    /// Threads that are inside a call.
    inside: usize,
    /// Someone is initializing, or waiting to.
    closed: bool,
    initialized: bool,
    /// How often it was initialized.
    epoch: u64,
}

/// Leave to call the module, given back on drop.
#[derive(Debug)]
pub(super) struct Inside<'a> {
    module: &'a Module,
    /// The epoch of this leave: sessions of others are void.
    pub(super) epoch: u64,
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let mut gate = lock(&self.module.gate);
        gate.inside -= 1;
        // Waking costs a call of the system, and nobody waits for an open gate.
        let awaited = gate.closed && gate.inside == 0;
        drop(gate);
        if awaited {
            self.module.changed.notify_all();
        }
    }
}

/// A poisoned lock means that a thread panicked while it held it; what it guards here is plain counters,
/// which are consistent between any two statements.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Module {
    /// The module at a path, loaded at first use. Loading runs the library's own code.
    pub(super) fn load(path: &Path) -> Result<Arc<Self>, Failure> {
        let real = path
            .canonicalize()
            .map_err(|error| Failure::slot(&format!("not loaded: {error}")))?;
        let mut modules = lock(MODULES.get_or_init(Mutex::default));
        if let Some(known) = modules.get(&real) {
            return Ok(Arc::clone(known));
        }
        let module = Arc::new(Self {
            raw: Raw::load(&real)?,
            path: real.clone(),
            gate: Mutex::default(),
            changed: Condvar::new(),
            slots: Mutex::default(),
            holders: Mutex::default(),
        });
        modules.insert(real, Arc::clone(&module));
        Ok(module)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Remembers a slot that uses the module.
    pub(super) fn used_by(&self, slot: &Arc<Slot>) {
        let mut slots = lock(&self.slots);
        slots.retain(|slot| slot.strong_count() > 0);
        slots.push(Arc::downgrade(slot));
    }

    /// The slots that use the module.
    pub(super) fn slots(&self) -> Vec<Arc<Slot>> {
        lock(&self.slots).iter().filter_map(Weak::upgrade).collect()
    }

    pub(super) const fn holders(&self) -> &Mutex<Holders> {
        &self.holders
    }

    pub(super) const fn raw(&self) -> &Raw {
        &self.raw
    }

    pub(super) const fn context(&self) -> &Pkcs11 {
        self.raw.context()
    }

    /// Asks for leave to call the module; initializes it if nobody has. Waits, but not for ever, while the
    /// gate is closed.
    pub(super) fn enter(&self) -> Result<Inside<'_>, Failure> {
        let mut gate = self.wait_until(|gate| !gate.closed, GATE_WAIT)?;
        if !gate.initialized {
            gate.closed = true;
            drop(gate);
            gate = self.initialize(false)?;
        }
        gate.inside += 1;
        Ok(Inside {
            module: self,
            epoch: gate.epoch,
        })
    }

    /// Finalizes and initializes once nobody is inside. `seen` is the epoch that the caller found wanting:
    /// if it has passed, somebody else was quicker and there is nothing to do.
    pub(super) fn initialize_again(&self, seen: u64) -> Result<(), Failure> {
        let mut gate = self.wait_until(|gate| !gate.closed, GATE_WAIT)?;
        if gate.epoch != seen {
            return Ok(());
        }
        gate.closed = true;
        drop(gate);
        match self.wait_until(|gate| gate.inside == 0, GATE_WAIT) {
            Ok(gate) => drop(gate),
            Err(failure) => {
                lock(&self.gate).closed = false;
                self.changed.notify_all();
                return Err(failure);
            }
        }
        self.initialize(true).map(drop)
    }

    /// Runs with the gate closed, and opens it.
    fn initialize(&self, finalize: bool) -> Result<MutexGuard<'_, Gate>, Failure> {
        if finalize {
            // A module that has lost its state answers that it is not initialized, which is what we want.
            let _ = self.context().clone().finalize();
        }
        let arguments = CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK);
        let result = match self.context().initialize(arguments) {
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(()),
            Err(error) => Err(Failure::from(error)),
        };
        let mut gate = lock(&self.gate);
        gate.closed = false;
        gate.initialized = result.is_ok();
        gate.epoch += 1;
        lock(&self.holders).by_number.clear();
        self.changed.notify_all();
        result.map(|()| gate)
    }

    fn wait_until(
        &self,
        condition: impl Fn(&Gate) -> bool,
        limit: Duration,
    ) -> Result<MutexGuard<'_, Gate>, Failure> {
        let end = Instant::now() + limit;
        let mut gate = lock(&self.gate);
        while !condition(&gate) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Failure {
                    name: "module in use".into(),
                    class: Class::Slot,
                    input: false,
                });
            }
            gate = self
                .changed
                .wait_timeout(gate, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        Ok(gate)
    }
}
