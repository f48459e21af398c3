//! Files of slices that belong to the folder and to none of its logs: what their owner keeps with the snapshots,
//! whatever the number of logs. Layout, checksums and the road to the disk are a snapshot's (`snapshot.rs`), with the
//! folder's own number in place of a log's. When one is needed no more is the owner's to say.

use super::error::{Doing, Error};
use super::folder::Folder;
use super::snapshot::{self, SnapshotReader, SnapshotWriter};
use super::storage::Storage;
use std::path::PathBuf;

/// The files of one name, numbered by their owner: `DIR/<directory>/<name>-<number>`.
pub struct SideFiles<S: Storage> {
    folder: Folder<S>,
    dir: PathBuf,
    name: &'static str,
    owner: u64,
}

impl<S: Storage> SideFiles<S> {
    /// In this directory of the folder; it is made with the first file.
    pub fn new(folder: &Folder<S>, directory: &str, name: &'static str) -> SideFiles<S> {
        let deployment = folder.meta().deployment;
        let owner = u64::from_le_bytes(deployment[..8].try_into().expect("8 of 16 bytes"));
        SideFiles { folder: folder.clone(), dir: folder.dir().join(directory), name, owner }
    }

    /// Numbers of the whole files, ascending. What a crash left half-made is removed.
    pub fn list(&self) -> Result<Vec<u64>, Error> {
        let storage = self.folder.storage();
        // A directory that is not there holds nothing.
        let Ok(entries) = storage.list(&self.dir) else { return Ok(Vec::new()) };
        for entry in
            entries.iter().filter(|entry| entry.name().starts_with(self.name) && entry.name().ends_with(".tmp"))
        {
            storage.remove(&entry.path).doing("remove", &entry.path)?;
            self.folder.shared().used_less(entry.bytes);
        }
        Ok(snapshot::list(storage, &self.dir, self.name)?.into_iter().map(|(number, _, _)| number).collect())
    }

    /// Begins the file of this number. Its slices have sequence 0, and it is finished at 0.
    pub fn create(&self, number: u64) -> Result<SnapshotWriter<S>, Error> {
        let storage = self.folder.storage();
        storage.create_dir(&self.dir).doing("create", &self.dir)?;
        storage.sync_dir(self.folder.dir()).doing("sync", self.folder.dir())?;
        SnapshotWriter::begin(self.folder.shared().clone(), self.dir.clone(), self.name, number, self.owner)
    }

    /// Opens a file and verifies all of it.
    pub fn open(&self, number: u64) -> Result<SnapshotReader<S>, Error> {
        SnapshotReader::open(self.folder.storage(), &self.path(number), self.owner)
    }

    /// Where the file of this number is.
    pub fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{}-{number:010}", self.name))
    }

    /// Removes files that nobody needs.
    pub fn remove_all_but(&self, needed: impl Fn(u64) -> bool) -> Result<(), Error> {
        let storage = self.folder.storage();
        for (number, path, bytes) in snapshot::list(storage, &self.dir, self.name)? {
            if !needed(number) {
                storage.remove(&path).doing("remove", &path)?;
                self.folder.shared().used_less(bytes);
            }
        }
        Ok(())
    }
}
