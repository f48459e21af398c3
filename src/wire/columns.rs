//! Votes in columns: 16-byte ids back to back, a byte for each decision, and who votes.

use super::scan::{Broken, Scan};
use super::vote::{refuse_decision, refuse_validator};
use crate::model::{ApprovalId, CommandSource, Decision, Invalid, Refusal, ValidatorId, VoteCommand};
use bytes::Bytes;
use std::sync::Arc;

const ID_BYTES: usize = 16;
const INDEX_BYTES: usize = 2;
/// What two bytes can point at.
pub(super) const TABLE_NAMES_MAX: usize = 1 << 16;

/// A batch of columns whose lengths agree.
pub(super) struct Columns {
    ids: Bytes,
    decisions: Bytes,
    voters: Arc<Voters>,
    /// These votes only; `None`: all.
    picks: Option<Vec<u32>>,
    next: u32,
}

enum Voters {
    /// Nobody is named, or not legally: every vote is refused.
    Nobody,
    One(Arc<str>),
    Table(Table),
}

/// Names one after the other; an illegal one is empty.
struct Table {
    text: String,
    ends: Vec<u32>,
    indexes: Bytes,
}

impl Columns {
    /// Reads a VoteColumns message; `stream` is the stream's validator. Err: the lengths do not agree, or
    /// it is no such message; the stream ends then.
    pub fn read(columns: &Bytes, stream: Option<&Arc<str>>) -> Result<Columns, Invalid> {
        let mut fields = Fields::scan(columns).map_err(|Broken| broken())?;
        let count = fields.decisions.len();
        if fields.ids.len() != count * ID_BYTES {
            let message = format!("has {} bytes, {count} decisions need 16 each", fields.ids.len());
            return Err(invalid("batch.columns.approval_ids", message));
        }
        let table = !fields.names.is_empty() || !fields.indexes.is_empty();
        if table && !fields.validator.is_empty() {
            return Err(invalid(
                "batch.columns.validator_id",
                "is given beside a table of validators: give one".into(),
            ));
        }
        if table && fields.indexes.len() != count * INDEX_BYTES {
            let message = format!("has {} bytes, {count} decisions need 2 each", fields.indexes.len());
            return Err(invalid("batch.columns.validator_indexes", message));
        }
        if fields.names.len() > TABLE_NAMES_MAX {
            return Err(invalid("batch.columns.validators", "names more than 65,536 validators".into()));
        }
        let utf8 = |name: &[u8]| std::str::from_utf8(name).is_ok();
        if !utf8(fields.validator) || !fields.names.iter().all(|name| utf8(name)) {
            return Err(broken());
        }
        let voters = match (table, fields.validator) {
            (true, _) => Voters::Table(Table::new(&fields.names, std::mem::take(&mut fields.indexes))),
            (false, b"") => stream.map_or(Voters::Nobody, |name| Voters::One(name.clone())),
            (false, name) => legal(name).map_or(Voters::Nobody, |name| Voters::One(name.as_str().into())),
        };
        Ok(Columns { ids: fields.ids, decisions: fields.decisions, voters: Arc::new(voters), picks: None, next: 0 })
    }

    /// One source for each shard that a vote belongs to.
    pub fn split(
        self,
        shards: usize,
        shard_of: impl Fn(&ApprovalId) -> usize,
    ) -> impl Iterator<Item = (usize, Columns)> {
        let mut picks: Vec<Vec<u32>> = vec![Vec::new(); shards];
        for (item, id) in self.ids.as_chunks::<ID_BYTES>().0.iter().enumerate() {
            picks[shard_of(&ApprovalId(*id))].push(item as u32);
        }
        let Columns { ids, decisions, voters, .. } = self;
        picks.into_iter().enumerate().filter(|(_, picks)| !picks.is_empty()).map(move |(shard, picks)| {
            let (ids, decisions, voters) = (ids.clone(), decisions.clone(), voters.clone());
            (shard, Columns { ids, decisions, voters, picks: Some(picks), next: 0 })
        })
    }
}

impl CommandSource for Columns {
    fn len(&self) -> usize {
        self.picks.as_ref().map_or(self.decisions.len(), Vec::len)
    }

    fn fill<'a>(&'a mut self, max: usize, into: &mut Vec<VoteCommand<'a>>, bad: &mut Vec<(u32, Refusal)>) -> bool {
        let len = self.len();
        let start = self.next as usize;
        let end = len.min(start.saturating_add(max));
        self.next = end as u32;
        into.reserve(end - start);
        match &self.picks {
            None => self.decode(start as u32..end as u32, into, bad),
            Some(picks) => self.decode(picks[start..end].iter().copied(), into, bad),
        }
        end < len
    }
}

impl Columns {
    #[inline(always)]
    fn decode<'a>(
        &'a self,
        items: impl Iterator<Item = u32>,
        into: &mut Vec<VoteCommand<'a>>,
        bad: &mut Vec<(u32, Refusal)>,
    ) {
        match &*self.voters {
            Voters::Nobody => bad.extend(items.map(|item| (item, refuse_nobody()))),
            Voters::One(name) => self.decode_with(items, |_| Ok(name), into, bad),
            Voters::Table(table) => self.decode_with(items, |item| table.name(item), into, bad),
        }
    }

    #[inline(always)]
    fn decode_with<'a>(
        &'a self,
        items: impl Iterator<Item = u32>,
        name: impl Fn(u32) -> Result<&'a str, Refusal>,
        into: &mut Vec<VoteCommand<'a>>,
        bad: &mut Vec<(u32, Refusal)>,
    ) {
        let ids = self.ids.as_chunks::<ID_BYTES>().0;
        let decisions: &[u8] = &self.decisions;
        for item in items {
            let approval = ApprovalId(ids[item as usize]);
            let validator = match name(item) {
                Ok(validator) => validator,
                Err(refusal) => {
                    bad.push((item, refusal));
                    continue;
                }
            };
            match Decision::from_number(decisions[item as usize]) {
                Some(decision) => into.push(VoteCommand { approval, validator, decision, extras: None, item }),
                None => bad.push((item, refuse_decision())),
            }
        }
    }
}

impl Table {
    fn new(names: &[&[u8]], indexes: Bytes) -> Table {
        let mut text = String::with_capacity(names.iter().map(|name| name.len()).sum());
        let ends = names.iter().map(|name| {
            if let Some(name) = legal(name) {
                text.push_str(name.as_str());
            }
            text.len() as u32
        });
        let ends = ends.collect();
        Table { text, ends, indexes }
    }

    #[inline(always)]
    fn name(&self, item: u32) -> Result<&str, Refusal> {
        let index = usize::from(u16::from_le_bytes(self.indexes.as_chunks::<INDEX_BYTES>().0[item as usize]));
        let Some(end) = self.ends.get(index) else { return Err(refuse_index()) };
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        if start == *end {
            return Err(refuse_validator());
        }
        Ok(&self.text[start as usize..*end as usize])
    }
}

fn legal(name: &[u8]) -> Option<ValidatorId> {
    std::str::from_utf8(name).ok().and_then(ValidatorId::parse)
}

#[cold]
fn refuse_nobody() -> Refusal {
    Refusal::invalid("validator_id", "no legal validator is named, neither for the batch nor for the stream")
}

#[cold]
fn refuse_index() -> Refusal {
    Refusal::invalid("validator_indexes", "points behind the table of validators")
}

fn invalid(field: &'static str, message: String) -> Invalid {
    Invalid { field: field.into(), message: message.into() }
}

fn broken() -> Invalid {
    invalid("batch.columns", "is not a VoteColumns message".into())
}

#[derive(Default)]
struct Fields<'a> {
    ids: Bytes,
    decisions: Bytes,
    validator: &'a [u8],
    names: Vec<&'a [u8]>,
    indexes: Bytes,
}

impl<'a> Fields<'a> {
    fn scan(bytes: &'a Bytes) -> Result<Fields<'a>, Broken> {
        let mut fields = Fields::default();
        let mut scan = Scan::new(bytes);
        while let Some((number, value)) = scan.field()? {
            match number {
                1 => fields.ids = bytes.slice(value.bytes()?),
                2 => fields.decisions = bytes.slice(value.bytes()?),
                3 => fields.validator = &bytes[value.bytes()?],
                4 => fields.names.push(&bytes[value.bytes()?]),
                5 => fields.indexes = bytes.slice(value.bytes()?),
                _ => {}
            }
        }
        Ok(fields)
    }
}
