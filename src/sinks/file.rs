//! Events as lines of JSON in a folder of files: what proves that a destination is one file, and a plain way out.
//!
//!     DIR/events-0000000001.ndjson    a line an event (ApprovalEvent as proto-JSON), in each log's order
//!     DIR/cursor                      deployment, the file in use, a place in it, the positions at that place
//!
//! A line carries its own position, so the cursor may lag: it is replaced when a file is full, after so many
//! bytes, and at the end. What stands behind its place is read back line by line; a torn last line is cut off.
//! A batch is acknowledged once it is synced.

mod cursor;

use super::{Batch, BatchLimits, Error, Sink, event_message};
use crate::model::Position;
use crate::wire::EventJson;
use cursor::Cursor;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The cursor is replaced after so many bytes: what a start reads back at most, and a batch.
const CURSOR_EVERY_BYTES: u64 = 16 << 20;

/// Settings of the files.
#[derive(Clone, Debug)]
pub struct FileOptions {
    pub dir: PathBuf,
    /// The next file begins at this size.
    pub rotate_bytes: u64,
    /// Files kept, the one in use included; 0: all.
    pub keep: u64,
}

/// Writes the files.
pub struct FileSink {
    options: FileOptions,
    deployment: String,
    json: EventJson,
    open: Option<OpenFile>,
    lines: Vec<u8>,
}

struct OpenFile {
    file: File,
    /// As it stands, synced.
    cursor: Cursor,
    /// Place in the file of the cursor on disk.
    written_bytes: u64,
}

impl FileSink {
    pub fn new(options: FileOptions, deployment: [u8; 16]) -> FileSink {
        let deployment = uuid::Uuid::from_bytes(deployment).to_string();
        FileSink { options, deployment, json: EventJson::default(), open: None, lines: Vec::new() }
    }

    fn path(&self, number: u64) -> PathBuf {
        self.options.dir.join(format!("events-{number:010}.ndjson"))
    }

    /// The file in use, cut behind its last whole line, and what it says.
    fn open(&self) -> Result<OpenFile, Error> {
        let dir = &self.options.dir;
        fs::create_dir_all(dir).map_err(|error| failed("make the folder", dir, &error))?;
        let mut cursor = match Cursor::read(dir)? {
            Some(cursor) if cursor.deployment == self.deployment => cursor,
            Some(cursor) => {
                return Err(Error::Stopped(format!(
                    "{} holds the events of deployment {}, this folder is {}: give it a folder of its own with \
                     --file-sink-dir",
                    dir.display(),
                    cursor.deployment,
                    self.deployment
                )));
            }
            None => {
                if self.path(1).exists() {
                    return Err(Error::Stopped(format!(
                        "{} holds files of events and no cursor: restore it, or give the sink an empty folder",
                        dir.display()
                    )));
                }
                let cursor = Cursor { deployment: self.deployment.clone(), file: 1, bytes: 0, positions: Vec::new() };
                cursor.write(dir)?;
                cursor
            }
        };
        let path = self.path(cursor.file);
        let opened = OpenOptions::new().read(true).write(true).create(cursor.bytes == 0).truncate(false).open(&path);
        let mut file = opened.map_err(|error| failed("open", &path, &error))?;
        let length = file.metadata().map_err(|error| failed("read", &path, &error))?.len();
        if length < cursor.bytes {
            return Err(Error::Stopped(format!(
                "{} has {length} bytes, and {} were written: restore it, or give the sink an empty folder",
                path.display(),
                cursor.bytes
            )));
        }
        file.seek(SeekFrom::Start(cursor.bytes)).map_err(|error| failed("read", &path, &error))?;
        let mut behind = Vec::new();
        file.read_to_end(&mut behind).map_err(|error| failed("read", &path, &error))?;
        let whole = cursor.read_lines(&behind);
        if (whole as usize) < behind.len() {
            file.set_len(cursor.bytes).map_err(|error| failed("cut", &path, &error))?;
        }
        // What is counted must be on disk: it may have been on its way only.
        file.sync_all().map_err(|error| failed("sync", &path, &error))?;
        sync_dir(dir)?;
        cursor.write(dir)?;
        file.seek(SeekFrom::Start(cursor.bytes)).map_err(|error| failed("write", &path, &error))?;
        let written_bytes = cursor.bytes;
        Ok(OpenFile { file, cursor, written_bytes })
    }

    /// Ends the file in use and begins the next.
    fn rotate(&self, open: &mut OpenFile) -> Result<(), Error> {
        let dir = &self.options.dir;
        open.cursor.file += 1;
        open.cursor.bytes = 0;
        // Before the file: a start makes the one that the cursor names.
        open.cursor.write(dir)?;
        let path = self.path(open.cursor.file);
        open.file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(|error| failed("make", &path, &error))?;
        sync_dir(dir)?;
        open.written_bytes = 0;
        let oldest_kept = (open.cursor.file + 1).saturating_sub(self.options.keep);
        if self.options.keep > 0 && oldest_kept > 1 {
            // Those before it went in earlier rotations; where somebody else took it away, it is gone as well.
            let mut number = oldest_kept - 1;
            while number > 0 && fs::remove_file(self.path(number)).is_ok() {
                number -= 1;
            }
        }
        Ok(())
    }
}

impl Sink for FileSink {
    fn name(&self) -> &'static str {
        "file"
    }

    fn limits(&self) -> BatchLimits {
        BatchLimits { events_max: 16_384, bytes_max: 4 << 20, linger: Duration::from_millis(20) }
    }

    fn resume(&mut self) -> Result<Vec<Position>, Error> {
        self.open = None;
        let open = self.open()?;
        let positions = open.cursor.positions.clone();
        self.open = Some(open);
        Ok(positions)
    }

    fn deliver(&mut self, batch: &Batch) -> Result<(), Error> {
        // Whatever fails, the file is opened anew, and tells what is in it.
        let Some(mut open) = self.open.take() else { return Err(Error::Unavailable("it is not open".into())) };
        if open.cursor.bytes >= self.options.rotate_bytes {
            self.rotate(&mut open)?;
        }
        self.lines.clear();
        for run in &batch.runs {
            for event in &run.events {
                let message = event_message(event, run.log);
                self.json.write_line(&message, &mut self.lines).expect("memory takes everything");
            }
        }
        let path = self.path(open.cursor.file);
        let written = open.file.write_all(&self.lines).and_then(|()| open.file.sync_data());
        written.map_err(|error| failed("write", &path, &error))?;
        open.cursor.bytes += self.lines.len() as u64;
        batch.runs.iter().for_each(|run| open.cursor.advance(run.after()));
        if open.cursor.bytes - open.written_bytes >= CURSOR_EVERY_BYTES {
            open.cursor.write(&self.options.dir)?;
            open.written_bytes = open.cursor.bytes;
        }
        self.open = Some(open);
        Ok(())
    }
}

impl Drop for FileSink {
    fn drop(&mut self) {
        if let Some(open) = &self.open {
            // The last one on disk does as well; a start then reads more lines back.
            let _older_one_stays = open.cursor.write(&self.options.dir);
        }
    }
}

fn sync_dir(dir: &Path) -> Result<(), Error> {
    File::open(dir).and_then(|opened| opened.sync_all()).map_err(|error| failed("sync", dir, &error))
}

/// What an error of the disk means: few mend by themselves.
fn failed(doing: &str, path: &Path, error: &io::Error) -> Error {
    let message = format!("cannot {doing} {}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::Interrupted
        | io::ErrorKind::WouldBlock
        | io::ErrorKind::TimedOut
        | io::ErrorKind::ResourceBusy => Error::Unavailable(message),
        _ => Error::Stopped(format!("{message}. Make room or repair the folder")),
    }
}

#[cfg(test)]
mod tests;
