//! The data folder: its lock, what it is, its generations of logs, and the thread that prepares segments.
//!
//!     DIR/LOCK                  held by the node that works here; names its process
//!     DIR/meta                  deployment, secret, generations (meta.rs)
//!     DIR/reserve               room that is given up when there is no other (pool.rs)
//!     DIR/pool/prepared-N       segments that belong to no log yet
//!     DIR/log-NNNNN/segment-…   frames (segment.rs), snapshot-N (snapshot.rs)
//!     DIR/NAME/…-N              what belongs to no log, under its owner's names (side.rs)
//!
//! A new generation is prepared, gets a snapshot for each of its logs, and exists once the meta file names it.
//! What the meta file does not name is a leftover, and is removed when the folder is opened.

use super::error::{Doing, Error};
use super::meta::{self, FolderMeta, GenerationMeta, LogMeta};
use super::options::Options;
use super::pool::{Shared, lock};
use super::snapshot;
use super::storage::{Locked, Storage};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// Partitions of every folder, fixed in format version 1.
pub const PARTITIONS: u16 = 1024;

/// An open data folder, locked for this process. Clones share it; the lock goes with the last one.
pub struct Folder<S: Storage> {
    inner: Arc<Inner<S>>,
}

struct Inner<S: Storage> {
    shared: Arc<Shared<S>>,
    meta: Mutex<Arc<FolderMeta>>,
    preparer: Option<JoinHandle<()>>,
    /// Dropped last: nothing of ours touches the folder once it is free.
    _lock: S::Lock,
}

impl<S: Storage> Clone for Folder<S> {
    fn clone(&self) -> Folder<S> {
        Folder { inner: self.inner.clone() }
    }
}

impl<S: Storage> Drop for Inner<S> {
    fn drop(&mut self) {
        self.shared.stop();
        if let Some(preparer) = self.preparer.take() {
            let _ = preparer.join();
        }
    }
}

impl<S: Storage> Folder<S> {
    /// Opens the data folder at `dir`, making it if there is none, and locks it. A new one has no generation yet.
    pub fn open(storage: S, dir: &Path, options: Options) -> Result<Folder<S>, Error> {
        options.check()?;
        storage.create_dir(dir).doing("create", dir)?;
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            // So that a folder with acknowledged votes cannot vanish as a name. Where the parent may not be
            // opened it was there before us.
            let _ = storage.sync_dir(parent);
        }
        let lock_path = dir.join("LOCK");
        let held = match storage.lock(&lock_path, &format!("{}\n", std::process::id())).doing("lock", &lock_path)? {
            Locked::Held(held) => held,
            Locked::By(note) => {
                let pid = if note.trim().is_empty() { "unknown" } else { note.trim() };
                return Err(Error::Locked { dir: dir.to_path_buf(), pid: pid.to_string() });
            }
        };
        let meta = match meta::read(&storage, dir)? {
            Some(meta) => meta,
            None => new_folder(&storage, dir)?,
        };
        // What was read may be a name that is not durable yet: its node ended before it synced the directory.
        storage.sync_dir(dir).doing("sync", dir)?;
        remove_leftovers(&storage, dir, &meta)?;
        let background = options.background;
        let shared = Arc::new(Shared::open(storage, dir.to_path_buf(), options)?);
        for log in meta.generations.iter().flat_map(|generation| &generation.logs) {
            shared.snapshot_is(snapshot::newest_bytes(&shared.storage, &log_dir(dir, log.ordinal))?);
        }
        // A folder too full for the reserve still opens: the preparer tries again, and opens are refused meanwhile.
        let _ = shared.make_reserve();
        let inside = shared.clone();
        let start = || thread::Builder::new().name("journal-prepare".into()).spawn(move || inside.prepare_forever());
        let preparer = background.then(start).transpose().doing("start a thread for", dir)?;
        let inner = Inner { shared, meta: Mutex::new(Arc::new(meta)), preparer, _lock: held };
        Ok(Folder { inner: Arc::new(inner) })
    }

    /// What the folder is, as its meta file has it now.
    pub fn meta(&self) -> Arc<FolderMeta> {
        lock(&self.inner.meta).clone()
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.inner.shared.dir
    }

    /// The disk it is on.
    pub fn storage(&self) -> &S {
        &self.inner.shared.storage
    }

    /// Bytes of all files in it.
    pub fn used_bytes(&self) -> u64 {
        self.inner.shared.used_bytes()
    }

    /// Why the last try to prepare segments failed; None if it did not. It is tried again every second.
    pub fn shortage(&self) -> Option<String> {
        self.inner.shared.shortage()
    }

    /// One round of preparing segments, for folders opened without a background; whether all was done.
    pub fn prepare(&self) -> bool {
        self.inner.shared.prepare(false)
    }

    /// Draws the next generation with `logs` logs and makes their directories. It is nothing yet: give each of its
    /// logs a snapshot (unless it is the folder's first), then commit it.
    pub fn prepare_generation(&self, logs: u16) -> Result<GenerationMeta, Error> {
        assert!((1..=PARTITIONS).contains(&logs), "each log has at least one partition");
        let meta = self.meta();
        let number = meta.current().map_or(1, |current| current.number + 1);
        let used = meta.generations.iter().flat_map(|generation| &generation.logs).map(|log| log.ordinal);
        let first = used.max().map_or(0, |last| u32::from(last) + 1);
        if first + u32::from(logs) > u32::from(u16::MAX) {
            return Err(Error::Options("the folder has had 65,535 logs: start a new one".into()));
        }
        let share = |index: u16| (u32::from(index) * u32::from(meta.partitions) / u32::from(logs)) as u16;
        let logs = (0..logs).map(|index| LogMeta {
            generation: number,
            ordinal: first as u16 + index,
            id: rand::random_range(1..1 << 63),
            partitions: share(index)..share(index + 1),
            sealed: None,
            starts_from_snapshot: number > 1,
        });
        let generation = GenerationMeta { number, logs: logs.collect() };
        for log in &generation.logs {
            let dir = log_dir(self.dir(), log.ordinal);
            remove_dir_with_files(self.storage(), &dir)?;
            self.storage().create_dir(&dir).doing("create", &dir)?;
        }
        self.storage().sync_dir(self.dir()).doing("sync", self.dir())?;
        Ok(generation)
    }

    /// Makes a prepared generation the current one, and seals the logs of the one before at their last sequences
    /// (`(ordinal, sequence)`, each log once). After a crash it is either done or never was.
    pub fn commit_generation(&self, generation: &GenerationMeta, sealed: &[(u16, u64)]) -> Result<(), Error> {
        let mut meta = FolderMeta::clone(&self.meta());
        assert_eq!(generation.number, meta.current().map_or(1, |current| current.number + 1), "prepared on this state");
        if let Some(current) = meta.generations.last_mut() {
            for log in &mut current.logs {
                let (_, last) = sealed.iter().find(|(ordinal, _)| *ordinal == log.ordinal).expect("each log is sealed");
                log.sealed = Some(*last);
            }
        }
        for log in generation.logs.iter().filter(|log| log.starts_from_snapshot) {
            let has = snapshot::newest_bytes(self.storage(), &log_dir(self.dir(), log.ordinal))? > 0;
            assert!(has, "a log that starts from a snapshot has one before it exists");
        }
        meta.generations.push(generation.clone());
        meta::write(self.storage(), self.dir(), &meta)?;
        *lock(&self.inner.meta) = Arc::new(meta);
        Ok(())
    }

    pub(super) fn shared(&self) -> &Arc<Shared<S>> {
        &self.inner.shared
    }
}

/// Where a log's files are.
pub(super) fn log_dir(dir: &Path, ordinal: u16) -> PathBuf {
    dir.join(format!("log-{ordinal:05}"))
}

fn new_folder<S: Storage>(storage: &S, dir: &Path) -> Result<FolderMeta, Error> {
    // Logs without a meta file are somebody's votes: a new secret and new ids must not be written over them.
    let entries = storage.list(dir).doing("list", dir)?;
    if entries.iter().any(|entry| entry.is_dir && entry.name().starts_with("log-")) {
        return Err(Error::damaged(&dir.join("meta"), 0, "the file is missing, and there are logs beside it"));
    }
    let mut deployment: [u8; 16] = rand::random();
    // A UUID version 4, as people and databases expect an id to look.
    deployment[6] = deployment[6] & 0x0f | 0x40;
    deployment[8] = deployment[8] & 0x3f | 0x80;
    let secret = rand::random();
    let meta = FolderMeta { deployment, secret, partitions: PARTITIONS, generations: Vec::new() };
    meta::write(storage, dir, &meta)?;
    Ok(meta)
}

/// Removes what a crash left half-made: temporary files, and logs of a generation that was never committed.
fn remove_leftovers<S: Storage>(storage: &S, dir: &Path, meta: &FolderMeta) -> Result<(), Error> {
    for entry in storage.list(dir).doing("list", dir)? {
        let name = entry.name();
        if !entry.is_dir && name.ends_with(".tmp") {
            storage.remove(&entry.path).doing("remove", &entry.path)?;
        } else if let Some(ordinal) = name.strip_prefix("log-").and_then(|ordinal| ordinal.parse().ok()) {
            if meta.log(ordinal).is_none() {
                remove_dir_with_files(storage, &entry.path)?;
            } else {
                remove_unfinished(storage, &entry.path)?;
            }
        }
    }
    Ok(())
}

fn remove_unfinished<S: Storage>(storage: &S, dir: &Path) -> Result<(), Error> {
    for entry in storage.list(dir).doing("list", dir)? {
        if entry.name().ends_with(".tmp") {
            storage.remove(&entry.path).doing("remove", &entry.path)?;
        }
    }
    Ok(())
}

fn remove_dir_with_files<S: Storage>(storage: &S, dir: &Path) -> Result<(), Error> {
    let Ok(entries) = storage.list(dir) else { return Ok(()) };
    for entry in entries {
        storage.remove(&entry.path).doing("remove", &entry.path)?;
    }
    storage.remove_dir(dir).doing("remove", dir)
}
