//! The disk by plain calls: pread, pwrite, fsync; runs everywhere.
//!
//! Frames are written with O_DIRECT and O_DSYNC to blocks that were written before (with zeros), so that one
//! call makes a frame durable and no file-system metadata is waited for. Where O_DIRECT is not to be had, the
//! same file is opened without it, and O_DSYNC alone keeps the promise.
//! Overlap is a thread a log that does nothing but these writes; handing over is a slot and an unpark.

use super::buffer::{AlignedBuf, BLOCK_BYTES};
use super::storage::{Entry, Locked, LogWriter, Storage};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, Thread};

/// How often a waiting side looks before it parks: about 10 us, so that in a busy stretch a hand-over costs no
/// system call, and an idle node costs nothing.
const SPINS_BEFORE_PARK: u32 = 300;

/// The disk by plain system calls.
#[derive(Debug, Clone, Copy, Default)]
pub struct PosixStorage;

/// An open file, with a second descriptor for direct writes where the file system has them.
pub struct PosixFile {
    buffered: File,
    /// Whole aligned blocks go here: zeroing a segment must not push everything else out of the page cache.
    direct: Option<File>,
}

impl PosixFile {
    fn new(buffered: File, path: &Path) -> PosixFile {
        let direct = OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(path).ok();
        PosixFile { buffered, direct }
    }
}

impl Storage for PosixStorage {
    type File = PosixFile;
    type Lock = File;
    type Writer = PosixWriter;

    fn create(&self, path: &Path, len: u64) -> io::Result<PosixFile> {
        let buffered = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        if len > 0
            && let Err(error) = allocate(&buffered, len)
        {
            // A file that has no room must not stay behind with its name taken.
            let _ = fs::remove_file(path);
            return Err(error);
        }
        Ok(PosixFile::new(buffered, path))
    }

    fn open(&self, path: &Path) -> io::Result<PosixFile> {
        // Readers (verify, dump) may have no right to write; they never try to.
        let opened = OpenOptions::new().read(true).write(true).open(path);
        let read_only = |error: io::Error| match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => File::open(path),
            _ => Err(error),
        };
        Ok(PosixFile { buffered: opened.or_else(read_only)?, direct: None })
    }

    fn len(&self, file: &PosixFile) -> io::Result<u64> {
        Ok(file.buffered.metadata()?.len())
    }

    fn read_at(&self, file: &PosixFile, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut read = 0;
        while read < into.len() {
            match file.buffered.read_at(&mut into[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(bytes) => read += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn write_at(&self, file: &PosixFile, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let aligned = offset.is_multiple_of(BLOCK_BYTES as u64)
            && bytes.len().is_multiple_of(BLOCK_BYTES)
            && (bytes.as_ptr() as usize).is_multiple_of(BLOCK_BYTES);
        match &file.direct {
            Some(direct) if aligned => match direct.write_all_at(bytes, offset) {
                // Some file systems open with O_DIRECT and refuse only the write.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => file.buffered.write_all_at(bytes, offset),
                written => written,
            },
            _ => file.buffered.write_all_at(bytes, offset),
        }
    }

    fn truncate(&self, file: &PosixFile, len: u64) -> io::Result<()> {
        file.buffered.set_len(len)
    }

    fn sync(&self, file: &PosixFile) -> io::Result<()> {
        file.buffered.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            // A file that went while the directory was read (the preparer renames) is simply not there.
            let Ok(metadata) = entry.metadata() else { continue };
            let is_dir = metadata.is_dir();
            entries.push(Entry { path: entry.path(), bytes: if is_dir { 0 } else { metadata.len() }, is_dir });
        }
        Ok(entries)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn lock(&self, path: &Path, note: &str) -> io::Result<Locked<File>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        // SAFETY: the descriptor is open and owned by `file`; flock touches no memory of ours.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::WouldBlock {
                return Err(error);
            }
            return Ok(Locked::By(fs::read_to_string(path).unwrap_or_default()));
        }
        file.set_len(0)?;
        file.write_all_at(note.as_bytes(), 0)?;
        Ok(Locked::Held(file))
    }

    fn writer(&self) -> io::Result<PosixWriter> {
        Ok(PosixWriter::default())
    }
}

/// Takes `len` bytes of room for a file, so that a full disk answers now. Sparse where the file system cannot.
fn allocate(file: &File, len: u64) -> io::Result<()> {
    let length = libc::off_t::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the descriptor is open and owned by `file`; fallocate touches no memory of ours.
    if unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, length) } == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::EOPNOTSUPP) => file.set_len(len),
        error => Err(error),
    }
}

/// Opens a segment for durable writes: direct where that is to be had, O_DSYNC always.
fn open_durable(path: &Path) -> io::Result<File> {
    let open = |flags| OpenOptions::new().write(true).custom_flags(flags).open(path);
    match open(libc::O_DIRECT | libc::O_DSYNC) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => open(libc::O_DSYNC),
        opened => opened,
    }
}

/// A frame on its way.
struct Job {
    file: Arc<File>,
    offset: u64,
    buf: AlignedBuf,
    len: usize,
}

impl Job {
    fn run(self) -> (AlignedBuf, io::Result<()>) {
        let result = self.file.write_all_at(&self.buf[..self.len], self.offset);
        (self.buf, result)
    }
}

/// Where the one outstanding write is.
#[derive(Default)]
enum Outstanding {
    #[default]
    Nothing,
    /// `finish` will do it itself.
    Kept(Job),
    /// The flush thread has it.
    Flushing,
}

/// Frames by pwrite; without overlap in `finish` itself, with it on a thread of the log's own, which starts at
/// the first overlapped write.
#[derive(Default)]
pub struct PosixWriter {
    file: Option<Arc<File>>,
    outstanding: Outstanding,
    flusher: Option<Flusher>,
}

impl LogWriter for PosixWriter {
    fn open(&mut self, path: &Path) -> io::Result<()> {
        assert!(matches!(self.outstanding, Outstanding::Nothing), "a segment is switched between writes");
        self.file = Some(Arc::new(open_durable(path)?));
        Ok(())
    }

    fn begin(&mut self, offset: u64, buf: AlignedBuf, len: usize, overlap: bool) {
        assert!(matches!(self.outstanding, Outstanding::Nothing), "one write at a time");
        let file = self.file.clone().expect("a segment was opened before the first write");
        let job = Job { file, offset, buf, len };
        if overlap {
            self.flusher.get_or_insert_with(Flusher::start).give(job);
            self.outstanding = Outstanding::Flushing;
        } else {
            self.outstanding = Outstanding::Kept(job);
        }
    }

    fn is_done(&self) -> bool {
        match (&self.outstanding, &self.flusher) {
            (Outstanding::Flushing, Some(flusher)) => flusher.shared.done.load(Ordering::Acquire),
            _ => true,
        }
    }

    async fn finish(&mut self) -> (AlignedBuf, io::Result<()>) {
        match std::mem::take(&mut self.outstanding) {
            Outstanding::Nothing => panic!("finish without begin"),
            Outstanding::Kept(job) => job.run(),
            Outstanding::Flushing => self.flusher.as_mut().expect("the flush thread runs").wait(),
        }
    }
}

/// The flush thread and the slot to it. One job at a time, so the "queue" is one place.
struct Flusher {
    shared: Arc<FlushShared>,
    thread: Option<JoinHandle<()>>,
}

struct FlushShared {
    job: Mutex<Option<Job>>,
    /// There is a job (or the end): the thread looks here before it parks.
    asked: AtomicBool,
    stop: AtomicBool,
    result: Mutex<Option<(AlignedBuf, io::Result<()>)>>,
    done: AtomicBool,
    waiter: Mutex<Option<Thread>>,
}

impl Flusher {
    fn start() -> Flusher {
        let shared = Arc::new(FlushShared {
            job: Mutex::new(None),
            asked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            result: Mutex::new(None),
            done: AtomicBool::new(false),
            waiter: Mutex::new(None),
        });
        let inside = shared.clone();
        let run = move || inside.run();
        let thread = thread::Builder::new().name("journal-flush".into()).spawn(run).expect("a thread can be started");
        Flusher { shared, thread: Some(thread) }
    }

    fn give(&mut self, job: Job) {
        *lock(&self.shared.job) = Some(job);
        self.shared.done.store(false, Ordering::Relaxed);
        self.shared.asked.store(true, Ordering::Release);
        self.thread().unpark();
    }

    fn wait(&mut self) -> (AlignedBuf, io::Result<()>) {
        let shared = &self.shared;
        if !spin_until(&shared.done) {
            *lock(&shared.waiter) = Some(thread::current());
            while !shared.done.load(Ordering::SeqCst) {
                thread::park();
            }
            *lock(&shared.waiter) = None;
        }
        lock(&shared.result).take().expect("done means there is a result")
    }

    fn thread(&self) -> &Thread {
        self.thread.as_ref().expect("joined only in drop").thread()
    }
}

impl FlushShared {
    fn run(&self) {
        loop {
            if !spin_until(&self.asked) {
                while !self.asked.load(Ordering::Acquire) {
                    thread::park();
                }
            }
            self.asked.store(false, Ordering::Relaxed);
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            // A spurious look finds nothing and waits again.
            let Some(job) = lock(&self.job).take() else { continue };
            *lock(&self.result) = Some(job.run());
            self.done.store(true, Ordering::SeqCst);
            if let Some(waiter) = lock(&self.waiter).as_ref() {
                waiter.unpark();
            }
        }
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.asked.store(true, Ordering::Release);
        self.thread().unpark();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn spin_until(flag: &AtomicBool) -> bool {
    for _ in 0..SPINS_BEFORE_PARK {
        if flag.load(Ordering::Acquire) {
            return true;
        }
        std::hint::spin_loop();
    }
    false
}

/// Nothing here leaves a lock in a broken state, so a panic elsewhere does not make it unusable.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
