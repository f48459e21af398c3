//! The few things about threads that the standard library leaves to the operating system.

/// An eventfd: blocking, closed on exec.
pub fn eventfd() -> i32 {
    // SAFETY: no pointers; the result is checked.
    let descriptor = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    assert!(descriptor >= 0, "eventfd: {}", std::io::Error::last_os_error());
    descriptor
}

/// Keeps the calling thread on one core; without effect where the machine forbids it.
pub fn pin_this_thread(core: usize) {
    // SAFETY: the set is a plain value of the size given, and outlives the call.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core % libc::CPU_SETSIZE as usize, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
    }
}

/// CPU time that the calling thread used, in nanoseconds.
pub fn thread_cpu_nanos() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec that lives on this stack.
    let outcome = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    if outcome != 0 {
        return 0;
    }
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
