//! The folder's register of sinks: which ones it has fed, and how far each got when it was last written.
//!
//! A registered sink keeps segments of the journal from being given back until it acknowledged them, whether
//! it runs or not. Hence a node does not start without one that is registered, until an operator forgets it.
//!
//!     DIR/sinks      a line of JSON, then its crc32c in hexadecimal; replaced whole

use crate::model::{LogId, Position};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const FILE: &str = "sinks";
const VERSION: u32 = 1;

/// Why the register could not be used.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    #[error("cannot {doing} the register of sinks {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "the register of sinks {} is damaged: {what}. Move it away: the sinks configured then are registered anew, \
         and go on from their own positions", path.display()
    )]
    Damaged { path: PathBuf, what: String },
    #[error("no sink named {0} is registered in this folder; `assent sinks list` shows those that are")]
    Unknown(String),
}

/// One sink.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Registered {
    pub name: String,
    /// Acknowledged, and perhaps more; by log.
    pub positions: Vec<Position>,
}

/// The register of one folder.
#[derive(Debug)]
pub struct Register {
    dir: PathBuf,
    sinks: Vec<Registered>,
}

#[derive(Serialize, Deserialize)]
struct OnDisk {
    version: u32,
    sinks: Vec<SinkOnDisk>,
}

#[derive(Serialize, Deserialize)]
struct SinkOnDisk {
    name: String,
    /// (log, sequence)
    positions: Vec<(u64, u64)>,
}

impl Register {
    /// Reads it; a folder without one has none registered.
    pub fn read(dir: &Path) -> Result<Register, RegisterError> {
        let path = dir.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            // What is wrong with a folder that is none, whoever opens it says better.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(Register { dir: dir.into(), sinks: Vec::new() });
            }
            Err(source) => return Err(RegisterError::Io { doing: "read", path, source }),
        };
        let damaged = |what: &str| RegisterError::Damaged { path: path.clone(), what: what.into() };
        let (json, checksum) = text.split_once('\n').ok_or_else(|| damaged("it has no second line"))?;
        if u32::from_str_radix(checksum.trim_end(), 16).ok() != Some(crc32c::crc32c(json.as_bytes())) {
            return Err(damaged("its checksum does not match"));
        }
        let found: OnDisk = serde_json::from_str(json).map_err(|error| damaged(&error.to_string()))?;
        if found.version != VERSION {
            return Err(damaged(&format!("it has version {}, this assent reads {VERSION}", found.version)));
        }
        let position = |(log, sequence)| Position { log: LogId(log), sequence };
        let sink = |sink: SinkOnDisk| Registered {
            name: sink.name,
            positions: sink.positions.into_iter().map(position).collect(),
        };
        Ok(Register { dir: dir.into(), sinks: found.sinks.into_iter().map(sink).collect() })
    }

    pub fn sinks(&self) -> &[Registered] {
        &self.sinks
    }

    pub fn positions(&self, name: &str) -> &[Position] {
        self.sinks.iter().find(|sink| sink.name == name).map_or(&[], |sink| &sink.positions)
    }

    /// Puts the sink's positions in; true when that changes anything.
    pub fn put(&mut self, name: &str, mut positions: Vec<Position>) -> bool {
        positions.sort_unstable();
        match self.sinks.iter_mut().find(|sink| sink.name == name) {
            Some(sink) if sink.positions == positions => return false,
            Some(sink) => sink.positions = positions,
            None => self.sinks.push(Registered { name: name.into(), positions }),
        }
        true
    }

    pub fn forget(&mut self, name: &str) -> Result<(), RegisterError> {
        let before = self.sinks.len();
        self.sinks.retain(|sink| sink.name != name);
        if self.sinks.len() == before { Err(RegisterError::Unknown(name.into())) } else { Ok(()) }
    }

    /// Replaces the file: after a crash there is the old one or the new one.
    pub fn write(&self) -> Result<(), RegisterError> {
        let sink = |sink: &Registered| SinkOnDisk {
            name: sink.name.clone(),
            positions: sink.positions.iter().map(|position| (position.log.0, position.sequence)).collect(),
        };
        let content = OnDisk { version: VERSION, sinks: self.sinks.iter().map(sink).collect() };
        let json = serde_json::to_string(&content).expect("plain data");
        let text = format!("{json}\n{:08x}\n", crc32c::crc32c(json.as_bytes()));
        let path = self.dir.join(FILE);
        replace(&path, text.as_bytes()).map_err(|source| RegisterError::Io { doing: "write", path, source })
    }
}

/// Replaces a small file, durably.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("tmp");
    let mut file = File::create(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_replaced_forgotten_and_never_half_read() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut register = Register::read(dir.path()).expect("none is fine");
        assert!(register.sinks().is_empty());
        let position = |log, sequence| Position { log: LogId(log), sequence };
        assert!(register.put("file", vec![position(u64::MAX >> 1, 7), position(3, 1 << 47)]));
        assert!(register.put("archive", Vec::new()));
        assert!(!register.put("file", vec![position(3, 1 << 47), position(u64::MAX >> 1, 7)]), "the same again");
        register.write().expect("written");
        let mut again = Register::read(dir.path()).expect("readable");
        assert_eq!(again.sinks(), register.sinks());
        assert_eq!(again.positions("file")[0], position(3, 1 << 47));
        assert!(matches!(again.forget("kafka"), Err(RegisterError::Unknown(_))));
        again.forget("file").expect("it is there");
        again.write().expect("written");
        let path = dir.path().join(FILE);
        let good = fs::read(&path).expect("there");
        for at in 0..good.len() - 1 {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, &bad).expect("written");
            assert!(Register::read(dir.path()).is_err(), "byte {at}");
        }
    }
}
