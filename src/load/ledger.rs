//! The ledger: what was sent, and of that what was acknowledged, refused, or never answered.
//!
//! Every vote and open falls into exactly one of these, at the moment the run ends:
//! - acknowledged: the node said that it counts and is durable. It must be there for ever.
//! - refused: the node said no. It must not be there.
//! - unknown: sent, and no answer came (the node went away first). It may be there or not.
//! - unsent: it must not be there.
//!
//! Nothing is kept a vote. What was sent is a prefix of each track (`track`), and which approval,
//! validator and decision a position means follows from the seed (`scheme`); unknown ones are at
//! most what was in flight, and refused ones a bitmap. So the ledger of a hundred million votes has
//! a line a track. `--reuse` goes on where a ledger ends: no vote is ever sent twice.
//!
//! The file is JSON lines: the header, then a line a track; positions are LEB128 runs in base64.
//! It is written beside its name and renamed, so that a reader sees all of it or the last one.

use super::lane::REASONS;
use super::mixed::Fates;
use super::scheme::{Mix, Scheme};
use super::track::{Fate, Positions, Track, TrackKind};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

pub const SCHEMA: &str = "assent.load.ledger/1";

/// What it was made with: all that a scheme needs, and what has been counted.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Header {
    pub schema: String,
    pub seed: u64,
    pub instance: u16,
    pub workload: Workload,
    /// Block 0 of the votes workload has this many; the pools of the mixed one together.
    pub approvals: u64,
    pub validators: u16,
    pub required: u16,
    pub content_bytes: usize,
    pub decisions: Mix,
    /// By the number of RefusalReason.
    pub votes_refused: [u64; REASONS],
    pub opens_refused: [u64; REASONS],
    pub tracks: usize,
}

/// What the tracks are.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Workload {
    /// Block 0 opened first, then every validator votes on it in its own order.
    Votes,
    /// A block a connection, opened and voted on in order.
    Lifecycle,
    /// A block a connection, opened.
    Open,
    /// A block a connection, opened, and voted on as `mixed` draws.
    Mixed,
}

#[derive(Clone, Debug)]
pub struct Ledger {
    pub header: Header,
    pub tracks: Vec<Track>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path}: {error}")]
    Io { path: String, error: std::io::Error },
    #[error("{path} is not a ledger of this version ({SCHEMA}): {why}")]
    Format { path: String, why: String },
}

#[derive(Deserialize, Serialize)]
struct Line {
    /// Neither this nor `pool`: opens.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    validator: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pool: Option<u32>,
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    shuffled: bool,
    block: u16,
    from: u64,
    sent: u64,
    to: u64,
    #[serde(skip_serializing_if = "String::is_empty", default)]
    unknown: String,
    #[serde(skip_serializing_if = "String::is_empty", default)]
    refused: String,
}

impl Ledger {
    pub fn scheme(&self) -> Scheme {
        let Header { seed, instance, approvals, validators, required, content_bytes, decisions, .. } = self.header;
        Scheme::new(seed, instance, approvals, validators, required, content_bytes, decisions)
            .with_expiries(self.header.workload == Workload::Mixed)
    }

    /// Votes and opens that the node must have.
    pub fn acknowledged(&self) -> u64 {
        self.tracks.iter().map(Track::acknowledged).sum()
    }

    pub fn unknown(&self) -> u64 {
        self.tracks.iter().map(|track| track.unknown.len()).sum()
    }

    /// Joins tracks that continue each other, so that runs with `--reuse` do not make them many, and
    /// drops those that nothing was sent of.
    pub fn coalesce(&mut self) {
        let key = |track: &Track| match track.kind {
            TrackKind::Open => (0, 0, track.block, track.from),
            TrackKind::Vote { validator, .. } => (1, validator, track.block, track.from),
            TrackKind::Drawn { .. } => (2, 0, track.block, track.from),
        };
        self.tracks.sort_by_key(key);
        let mut joined: Vec<Track> = Vec::with_capacity(self.tracks.len());
        for track in self.tracks.drain(..).filter(|track| track.from < track.sent) {
            match joined.last_mut() {
                Some(last) if last.kind == track.kind && last.block == track.block && last.sent == track.from => {
                    (last.sent, last.to) = (track.sent, track.to);
                    track.unknown.iter().for_each(|position| {
                        last.unknown.insert(position);
                    });
                    track.refused.iter().for_each(|position| {
                        last.refused.insert(position);
                    });
                }
                _ => joined.push(track),
            }
        }
        self.tracks = joined;
    }

    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let beside = path.with_extension("writing");
        let write = || -> std::io::Result<()> {
            let mut out = BufWriter::new(std::fs::File::create(&beside)?);
            let header = Header { tracks: self.tracks.len(), ..self.header.clone() };
            serde_json::to_writer(&mut out, &header)?;
            out.write_all(b"\n")?;
            for track in &self.tracks {
                serde_json::to_writer(&mut out, &Line::from(track))?;
                out.write_all(b"\n")?;
            }
            out.into_inner()?.sync_all()?;
            std::fs::rename(&beside, path)
        };
        write().map_err(|error| Error::Io { path: path.display().to_string(), error })
    }

    pub fn load(path: &Path) -> Result<Ledger, Error> {
        let name = || path.display().to_string();
        let file = std::fs::File::open(path).map_err(|error| Error::Io { path: name(), error })?;
        let mut lines = BufReader::new(file).lines();
        let mut next = |what: &str| match lines.next() {
            Some(line) => line.map_err(|error| Error::Io { path: name(), error }),
            None => Err(Error::Format { path: name(), why: format!("it ends before {what}") }),
        };
        let wrong = |why: String| Error::Format { path: name(), why };
        let header: Header = serde_json::from_str(&next("its header")?).map_err(|error| wrong(error.to_string()))?;
        if header.schema != SCHEMA {
            return Err(wrong(format!("its schema is {}", header.schema)));
        }
        let mut tracks = Vec::new();
        for number in 0..header.tracks {
            let line: Line = serde_json::from_str(&next(&format!("track {number} of {}", header.tracks))?)
                .map_err(|error| wrong(error.to_string()))?;
            let track = Track::try_from(line).map_err(|why| wrong(format!("track {number}: {why}")))?;
            if matches!(track.kind, TrackKind::Vote { validator, .. } if validator >= header.validators) {
                return Err(wrong(format!("track {number} is of a validator beyond {}", header.validators)));
            }
            tracks.push(track);
        }
        Ok(Ledger { header, tracks })
    }

    /// An index that answers what is known of a single vote or open.
    pub fn index(&self, scheme: &Scheme) -> Index<'_> {
        let mut votes = vec![Vec::new(); usize::from(self.header.validators)];
        let (mut opens, mut drawn) = (Vec::new(), HashMap::new());
        for track in &self.tracks {
            match track.kind {
                TrackKind::Open => opens.push(track),
                TrackKind::Vote { validator, .. } => votes[usize::from(validator)].push(track),
                TrackKind::Drawn { .. } => {
                    drawn.insert(track.block, Fates::replay(scheme, track));
                }
            }
        }
        Index { votes, opens, drawn }
    }
}

pub struct Index<'a> {
    votes: Vec<Vec<&'a Track>>,
    opens: Vec<&'a Track>,
    /// By block.
    drawn: HashMap<u16, Fates>,
}

impl Index<'_> {
    pub fn open(&self, block: u16, offset: u64) -> Fate {
        fate(self.opens.iter().filter(|track| track.block == block).map(|track| track.fate(offset)))
    }

    pub fn vote(&self, scheme: &Scheme, validator: u16, block: u16, offset: u64) -> Fate {
        if let Some(drawn) = self.drawn.get(&block) {
            return drawn.vote(validator, offset);
        }
        let tracks = self.votes[usize::from(validator)].iter().filter(|track| track.block == block);
        fate(tracks.map(|track| match track.kind {
            TrackKind::Vote { shuffled: true, .. } => {
                track.fate(scheme.validators[usize::from(validator)].shuffle.position(offset))
            }
            _ => track.fate(offset),
        }))
    }
}

/// Tracks do not overlap: at most one knows of a position.
fn fate(mut fates: impl Iterator<Item = Fate>) -> Fate {
    fates.find(|fate| *fate != Fate::Unsent).unwrap_or(Fate::Unsent)
}

impl From<&Track> for Line {
    fn from(track: &Track) -> Line {
        let (validator, shuffled, pool) = match track.kind {
            TrackKind::Open => (None, false, None),
            TrackKind::Vote { validator, shuffled } => (Some(validator), shuffled, None),
            TrackKind::Drawn { pool } => (None, false, Some(pool)),
        };
        let text = |positions: &Positions| BASE64_STANDARD.encode(positions.to_bytes());
        Line {
            validator,
            pool,
            shuffled,
            block: track.block,
            from: track.from,
            sent: track.sent,
            to: track.to,
            unknown: text(&track.unknown),
            refused: text(&track.refused),
        }
    }
}

impl TryFrom<Line> for Track {
    type Error = &'static str;

    fn try_from(line: Line) -> Result<Track, &'static str> {
        if !(line.from <= line.sent && line.sent <= line.to && line.to <= 1 << 32) {
            return Err("from, sent and to are not in order");
        }
        let positions = |text: &str| {
            let bytes = BASE64_STANDARD.decode(text).ok()?;
            Positions::from_bytes(&bytes)
        };
        let kind = match (line.validator, line.pool) {
            (None, None) => TrackKind::Open,
            (Some(validator), None) => TrackKind::Vote { validator, shuffled: line.shuffled },
            (None, Some(pool)) if line.from == 0 => TrackKind::Drawn { pool },
            (None, Some(_)) => return Err("drawn votes do not begin at 0"),
            (Some(_), Some(_)) => return Err("it has a validator and a pool"),
        };
        Ok(Track {
            kind,
            block: line.block,
            from: line.from,
            sent: line.sent,
            to: line.to,
            unknown: positions(&line.unknown).ok_or("`unknown` does not decode")?,
            refused: positions(&line.refused).ok_or("`refused` does not decode")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn header(approvals: u64, validators: u16) -> Header {
        Header {
            schema: SCHEMA.into(),
            seed: 7,
            instance: 0,
            workload: Workload::Votes,
            approvals,
            validators,
            required: 2,
            content_bytes: 16,
            decisions: Mix::DEFAULT,
            votes_refused: [0; REASONS],
            opens_refused: [0; REASONS],
            tracks: 0,
        }
    }

    fn track(kind: TrackKind, from: u64, sent: u64, to: u64) -> Track {
        Track { sent, ..Track::new(kind, 0, from, to) }
    }

    #[test]
    fn survives_its_file() {
        let vote = TrackKind::Vote { validator: 1, shuffled: true };
        let mut tracks = vec![track(TrackKind::Open, 0, 100, 100), track(vote, 10, 60, 100)];
        tracks[1].unknown.insert(59);
        tracks[1].refused.insert(11);
        tracks[1].refused.insert(12);
        let ledger = Ledger { header: header(100, 3), tracks };
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("run.ledger");
        ledger.save(&path).expect("saves");
        let loaded = Ledger::load(&path).expect("loads");
        assert_eq!(loaded.header, Header { tracks: 2, ..ledger.header.clone() });
        assert_eq!((loaded.acknowledged(), loaded.unknown()), (100 + 50 - 3, 1));
        assert_eq!(format!("{:?}", loaded.tracks), format!("{:?}", ledger.tracks));

        let text = std::fs::read_to_string(&path).expect("reads");
        for (broken, why) in [
            (text.replace("ledger/1", "ledger/2"), "its schema"),
            (text.lines().take(2).collect::<Vec<_>>().join("\n"), "it ends before track 1 of 2"),
            (text.replace("\"sent\":60", "\"sent\":600"), "not in order"),
        ] {
            std::fs::write(&path, broken).expect("writes");
            let error = Ledger::load(&path).expect_err("is refused").to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn tracks_that_continue_each_other_become_one() {
        let vote = |validator| TrackKind::Vote { validator, shuffled: true };
        let mut second = track(vote(0), 40, 50, 100);
        second.refused.insert(41);
        let tracks = vec![second, track(vote(1), 0, 5, 50), track(vote(0), 0, 40, 40), track(vote(1), 50, 60, 100)];
        let mut ledger = Ledger { header: header(100, 2), tracks };
        let acknowledged = ledger.acknowledged();
        ledger.coalesce();
        assert_eq!(ledger.tracks.len(), 3);
        assert_eq!((ledger.tracks[0].from, ledger.tracks[0].sent, ledger.tracks[0].to), (0, 50, 100));
        assert_eq!(ledger.acknowledged(), acknowledged);
    }

    #[test]
    fn the_index_knows_each_vote() {
        let kind = TrackKind::Vote { validator: 2, shuffled: true };
        let mut votes = track(kind, 0, 70, 100);
        votes.unknown.insert(69);
        votes.refused.insert(3);
        let ledger = Ledger { header: header(100, 3), tracks: vec![track(TrackKind::Open, 0, 100, 100), votes] };
        let scheme = ledger.scheme();
        let index = ledger.index(&scheme);
        for position in 0..100 {
            let expected = match position {
                69 => Fate::Unknown,
                3 => Fate::Refused,
                70.. => Fate::Unsent,
                _ => Fate::Acknowledged,
            };
            assert_eq!(index.vote(&scheme, 2, 0, scheme.shuffled(2, position)), expected);
            assert_eq!(index.vote(&scheme, 1, 0, position), Fate::Unsent);
        }
        assert_eq!((index.open(0, 99), index.open(0, 100)), (Fate::Acknowledged, Fate::Unsent));
    }
}
