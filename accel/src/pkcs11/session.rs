//! A session, and whether it is still ours.
//!
//! A device may close sessions by itself, all at once when a token is pulled out. Some modules then give their
//! numbers to sessions that are opened next. Whoever still holds the old one would work in a stranger's
//! session, or close it. So each module keeps a list of who holds which number: the last to be given it. The
//! others find out before they use theirs.

use cryptoki::session::Session;
use cryptoki::slot::Slot as SlotId;

use super::failure::{Class, Failure};
use super::module::{Inside, Module, lock};

/// A session of a module, closed on demand only.
#[derive(Debug)]
pub(super) struct Held {
    session: Session,
    /// The module's epoch in which it was opened.
    pub(super) epoch: u64,
    /// Which of all that were ever given this number it is.
    ticket: u64,
}

impl Held {
    /// Opens a session on a slot.
    pub(super) fn open(
        module: &Module,
        inside: &Inside<'_>,
        slot: SlotId,
    ) -> Result<Self, Failure> {
        let session = module.context().open_ro_session_no_drop(slot)?;
        let mut holders = lock(module.holders());
        holders.given += 1;
        let ticket = holders.given;
        holders.by_number.insert(session.handle(), ticket);
        Ok(Self {
            session,
            epoch: inside.epoch,
            ticket,
        })
    }

    /// The session, if it is still ours.
    pub(super) fn session(
        &self,
        module: &Module,
        inside: &Inside<'_>,
    ) -> Result<&Session, Failure> {
        let ours =
            lock(module.holders()).by_number.get(&self.session.handle()) == Some(&self.ticket);
        if ours && self.epoch == inside.epoch {
            Ok(&self.session)
        } else {
            Err(Failure {
                class: Class::Session,
                ..Failure::slot("session given away")
            })
        }
    }

    /// Closes it, if it is still ours.
    pub(super) fn close(self, module: &Module) {
        if let Ok(inside) = module.enter()
            && self.session(module, &inside).is_ok()
        {
            // Taken off the list first: from the call on, the number may be another's.
            let session = self.forget(module);
            // One that cannot be closed is as gone as one that can.
            let _ = session.close();
        }
    }

    /// Gives it up without closing it: the module has said that it is gone.
    pub(super) fn forget(self, module: &Module) -> Session {
        let mut holders = lock(module.holders());
        let number = self.session.handle();
        if holders.by_number.get(&number) == Some(&self.ticket) {
            holders.by_number.remove(&number);
        }
        self.session
    }
}
