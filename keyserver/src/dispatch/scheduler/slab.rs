//! A fixed number of places, each named by a small number: what the lists of the queues link.
//!
//! The memory is reserved at the start and touched on first use. Nothing is allocated afterwards.

/// The name of no place: the end of a list.
pub(super) const NIL: u32 = u32::MAX;

/// Places for at most as many values as it was made for.
#[derive(Debug)]
pub(super) struct Slab<T> {
    places: Vec<Place<T>>,
    free: u32,
    capacity: usize,
}

#[derive(Debug)]
enum Place<T> {
    /// The next free place.
    Free(u32),
    Used(T),
}

impl<T> Slab<T> {
    /// A slab for `capacity` values, fewer than 2^32 - 1.
    pub(super) fn new(capacity: usize) -> Self {
        let capacity = capacity.min(NIL as usize);
        Self {
            places: Vec::with_capacity(capacity),
            free: NIL,
            capacity,
        }
    }

    /// Puts a value in and names its place; gives it back when every place is taken.
    pub(super) fn insert(&mut self, value: T) -> Result<u32, T> {
        if let Some(place) = self.places.get_mut(self.free as usize) {
            let name = self.free;
            if let Place::Free(next) = *place {
                self.free = next;
            }
            *place = Place::Used(value);
            return Ok(name);
        }
        if self.places.len() == self.capacity {
            return Err(value);
        }
        self.places.push(Place::Used(value));
        Ok(u32::try_from(self.places.len() - 1).unwrap_or(NIL))
    }

    /// Takes a value out; its place is free again.
    pub(super) fn remove(&mut self, name: u32) -> Option<T> {
        let place = self.places.get_mut(name as usize)?;
        match std::mem::replace(place, Place::Free(self.free)) {
            Place::Used(value) => {
                self.free = name;
                Some(value)
            }
            free @ Place::Free(_) => {
                *place = free;
                None
            }
        }
    }

    /// How many places are taken.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let taken = |place: &&Place<T>| matches!(place, Place::Used(_));
        self.places.iter().filter(taken).count()
    }

    pub(super) fn get(&self, name: u32) -> Option<&T> {
        match self.places.get(name as usize)? {
            Place::Used(value) => Some(value),
            Place::Free(_) => None,
        }
    }

    pub(super) fn get_mut(&mut self, name: u32) -> Option<&mut T> {
        match self.places.get_mut(name as usize)? {
            Place::Used(value) => Some(value),
            Place::Free(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_used_again_and_never_moved() {
        let mut slab = Slab::new(3);
        let names: Vec<u32> = "abc"
            .chars()
            .map(|value| slab.insert(value).expect("room"))
            .collect();
        let memory = slab.places.as_ptr();
        assert_eq!(slab.insert('d'), Err('d'));
        assert_eq!(slab.remove(names[1]), Some('b'));
        assert!(slab.remove(names[1]).is_none() && slab.get(names[1]).is_none());
        assert_eq!(slab.insert('e'), Ok(names[1]));
        assert_eq!(slab.insert('f'), Err('f'));
        *slab.get_mut(names[0]).expect("still there") = 'g';
        let all: String = (0..3).filter_map(|name| slab.get(name)).collect();
        assert_eq!(all, "gec");
        assert_eq!(slab.places.as_ptr(), memory);
        assert!(slab.get(NIL).is_none() && slab.remove(NIL).is_none());
    }
}
