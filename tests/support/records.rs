//! A tiny owner of a journal: records that refer to definitions, and a state that slices can hold. It checks what
//! the journal promises its owners while it reads.

use assent::journal::{BatchView, Log, Replay, SliceView, Storage};
use std::collections::BTreeSet;

/// Events of a log, by sequence (the first is 1). Two keys: odd and even sequences, each with its own slice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Events {
    /// All events in order.
    pub all: Vec<Vec<u8>>,
    /// What the snapshot's slices held, by key: the sequence and the events.
    slices: [Option<(u64, Vec<Vec<u8>>)>; 2],
    /// Batches seen, for tests that count.
    pub batches: u64,
    defined: BTreeSet<u8>,
    segment: u64,
    began: bool,
}

/// Appends events with the definitions they need, as a shard does.
#[derive(Debug, Default)]
pub struct Appender {
    defined: BTreeSet<u8>,
    segment: u64,
}

const NOTE: u8 = 0xff;

impl Appender {
    /// Appends one event in the open batch; the word it refers to is defined before its first use in the segment.
    pub fn append<S: Storage>(&mut self, log: &mut Log<S>, event: &[u8]) -> u64 {
        let word = event.first().copied().unwrap_or(0) % 7;
        if log.segment() != self.segment {
            self.segment = log.segment();
            self.defined.clear();
        }
        if self.defined.insert(word) {
            log.append_note(&[NOTE, word]);
        }
        let len = event.len() + 3;
        let into = log.event_buffer(len);
        into[0] = word;
        into[1..3].copy_from_slice(&(event.len() as u16).to_le_bytes());
        into[3..].copy_from_slice(event);
        log.commit_event(len)
    }
}

/// The bytes of one event's worth of records, at most.
pub fn record_bytes(event: &[u8]) -> usize {
    event.len() + 5
}

/// The state of one key at a sequence, as a slice holds it.
pub fn slice_of(events: &[Vec<u8>], key: u32, sequence: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (index, event) in events.iter().enumerate().take(sequence as usize) {
        if (index as u64 + 1) % 2 == u64::from(key) {
            bytes.extend((event.len() as u16).to_le_bytes());
            bytes.extend(event);
        }
    }
    bytes
}

/// Decodes the records of a batch: events only, notes go to `note`.
pub fn decode(mut payload: &[u8], mut note: impl FnMut(u8), mut event: impl FnMut(u8, &[u8])) -> Result<(), String> {
    while let Some((&word, rest)) = payload.split_first() {
        if word == NOTE {
            note(*rest.first().ok_or("a note without a word")?);
            payload = &rest[1..];
        } else {
            let len = u16::from_le_bytes(rest.get(..2).ok_or("no length")?.try_into().unwrap()) as usize;
            event(word, rest.get(2..2 + len).ok_or("an event that ends too early")?);
            payload = &rest[2 + len..];
        }
    }
    Ok(())
}

impl Events {
    /// Every event in order, once all was replayed: slices and batches put together.
    fn put(&mut self, sequence: u64, event: &[u8]) -> Result<(), String> {
        let index = sequence as usize - 1;
        if self.all.len() <= index {
            self.all.resize(index + 1, Vec::new());
        }
        if !self.all[index].is_empty() && self.all[index] != event {
            return Err(format!("sequence {sequence} was {:?} and is {event:?}", self.all[index]));
        }
        self.all[index] = event.to_vec();
        Ok(())
    }
}

impl Replay for Events {
    fn slice(&mut self, slice: SliceView<'_>) -> Result<(), String> {
        assert!(!self.began, "slices come before batches");
        let mut bytes = slice.bytes;
        let mut events = Vec::new();
        while !bytes.is_empty() {
            let len = u16::from_le_bytes(bytes[..2].try_into().unwrap()) as usize;
            events.push(bytes[2..2 + len].to_vec());
            bytes = &bytes[2 + len..];
        }
        for (index, event) in events.iter().enumerate() {
            let sequence = index as u64 * 2 + if slice.key == 1 { 1 } else { 2 };
            assert!(sequence <= slice.sequence);
            self.put(sequence, event)?;
        }
        self.slices[slice.key as usize] = Some((slice.sequence, events));
        Ok(())
    }

    fn batch(&mut self, batch: BatchView<'_>) -> Result<(), String> {
        if batch.segment != self.segment {
            assert!(batch.segment_start, "the first batch of a segment says so");
            assert!(batch.segment > self.segment, "segments come in order");
            self.segment = batch.segment;
            self.defined.clear();
        } else {
            assert!(!batch.segment_start, "only the first batch of a segment says that it is");
        }
        self.began = true;
        self.batches += 1;
        let mut events = Vec::new();
        let mut notes = Vec::new();
        let defined = &mut self.defined;
        let mut undefined = None;
        let defined_cell = std::cell::RefCell::new(defined);
        decode(
            batch.payload,
            |word| {
                notes.push(word);
                defined_cell.borrow_mut().insert(word);
            },
            |word, event| {
                if !defined_cell.borrow().contains(&word) {
                    undefined = Some(word);
                }
                events.push(event.to_vec());
            },
        )?;
        if let Some(word) = undefined {
            return Err(format!("word {word} is used before it is defined in segment {}", batch.segment));
        }
        if events.len() as u32 != batch.events {
            return Err(format!("{} events where the batch says {}", events.len(), batch.events));
        }
        for (index, event) in events.iter().enumerate() {
            let sequence = batch.first_sequence + index as u64;
            let held = self.slices[(sequence % 2) as usize].as_ref().is_some_and(|(at, _)| *at >= sequence);
            if !held {
                self.put(sequence, event)?;
            }
        }
        Ok(())
    }
}
