//! An allocator that counts, thread by thread.

#![expect(
    unsafe_code,
    reason = "an allocator cannot be written without; this one hands every call to the system's"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};

use nix::unistd::gettid;

/// More threads than a test starts.
const THREADS: usize = 256;

/// The system's allocator, with a count of the calls that ask for memory.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

struct Slot {
    thread: AtomicI32,
    allocations: AtomicU64,
}

static SLOTS: [Slot; THREADS] = [const {
    Slot {
        thread: AtomicI32::new(0),
        allocations: AtomicU64::new(0),
    }
}; THREADS];
static TAKEN: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static MINE: Cell<Option<&'static Slot>> = const { Cell::new(None) };
}

/// Counts one for the calling thread. Must not allocate.
fn count() {
    // A thread that is ending has no more locals; nobody asks what it allocates.
    let _ = MINE.try_with(|mine| {
        let slot = mine.get().or_else(|| {
            let slot = SLOTS.get(TAKEN.fetch_add(1, Ordering::Relaxed))?;
            slot.thread.store(gettid().as_raw(), Ordering::Relaxed);
            mine.set(Some(slot));
            Some(slot)
        });
        if let Some(slot) = slot {
            slot.allocations.fetch_add(1, Ordering::Relaxed);
        }
    });
}

/// Allocations so far by the thread with this id.
pub(crate) fn allocations_of(thread: i32) -> u64 {
    (SLOTS.iter())
        .filter(|slot| slot.thread.load(Ordering::Relaxed) == thread)
        .map(|slot| slot.allocations.load(Ordering::Relaxed))
        .sum()
}

// SAFETY: every method passes its arguments on to the system's allocator unchanged and returns its
// answer, so what the system promises to a caller that keeps the rules of `GlobalAlloc` is kept.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller promises a layout that is not of size 0.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as for `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller promises memory of ours, which is the system's, with its layout.
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as for `realloc`.
        unsafe { System.dealloc(memory, layout) }
    }
}
