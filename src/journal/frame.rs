//! The frame: what one commit writes. Its layout as code; the drawing is in the door of the room.

use super::buffer::block_up;

/// First bytes of every frame behind its checksum.
pub const FRAME_MAGIC: [u8; 4] = *b"asfr";
/// The version of the frame, batch, snapshot and meta layouts that this code writes and reads.
pub const FORMAT_VERSION: u16 = 1;
/// Bytes of a frame's header.
pub const FRAME_HEADER_BYTES: usize = 96;
/// Bytes of a batch's header.
pub const BATCH_HEADER_BYTES: usize = 24;

/// This frame is a cut: the first thing a node writes after a start. Nothing behind the good frame that it names
/// counts, whatever lies there.
pub(super) const FLAG_CUT: u16 = 1;
/// No batch stands before this frame in its segment: its first batch starts the segment's definitions.
pub(super) const FLAG_SEGMENT_START: u16 = 2;

/// A frame's header, decoded. Field by field as drawn in the door of the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Frame {
    /// crc32c of everything behind it, header and batches; the next frame repeats it.
    pub checksum: u32,
    /// Layout version.
    pub version: u16,
    /// `FLAG_CUT`, `FLAG_SEGMENT_START`.
    pub flags: u16,
    /// Header and batches in bytes, without the padding to the block.
    pub length: u32,
    /// The log this frame belongs to.
    pub log_id: u64,
    /// The life of the segment file this frame was written in.
    pub incarnation: u64,
    /// Ordinal of the segment in its log, from 1.
    pub segment: u64,
    /// Number of this frame in its log, from 1. A frame lost to a torn tail gives its number to the cut.
    pub number: u64,
    /// Sequence of the first event in it; of the next one to come if there is none.
    pub first_sequence: u64,
    /// Events in it.
    pub events: u32,
    /// Batches in it.
    pub batches: u32,
    /// Checksum of the frame before, across segments; 0 before the first.
    pub previous_checksum: u32,
    /// Number of the last frame that was known to be durable when this one was written.
    pub durable_to: u64,
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

impl Frame {
    /// Sequence of the last event in it; if there is none, of the last before it.
    pub fn last_sequence(&self) -> u64 {
        self.first_sequence + u64::from(self.events) - 1
    }

    /// Bytes it takes on disk: whole blocks.
    pub fn bytes_on_disk(&self) -> u64 {
        block_up(u64::from(self.length))
    }

    /// Whether it is a cut.
    pub fn is_cut(&self) -> bool {
        self.flags & FLAG_CUT != 0
    }

    /// Whether no batch stands before it in its segment.
    pub fn is_segment_start(&self) -> bool {
        self.flags & FLAG_SEGMENT_START != 0
    }

    /// Reads the header at the start of `bytes`. None if the magic is not there: not a frame at all.
    /// Says nothing of the checksum.
    pub fn read(bytes: &[u8]) -> Option<Frame> {
        if bytes.len() < FRAME_HEADER_BYTES || bytes[4..8] != FRAME_MAGIC {
            return None;
        }
        Some(Frame {
            checksum: u32_at(bytes, 0),
            version: u16_at(bytes, 8),
            flags: u16_at(bytes, 10),
            length: u32_at(bytes, 12),
            log_id: u64_at(bytes, 16),
            incarnation: u64_at(bytes, 24),
            segment: u64_at(bytes, 32),
            number: u64_at(bytes, 40),
            first_sequence: u64_at(bytes, 48),
            events: u32_at(bytes, 56),
            batches: u32_at(bytes, 60),
            previous_checksum: u32_at(bytes, 64),
            durable_to: u64_at(bytes, 72),
        })
    }

    /// Writes this header over the start of `frame` (exactly its `length` bytes) and puts the checksum over it all.
    pub(super) fn seal(&mut self, frame: &mut [u8]) {
        assert_eq!(frame.len(), self.length as usize, "a frame is sealed over all its bytes");
        frame[4..8].copy_from_slice(&FRAME_MAGIC);
        frame[8..10].copy_from_slice(&self.version.to_le_bytes());
        frame[10..12].copy_from_slice(&self.flags.to_le_bytes());
        frame[12..16].copy_from_slice(&self.length.to_le_bytes());
        frame[16..24].copy_from_slice(&self.log_id.to_le_bytes());
        frame[24..32].copy_from_slice(&self.incarnation.to_le_bytes());
        frame[32..40].copy_from_slice(&self.segment.to_le_bytes());
        frame[40..48].copy_from_slice(&self.number.to_le_bytes());
        frame[48..56].copy_from_slice(&self.first_sequence.to_le_bytes());
        frame[56..60].copy_from_slice(&self.events.to_le_bytes());
        frame[60..64].copy_from_slice(&self.batches.to_le_bytes());
        frame[64..68].copy_from_slice(&self.previous_checksum.to_le_bytes());
        frame[68..72].fill(0);
        frame[72..80].copy_from_slice(&self.durable_to.to_le_bytes());
        frame[80..FRAME_HEADER_BYTES].fill(0);
        self.checksum = crc32c::crc32c(&frame[4..]);
        frame[..4].copy_from_slice(&self.checksum.to_le_bytes());
    }

    /// Whether `bytes`, which start with this header, hold the whole frame as it was sealed.
    pub(super) fn is_whole(&self, bytes: &[u8]) -> bool {
        let length = self.length as usize;
        length >= FRAME_HEADER_BYTES && length <= bytes.len() && crc32c::crc32c(&bytes[4..length]) == self.checksum
    }
}

/// A batch's header: what follows it is the trace, then the records.
pub(super) fn write_batch_header(into: &mut [u8], now_micros: u64, record_bytes: u32, events: u32, trace_bytes: u16) {
    into[0..8].copy_from_slice(&now_micros.to_le_bytes());
    into[8..12].copy_from_slice(&record_bytes.to_le_bytes());
    into[12..16].copy_from_slice(&events.to_le_bytes());
    into[16..18].copy_from_slice(&trace_bytes.to_le_bytes());
    into[18..BATCH_HEADER_BYTES].fill(0);
}

/// One batch as it was appended: borrowed from a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchView<'a> {
    /// Sequence of its first event.
    pub first_sequence: u64,
    /// Events in it (notes have no sequence and are not counted).
    pub events: u32,
    /// The clock it was decided by, in microseconds of UTC.
    pub now_micros: u64,
    /// Trace context; may be empty.
    pub trace: &'a [u8],
    /// The records, events and notes in the order they were appended, delimited by their owner's codec.
    pub payload: &'a [u8],
    /// Ordinal of the segment it lies in: references are defined in the same segment, before their first use.
    pub segment: u64,
    /// Whether it is the first batch of its segment: definitions start anew here.
    pub segment_start: bool,
}

impl BatchView<'_> {
    /// Sequence of its last event; if it has none, of the last before it.
    pub fn last_sequence(&self) -> u64 {
        self.first_sequence + u64::from(self.events) - 1
    }
}

/// One good frame, borrowed from the buffer it was read into.
#[derive(Debug, Clone, Copy)]
pub struct FrameView<'a> {
    /// Its header.
    pub frame: Frame,
    /// Where it lies in its segment, in bytes.
    pub offset: u64,
    /// All its bytes, header first, without padding.
    pub bytes: &'a [u8],
}

impl<'a> FrameView<'a> {
    /// Its batches in order.
    pub fn batches(&self) -> Batches<'a> {
        Batches::new(&self.frame, self.bytes)
    }
}

/// The batches of a whole frame (header first, as `Log::committed_frame` gives it and readers hand it out).
/// Panics on bytes that are not a sound frame: whoever holds one has checked it, or made it.
pub fn frame_batches(bytes: &[u8]) -> Batches<'_> {
    let frame = Frame::read(bytes).expect("a frame starts with its header");
    Batches::new(&frame, bytes)
}

/// Iterator over the batches of a frame.
#[derive(Debug, Clone)]
pub struct Batches<'a> {
    rest: &'a [u8],
    batches: u32,
    sequence: u64,
    segment: u64,
    segment_start: bool,
}

impl<'a> Batches<'a> {
    fn new(frame: &Frame, bytes: &'a [u8]) -> Batches<'a> {
        Batches {
            rest: &bytes[FRAME_HEADER_BYTES..frame.length as usize],
            batches: frame.batches,
            sequence: frame.first_sequence,
            segment: frame.segment,
            segment_start: frame.is_segment_start(),
        }
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = BatchView<'a>;

    fn next(&mut self) -> Option<BatchView<'a>> {
        if self.batches == 0 {
            return None;
        }
        self.batches -= 1;
        let (header, rest) = self.rest.split_at(BATCH_HEADER_BYTES);
        let record_bytes = u32_at(header, 8) as usize;
        let events = u32_at(header, 12);
        let (trace, rest) = rest.split_at(u16_at(header, 16) as usize);
        let (payload, rest) = rest.split_at(record_bytes);
        self.rest = rest;
        let first_sequence = self.sequence;
        self.sequence += u64::from(events);
        let segment_start = std::mem::take(&mut self.segment_start);
        let now_micros = u64_at(header, 0);
        Some(BatchView { first_sequence, events, now_micros, trace, payload, segment: self.segment, segment_start })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_frame_reads_back_and_any_flipped_bit_shows() {
        let mut bytes = vec![0; FRAME_HEADER_BYTES + BATCH_HEADER_BYTES + 2 + 5];
        write_batch_header(&mut bytes[FRAME_HEADER_BYTES..], 77, 5, 3, 2);
        bytes[FRAME_HEADER_BYTES + BATCH_HEADER_BYTES..].copy_from_slice(b"trabcde");
        let mut frame = Frame {
            version: FORMAT_VERSION,
            flags: FLAG_SEGMENT_START,
            length: bytes.len() as u32,
            log_id: 1,
            incarnation: 2,
            segment: 3,
            number: 4,
            first_sequence: 5,
            events: 3,
            batches: 1,
            previous_checksum: 6,
            durable_to: 3,
            ..Frame::default()
        };
        frame.seal(&mut bytes);
        let read = Frame::read(&bytes).expect("magic");
        assert_eq!(read, frame);
        assert!(read.is_whole(&bytes));
        assert_eq!(read.last_sequence(), 7);
        let batch = frame_batches(&bytes).next().expect("one batch");
        assert_eq!((batch.first_sequence, batch.events, batch.now_micros, batch.segment), (5, 3, 77, 3));
        assert_eq!((batch.trace, batch.payload, batch.segment_start), (&b"tr"[..], &b"abcde"[..], true));
        assert_eq!(frame_batches(&bytes).count(), 1);
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!Frame::read(&bytes).is_some_and(|frame| frame.is_whole(&bytes)), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
