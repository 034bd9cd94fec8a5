//! What the allocator keeps.
#![allow(unsafe_code)]

/// From this size on, a buffer is the kernel's own pages, which it has back as soon as the buffer is freed.
#[cfg(target_env = "gnu")]
const OWN_PAGES: i32 = 128 << 10;

/// Keeps the size from which buffers get pages of their own where it is at the start.
///
/// glibc raises it to that of each such buffer that is freed, up to 32 MiB, so that the next of that size comes from its heap,
/// which shrinks only from its end (`mallopt(3)`, `M_MMAP_THRESHOLD`). Snapshots wait in buffers of megabytes: after 50,000
/// clients had come and gone, a server that was down to nothing held 285 MB, and with this 17 MB. To be called before
/// there are threads.
pub fn give_back() {
    // SAFETY: mallopt only sets a number, and nobody else allocates yet. No safe interface to it exists, and the variable
    // that says the same (MALLOC_MMAP_THRESHOLD_) is read before the program can set it.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_PAGES);
    }
}
