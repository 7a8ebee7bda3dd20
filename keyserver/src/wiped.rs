//! Buffers that may hold secrets.

use zeroize::Zeroize;

/// Makes room for so many bytes more, and leaves no copy behind of what is there, as [`Vec::reserve`] would.
pub(crate) fn reserve(bytes: &mut Vec<u8>, more: usize) {
    let needed = bytes.len().saturating_add(more);
    let capacity = bytes.capacity();
    if needed > capacity {
        let mut larger = Vec::with_capacity(needed.max(capacity.saturating_mul(2)));
        larger.extend_from_slice(bytes);
        bytes.as_mut_slice().zeroize();
        *bytes = larger;
    }
}
