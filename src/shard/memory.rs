//! `--durability memory`: a disk that keeps nothing. For comparison only: what is acknowledged is
//! gone with the process. The rest of the road (frames, checksums, commits) is the same.

use crate::journal::{AlignedBuf, Entry, Locked, LogWriter, Storage};
use std::io;
use std::path::Path;

/// A disk whose files take every write and read as zeros.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryStorage;

/// A file of this many bytes, none of them kept.
pub struct MemoryFile {
    bytes: std::sync::atomic::AtomicU64,
}

/// Frames go nowhere, at once.
#[derive(Default)]
pub struct MemoryWriter {
    kept: Option<AlignedBuf>,
}

impl Storage for MemoryStorage {
    type File = MemoryFile;
    type Lock = ();
    type Writer = MemoryWriter;

    fn create(&self, _path: &Path, len: u64) -> io::Result<MemoryFile> {
        Ok(MemoryFile { bytes: len.into() })
    }
    fn open(&self, _path: &Path) -> io::Result<MemoryFile> {
        Ok(MemoryFile { bytes: 0.into() })
    }
    fn len(&self, file: &MemoryFile) -> io::Result<u64> {
        Ok(file.bytes.load(std::sync::atomic::Ordering::Relaxed))
    }
    fn read_at(&self, _file: &MemoryFile, _offset: u64, into: &mut [u8]) -> io::Result<usize> {
        into.fill(0);
        Ok(into.len())
    }
    fn write_at(&self, file: &MemoryFile, offset: u64, bytes: &[u8]) -> io::Result<()> {
        file.bytes.fetch_max(offset + bytes.len() as u64, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    }
    fn truncate(&self, file: &MemoryFile, len: u64) -> io::Result<()> {
        file.bytes.store(len, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    }
    fn sync(&self, _file: &MemoryFile) -> io::Result<()> {
        Ok(())
    }
    fn rename(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        Ok(())
    }
    fn remove(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }
    fn remove_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }
    fn list(&self, _dir: &Path) -> io::Result<Vec<Entry>> {
        Ok(Vec::new())
    }
    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }
    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }
    fn lock(&self, _path: &Path, _note: &str) -> io::Result<Locked<()>> {
        Ok(Locked::Held(()))
    }
    fn writer(&self) -> io::Result<MemoryWriter> {
        Ok(MemoryWriter::default())
    }
}

impl LogWriter for MemoryWriter {
    fn open(&mut self, _path: &Path) -> io::Result<()> {
        Ok(())
    }
    fn begin(&mut self, _offset: u64, buf: AlignedBuf, _len: usize, _overlap: bool) {
        self.kept = Some(buf);
    }
    fn is_done(&self) -> bool {
        true
    }
    async fn finish(&mut self) -> (AlignedBuf, io::Result<()>) {
        (self.kept.take().expect("finish without begin"), Ok(()))
    }
}
