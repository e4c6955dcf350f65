//! The unsafe calls about this process: its descriptors, and what of its program is in memory.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::os::fd::{BorrowedFd, RawFd};

use rustix::io::{Errno, FdFlags, fcntl_setfd};

/// Has this descriptor closed in the programs that we start.
pub(crate) fn close_on_exec(fd: RawFd) -> rustix::io::Result<()> {
    // SAFETY: it is not -1, and borrowed for one call that changes nothing but its flag: neither the file nor
    // whoever owns the descriptor notices. Should it have been closed meanwhile, the kernel says so.
    let done = fcntl_setfd(unsafe { BorrowedFd::borrow_raw(fd) }, FdFlags::CLOEXEC);
    if done == Err(Errno::BADF) { Ok(()) } else { done }
}

/// Unmaps the pages of this program and its libraries that are as their files have them. Those used again come back
/// from the kernel's cache.
pub(crate) fn let_go_of_program() {
    // SAFETY: the callback keeps nothing of what it is given, and does not unwind.
    unsafe { libc::dl_iterate_phdr(Some(let_go_of_object), std::ptr::null_mut()) };
}

/// Does so for one of them: whatever is mapped without being writable, which is not what was written by the linker
/// and protected then; that is a part of a writable segment.
unsafe extern "C" fn let_go_of_object(
    object: *mut libc::dl_phdr_info,
    _size: usize,
    _data: *mut c_void,
) -> c_int {
    let page = rustix::param::page_size();
    // SAFETY: the linker passes a valid description, whose table has so many entries, for as long as this call lasts.
    let (base, segments) = unsafe {
        let object = &*object;
        if object.dlpi_phdr.is_null() {
            return 0;
        }
        (object.dlpi_addr, std::slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()))
    };
    for segment in segments.iter().filter(|s| s.p_type == libc::PT_LOAD && s.p_flags & libc::PF_W == 0) {
        let addresses = usize::try_from(base.wrapping_add(segment.p_vaddr))
            .ok()
            .zip(usize::try_from(segment.p_memsz).ok())
            .and_then(|(start, length)| Some((start.next_multiple_of(page), start.checked_add(length)?)));
        // Whole pages alone: those at its ends may be shared with a neighbour.
        let Some((start, end)) = addresses.filter(|(start, end)| end.saturating_sub(*start) >= page) else {
            continue;
        };
        let length = (end - start) / page * page;
        let start = std::ptr::with_exposed_provenance_mut(start);
        // SAFETY: these pages are a private mapping of a file that nothing ever wrote to, so what is read there next
        // is what was read before.
        let _unused = unsafe { rustix::mm::madvise(start, length, rustix::mm::Advice::LinuxDontNeed) };
    }
    0
}
