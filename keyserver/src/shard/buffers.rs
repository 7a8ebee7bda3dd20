//! Large buffers for whoever reads or writes at the moment.
//!
//! A connection that is idle holds none: with 10,000 of them that is the difference between some
//! hundred megabytes and gigabytes. What lies here held ciphertext only, since it is on its way
//! from or to a socket.

use std::cell::RefCell;

use crate::limits;

/// The buffers of one I/O thread that nobody uses. The last one given back is the next one taken:
/// it is still in the cache.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    idle: RefCell<Vec<Vec<u8>>>,
}

impl Buffers {
    /// An empty buffer with room for one large read.
    pub(crate) fn take(&self) -> Vec<u8> {
        let idle = self.idle.borrow_mut().pop();
        idle.unwrap_or_else(|| Vec::with_capacity(limits::READ_BYTES))
    }

    /// Keeps a buffer for the next, if it has the size of the others and they are not many.
    pub(crate) fn give_back(&self, mut buffer: Vec<u8>) {
        let usual = limits::READ_BYTES..=2 * limits::READ_BYTES;
        let mut idle = self.idle.borrow_mut();
        if usual.contains(&buffer.capacity()) && idle.len() < limits::IDLE_BUFFERS {
            buffer.clear();
            idle.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_empty_and_no_more_are_kept_than_allowed() {
        let buffers = Buffers::default();
        let mut buffer = buffers.take();
        buffer.extend_from_slice(b"ciphertext");
        let address = buffer.as_ptr();
        buffers.give_back(buffer);
        let again = buffers.take();
        assert!(again.is_empty() && again.as_ptr() == address);
        buffers.give_back(Vec::with_capacity(10));
        buffers.give_back(Vec::with_capacity(10 * limits::READ_BYTES));
        assert_eq!(buffers.idle.borrow().len(), 0);
        for _ in 0..2 * limits::IDLE_BUFFERS {
            buffers.give_back(Vec::with_capacity(limits::READ_BYTES));
        }
        assert_eq!(buffers.idle.borrow().len(), limits::IDLE_BUFFERS);
    }
}
