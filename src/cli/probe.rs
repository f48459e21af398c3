//! Questions to the kernel that have no safe form. Used by `doctor` alone.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Whether this process may make an io_uring: it makes a small one and closes it.
pub fn io_uring() -> io::Result<()> {
    // `struct io_uring_params` is 120 bytes of numbers, zero where nothing is asked for.
    let mut parameters = [0u64; 15];
    // SAFETY: the kernel writes at most the 120 bytes of `parameters`, which live until the call returns.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 2, parameters.as_mut_ptr()) };
    if ring < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `ring` is the descriptor just made; nobody else knows it.
    unsafe { libc::close(ring as libc::c_int) };
    Ok(())
}

/// What the kernel's clock discipline says.
pub struct ClockState {
    /// A time service keeps the clock right.
    pub synchronised: bool,
    /// Its bound on how wrong the clock is.
    pub error_micros: u64,
}

/// Reads the clock's state; changes nothing.
pub fn clock_state() -> io::Result<ClockState> {
    let mut state = MaybeUninit::<libc::timex>::zeroed();
    // SAFETY: all zeros is a legal `timex`, and with `modes` 0 the call only writes into it.
    let (result, state) = unsafe {
        let result = libc::adjtimex(state.as_mut_ptr());
        (result, state.assume_init())
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let synchronised = state.status & libc::STA_UNSYNC == 0;
    Ok(ClockState { synchronised, error_micros: state.maxerror.max(0) as u64 })
}

/// A file system's room, in bytes.
pub struct Room {
    pub free: u64,
    pub total: u64,
    /// Files live in memory: a "sync" there keeps nothing.
    pub in_memory: bool,
}

/// Room and kind of the file system of an existing path.
pub fn room(path: &Path) -> io::Result<Room> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut state = MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: `path` ends with a zero byte, all zeros is a legal `statfs`, and the call only writes into it.
    let (result, state) = unsafe {
        let result = libc::statfs(path.as_ptr(), state.as_mut_ptr());
        (result, state.assume_init())
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let unit = state.f_bsize as u64;
    let in_memory = [libc::TMPFS_MAGIC, 0x8584_58f6 /* ramfs */].contains(&state.f_type);
    Ok(Room { free: state.f_bavail * unit, total: state.f_blocks * unit, in_memory })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_answers() {
        let room = room(Path::new("/")).expect("every machine has a root");
        assert!(room.total > 0 && room.free <= room.total);
        // Whatever the machine allows: an answer, not a fault.
        let _ = (io_uring(), clock_state());
    }
}
