//! What can go wrong with the bytes, each said with what its reader should do.

use std::io;
use std::path::{Path, PathBuf};

/// An error of the journal. None of them is an answer to a client: at start they say what to do, while running
/// they end the node.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A call to the disk failed.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was being done, in the infinitive.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
    /// Another node works on this folder.
    #[error(
        "the data folder {} is in use by process {pid}: one node works on a folder; stop that process, or give this \
         node a folder of its own with --data", dir.display()
    )]
    Locked {
        /// The folder.
        dir: PathBuf,
        /// The process that has it, as it wrote itself; "unknown" if it did not.
        pid: String,
    },
    /// Written by a version of assent that this one does not know.
    #[error(
        "{} has format version {found}, this assent reads version {supported}: start the version of assent that wrote \
         it, or a newer one", file.display()
    )]
    WrongVersion {
        /// The file.
        file: PathBuf,
        /// The version it names.
        found: u16,
        /// The version this code reads.
        supported: u16,
    },
    /// Bytes that were durable are not what was written. Nothing is repaired by guessing.
    #[error("{} is damaged at byte {offset}: {what}. {advice}", file.display())]
    Damaged {
        /// The file (or the directory, where a file is missing).
        file: PathBuf,
        /// Where in it, in bytes.
        offset: u64,
        /// What was found there.
        what: String,
        /// What to do.
        advice: String,
    },
    /// The bytes are as they were written, but their owner cannot make sense of them.
    #[error("{} at byte {offset} holds what this assent cannot decode: {reason}", file.display())]
    Undecodable {
        /// The file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What the decoder said.
        reason: String,
    },
    /// A reader asked for events that are no longer in the journal.
    #[error("the journal of log {log} begins at sequence {oldest}: older events are no longer held here")]
    NoLongerHeld {
        /// Ordinal of the log.
        log: u16,
        /// The oldest sequence held.
        oldest: u64,
    },
    /// A frame could not be made durable. The node must end; the write is never tried again.
    #[error(
        "a frame of {bytes} bytes could not be made durable in {} at byte {offset}: {source}. The node ends, and \
         nothing it acknowledged is lost: make room or repair the disk, then start it again", file.display()
    )]
    FrameFailed {
        /// The segment.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// Bytes of the frame.
        bytes: u64,
        /// What the disk said.
        source: io::Error,
    },
    /// Settings that cannot work.
    #[error("the journal's settings cannot work: {0}")]
    Options(String),
}

pub(super) const ADVICE_RESTORE: &str = "Nothing was changed. `assent journal verify` on the folder lists all damage; \
     restore the folder from a copy (or start an empty one, if what is in it may be lost)";

impl Error {
    pub(super) fn damaged(file: &Path, offset: u64, what: impl Into<String>) -> Error {
        Error::Damaged { file: file.to_path_buf(), offset, what: what.into(), advice: ADVICE_RESTORE.into() }
    }
}

/// Puts what was being done, and to which file, beside what the disk said.
pub(super) trait Doing<T> {
    fn doing(self, doing: &'static str, path: &Path) -> Result<T, Error>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, doing: &'static str, path: &Path) -> Result<T, Error> {
        self.map_err(|source| Error::Io { doing, path: path.to_path_buf(), source })
    }
}
