//! The settings of the room and how they limit each other.

use super::buffer::BLOCK_BYTES;
use super::error::Error;

/// Settings of a folder's journal.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes of a full segment. The first ones after a start are smaller, so that a start takes no time.
    pub segment_bytes: u64,
    /// Segments prepared ahead for all logs together, once they are in use.
    pub pool_segments: usize,
    /// Bytes of the largest frame: what one commit can hold. Each log has three buffers of it.
    pub frame_bytes_max: usize,
    /// Limit of the folder in bytes; None leaves it to the disk.
    pub folder_bytes_max: Option<u64>,
    /// Bytes held back in a file of their own, given free when the disk or the limit is reached, so that expiry,
    /// shutdown and the snapshot that makes room still fit: at least a first segment (16 MiB, or `segment_bytes`) a
    /// log.
    pub reserve_bytes: u64,
    /// Whether a thread of the folder prepares segments. Without it, `Folder::prepare` does a round of it: for
    /// tests that count calls.
    pub background: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            segment_bytes: 256 << 20,
            pool_segments: 2,
            frame_bytes_max: 4 << 20,
            folder_bytes_max: None,
            reserve_bytes: 64 << 20,
            background: true,
        }
    }
}

/// Bytes of the first segment after a start; each next one is four times as large, up to the full size.
const FIRST_SEGMENT_BYTES: u64 = 16 << 20;
/// Larger frames would make a commit longer than anybody waits for.
const FRAME_BYTES_LIMIT: usize = 64 << 20;

impl Options {
    pub(super) fn check(&self) -> Result<(), Error> {
        let wrong = |what: String| Err(Error::Options(what));
        if self.frame_bytes_max < 2 * BLOCK_BYTES || self.frame_bytes_max > FRAME_BYTES_LIMIT {
            return wrong(format!("a frame of {} bytes: 8 KiB to 64 MiB work", self.frame_bytes_max));
        }
        if !self.frame_bytes_max.is_multiple_of(BLOCK_BYTES) || !self.segment_bytes.is_multiple_of(BLOCK_BYTES as u64) {
            return wrong("frames and segments are whole blocks of 4 KiB".into());
        }
        if self.segment_bytes < self.segment_bytes_min() {
            return wrong(format!(
                "a segment of {} bytes: at least {} are needed for frames of up to {}",
                self.segment_bytes,
                self.segment_bytes_min(),
                self.frame_bytes_max
            ));
        }
        Ok(())
    }

    /// The smallest segment that is any use: its first frame and two of the largest.
    pub(super) fn segment_bytes_min(&self) -> u64 {
        2 * self.frame_bytes_max as u64 + BLOCK_BYTES as u64
    }

    /// Bytes of the segment that a log gets after it filled `rolls` since it was started.
    pub(super) fn segment_bytes_after(&self, rolls: u32) -> u64 {
        let grown = FIRST_SEGMENT_BYTES << (2 * rolls.min(8));
        grown.max(self.segment_bytes_min()).min(self.segment_bytes)
    }
}
