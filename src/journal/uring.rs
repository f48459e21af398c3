//! The disk by io_uring, through glommio: frames are written from the shard's own executor.
//!
//! Only the hot write is asynchronous. Cold operations are the plain calls of [`PosixStorage`]: they run before a
//! shard starts or on helper threads, where a system call harms nobody.
//!
//! The shape that holds with glommio 0.9 (it can stall or panic in others): one task awaits its I/O plainly, to
//! the end, never in a loop of polls and never in a select. So `begin` only keeps the frame, and `finish` writes
//! it. The segment is opened O_DSYNC: one operation makes a frame durable (there is no per-write DSYNC there, and
//! a separate fdatasync costs a second round through the ring).

use super::buffer::AlignedBuf;
use super::posix::{PosixFile, PosixStorage};
use super::storage::{Entry, Locked, LogWriter, Storage};
use glommio::io::{DmaFile, OpenOptions};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// The disk with io_uring for frames. Its writers work only inside a glommio executor.
#[derive(Debug, Clone, Copy, Default)]
pub struct GlommioStorage;

impl Storage for GlommioStorage {
    type File = PosixFile;
    type Lock = File;
    type Writer = GlommioWriter;

    fn create(&self, path: &Path, len: u64) -> io::Result<PosixFile> {
        PosixStorage.create(path, len)
    }

    fn open(&self, path: &Path) -> io::Result<PosixFile> {
        PosixStorage.open(path)
    }

    fn len(&self, file: &PosixFile) -> io::Result<u64> {
        PosixStorage.len(file)
    }

    fn read_at(&self, file: &PosixFile, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        PosixStorage.read_at(file, offset, into)
    }

    fn write_at(&self, file: &PosixFile, offset: u64, bytes: &[u8]) -> io::Result<()> {
        PosixStorage.write_at(file, offset, bytes)
    }

    fn truncate(&self, file: &PosixFile, len: u64) -> io::Result<()> {
        PosixStorage.truncate(file, len)
    }

    fn sync(&self, file: &PosixFile) -> io::Result<()> {
        PosixStorage.sync(file)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        PosixStorage.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        PosixStorage.remove(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        PosixStorage.remove_dir(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        PosixStorage.list(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        PosixStorage.create_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        PosixStorage.sync_dir(dir)
    }

    fn lock(&self, path: &Path, note: &str) -> io::Result<Locked<File>> {
        PosixStorage.lock(path, note)
    }

    fn writer(&self) -> io::Result<GlommioWriter> {
        Ok(GlommioWriter::default())
    }
}

/// Frames by io_uring. `open` only remembers the path, because opening is asynchronous here; the first `finish`
/// behind it opens.
#[derive(Default)]
pub struct GlommioWriter {
    path: PathBuf,
    file: Option<DmaFile>,
    kept: Option<(u64, AlignedBuf, usize)>,
}

impl LogWriter for GlommioWriter {
    fn open(&mut self, path: &Path) -> io::Result<()> {
        assert!(self.kept.is_none(), "a segment is switched between writes");
        self.path = path.to_path_buf();
        // Dropping is closing in the background of the executor; the data is durable already.
        self.file = None;
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
        let (offset, buf, len) = self.kept.take().expect("finish without begin");
        let result = self.write(offset, &buf[..len]).await;
        (buf, result)
    }
}

impl GlommioWriter {
    async fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let file = match self.file.take() {
            Some(file) => file,
            None => OpenOptions::new().write(true).custom_flags(libc::O_DSYNC).dma_open(&self.path).await?,
        };
        // glommio writes only from buffers of its own: one copy, about 40 bytes a vote, in cache just now.
        let mut buffer = file.alloc_dma_buffer(bytes.len());
        buffer.as_bytes_mut().copy_from_slice(bytes);
        let written = file.write_at(buffer, offset).await?;
        self.file = Some(file);
        if written != bytes.len() {
            let what = format!("{written} of {} bytes of a frame were written", bytes.len());
            return Err(io::Error::new(io::ErrorKind::WriteZero, what));
        }
        Ok(())
    }
}
