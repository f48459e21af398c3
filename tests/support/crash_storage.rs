//! A disk in memory that forgets, for crash tests of anything that stands on `journal::Storage`.
//!
//! It knows which 512-byte sectors of which files are not synced, and which names are not. It can stop or fail at
//! any one of its writing calls. `restart` gives the disk as a crash might have left it: of each unsynced sector the
//! old bytes or any of those written since, of each unsynced length the old or the new, of the unsynced names any
//! set that hangs together. Everything is drawn from a seed.
//!
//! Its writer is ready when first polled: run it with `journal::ready`.

use assent::journal::{AlignedBuf, Entry, Locked, LogWriter, Storage};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const SECTOR: usize = 512;

/// What happens at the chosen call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The machine stops: the call may have happened in part, all later calls fail.
    Stop,
    /// This call fails, later ones work.
    Fail,
    /// This call finds no room; later ones work.
    Full,
}

/// The disk. Clones are the same disk.
#[derive(Clone)]
pub struct CrashStorage(Arc<Mutex<Disk>>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Node {
    Dir,
    File(u64),
}

#[derive(Default, Clone)]
struct Inode {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// Of each unsynced sector, all that was written to it since it was synced.
    dirty: BTreeMap<usize, Vec<[u8; SECTOR]>>,
}

#[derive(Clone)]
enum NameOp {
    Add(PathBuf, Node),
    Rename(PathBuf, PathBuf, u64),
    Remove(PathBuf),
}

impl NameOp {
    /// The names and files an op touches: one that was lost takes later ones on the same with it.
    fn touches(&self) -> (Vec<&PathBuf>, Option<u64>) {
        match self {
            NameOp::Add(path, Node::File(inode)) => (vec![path], Some(*inode)),
            NameOp::Add(path, Node::Dir) | NameOp::Remove(path) => (vec![path], None),
            NameOp::Rename(from, to, inode) => (vec![from, to], Some(*inode)),
        }
    }

    fn dir(&self) -> &Path {
        let (NameOp::Add(path, _) | NameOp::Rename(_, path, _) | NameOp::Remove(path)) = self;
        path.parent().unwrap_or(Path::new(""))
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, Node>) {
        match self {
            NameOp::Add(path, node) => {
                names.insert(path.clone(), *node);
            }
            NameOp::Rename(from, to, inode) => {
                names.remove(from);
                names.insert(to.clone(), Node::File(*inode));
            }
            NameOp::Remove(path) => {
                names.remove(path);
            }
        }
    }
}

struct Disk {
    names: BTreeMap<PathBuf, Node>,
    durable_names: BTreeMap<PathBuf, Node>,
    pending: Vec<NameOp>,
    inodes: HashMap<u64, Inode>,
    next_inode: u64,
    calls: u64,
    fault: Option<(u64, Fault)>,
    stopped: bool,
    full: bool,
    locked: bool,
    rng: SmallRng,
}

impl Default for CrashStorage {
    fn default() -> Self {
        CrashStorage::new()
    }
}

impl CrashStorage {
    /// An empty disk without faults.
    pub fn new() -> CrashStorage {
        let mut names = BTreeMap::new();
        names.insert(PathBuf::from("/"), Node::Dir);
        CrashStorage(Arc::new(Mutex::new(Disk {
            durable_names: names.clone(),
            names,
            pending: Vec::new(),
            inodes: HashMap::new(),
            next_inode: 1,
            calls: 0,
            fault: None,
            stopped: false,
            full: false,
            locked: false,
            rng: SmallRng::seed_from_u64(0),
        })))
    }

    /// Writing calls so far: writes, syncs, names made, changed and removed.
    pub fn calls(&self) -> u64 {
        self.disk().calls
    }

    /// Lets `fault` happen at the `call`-th writing call from now on, counted from 1.
    pub fn fault_at(&self, call: u64, fault: Fault) {
        let mut disk = self.disk();
        disk.fault = Some((disk.calls + call, fault));
    }

    /// From now on nothing can be created (or again). What has its room can be written.
    pub fn set_full(&self, full: bool) {
        self.disk().full = full;
    }

    /// Whether a `Stop` has happened.
    pub fn is_stopped(&self) -> bool {
        self.disk().stopped
    }

    /// The disk as a crash at this moment may leave it, drawn from `seed`. Without faults.
    pub fn restart(&self, seed: u64) -> CrashStorage {
        let disk = self.disk();
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut names = disk.durable_names.clone();
        // Some seeds keep nearly all or nearly nothing, so that the extremes are seen too.
        let keep = [0.0, 0.1, 0.5, 0.9, 1.0][rng.random_range(0..5)];
        let mut lost_paths = BTreeSet::new();
        let mut lost_inodes = BTreeSet::new();
        for op in &disk.pending {
            let (paths, inode) = op.touches();
            let poisoned = paths.iter().any(|path| lost_paths.contains(*path))
                || inode.is_some_and(|inode| lost_inodes.contains(&inode));
            if !poisoned && rng.random_bool(keep) {
                op.apply(&mut names);
            } else {
                lost_paths.extend(paths.into_iter().cloned());
                lost_inodes.extend(inode);
            }
        }
        let all = names.clone();
        names.retain(|path, _| path.ancestors().skip(1).all(|dir| all.get(dir) == Some(&Node::Dir)));
        let mut inodes = HashMap::new();
        let kept: BTreeSet<u64> =
            names.values().filter_map(|node| if let Node::File(inode) = node { Some(*inode) } else { None }).collect();
        for inode in kept {
            let bytes = disk.inodes[&inode].crashed(&mut rng);
            inodes.insert(inode, Inode { durable: bytes.clone(), live: bytes, dirty: BTreeMap::new() });
        }
        CrashStorage(Arc::new(Mutex::new(Disk {
            durable_names: names.clone(),
            names,
            pending: Vec::new(),
            inodes,
            next_inode: disk.next_inode,
            calls: 0,
            fault: None,
            stopped: false,
            full: false,
            locked: false,
            rng,
        })))
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inode {
    fn crashed(&self, rng: &mut SmallRng) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        let keep = [0.0, 0.1, 0.5, 0.9, 1.0][rng.random_range(0..5)];
        if self.live.len() != bytes.len() && rng.random_bool(0.5) {
            bytes.resize(self.live.len(), 0);
        }
        for (sector, versions) in &self.dirty {
            let at = sector * SECTOR;
            if at < bytes.len() && rng.random_bool(keep) {
                let end = (at + SECTOR).min(bytes.len());
                let version = versions[rng.random_range(0..versions.len())];
                bytes[at..end].copy_from_slice(&version[..end - at]);
            }
        }
        bytes
    }

    /// Writes, but only the sectors that `lands` names.
    fn write(&mut self, offset: usize, bytes: &[u8], mut lands: impl FnMut() -> bool) {
        if self.live.len() < offset + bytes.len() {
            self.live.resize(offset + bytes.len(), 0);
        }
        let (first, last) = (offset / SECTOR, (offset + bytes.len()).div_ceil(SECTOR));
        for sector in first..last {
            if !lands() {
                continue;
            }
            let (from, to) = (offset.max(sector * SECTOR), (offset + bytes.len()).min((sector + 1) * SECTOR));
            self.live[from..to].copy_from_slice(&bytes[from - offset..to - offset]);
            let mut now = [0; SECTOR];
            let end = ((sector + 1) * SECTOR).min(self.live.len());
            now[..end - sector * SECTOR].copy_from_slice(&self.live[sector * SECTOR..end]);
            self.dirty.entry(sector).or_default().push(now);
        }
    }

    /// Makes these bytes durable (data of one write), or all of the file.
    fn sync_range(&mut self, offset: usize, len: usize) {
        if self.durable.len() < self.live.len() {
            self.durable.resize(self.live.len(), 0);
        }
        let end = (offset + len).min(self.live.len());
        self.durable[offset..end].copy_from_slice(&self.live[offset..end]);
        for sector in offset / SECTOR..end.div_ceil(SECTOR) {
            self.dirty.remove(&sector);
        }
    }
}

impl Disk {
    /// Counts a writing call; gives the fault that is due at it.
    fn call(&mut self) -> io::Result<Option<Fault>> {
        if self.stopped {
            return Err(io::Error::other("the disk has stopped"));
        }
        self.calls += 1;
        let due = self.fault.filter(|(at, _)| *at == self.calls).map(|(_, fault)| fault);
        self.stopped |= due == Some(Fault::Stop);
        Ok(due)
    }

    fn alive(&self) -> io::Result<()> {
        if self.stopped { Err(io::Error::other("the disk has stopped")) } else { Ok(()) }
    }

    /// A change of names: at a stop it may have happened, at a failure it has not.
    fn name_op(&mut self, op: NameOp) -> io::Result<()> {
        let fault = self.call()?;
        if !matches!(fault, Some(Fault::Fail | Fault::Full)) {
            op.apply(&mut self.names);
            self.pending.push(op);
        }
        fault.map_or(Ok(()), |fault| Err(error_of(fault)))
    }

    fn write(&mut self, inode: u64, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let fault = self.call()?;
        let rng = &mut self.rng;
        let file = self.inodes.get_mut(&inode).expect("open files exist");
        match fault {
            Some(Fault::Full) => {}
            Some(Fault::Fail) => file.write(offset as usize, bytes, || rng.random_bool(0.5)),
            _ => file.write(offset as usize, bytes, || true),
        }
        fault.map_or(Ok(()), |fault| Err(error_of(fault)))
    }

    fn sync(&mut self, inode: u64, range: Option<(usize, usize)>) -> io::Result<()> {
        let fault = self.call()?;
        let file = self.inodes.get_mut(&inode).expect("open files exist");
        match (fault, range) {
            (Some(fault), _) => return Err(error_of(fault)),
            (None, Some((offset, len))) => file.sync_range(offset, len),
            (None, None) => {
                file.durable = file.live.clone();
                file.dirty.clear();
            }
        }
        Ok(())
    }

    fn inode(&self, path: &Path) -> io::Result<u64> {
        match self.names.get(path) {
            Some(Node::File(inode)) => Ok(*inode),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

fn error_of(fault: Fault) -> io::Error {
    match fault {
        Fault::Stop => io::Error::other("the disk stops here"),
        Fault::Fail => io::Error::other("this call fails"),
        Fault::Full => io::ErrorKind::StorageFull.into(),
    }
}

/// Frees the folder when it is dropped.
pub struct CrashLock(CrashStorage);

impl Drop for CrashLock {
    fn drop(&mut self) {
        self.0.disk().locked = false;
    }
}

impl Storage for CrashStorage {
    type File = u64;
    type Lock = CrashLock;
    type Writer = CrashWriter;

    fn create(&self, path: &Path, len: u64) -> io::Result<u64> {
        let mut disk = self.disk();
        if disk.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if disk.full {
            disk.call()?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        let inode = disk.next_inode;
        disk.next_inode += 1;
        disk.inodes.insert(inode, Inode { live: vec![0; len as usize], ..Inode::default() });
        disk.name_op(NameOp::Add(path.to_path_buf(), Node::File(inode)))?;
        Ok(inode)
    }

    fn open(&self, path: &Path) -> io::Result<u64> {
        let disk = self.disk();
        disk.alive()?;
        disk.inode(path)
    }

    fn len(&self, file: &u64) -> io::Result<u64> {
        let disk = self.disk();
        disk.alive()?;
        Ok(disk.inodes[file].live.len() as u64)
    }

    fn read_at(&self, file: &u64, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let disk = self.disk();
        disk.alive()?;
        let rest = disk.inodes[file].live.get(offset as usize..).unwrap_or(&[]);
        let len = rest.len().min(into.len());
        into[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn write_at(&self, file: &u64, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk().write(*file, offset, bytes)
    }

    fn truncate(&self, file: &u64, len: u64) -> io::Result<()> {
        let mut disk = self.disk();
        if let Some(fault) = disk.call()? {
            return Err(error_of(fault));
        }
        let file = disk.inodes.get_mut(file).expect("open files exist");
        file.live.resize(len as usize, 0);
        file.dirty.retain(|sector, _| sector * SECTOR < len as usize);
        Ok(())
    }

    fn sync(&self, file: &u64) -> io::Result<()> {
        self.disk().sync(*file, None)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.alive()?;
        let inode = disk.inode(from)?;
        disk.name_op(NameOp::Rename(from.to_path_buf(), to.to_path_buf(), inode))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.alive()?;
        disk.inode(path)?;
        disk.name_op(NameOp::Remove(path.to_path_buf()))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.alive()?;
        disk.name_op(NameOp::Remove(path.to_path_buf()))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let disk = self.disk();
        disk.alive()?;
        if disk.names.get(dir) != Some(&Node::Dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = disk.names.iter().filter(|(path, _)| path.parent() == Some(dir));
        let entry = |(path, node): (&PathBuf, &Node)| match node {
            Node::Dir => Entry { path: path.clone(), bytes: 0, is_dir: true },
            Node::File(inode) => {
                Entry { path: path.clone(), bytes: disk.inodes[inode].live.len() as u64, is_dir: false }
            }
        };
        Ok(inside.map(entry).collect())
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        let missing: Vec<_> = dir.ancestors().filter(|dir| !disk.names.contains_key(*dir)).map(PathBuf::from).collect();
        for dir in missing.into_iter().rev() {
            disk.name_op(NameOp::Add(dir, Node::Dir))?;
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        if let Some(fault) = disk.call()? {
            return Err(error_of(fault));
        }
        // What is durable takes with it whatever came before on the same names and files.
        let (mut paths, mut inodes, mut durable) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for (index, op) in disk.pending.iter().enumerate().rev() {
            let (touched, inode) = op.touches();
            let wanted = op.dir() == dir
                || touched.iter().any(|path| paths.contains(*path))
                || inode.is_some_and(|inode| inodes.contains(&inode));
            if wanted {
                durable.insert(index);
                paths.extend(touched.into_iter().cloned());
                inodes.extend(inode);
            }
        }
        let pending = std::mem::take(&mut disk.pending);
        for (index, op) in pending.into_iter().enumerate() {
            if durable.contains(&index) {
                op.apply(&mut disk.durable_names);
            } else {
                disk.pending.push(op);
            }
        }
        Ok(())
    }

    fn lock(&self, _: &Path, note: &str) -> io::Result<Locked<CrashLock>> {
        let mut disk = self.disk();
        disk.alive()?;
        if std::mem::replace(&mut disk.locked, true) {
            return Ok(Locked::By(note.to_string()));
        }
        Ok(Locked::Held(CrashLock(self.clone())))
    }

    fn writer(&self) -> io::Result<CrashWriter> {
        Ok(CrashWriter { storage: self.clone(), inode: 0, kept: None })
    }
}

/// Frames on the forgetting disk: a write and a sync of what was written, each a call that may fail.
pub struct CrashWriter {
    storage: CrashStorage,
    inode: u64,
    kept: Option<(u64, AlignedBuf, usize)>,
}

impl LogWriter for CrashWriter {
    fn open(&mut self, path: &Path) -> io::Result<()> {
        self.inode = self.storage.open(path)?;
        Ok(())
    }

    fn begin(&mut self, offset: u64, buf: AlignedBuf, len: usize, _overlap: bool) {
        assert!(self.kept.is_none(), "one write at a time");
        self.kept = Some((offset, buf, len));
    }

    fn is_done(&self) -> bool {
        true
    }

    async fn finish(&mut self) -> (AlignedBuf, io::Result<()>) {
        let (offset, buf, len) = self.kept.take().expect("begun");
        let mut disk = self.storage.disk();
        let result = disk
            .write(self.inode, offset, &buf[..len])
            .and_then(|()| disk.sync(self.inode, Some((offset as usize, len))));
        drop(disk);
        (buf, result)
    }
}
