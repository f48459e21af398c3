//! The filter on disk, kept with the snapshots: whatever a snapshot's slices no longer hold because
//! it was forgotten is in a filter that became durable before the snapshot did. What was forgotten
//! later comes back from slice and journal. A filter newer than a snapshot does no harm: memory is
//! looked at first. So there is one filter for all logs, and the newest is always the right one.
//!
//! ```text
//! DIR/id-filter/generation-N    one generation: a slice a chunk (key: its place), the words of its
//!                               lines little-endian. Written anew, under the next number, only
//!                               when ids came since: a full one once.
//! DIR/id-filter/filter-N        what there is; the newest counts. One slice, key 0, little-endian:
//!      0 u16 format version 1    2 u16 0    4 u32 generations G
//!      8 u64 dropped             0: no generation ever was; otherwise the latest of those, plus one
//!     16 u64 number that the next generation's file gets
//!     24 G x { generation u64, its file u64, lines u64, latest u64 (0: no UUIDv7; otherwise
//!              milliseconds plus one), ids u64 }
//! ```
//! The files' frame is `journal::SideFiles`: checksummed, whole under their names. A snapshot of a
//! log names the filter it was written with (`NAMED_BY`), so that a lost one is noticed. A
//! generation's file may be taken away: its ids then count as dropped, and are looked up.

use super::generation::Generation;
use super::{GENERATIONS, IdFilter, LINE_BYTES, lines_for, lock};
use crate::journal::{Error, Folder, SideFiles, Storage};
use crate::metrics::IdFilterMetrics;
use crate::model::PartitionKey;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

const VERSION: u16 = 1;
const HEADER_BYTES: usize = 24;
const ENTRY_BYTES: usize = 40;
const DIRECTORY: &str = "id-filter";

/// What is on disk.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Number of the newest `filter` file; 0: there is none.
    number: u64,
    dropped: u64,
    next_file: u64,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Entry {
    generation: u64,
    file: u64,
    lines: u64,
    latest: u64,
    ids: u64,
}

impl Kept {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.entries.len() * ENTRY_BYTES);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&0u16.to_le_bytes());
        bytes.extend_from_slice(&(self.entries.len() as u32).to_le_bytes());
        let mut put = |word: u64| bytes.extend_from_slice(&word.to_le_bytes());
        put(self.dropped);
        put(self.next_file);
        for Entry { generation, file, lines, latest, ids } in &self.entries {
            [generation, file, lines, latest, ids].into_iter().for_each(|word| put(*word));
        }
        bytes
    }

    /// Why not, otherwise.
    fn decode(number: u64, bytes: &[u8]) -> Result<Kept, String> {
        if bytes.len() < HEADER_BYTES {
            return Err("the filter of ids ends in its header".into());
        }
        let version = u16::from_le_bytes([bytes[0], bytes[1]]);
        if version != VERSION {
            return Err(format!(
                "the filter of ids has version {version}: start the assent that wrote it, or a newer one"
            ));
        }
        let (header, rest) = bytes.split_at(HEADER_BYTES);
        let word = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let count = u32::from_le_bytes(header[4..8].try_into().expect("four bytes")) as usize;
        if rest.len() != count * ENTRY_BYTES {
            return Err("the filter of ids does not hold what it counts".into());
        }
        let entry = |bytes: &[u8]| Entry {
            generation: word(bytes, 0),
            file: word(bytes, 8),
            lines: word(bytes, 16),
            latest: word(bytes, 24),
            ids: word(bytes, 32),
        };
        let entries: Vec<Entry> = rest.chunks_exact(ENTRY_BYTES).map(entry).collect();
        if entries.iter().any(|entry| entry.generation == 0 || entry.lines == 0) {
            return Err("the filter of ids names a generation that cannot be".into());
        }
        Ok(Kept { number, dropped: word(header, 8), next_file: word(header, 16), entries })
    }
}

/// A snapshot's slice that names the filter it was written with: behind the partitions' keys.
pub const NAMED_BY: u32 = crate::model::PARTITIONS;

struct Files<S: Storage> {
    generations: SideFiles<S>,
    filters: SideFiles<S>,
}

impl<S: Storage> Files<S> {
    fn new(folder: &Folder<S>) -> Files<S> {
        Files {
            generations: SideFiles::new(folder, DIRECTORY, "generation"),
            filters: SideFiles::new(folder, DIRECTORY, "filter"),
        }
    }
}

/// Damage, with what can be done about it.
fn advised(error: Error, what_to_do: &str) -> Error {
    match error {
        Error::Damaged { file, offset, what, .. } => Error::Damaged { file, offset, what, advice: what_to_do.into() },
        other => other,
    }
}

const RESTORE_FILTER: &str = "Nothing was changed. It says which approval ids were used before: restore id-filter in \
     the data folder from a copy that is not older than the snapshots beside it";
const RESTORE_GENERATION: &str = "Nothing was changed. Restore the file from a copy of the folder; or take it away: the \
     ids in it are then looked up in the archive before they are taken";

impl IdFilter {
    /// As the folder keeps it, or an empty one. `bytes_max` may have changed: what is kept counts
    /// first, the oldest of it is dropped where it is too much.
    pub fn open<S: Storage>(
        folder: &Folder<S>,
        key: PartitionKey,
        bytes_max: u64,
        metrics: Arc<IdFilterMetrics>,
    ) -> Result<IdFilter, Error> {
        let files = Files::new(folder);
        let there: BTreeSet<u64> = files.generations.list()?.into_iter().collect();
        let Some(number) = files.filters.list()?.pop() else { return Ok(IdFilter::new(key, bytes_max, metrics)) };
        let mut kept = read_filter(&files, number)?;
        kept.entries.sort_by_key(|entry| entry.generation);
        let mut bytes: u64 = kept.entries.iter().map(|entry| entry.lines * LINE_BYTES).sum();
        let mut dropped = kept.dropped;
        let mut generations = Vec::new();
        for entry in &kept.entries {
            let is_there = there.contains(&entry.file);
            if !is_there {
                let path = files.generations.path(entry.file);
                tracing::warn!("{} is gone: the ids in it are looked up in the archive from now on", path.display());
            }
            if !is_there || bytes > bytes_max {
                bytes -= entry.lines * LINE_BYTES;
                dropped = dropped.max(entry.latest + 1);
                metrics.dropped.increment();
                continue;
            }
            generations.push(read_generation(&files, entry)?);
        }
        // Room for new ones beside what is kept: one that fills and one that is full, at the least.
        let lines = lines_for(bytes_max);
        let places = (bytes_max.saturating_sub(bytes) / (lines * LINE_BYTES)).min(GENERATIONS);
        let of_today = generations.iter().filter(|generation| generation.lines() == lines).count() as u64;
        let more = if of_today + places < 2 { 2 - of_today } else { places };
        let newest = generations.len().checked_sub(1).filter(|at| generations[*at].lines() == lines);
        generations.extend((0..more).map(|_| Generation::unused(lines)));
        let filter = IdFilter {
            key,
            bytes_max,
            generations: generations.into(),
            dropped: AtomicU64::new(dropped),
            writer: newest.into(),
            kept: kept.into(),
            metrics,
        };
        filter.show();
        Ok(filter)
    }

    /// Makes durable what was put in before this call; answers with the number that a snapshot names
    /// (0: nothing was ever put in). Blocking, for a thread that is not a shard's.
    pub fn keep<S: Storage>(&self, folder: &Folder<S>) -> Result<u64, Error> {
        let mut kept = lock(&self.kept);
        let files = Files::new(folder);
        let mut next = Kept { number: kept.number + 1, next_file: kept.next_file, ..Kept::default() };
        for generation in &self.generations {
            let number = generation.number.load(Ordering::Acquire);
            // Counted before the bits are read: what comes meanwhile is written next time.
            let ids = generation.ids.load(Ordering::Relaxed);
            if number == 0 {
                continue;
            }
            if let Some(entry) = kept.entries.iter().find(|entry| entry.generation == number && entry.ids == ids) {
                next.entries.push(*entry);
                continue;
            }
            let mut writer = files.generations.create(next.next_file)?;
            generation.chunks(number, |at, bytes| writer.slice(at, 0, bytes))?;
            fence(Ordering::Acquire);
            let latest = generation.latest.load(Ordering::Relaxed);
            if generation.number.load(Ordering::Relaxed) != number {
                // Dropped meanwhile: `dropped` speaks for it.
                continue;
            }
            writer.finish(0)?;
            next.entries.push(Entry {
                generation: number,
                file: next.next_file,
                lines: generation.lines(),
                latest,
                ids,
            });
            next.next_file += 1;
        }
        next.dropped = self.dropped.load(Ordering::Acquire);
        if next.dropped == kept.dropped && next.entries == kept.entries {
            return Ok(kept.number);
        }
        let mut writer = files.filters.create(next.number)?;
        writer.slice(0, 0, &next.encode())?;
        writer.finish(0)?;
        *kept = next;
        files.filters.remove_all_but(|number| number >= kept.number)?;
        files.generations.remove_all_but(|number| kept.entries.iter().any(|entry| entry.file == number))?;
        Ok(kept.number)
    }

    /// The number of the newest filter on disk.
    pub fn kept_number(&self) -> u64 {
        lock(&self.kept).number
    }

    /// The slice of a snapshot that names filter `number`.
    pub fn name_for_snapshot(number: u64) -> Vec<u8> {
        [&VERSION.to_le_bytes()[..], &number.to_le_bytes()].concat()
    }

    /// Whether this filter is no older than a snapshot with such a slice; what to do, otherwise.
    pub fn check_named(&self, slice: &[u8]) -> Result<(), String> {
        let named = match slice.split_at_checked(2) {
            Some((version, number)) if version == VERSION.to_le_bytes() => {
                number.try_into().ok().map(u64::from_le_bytes)
            }
            _ => {
                return Err("a filter of ids of another version: start the assent that wrote it, or a newer one".into());
            }
        };
        let named = named.ok_or("no number of a filter of ids")?;
        let there = self.kept_number();
        if there < named {
            return Err(format!(
                "a snapshot that was written with number {named} of the filter of ids, and the folder holds number \
                 {there}. {RESTORE_FILTER}"
            ));
        }
        Ok(())
    }
}

fn read_filter<S: Storage>(files: &Files<S>, number: u64) -> Result<Kept, Error> {
    let path = files.filters.path(number);
    let undecodable = |reason: String| Error::Undecodable { file: path.clone(), offset: 0, reason };
    let mut reader = files.filters.open(number).map_err(|error| advised(error, RESTORE_FILTER))?;
    match reader.next_slice().map_err(|error| advised(error, RESTORE_FILTER))? {
        Some(slice) => Kept::decode(number, slice.bytes).map_err(undecodable),
        None => Err(undecodable("the filter of ids is empty".into())),
    }
}

fn read_generation<S: Storage>(files: &Files<S>, entry: &Entry) -> Result<Generation, Error> {
    let generation = Generation::unused(entry.lines);
    generation.number.store(entry.generation, Ordering::Relaxed);
    generation.latest.store(entry.latest, Ordering::Relaxed);
    generation.ids.store(entry.ids, Ordering::Relaxed);
    let mut reader = files.generations.open(entry.file).map_err(|error| advised(error, RESTORE_GENERATION))?;
    while let Some(slice) = reader.next_slice().map_err(|error| advised(error, RESTORE_GENERATION))? {
        if generation.restore(slice.key, slice.bytes).is_none() {
            return Err(Error::Undecodable {
                file: files.generations.path(entry.file),
                offset: 0,
                reason: format!("a chunk does not fit its generation. {RESTORE_GENERATION}"),
            });
        }
    }
    Ok(generation)
}
