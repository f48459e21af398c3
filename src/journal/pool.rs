//! Segments before and after their use: prepared ahead in the background, handed to logs, taken back.
//!
//! A frame must not wait for the file system, so each log has its next segment standing ready in its final place:
//! written with zeros, synced, its name durable. One thread of the folder keeps it so, and behind it a small pool
//! for all logs. When neither is ready, the log makes a small segment itself and goes on slower.
//!
//! This is also where room is counted. Preparing may fail (a full disk, the folder's limit): then logs say
//! [`Room::NoOpens`] and later [`Room::NoVotes`], and it is tried again every second. The reserve is a file that
//! takes room and holds nothing; it is given up when a log or a snapshot has no other.

use super::buffer::{AlignedBuf, BLOCK_BYTES};
use super::error::{Doing, Error};
use super::options::Options;
use super::segment::SegmentFile;
use super::storage::Storage;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// One write of zeros. Small enough that a frame waiting behind it in the disk's queue waits for 1 or 2 ms.
const ZEROS_BYTES: usize = 1 << 20;
/// How often preparing is tried again after it failed.
const RETRY: Duration = Duration::from_secs(1);
/// Segments that a log fills after a start before the pool is kept full: an idle node writes no gigabyte of zeros.
const ROLLS_BEFORE_POOL: u32 = 2;

/// Whether there is room for more, and for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// For everything.
    Ok,
    /// No new approvals: no further segment can be prepared.
    NoOpens,
    /// No votes either: what is prepared is nearly used up. What remains is for expiry and shutdown.
    NoVotes,
}

/// A prepared file that belongs to no log.
#[derive(Debug, Clone)]
struct PoolFile {
    path: PathBuf,
    bytes: u64,
}

/// What a log and the preparer share: the segment that comes next.
pub(super) struct Slot {
    dir: PathBuf,
    next: Mutex<Next>,
    /// Segments filled since the log was started.
    rolls: AtomicU32,
}

struct Next {
    ready: Option<SegmentFile>,
    /// Ordinal of the segment that is ready or must be made.
    ordinal: u64,
}

impl Slot {
    /// Bytes that stand ready for this log.
    pub fn ready_bytes(&self) -> u64 {
        lock(&self.next).ready.as_ref().map_or(0, |file| file.bytes)
    }
}

/// The folder as its logs, its preparer and its snapshot writers share it.
pub(super) struct Shared<S> {
    pub storage: S,
    pub dir: PathBuf,
    pub options: Options,
    used_bytes: AtomicU64,
    /// Bytes of the newest snapshot: as much must be free for the next one, which stands beside it until whole.
    snapshot_bytes: AtomicU64,
    /// Preparing failed and was not yet done since.
    short: AtomicBool,
    reserve_held: AtomicBool,
    pool: Mutex<Pool>,
    /// What made preparing fail, for people.
    shortage: Mutex<Option<String>>,
    wake: Condvar,
}

#[derive(Default)]
struct Pool {
    files: Vec<PoolFile>,
    made: u64,
    slots: Vec<Weak<Slot>>,
    work: bool,
    stop: bool,
}

impl<S: Storage> Shared<S> {
    /// Takes stock of a folder whose leftovers are gone: what is in the pool, how much room is used.
    pub fn open(storage: S, dir: PathBuf, options: Options) -> Result<Shared<S>, Error> {
        let mut shared = Shared {
            storage,
            dir,
            options,
            used_bytes: AtomicU64::new(0),
            snapshot_bytes: AtomicU64::new(0),
            short: AtomicBool::new(false),
            reserve_held: AtomicBool::new(false),
            pool: Mutex::new(Pool::default()),
            shortage: Mutex::new(None),
            wake: Condvar::new(),
        };
        let pool_dir = shared.pool_dir();
        shared.storage.create_dir(&pool_dir).doing("create", &pool_dir)?;
        let mut pool = Pool::default();
        for entry in shared.storage.list(&pool_dir).doing("list", &pool_dir)? {
            let number = entry.name().strip_prefix("prepared-").and_then(|number| number.parse::<u64>().ok());
            let keep = pool.files.len() < shared.options.pool_segments
                && entry.bytes >= shared.options.segment_bytes_min()
                && entry.bytes.is_multiple_of(BLOCK_BYTES as u64);
            match number {
                Some(number) if keep => {
                    pool.made = pool.made.max(number);
                    pool.files.push(PoolFile { path: entry.path, bytes: entry.bytes });
                }
                _ => shared.storage.remove(&entry.path).doing("remove", &entry.path)?,
            }
        }
        shared.pool = Mutex::new(pool);
        shared.used_bytes.store(shared.count(&shared.dir.clone())?, Ordering::Relaxed);
        shared.reserve_held.store(shared.find(&shared.reserve_path())?.is_some(), Ordering::Relaxed);
        Ok(shared)
    }

    fn count(&self, dir: &Path) -> Result<u64, Error> {
        let mut bytes = 0;
        for entry in self.storage.list(dir).doing("list", dir)? {
            bytes += if entry.is_dir { self.count(&entry.path)? } else { entry.bytes };
        }
        Ok(bytes)
    }

    fn find(&self, path: &Path) -> Result<Option<u64>, Error> {
        let entries = self.storage.list(&self.dir).doing("list", &self.dir)?;
        Ok(entries.iter().find(|entry| entry.path == path).map(|entry| entry.bytes))
    }

    fn pool_dir(&self) -> PathBuf {
        self.dir.join("pool")
    }

    fn reserve_path(&self) -> PathBuf {
        self.dir.join("reserve")
    }

    /// Bytes of all files in the folder.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// A file grew or came.
    pub fn used_more(&self, bytes: u64) {
        self.used_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A file shrank or went.
    pub fn used_less(&self, bytes: u64) {
        let take = |used: u64| Some(used.saturating_sub(bytes));
        let _ = self.used_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
    }

    /// The newest snapshot has this size.
    pub fn snapshot_is(&self, bytes: u64) {
        self.snapshot_bytes.fetch_max(bytes, Ordering::Relaxed);
    }

    /// Whether the last try to prepare failed.
    pub fn is_short(&self) -> bool {
        self.short.load(Ordering::Relaxed)
    }

    /// Why it failed, for people.
    pub fn shortage(&self) -> Option<String> {
        lock(&self.shortage).clone()
    }

    pub fn has_room(&self, bytes: u64) -> bool {
        self.options.folder_bytes_max.is_none_or(|max| self.used_bytes() + bytes <= max)
    }

    /// Takes `bytes` of the folder's limit for something that must not wait for room: if there is none, the
    /// reserve goes, once. A node that outgrows even that is not stopped by a setting, only by the disk.
    pub fn take_room_urgently(&self, bytes: u64) {
        if !self.has_room(bytes) {
            self.give_up_reserve();
        }
    }

    /// Frees the reserve. Whether there was one.
    pub fn give_up_reserve(&self) -> bool {
        if !self.reserve_held.swap(false, Ordering::Relaxed) {
            return false;
        }
        self.short.store(true, Ordering::Relaxed);
        // If it cannot be removed there is no room to be had from it; the caller's own call will say so.
        if self.storage.remove(&self.reserve_path()).is_ok() {
            self.used_less(self.options.reserve_bytes);
        }
        true
    }

    /// Takes the reserve's room, if it is not held.
    pub fn make_reserve(&self) -> io::Result<()> {
        let bytes = self.options.reserve_bytes;
        if bytes == 0 || self.reserve_held.load(Ordering::Relaxed) {
            return Ok(());
        }
        if !self.has_room(bytes) {
            return Err(limit_reached());
        }
        let file = self.storage.create(&self.reserve_path(), bytes)?;
        self.used_more(bytes);
        self.reserve_held.store(true, Ordering::Relaxed);
        self.storage.sync(&file)
    }

    /// A log has started and has segment `ordinal` as its next.
    pub fn register(&self, dir: PathBuf, ordinal: u64) -> Arc<Slot> {
        let next = Mutex::new(Next { ready: None, ordinal });
        let slot = Arc::new(Slot { dir, next, rolls: AtomicU32::new(0) });
        lock(&self.pool).slots.push(Arc::downgrade(&slot));
        self.wake_preparer();
        slot
    }

    fn wake_preparer(&self) {
        lock(&self.pool).work = true;
        self.wake.notify_one();
    }

    /// The next segment of a log that has filled one: the one that stands ready, or one from the pool, or a small
    /// one made here and now.
    pub fn roll(&self, slot: &Slot) -> Result<SegmentFile, Error> {
        let mut next = lock(&slot.next);
        let file = match next.ready.take() {
            Some(file) => file,
            None => self.take_or_make(&slot.dir, next.ordinal, false)?,
        };
        assert_eq!(file.ordinal, next.ordinal, "segments follow each other without gaps");
        next.ordinal += 1;
        drop(next);
        slot.rolls.fetch_add(1, Ordering::Relaxed);
        self.wake_preparer();
        Ok(file)
    }

    /// A segment for a log at its start, or one that could not wait.
    pub fn take_or_make(&self, dir: &Path, ordinal: u64, zeros: bool) -> Result<SegmentFile, Error> {
        let pooled = lock(&self.pool).files.pop();
        let pooled = match pooled {
            Some(file) => file,
            None => {
                let bytes = self.options.segment_bytes_after(0);
                self.take_room_urgently(bytes);
                match self.make(bytes, zeros, false) {
                    Err(error) if is_full(&error) && self.give_up_reserve() => self.make(bytes, zeros, false),
                    made => made,
                }
                .doing("make a segment in", dir)?
                .expect("only the background is told to stop")
            }
        };
        self.place(pooled, dir, ordinal)
    }

    /// Gives a prepared file its place in a log: a new incarnation, and a durable name.
    fn place(&self, file: PoolFile, dir: &Path, ordinal: u64) -> Result<SegmentFile, Error> {
        let segment = SegmentFile::draw(dir, ordinal, file.bytes);
        if let Err(error) = self.storage.rename(&file.path, &segment.path) {
            let path = file.path.clone();
            lock(&self.pool).files.push(file);
            return Err(error).doing("rename", &path);
        }
        if let Err(error) = self.storage.sync_dir(dir) {
            // It must not stay: the next try makes another with this ordinal. If it stays, a start sorts it out.
            if self.storage.remove(&segment.path).is_ok() {
                self.used_less(segment.bytes);
            }
            return Err(error).doing("sync", dir);
        }
        Ok(segment)
    }

    /// Takes a segment back that no log needs: into the pool if that has a place, else it is removed. Durable when
    /// this returns, so that segments always go in order.
    pub fn take_back(&self, segment: &SegmentFile) -> Result<(), Error> {
        let (whole, path) = {
            let mut pool = lock(&self.pool);
            pool.made += 1;
            let whole = segment.len == segment.bytes
                && segment.bytes >= self.options.segment_bytes_min()
                && pool.files.len() < self.options.pool_segments;
            (whole, self.pool_dir().join(format!("prepared-{:06}", pool.made)))
        };
        let dir = segment.path.parent().expect("a segment lies in its log's directory");
        if whole {
            self.storage.rename(&segment.path, &path).doing("rename", &segment.path)?;
            self.storage.sync_dir(&self.pool_dir()).doing("sync", &self.pool_dir())?;
        } else {
            self.storage.remove(&segment.path).doing("remove", &segment.path)?;
            self.used_less(segment.len);
        }
        self.storage.sync_dir(dir).doing("sync", dir)?;
        if whole {
            lock(&self.pool).files.push(PoolFile { path, bytes: segment.bytes });
        }
        Ok(())
    }

    /// One round of preparing: the reserve, the next segment of every log, the pool. What failed is tried again
    /// in the next round; the result only says whether all was done.
    pub fn prepare(&self, background: bool) -> bool {
        let done = self.prepare_all(background);
        self.short.store(done.is_err(), Ordering::Relaxed);
        let done_ok = done.is_ok();
        *lock(&self.shortage) = done.err().map(|error| error.to_string());
        done_ok
    }

    fn prepare_all(&self, background: bool) -> io::Result<()> {
        let slots: Vec<Arc<Slot>> = {
            let mut pool = lock(&self.pool);
            pool.slots.retain(|slot| slot.strong_count() > 0);
            pool.slots.iter().filter_map(Weak::upgrade).collect()
        };
        let mut busy = false;
        for slot in slots {
            let rolls = slot.rolls.load(Ordering::Relaxed);
            busy |= rolls >= ROLLS_BEFORE_POOL;
            if lock(&slot.next).ready.is_some() {
                continue;
            }
            let pooled = lock(&self.pool).files.pop();
            let made = match pooled {
                Some(file) => Some(file),
                None => self.make_within_limit(self.options.segment_bytes_after(rolls), background)?,
            };
            let Some(file) = made else { return Ok(()) };
            // The log may have rolled meanwhile, over a segment of its own making: what counts is its next now.
            let mut next = lock(&slot.next);
            next.ready = Some(self.place(file, &slot.dir, next.ordinal).map_err(io::Error::other)?);
        }
        while busy && lock(&self.pool).files.len() < self.options.pool_segments {
            let Some(file) = self.make_within_limit(self.options.segment_bytes, background)? else { return Ok(()) };
            lock(&self.pool).files.push(file);
        }
        // Last, because logs come first: the reserve is wanted back only when all else has its place.
        self.make_reserve()
    }

    fn make_within_limit(&self, bytes: u64, background: bool) -> io::Result<Option<PoolFile>> {
        if !self.has_room(bytes + self.snapshot_bytes.load(Ordering::Relaxed)) {
            return Err(limit_reached());
        }
        self.make(bytes, true, background)
    }

    /// A file of `bytes` bytes in the pool's directory, durable. In the background it takes its time, and gives
    /// up (None) when the folder closes.
    fn make(&self, bytes: u64, zeros: bool, background: bool) -> io::Result<Option<PoolFile>> {
        let path = {
            let mut pool = lock(&self.pool);
            pool.made += 1;
            self.pool_dir().join(format!("prepared-{:06}", pool.made))
        };
        let unfinished = path.with_extension("tmp");
        let made = self.fill(&unfinished, bytes, zeros, background);
        if !matches!(made, Ok(true)) {
            let _ = self.storage.remove(&unfinished);
            return made.map(|_| None);
        }
        self.storage.rename(&unfinished, &path)?;
        self.used_more(bytes);
        Ok(Some(PoolFile { path, bytes }))
    }

    fn fill(&self, path: &Path, bytes: u64, zeros: bool, background: bool) -> io::Result<bool> {
        let file = self.storage.create(path, bytes)?;
        let zeroed = AlignedBuf::zeroed(ZEROS_BYTES);
        let mut at = 0;
        while zeros && at < bytes {
            if background && lock(&self.pool).stop {
                return Ok(false);
            }
            let started = Instant::now();
            let len = (bytes - at).min(ZEROS_BYTES as u64) as usize;
            self.storage.write_at(&file, at, &zeroed[..len])?;
            at += len as u64;
            if background {
                // Half of the disk's time at most: frames come first. No log waits for this one.
                std::thread::sleep(started.elapsed().min(Duration::from_millis(20)));
            }
        }
        self.storage.sync(&file)?;
        Ok(true)
    }

    /// What the folder's thread does until `stop`.
    pub fn prepare_forever(&self) {
        loop {
            {
                let mut pool = lock(&self.pool);
                while !pool.work && !pool.stop {
                    pool = self.wake.wait(pool).unwrap_or_else(PoisonError::into_inner);
                }
                if pool.stop {
                    return;
                }
                pool.work = false;
            }
            if self.prepare(true) {
                continue;
            }
            let mut pool = lock(&self.pool);
            pool.work = true;
            let until = Instant::now() + RETRY;
            // Woken early by a roll, it still waits: a full disk is not asked more than once a second.
            while !pool.stop && Instant::now() < until {
                let rest = until.saturating_duration_since(Instant::now());
                pool = self.wake.wait_timeout(pool, rest).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }

    /// Ends the folder's thread.
    pub fn stop(&self) {
        lock(&self.pool).stop = true;
        self.wake.notify_all();
    }
}

/// Whether the disk, or the limit, is full.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

pub(super) fn limit_reached() -> io::Error {
    io::Error::new(io::ErrorKind::StorageFull, "the folder's limit is reached")
}

/// No panic leaves these in a broken state: they hold lists and marks that are replaced whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
