//! The requests in flight on one connection.
//!
//! A slot is a place for one request. Its position and a generation make the request id, so that an answer that comes
//! after its request was given up is recognised and not taken for the answer to the slot's next one.

/// Most requests in flight on one connection: positions take 16 bits of the id.
pub(crate) const IN_FLIGHT_MAX: u16 = u16::MAX;

/// A request in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pending {
    /// Its position in the workload.
    pub(crate) entry: u32,
    /// When it was meant to leave, on the run's clock.
    pub(crate) intended_ns: u64,
    /// When it left.
    pub(crate) sent_ns: u64,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    generation: u16,
    pending: Option<Pending>,
}

/// All places of one connection.
#[derive(Debug)]
pub(crate) struct Slots {
    slots: Vec<Slot>,
    free: Vec<u16>,
}

impl Slots {
    pub(crate) fn new(places: u16) -> Self {
        let slots = vec![
            Slot {
                generation: 0,
                pending: None
            };
            usize::from(places)
        ];
        // The last is taken first; low positions first keeps few in use at low load.
        Self {
            slots,
            free: (0..places).rev().collect(),
        }
    }

    pub(crate) fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Takes a place and returns the request id; `None` when all are taken.
    pub(crate) fn take(&mut self, pending: Pending) -> Option<u32> {
        let position = self.free.pop()?;
        let slot = self.slots.get_mut(usize::from(position))?;
        slot.pending = Some(pending);
        Some(u32::from(slot.generation) << 16 | u32::from(position))
    }

    /// Gives back the place of an answered request; `None` when no request with this id is in flight.
    pub(crate) fn release(&mut self, id: u32) -> Option<Pending> {
        let [high, low, position @ ..] = id.to_be_bytes();
        let position = u16::from_be_bytes(position);
        let slot = self.slots.get_mut(usize::from(position))?;
        if slot.generation != u16::from_be_bytes([high, low]) {
            return None;
        }
        let pending = slot.pending.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(position);
        Some(pending)
    }

    /// Gives back every place for which `gone` says so, telling `each` about it.
    pub(crate) fn release_if(
        &mut self,
        gone: impl Fn(&Pending) -> bool,
        mut each: impl FnMut(Pending),
    ) {
        for (slot, position) in self.slots.iter_mut().zip(0..) {
            if let Some(pending) = slot.pending.take_if(|pending| gone(pending)) {
                slot.generation = slot.generation.wrapping_add(1);
                self.free.push(position);
                each(pending);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(entry: u32) -> Pending {
        Pending {
            entry,
            intended_ns: 1,
            sent_ns: 2,
        }
    }

    #[test]
    fn places_run_out_and_come_back() {
        let mut slots = Slots::new(2);
        let first = slots.take(pending(1)).unwrap();
        let second = slots.take(pending(2)).unwrap();
        assert_ne!(first, second);
        assert!(!slots.has_room());
        assert_eq!(slots.take(pending(3)), None);
        assert_eq!(slots.release(second), Some(pending(2)));
        assert_eq!(slots.in_flight(), 1);
    }

    #[test]
    fn late_double_and_foreign_answers_match_nothing() {
        let mut slots = Slots::new(1);
        let first = slots.take(pending(1)).unwrap();
        slots.release_if(
            |pending| pending.entry == 1,
            |pending| assert_eq!(pending.entry, 1),
        );
        let second = slots.take(pending(2)).unwrap();
        assert_eq!(
            slots.release(first),
            None,
            "an answer to a request given up"
        );
        assert_eq!(slots.release(second), Some(pending(2)));
        assert_eq!(slots.release(second), None, "the same answer twice");
        assert_eq!(
            slots.release(0x0000_0007),
            None,
            "a position that does not exist"
        );
    }
}
