//! The filter of ids known before: no approval id is taken twice, though memory forgets what is
//! decided and archived.
//!
//! Every id is put in before its approval leaves memory, in generations of a fixed size (an eighth
//! of the setting, `generation`), the newest taking what comes. When the memory is used up, the
//! oldest generation is dropped, and the latest UUIDv7 time in any dropped one is kept. So an id is
//! new without a look-up if the filter excludes it and either nothing was ever dropped, or it is a
//! UUIDv7 with a time later than that. Any other id is looked up in the archive before it opens.
//! A generation holds no UUIDv7 later than its own latest one: ids drawn now pass over the full ones
//! without a look at their bits.
//!
//! One filter a node, whatever the number of its shards: it is keyed as the folder is, and a change
//! of that number leaves it as it is. Shards put ids in under a lock that none of them ever waits
//! for; whoever asks takes none. A generation may be begun anew in the memory of a dropped one
//! while somebody reads it; then `dropped` says so, and is read after the bits (see `holds`).
//!
//! Files: `kept`.

mod generation;
mod kept;

use super::work::Absence;
use crate::metrics::IdFilterMetrics;
use crate::model::{ApprovalId, PartitionKey, Refusal};
use generation::{CHUNK_LINES, Generation, LINE_BYTES};
use kept::Kept;
pub(super) use kept::NAMED_BY;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

/// What the filter says of an id that memory does not hold.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Known {
    /// It was never used in this folder.
    New,
    /// It may have been: the archive knows.
    Maybe,
}

/// Chunks cleared before a shard goes on with other work: 50 us each.
const CHUNKS_AT_ONCE: usize = 8;
/// Generations that the memory is divided into.
const GENERATIONS: u64 = 8;

pub struct IdFilter {
    key: PartitionKey,
    bytes_max: u64,
    generations: Box<[Generation]>,
    /// 0: nothing was ever dropped; otherwise the `latest` of all that was, plus one.
    dropped: AtomicU64,
    /// Which generation takes ids, by its place; `None` before the first id.
    writer: Mutex<Option<usize>>,
    /// What is on disk.
    kept: Mutex<Kept>,
    metrics: Arc<IdFilterMetrics>,
}

/// The time of a UUIDv7 (RFC 9562), in milliseconds; `None` for any other id.
fn time_of(id: &ApprovalId) -> Option<u64> {
    let is_v7 = id.0[6] >> 4 == 7 && id.0[8] >> 6 == 2;
    is_v7.then(|| id.0[..6].iter().fold(0, |time, byte| time << 8 | u64::from(*byte)))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lines of a generation when the filter may use so many bytes: whole chunks, or a few lines of one.
fn lines_for(bytes_max: u64) -> u64 {
    let lines = (bytes_max / GENERATIONS / LINE_BYTES).max(1);
    if lines > CHUNK_LINES { lines / CHUNK_LINES * CHUNK_LINES } else { lines }
}

impl IdFilter {
    /// An empty one that takes at most this much memory, allocated as ids come.
    pub fn new(key: PartitionKey, bytes_max: u64, metrics: Arc<IdFilterMetrics>) -> IdFilter {
        let generations = (0..GENERATIONS).map(|_| Generation::unused(lines_for(bytes_max))).collect();
        IdFilter {
            key,
            bytes_max,
            generations,
            dropped: AtomicU64::new(0),
            writer: Mutex::new(None),
            kept: Mutex::default(),
            metrics,
        }
    }

    /// Whether an id that is not in memory is new. Lock-free.
    pub fn known(&self, id: &ApprovalId) -> Known {
        let time = time_of(id);
        if self.holds(self.key.hash(id), time) {
            return Known::Maybe;
        }
        // Whoever saw a bit of a dropped generation cleared sees here that it was dropped: the store
        // of `dropped` lies before a release fence, and that before the clearing (`begin`).
        fence(Ordering::Acquire);
        match self.dropped.load(Ordering::Relaxed) {
            0 => Known::New,
            dropped => match time {
                Some(time) if time + 1 >= dropped => Known::New,
                _ => Known::Maybe,
            },
        }
    }

    /// Whether the bits allow it.
    fn holds(&self, hash: u64, time: Option<u64>) -> bool {
        self.generations.iter().any(|generation| generation.holds(hash, time))
    }

    /// Whether an approval of this id, which is not in memory, may be opened: it is new, or a fresh
    /// look-up did not find it.
    pub fn admits(&self, id: &ApprovalId, absence: Option<Absence>) -> Result<(), Refusal> {
        match self.known(id) {
            Known::New => Ok(()),
            Known::Maybe if absence.is_some_and(|absence| absence.is_fresh()) => Ok(()),
            Known::Maybe => Err(Refusal::LookUpFirst),
        }
    }

    /// What a vote is told whose approval is not in memory.
    pub fn absent(&self, id: &ApprovalId) -> Refusal {
        match self.known(id) {
            Known::New => Refusal::NotFound,
            Known::Maybe => Refusal::ApprovalClosed,
        }
    }

    /// Puts ids in, with the folder's hash of each, in order; answers how many. None while another
    /// shard is at it; not all when that would take too long at once.
    pub fn put(&self, ids: &[(ApprovalId, u64)]) -> usize {
        let mut writer = match self.writer.try_lock() {
            Ok(writer) => writer,
            Err(TryLockError::Poisoned(writer)) => writer.into_inner(),
            Err(TryLockError::WouldBlock) => return 0,
        };
        let (mut count, mut chunks) = (0, 0);
        for (id, hash) in ids {
            if chunks == CHUNKS_AT_ONCE {
                break;
            }
            count += 1;
            let time = time_of(id);
            // What came back with a restart may be in an older one. A false positive there is as
            // good: it is denied neither now nor once that generation is dropped.
            if self.holds(*hash, time) {
                continue;
            }
            let at = match *writer {
                Some(at) if !self.generations[at].is_full() => at,
                _ => self.begin(&mut writer),
            };
            chunks += usize::from(self.generations[at].put(*hash, time));
        }
        self.show();
        count
    }

    /// Begins the next generation, in unused memory or in that of the oldest one, which is dropped.
    fn begin(&self, writer: &mut Option<usize>) -> usize {
        let number_of = |at: &usize| self.generations[*at].number.load(Ordering::Relaxed);
        let places = 0..self.generations.len();
        let number = places.clone().map(|at| number_of(&at)).max().unwrap_or(0) + 1;
        // What was kept from before the setting changed is of another size, and not begun again.
        let lines = lines_for(self.bytes_max);
        let oldest = places.filter(|at| self.generations[*at].lines() == lines).min_by_key(number_of);
        let at = oldest.expect("there are places of today's size");
        let generation = &self.generations[at];
        if number_of(&at) != 0 {
            self.dropped.fetch_max(generation.latest.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            self.metrics.dropped.increment();
            fence(Ordering::Release);
        }
        generation.latest.store(0, Ordering::Relaxed);
        generation.ids.store(0, Ordering::Relaxed);
        generation.number.store(number, Ordering::Release);
        *writer = Some(at);
        at
    }

    fn show(&self) {
        let in_use = self.generations.iter().filter(|generation| generation.number.load(Ordering::Relaxed) != 0);
        self.metrics.ids.set(in_use.map(|generation| generation.ids.load(Ordering::Relaxed)).sum());
        self.metrics.bytes.set(self.generations.iter().map(Generation::bytes).sum());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Error, Options, PosixStorage};
    use std::time::{Duration, Instant};

    const KEY: [u8; 16] = [7; 16];

    fn filter(bytes_max: u64) -> IdFilter {
        IdFilter::new(PartitionKey::new(KEY), bytes_max, Arc::default())
    }

    /// A version 4 UUID of this number.
    fn v4(number: u64) -> ApprovalId {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes());
        id[8..].copy_from_slice(&number.to_be_bytes());
        id[6] = id[6] & 0x0F | 0x40;
        id[8] = id[8] & 0x3F | 0x80;
        ApprovalId(id)
    }

    /// A version 7 UUID of this time in milliseconds.
    fn v7(time: u64, number: u32) -> ApprovalId {
        let mut id = v4(number.into()).0;
        id[..6].copy_from_slice(&time.to_be_bytes()[2..]);
        id[6] = id[6] & 0x0F | 0x70;
        ApprovalId(id)
    }

    fn put(filter: &IdFilter, ids: impl IntoIterator<Item = ApprovalId>) {
        let key = PartitionKey::new(KEY);
        let ids: Vec<_> = ids.into_iter().map(|id| (id, key.hash(&id))).collect();
        let mut from = 0;
        while from < ids.len() {
            let count = filter.put(&ids[from..]);
            assert!(count > 0, "nobody else is at it");
            from += count;
        }
    }

    fn known(filter: &IdFilter, ids: impl IntoIterator<Item = ApprovalId>) -> u64 {
        ids.into_iter().map(|id| u64::from(filter.known(&id) == Known::Maybe)).sum()
    }

    #[test]
    fn denies_nothing_it_holds_and_is_rarely_wrong() {
        let filter = filter(GENERATIONS << 20);
        let full = filter.generations[0].ids_max();
        put(&filter, (0..full).map(v4));
        assert_eq!(known(&filter, (0..full).map(v4)), full, "none is denied");
        let wrong = known(&filter, (full..full + 1_000_000).map(v4));
        println!("a full generation: {:.3} % false positives at {full} ids in 1 MiB", wrong as f64 / 10_000.0);
        assert!(wrong <= 10_000, "{wrong} of 1,000,000");
        // UUIDv7 drawn later than what is in it are never mistaken.
        assert_eq!(known(&filter, (0..100_000).map(|number| v7(1_000_000, number))), 0);
        let all = full * GENERATIONS - full / 4;
        put(&filter, (full..all).map(v4));
        assert_eq!(known(&filter, (0..all).map(v4)), all, "none is denied");
        let wrong = known(&filter, (all..all + 1_000_000).map(v4));
        println!("all eight: {:.3} % at {all} ids", wrong as f64 / 10_000.0);
        assert_eq!(filter.metrics.dropped.get(), 0);
        assert_eq!(filter.metrics.bytes.get(), GENERATIONS << 20);
        assert!(filter.metrics.ids.get() <= all && filter.metrics.ids.get() > all * 95 / 100);
    }

    #[test]
    fn what_is_dropped_is_looked_up_but_for_later_uuid7() {
        // Generations of one line: 42 ids.
        let filter = filter(GENERATIONS * LINE_BYTES);
        put(&filter, (0..30).map(|number| v7(1_000 + u64::from(number), number)));
        assert_eq!((filter.known(&v4(1_000_000)), filter.known(&v7(2_000, 7))), (Known::New, Known::New));
        let mut number = 0;
        while filter.metrics.dropped.get() == 0 {
            put(&filter, [v4(number)]);
            number += 1;
        }
        for time in 0..30 {
            assert_eq!(filter.known(&v7(1_000 + time, time as u32)), Known::Maybe, "it was in the dropped one");
        }
        assert_eq!(known(&filter, (0..number).map(v4)), number);
        assert_eq!(filter.known(&v4(1_000_000)), Known::Maybe, "any other id is looked up");
        assert_eq!(filter.known(&v7(1_029, 99)), Known::Maybe, "not later than the latest dropped");
        assert_eq!(filter.known(&v7(1_030, 99)), Known::New);
        let (id, old) = (v4(1_000_000), Instant::now().checked_sub(Absence::HOLDS).expect("it runs for a while"));
        assert_eq!(filter.admits(&id, None), Err(Refusal::LookUpFirst));
        assert_eq!(filter.admits(&id, Some(Absence::at(old))), Err(Refusal::LookUpFirst), "the proof has expired");
        assert_eq!(filter.admits(&id, Some(Absence::now())), Ok(()));
        assert_eq!((filter.absent(&id), filter.absent(&v7(1_030, 9))), (Refusal::ApprovalClosed, Refusal::NotFound));
    }

    #[test]
    fn a_reader_beside_the_writer_never_misses_an_id() {
        let filter = Arc::new(filter(GENERATIONS * LINE_BYTES * 4));
        let reached = Arc::new(AtomicU64::new(0));
        let reader = std::thread::spawn({
            let (filter, reached) = (filter.clone(), reached.clone());
            move || {
                let mut looked = 0u64;
                loop {
                    let through = reached.load(Ordering::Acquire);
                    if through == u64::MAX {
                        return looked;
                    }
                    // Old ones and new ones, while generations come and go.
                    for number in [through / 2, through.saturating_sub(1), through.saturating_sub(looked % 2_000)] {
                        assert!(
                            number >= through || filter.known(&v4(number)) == Known::Maybe,
                            "{number} of {through}"
                        );
                    }
                    looked += 1;
                }
            }
        });
        for number in 0..400_000 {
            put(&filter, [v4(number)]);
            reached.store(number + 1, Ordering::Release);
        }
        reached.store(u64::MAX, Ordering::Release);
        assert!(reader.join().expect("nothing was missed") > 0);
        assert!(filter.metrics.dropped.get() > 1_000);
    }

    fn folder(dir: &std::path::Path) -> crate::journal::Folder<PosixStorage> {
        let options = Options {
            segment_bytes: 1 << 20,
            pool_segments: 1,
            frame_bytes_max: 64 << 10,
            folder_bytes_max: None,
            reserve_bytes: 0,
            background: false,
        };
        crate::journal::Folder::open(PosixStorage, dir, options).expect("a folder")
    }

    fn open(folder: &crate::journal::Folder<PosixStorage>, bytes_max: u64) -> Result<IdFilter, Error> {
        IdFilter::open(folder, PartitionKey::new(KEY), bytes_max, Arc::default())
    }

    #[test]
    fn is_kept_as_it_is_and_full_generations_are_written_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let folder = folder(dir.path());
        let bytes = GENERATIONS << 18;
        let filter = open(&folder, bytes).expect("none yet");
        assert_eq!(filter.keep(&folder).expect("nothing to keep"), 0);
        assert!(!dir.path().join("id-filter").exists(), "nothing was ever forgotten, and no file says so");
        let full = filter.generations[0].ids_max();
        let mut through = 0;
        for (round, ids) in [full / 2, full / 2 + 9_000, 10, full * 10].into_iter().enumerate() {
            put(&filter, (through..through + ids).map(v4));
            through += ids;
            let number = filter.keep(&folder).expect("kept");
            assert_eq!(number, round as u64 + 1);
            assert_eq!(filter.keep(&folder).expect("kept"), number, "nothing came since");
            let again = open(&folder, bytes).expect("as it was");
            assert_eq!(again.kept_number(), number);
            assert_eq!(known(&again, (0..through).map(v4)), through, "none is denied");
            let later = || (through..through + 50_000).map(v4);
            assert_eq!(known(&again, later()), known(&filter, later()), "the same bits");
            assert!(again.check_named(&IdFilter::name_for_snapshot(number)).is_ok());
            assert!(again.check_named(&IdFilter::name_for_snapshot(number + 1)).is_err());
        }
        let there = |name: &str| {
            let entries = std::fs::read_dir(dir.path().join("id-filter")).expect("there").flatten();
            entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(name)).count()
        };
        assert_eq!((there("filter-"), there("generation-")), (1, GENERATIONS as usize));
        // Another setting: what is kept counts, the oldest goes where it is too much, and it goes on.
        for bytes_max in [bytes / 4, bytes * 2] {
            let other = open(&folder, bytes_max).expect("it takes any size");
            put(&other, (through..through + 30_000).map(v4));
            assert_eq!(known(&other, (0..through + 30_000).map(v4)), through + 30_000);
        }
    }

    #[test]
    fn damage_is_refused_and_a_generation_may_be_taken_away() {
        let dir = tempfile::tempdir().expect("a directory");
        let folder = folder(dir.path());
        let filter = open(&folder, 64 << 10).expect("none yet");
        put(&filter, (0..100).map(|number| v7(5_000, number)));
        filter.keep(&folder).expect("kept");
        let (generation, names) =
            (dir.path().join("id-filter/generation-0000000000"), dir.path().join("id-filter/filter-0000000001"));
        for (path, advice) in [(&generation, "take it away"), (&names, "restore id-filter")] {
            let sound = std::fs::read(path).expect("there");
            for at in [3, 20, 40, sound.len() / 2, sound.len() - 1] {
                let mut damaged = sound.clone();
                damaged[at] ^= 4;
                std::fs::write(path, &damaged).expect("written");
                let error = open(&folder, 64 << 10).err().expect("damage is refused").to_string();
                assert!(error.contains(advice) && error.contains("id-filter/"), "{error}");
            }
            std::fs::write(path, &sound).expect("written");
        }
        std::fs::remove_file(&generation).expect("taken away");
        let again = open(&folder, 64 << 10).expect("its ids are looked up");
        assert_eq!((again.known(&v7(5_000, 3)), again.known(&v4(1))), (Known::Maybe, Known::Maybe));
        assert_eq!(again.known(&v7(5_001, 3)), Known::New);
        again.keep(&folder).expect("kept");
        assert_eq!(open(&folder, 64 << 10).expect("sound").known(&v7(5_000, 3)), Known::Maybe, "for ever");
    }

    #[test]
    fn nothing_stops_a_shard_for_long() {
        let filter = filter(512 << 20);
        let key = PartitionKey::new(KEY);
        let ids: Vec<_> = (0..64).map(|number| (v4(number), key.hash(&v4(number)))).collect();
        let began = Instant::now();
        assert_eq!(filter.put(&ids), CHUNKS_AT_ONCE, "chunks come a few at a time");
        assert!(began.elapsed() < Duration::from_secs(1));
        assert_eq!(filter.metrics.bytes.get(), CHUNKS_AT_ONCE as u64 * CHUNK_LINES * LINE_BYTES, "as needed");
    }
}
