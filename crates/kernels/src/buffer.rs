//! Memory for numbers: aligned to a cache line, zeroed, on huge pages where the system offers them.
//!
//! Walking down a column of activations touches a new 4 KiB page every row or two; with 2 MiB pages the
//! address translation stays cached. Asking for them is a hint (`madvise`): without it all still works.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// From this size on a buffer asks for huge pages, and is aligned to them.
const HUGE: usize = 2 << 20;

/// A fixed number of f32, initially zero, aligned to at least 64 bytes.
pub struct Buffer {
    start: NonNull<f32>,
    len: usize,
}

// SAFETY: a Buffer owns its memory like a Box<[f32]>.
unsafe impl Send for Buffer {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// `len` zeros. Aborts like any allocation when the system has no memory.
    pub fn zeroed(len: usize) -> Self {
        let layout = Self::layout(len);
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc(layout) };
        let Some(start) = NonNull::new(start.cast::<f32>()) else { handle_alloc_error(layout) };
        #[cfg(target_os = "linux")]
        if layout.size() >= HUGE {
            // SAFETY: advice on whole pages of memory that was just allocated; it changes no contents.
            unsafe {
                libc::madvise(start.as_ptr().cast(), layout.size(), libc::MADV_HUGEPAGE);
            }
        }
        // Zeroed only now: the first touch decides the page size.
        // SAFETY: `len` numbers fit into the allocation; all bits zero is 0.0.
        unsafe { start.as_ptr().write_bytes(0, len) };
        Self { start, len }
    }

    /// A copy of `values`.
    pub fn from_slice(values: &[f32]) -> Self {
        let mut buffer = Self::zeroed(values.len());
        buffer.copy_from_slice(values);
        buffer
    }

    fn layout(len: usize) -> Layout {
        let bytes = len.max(1).checked_mul(4).expect("a buffer fits into the address space");
        let align = if bytes >= HUGE { HUGE } else { 64 };
        Layout::from_size_align(bytes, align).expect("a buffer fits into the address space")
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` with the same layout.
        unsafe { dealloc(self.start.as_ptr().cast(), Self::layout(self.len)) }
    }
}

impl Deref for Buffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        // SAFETY: `len` initialised numbers, owned by self.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: `len` initialised numbers, owned by self, borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeroed_aligned_and_writable() {
        for len in [0, 1, 17, 1 << 20] {
            let mut b = Buffer::zeroed(len);
            assert_eq!(b.len(), len);
            assert!(b.iter().all(|&x| x == 0.0));
            assert_eq!(b.as_ptr() as usize % 64, 0);
            b.fill(1.5);
            assert_eq!(Buffer::from_slice(&b)[..], b[..]);
        }
    }
}
