//! The connections of one I/O thread, by an index that is used again and a generation that is not.
//!
//! A job that outlives its connection finds another generation in the place and is dropped; it
//! can never answer a stranger.

use std::rc::Rc;

/// Names a connection of one I/O thread for as long as the process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConnectionId {
    index: u32,
    generation: u32,
}

#[derive(Debug)]
struct Place<T> {
    generation: u32,
    occupant: Option<Rc<T>>,
}

/// A slab with generations.
#[derive(Debug)]
pub(crate) struct Table<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Table<T> {
    /// Puts in what `make` builds for the identity it is given.
    pub(crate) fn insert_with(&mut self, make: impl FnOnce(ConnectionId) -> Rc<T>) -> Rc<T> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place {
                generation: 0,
                occupant: None,
            });
            // The connection cap is far below 2^32.
            u32::try_from(self.places.len() - 1).unwrap_or(u32::MAX)
        });
        let generation = self.place(index).map_or(0, |place| place.generation);
        let occupant = make(ConnectionId { index, generation });
        if let Some(place) = self.place_mut(index) {
            place.occupant = Some(Rc::clone(&occupant));
        }
        occupant
    }

    /// The connection of that name, if it still lives.
    pub(crate) fn find(&self, id: ConnectionId) -> Option<&Rc<T>> {
        let place = self.place(id.index)?;
        if place.generation == id.generation {
            place.occupant.as_ref()
        } else {
            None
        }
    }

    /// Forgets a connection. Its name is never given again.
    pub(crate) fn remove(&mut self, id: ConnectionId) {
        let Some(place) = self.place_mut(id.index) else {
            return;
        };
        if place.generation == id.generation && place.occupant.take().is_some() {
            place.generation = place.generation.wrapping_add(1);
            self.free.push(id.index);
        }
    }

    /// The first connection at this place or behind it, and its place: for a walk that may be
    /// interrupted, and during which connections come and go.
    pub(crate) fn next_from(&self, place: usize) -> Option<(usize, &Rc<T>)> {
        let places = self.places.get(place..)?;
        (place..)
            .zip(places)
            .find_map(|(at, place)| place.occupant.as_ref().map(|occupant| (at, occupant)))
    }

    /// All live connections, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Rc<T>> {
        self.places
            .iter()
            .filter_map(|place| place.occupant.as_ref())
    }

    /// How many connections live.
    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    fn place(&self, index: u32) -> Option<&Place<T>> {
        self.places.get(usize::try_from(index).ok()?)
    }

    fn place_mut(&mut self, index: u32) -> Option<&mut Place<T>> {
        self.places.get_mut(usize::try_from(index).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_outlives_its_connection_without_finding_the_next_one() {
        let mut table = Table::default();
        let mut first = ConnectionId::default();
        table.insert_with(|id| {
            first = id;
            Rc::new("first")
        });
        assert_eq!(table.find(first).map(|c| **c), Some("first"));
        table.remove(first);
        assert_eq!(table.len(), 0);
        let mut second = ConnectionId::default();
        table.insert_with(|id| {
            second = id;
            Rc::new("second")
        });
        assert_eq!(second.index, first.index);
        assert!(table.find(first).is_none());
        table.remove(first);
        assert_eq!(table.find(second).map(|c| **c), Some("second"));
        assert_eq!(table.iter().count(), 1);
    }

    #[test]
    fn a_walk_sees_everyone_who_stays_whoever_comes_and_goes() {
        let mut table = Table::default();
        let mut ids = Vec::new();
        for name in 0..5 {
            table.insert_with(|id| {
                ids.push(id);
                Rc::new(name)
            });
        }
        table.remove(ids[1]);
        let mut seen = Vec::new();
        let mut place = 0;
        while let Some((at, occupant)) = table.next_from(place) {
            seen.push(**occupant);
            place = at + 1;
            // One ahead goes, one comes in behind, after the first step.
            if seen.len() == 1 {
                table.remove(ids[3]);
                table.insert_with(|_| Rc::new(9));
            }
        }
        assert_eq!(seen, [0, 2, 9, 4]);
        assert!(table.next_from(5).is_none() && table.next_from(99).is_none());
    }
}
