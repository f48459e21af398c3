//! Where the files stand: one small file, replaced whole, and the lines behind what it knows.

use super::super::Error;
use super::super::register::replace;
use super::failed;
use crate::model::{LogId, Position};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;

const FILE: &str = "cursor";
const VERSION: u32 = 1;

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Cursor {
    pub deployment: String,
    /// Number of the file in use.
    pub file: u64,
    /// Whole lines up to here.
    pub bytes: u64,
    /// At that place.
    pub positions: Vec<Position>,
}

#[derive(Serialize, Deserialize)]
struct OnDisk {
    version: u32,
    deployment: String,
    file: u64,
    bytes: u64,
    /// (log, sequence)
    positions: Vec<(u64, u64)>,
}

/// What a line says of its place; numbers of 64 bits are strings in proto-JSON.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    log: &'a str,
    sequence: &'a str,
}

impl Cursor {
    /// None in a folder without one.
    pub fn read(dir: &Path) -> Result<Option<Cursor>, Error> {
        let path = dir.join(FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("read", &path, &error)),
        };
        let found: Option<OnDisk> = serde_json::from_str(&text).ok();
        let Some(found) = found.filter(|found| found.version == VERSION) else {
            let what =
                format!("{} is not a cursor of this version: restore it, or give an empty folder", path.display());
            return Err(Error::Stopped(what));
        };
        let position = |(log, sequence)| Position { log: LogId(log), sequence };
        let positions = found.positions.into_iter().map(position).collect();
        Ok(Some(Cursor { deployment: found.deployment, file: found.file, bytes: found.bytes, positions }))
    }

    pub fn write(&self, dir: &Path) -> Result<(), Error> {
        let content = OnDisk {
            version: VERSION,
            deployment: self.deployment.clone(),
            file: self.file,
            bytes: self.bytes,
            positions: self.positions.iter().map(|position| (position.log.0, position.sequence)).collect(),
        };
        let path = dir.join(FILE);
        let text = serde_json::to_string(&content).expect("plain data") + "\n";
        replace(&path, text.as_bytes()).map_err(|error| failed("write", &path, &error))
    }

    pub fn advance(&mut self, to: Position) {
        match self.positions.iter_mut().find(|position| position.log == to.log) {
            Some(position) => position.sequence = to.sequence,
            None => self.positions.push(to),
        }
    }

    /// Moves behind the whole lines of what follows its place; gives their bytes. The first line that is torn, or
    /// does not go on where its log stands, is where a power failure left off.
    pub fn read_lines(&mut self, behind: &[u8]) -> u64 {
        let mut whole = 0;
        while let Some(end) = behind[whole..].iter().position(|byte| *byte == b'\n') {
            let line: Option<Line<'_>> = serde_json::from_slice(&behind[whole..whole + end]).ok();
            let position = line.and_then(|line| {
                Some(Position { log: LogId(line.log.parse().ok()?), sequence: line.sequence.parse().ok()? })
            });
            let Some(position) = position else { break };
            let before = self.positions.iter().find(|known| known.log == position.log);
            if before.is_some_and(|before| before.sequence + 1 != position.sequence) {
                break;
            }
            self.advance(position);
            whole += end + 1;
        }
        self.bytes += whole as u64;
        whole as u64
    }
}
