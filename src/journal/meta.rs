//! The meta file: what a folder is, and which logs it has. Small, checksummed, replaced whole.
//!
//!      0  u32  checksum        crc32c of everything behind it
//!      4   4   "asme"
//!      8  u16  format version  1
//!     10  u16  0
//!     12  u32  length          of the whole file
//!     16  sections, each: u16 tag, u16 0, u32 length, bytes
//!           1  deployment id   16 bytes
//!           2  secret          32 bytes
//!           3  partitions      u32
//!           4  a generation    u32 number, u32 logs, then for each log: u16 ordinal, u16 first partition,
//!                              u16 partition behind the last, u16 flags (1 = starts from a snapshot), u64 id,
//!                              u64 sealed at this sequence (all ones: not sealed)

use super::buffer::BLOCK_BYTES;
use super::error::{Doing, Error};
use super::frame::FORMAT_VERSION;
use super::storage::Storage;
use std::ops::Range;
use std::path::Path;

const MAGIC: [u8; 4] = *b"asme";
const HEADER_BYTES: usize = 16;
const NOT_SEALED: u64 = u64::MAX;
/// Far above any real one: 65,535 logs are 2 MiB.
const META_BYTES_MAX: usize = 16 << 20;

const DEPLOYMENT: u16 = 1;
const SECRET: u16 = 2;
const PARTITIONS: u16 = 3;
const GENERATION: u16 = 4;

/// What a data folder is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderMeta {
    /// Drawn once; a database belongs to one deployment (a UUID version 4).
    pub deployment: [u8; 16],
    /// Key of the hash that picks an approval's partition.
    pub secret: [u8; 32],
    /// Partitions, fixed for the life of the folder.
    pub partitions: u16,
    /// The generations of logs, oldest first; the last is the current one. None in a new folder.
    pub generations: Vec<GenerationMeta>,
}

/// The logs of one number of shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenerationMeta {
    /// From 1.
    pub number: u32,
    /// In order of their partitions.
    pub logs: Vec<LogMeta>,
}

/// One log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogMeta {
    /// Its generation.
    pub generation: u32,
    /// Unique in the folder, never used again.
    pub ordinal: u16,
    /// Random, 1 to 2^63 - 1; repeated in every frame.
    pub id: u64,
    /// The partitions it holds.
    pub partitions: Range<u16>,
    /// The last sequence it will ever have, once its generation is sealed.
    pub sealed: Option<u64>,
    /// Whether the log begins with a snapshot (every generation but the first): its frames alone are not its state.
    pub starts_from_snapshot: bool,
}

impl FolderMeta {
    /// The current generation; None in a new folder.
    pub fn current(&self) -> Option<&GenerationMeta> {
        self.generations.last()
    }

    /// The log with this ordinal.
    pub fn log(&self, ordinal: u16) -> Option<&LogMeta> {
        self.generations.iter().flat_map(|generation| &generation.logs).find(|log| log.ordinal == ordinal)
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[4..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        section(&mut bytes, DEPLOYMENT, &self.deployment);
        section(&mut bytes, SECRET, &self.secret);
        section(&mut bytes, PARTITIONS, &u32::from(self.partitions).to_le_bytes());
        for generation in &self.generations {
            let mut body = Vec::new();
            body.extend(generation.number.to_le_bytes());
            body.extend((generation.logs.len() as u32).to_le_bytes());
            for log in &generation.logs {
                body.extend(log.ordinal.to_le_bytes());
                body.extend(log.partitions.start.to_le_bytes());
                body.extend(log.partitions.end.to_le_bytes());
                body.extend(u16::from(log.starts_from_snapshot).to_le_bytes());
                body.extend(log.id.to_le_bytes());
                body.extend(log.sealed.unwrap_or(NOT_SEALED).to_le_bytes());
            }
            section(&mut bytes, GENERATION, &body);
        }
        let length = bytes.len() as u32;
        bytes[12..16].copy_from_slice(&length.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[4..]);
        bytes[..4].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// None: sound bytes of this version that do not say what they must; a defect, and treated as damage.
    fn decode(sections: &[u8]) -> Option<FolderMeta> {
        let mut meta = FolderMeta { deployment: [0; 16], secret: [0; 32], partitions: 0, generations: Vec::new() };
        let mut rest = Bytes(sections);
        while !rest.0.is_empty() {
            let (tag, _, length) = (rest.u16()?, rest.u16()?, rest.u32()?);
            let mut body = Bytes(rest.take(length as usize)?);
            match tag {
                DEPLOYMENT => meta.deployment = body.0.try_into().ok()?,
                SECRET => meta.secret = body.0.try_into().ok()?,
                PARTITIONS => meta.partitions = body.u32()?.try_into().ok()?,
                GENERATION => {
                    let (number, logs) = (body.u32()?, body.u32()?);
                    let log = |_| body.log(number);
                    meta.generations.push(GenerationMeta { number, logs: (0..logs).map(log).collect::<Option<_>>()? });
                }
                _ => return None,
            }
        }
        Some(meta)
    }
}

fn section(bytes: &mut Vec<u8>, tag: u16, body: &[u8]) {
    bytes.extend(tag.to_le_bytes());
    bytes.extend([0; 2]);
    bytes.extend((body.len() as u32).to_le_bytes());
    bytes.extend(body);
}

/// A cursor over untrusted bytes.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.take(2)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn log(&mut self, generation: u32) -> Option<LogMeta> {
        let ordinal = self.u16()?;
        let partitions = self.u16()?..self.u16()?;
        let starts_from_snapshot = self.u16()? & 1 != 0;
        let (id, sealed) = (self.u64()?, self.u64()?);
        let sealed = (sealed != NOT_SEALED).then_some(sealed);
        Some(LogMeta { generation, ordinal, id, partitions, sealed, starts_from_snapshot })
    }
}

/// Reads the meta file; None if there is none.
pub(super) fn read<S: Storage>(storage: &S, dir: &Path) -> Result<Option<FolderMeta>, Error> {
    let path = dir.join("meta");
    if !storage.list(dir).doing("list", dir)?.iter().any(|entry| entry.path == path) {
        return Ok(None);
    }
    let file = storage.open(&path).doing("open", &path)?;
    let len = storage.len(&file).doing("read", &path)? as usize;
    let mut bytes = vec![0; len.min(META_BYTES_MAX)];
    storage.read_at(&file, 0, &mut bytes).doing("read", &path)?;
    let damaged = |what: &str| Error::damaged(&path, 0, what);
    if bytes.len() < HEADER_BYTES || bytes[4..8] != MAGIC {
        return Err(damaged("this is not the meta file of a data folder"));
    }
    let checksum = u32::from_le_bytes(bytes[..4].try_into().expect("four bytes"));
    let version = u16::from_le_bytes(bytes[8..10].try_into().expect("two bytes"));
    let length = u32::from_le_bytes(bytes[12..16].try_into().expect("four bytes"));
    if length as usize != bytes.len() || crc32c::crc32c(&bytes[4..]) != checksum {
        return Err(damaged("its checksum does not match"));
    }
    if version != FORMAT_VERSION {
        return Err(Error::WrongVersion { file: path, found: version, supported: FORMAT_VERSION });
    }
    let meta = FolderMeta::decode(&bytes[HEADER_BYTES..]);
    meta.map(Some).ok_or_else(|| damaged("its sections are not those of this version"))
}

/// Replaces the meta file: after a crash there is the old one or the new one.
pub(super) fn write<S: Storage>(storage: &S, dir: &Path, meta: &FolderMeta) -> Result<(), Error> {
    let (path, unfinished) = (dir.join("meta"), dir.join("meta.tmp"));
    let bytes = meta.encode();
    assert!(bytes.len() <= META_BYTES_MAX, "65,535 logs fit");
    let _ = storage.remove(&unfinished);
    let file = storage.create(&unfinished, BLOCK_BYTES as u64).doing("create", &unfinished)?;
    storage.write_at(&file, 0, &bytes).doing("write", &unfinished)?;
    storage.truncate(&file, bytes.len() as u64).doing("write", &unfinished)?;
    storage.sync(&file).doing("sync", &unfinished)?;
    storage.rename(&unfinished, &path).doing("rename", &unfinished)?;
    storage.sync_dir(dir).doing("sync", dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::PosixStorage;

    fn example() -> FolderMeta {
        let log = |generation, ordinal, sealed| LogMeta {
            generation,
            ordinal,
            id: 1 << 62,
            partitions: 0..1024,
            sealed,
            starts_from_snapshot: generation > 1,
        };
        let generations = vec![
            GenerationMeta { number: 1, logs: vec![log(1, 0, Some(0)), log(1, 1, Some(77))] },
            GenerationMeta { number: 2, logs: vec![log(2, 2, None)] },
        ];
        FolderMeta { deployment: [7; 16], secret: [9; 32], partitions: 1024, generations }
    }

    #[test]
    fn meta_reads_back_and_is_replaced_whole() {
        let dir = tempfile::tempdir().expect("a folder");
        assert_eq!(read(&PosixStorage, dir.path()).expect("readable"), None);
        for _ in 0..2 {
            write(&PosixStorage, dir.path(), &example()).expect("written");
            assert_eq!(read(&PosixStorage, dir.path()).expect("readable"), Some(example()));
        }
    }

    #[test]
    fn every_flipped_bit_of_meta_is_damage() {
        let dir = tempfile::tempdir().expect("a folder");
        write(&PosixStorage, dir.path(), &example()).expect("written");
        let path = dir.path().join("meta");
        let good = std::fs::read(&path).expect("there");
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &bad).expect("written");
            assert!(matches!(read(&PosixStorage, dir.path()), Err(Error::Damaged { .. })), "bit {bit}");
        }
    }
}
