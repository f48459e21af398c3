//! Votes in rows: an ApprovalBatch's responses, decoded from its bytes on the shard's thread.
//!
//! Nearly every row is id, validator, decision, in that order and nothing else: that shape is read
//! by fixed offsets; any other goes through the field scanner. A name is judged when it differs from
//! the one before it, and rows in a row of one validator share one `&str` (same address).

use super::hex::parse_hyphenated;
use super::scan::{Broken, Scan};
use super::vote::{VoteFields, refuse_approval_id, refuse_decision, refuse_validator};
use crate::model::{ApprovalId, CommandSource, Decision, Refusal, ValidatorId, VoteCommand, VoteExtras};
use bytes::Bytes;

/// Key of a row within its batch.
const ROW: u8 = 0x0A;
const HYPHENATED_UUID: usize = 36;

/// All rows of a batch, for the one shard that there is.
pub(super) struct Rows {
    /// The batch's bytes; framed, so that the walk below cannot leave them.
    body: Bytes,
    at: usize,
    item: u32,
    count: u32,
    arena: Vec<[u8; HYPHENATED_UUID]>,
}

/// Those rows of a batch that belong to one shard.
pub(super) struct PickedRows {
    body: Bytes,
    picks: Vec<Pick>,
    next: usize,
    arena: Vec<[u8; HYPHENATED_UUID]>,
}

#[derive(Clone, Copy)]
struct Pick {
    item: u32,
    start: u32,
    end: u32,
}

/// Where the next row is, from `at` on: its range, and where to go on. `None` at the end.
#[inline(always)]
fn next_row(body: &[u8], at: usize) -> Result<Option<(usize, usize)>, Broken> {
    if let Some([ROW, length @ 0..0x80]) = body.get(at..at + 2) {
        let end = at + 2 + usize::from(*length);
        return if end <= body.len() { Ok(Some((at + 2, end))) } else { Err(Broken) };
    }
    next_row_slowly(body, at)
}

fn next_row_slowly(body: &[u8], at: usize) -> Result<Option<(usize, usize)>, Broken> {
    let mut scan = Scan::from(body, at);
    while let Some((number, value)) = scan.field()? {
        if number == 1 {
            let range = value.bytes()?;
            return Ok(Some((range.start, range.end)));
        }
    }
    Ok(None)
}

/// What a batch holds: framing checked, rows counted, columns found.
pub(super) struct Framed {
    pub rows: u32,
    /// Range of the columns message; merged by the caller when there are several.
    pub columns: Vec<std::ops::Range<usize>>,
}

/// Walks a batch's fields once.
pub(super) fn frame(body: &[u8]) -> Result<Framed, Broken> {
    let mut framed = Framed { rows: 0, columns: Vec::new() };
    let mut at = 0;
    while at < body.len() {
        if let Some([ROW, length @ 0..0x80]) = body.get(at..at + 2) {
            at += 2 + usize::from(*length);
            if at > body.len() {
                return Err(Broken);
            }
            framed.rows += 1;
            continue;
        }
        let mut scan = Scan::from(body, at);
        match scan.field()? {
            Some((1, value)) => {
                value.bytes()?;
                framed.rows += 1;
            }
            Some((2, value)) => framed.columns.push(value.bytes()?),
            _ => {}
        }
        at = scan.at();
    }
    Ok(framed)
}

impl Rows {
    /// `body` was framed, and holds `count` rows.
    pub fn new(body: Bytes, count: u32) -> Rows {
        Rows { body, at: 0, item: 0, count, arena: Vec::new() }
    }

    /// One source for each shard that a row belongs to. A row whose id is no id goes to shard 0, which
    /// refuses it in its turn.
    pub fn split(
        self,
        shards: usize,
        shard_of: impl Fn(&ApprovalId) -> usize,
    ) -> impl Iterator<Item = (usize, PickedRows)> {
        let mut picks: Vec<Vec<Pick>> = vec![Vec::new(); shards];
        let mut at = 0;
        for item in 0..self.count {
            let (start, end) = next_row(&self.body, at).expect("framed").expect("counted");
            at = end;
            let shard = row_id(&self.body[start..end]).map_or(0, |id| shard_of(&id));
            picks[shard].push(Pick { item, start: start as u32, end: end as u32 });
        }
        let body = self.body;
        picks
            .into_iter()
            .enumerate()
            .filter(|(_, picks)| !picks.is_empty())
            .map(move |(shard, picks)| (shard, PickedRows { body: body.clone(), picks, next: 0, arena: Vec::new() }))
    }
}

fn row_id(row: &[u8]) -> Option<ApprovalId> {
    match plain_row(row) {
        Some((id, ..)) => parse_hyphenated(id).map(ApprovalId),
        None => VoteFields::scan(row).ok()?.approval().ok(),
    }
}

/// The common shape: `id validator decision` and nothing else.
#[inline(always)]
fn plain_row(row: &[u8]) -> Option<(&[u8; HYPHENATED_UUID], &[u8], u8)> {
    let (head, rest) = row.split_first_chunk::<40>()?;
    let length = usize::from(head[39]);
    if head[0] != 0x0A || head[1] != HYPHENATED_UUID as u8 || head[38] != 0x12 || rest.len() != length + 2 {
        return None;
    }
    let (name, tail) = rest.split_at(length);
    if tail[0] != 0x18 || tail[1] >= 0x80 || length == 0 || length >= 0x80 {
        return None;
    }
    Some((head[2..38].try_into().expect("36 bytes"), name, tail[1]))
}

impl CommandSource for Rows {
    fn len(&self) -> usize {
        self.count as usize
    }

    fn fill<'a>(&'a mut self, max: usize, into: &mut Vec<VoteCommand<'a>>, bad: &mut Vec<(u32, Refusal)>) -> bool {
        let Rows { body, at, item, count, arena } = self;
        let body: &'a [u8] = body;
        let end = (*count).min(item.saturating_add(u32::try_from(max).unwrap_or(u32::MAX)));
        let mut decoder = Decoder::new(arena, (end - *item) as usize);
        into.reserve((end - *item) as usize);
        while *item < end {
            let (start, stop) = next_row(body, *at).expect("framed").expect("counted");
            *at = stop;
            decoder.row(*item, &body[start..stop], into, bad);
            *item += 1;
        }
        *item < *count
    }
}

impl CommandSource for PickedRows {
    fn len(&self) -> usize {
        self.picks.len()
    }

    fn fill<'a>(&'a mut self, max: usize, into: &mut Vec<VoteCommand<'a>>, bad: &mut Vec<(u32, Refusal)>) -> bool {
        let PickedRows { body, picks, next, arena } = self;
        let body: &'a [u8] = body;
        let end = picks.len().min(next.saturating_add(max));
        let mut decoder = Decoder::new(arena, end - *next);
        into.reserve(end - *next);
        for pick in &picks[*next..end] {
            decoder.row(pick.item, &body[pick.start as usize..pick.end as usize], into, bad);
        }
        *next = end;
        end < picks.len()
    }
}

/// Decodes rows; keeps the last legal name, and room for names that need another spelling.
struct Decoder<'a> {
    raw: &'a [u8],
    name: &'a str,
    arena: Arena<'a>,
    rows: usize,
}

enum Arena<'a> {
    Untouched(&'a mut Vec<[u8; HYPHENATED_UUID]>),
    Free(&'a mut [[u8; HYPHENATED_UUID]]),
}

impl<'a> Decoder<'a> {
    fn new(arena: &'a mut Vec<[u8; HYPHENATED_UUID]>, rows: usize) -> Decoder<'a> {
        Decoder { raw: b"", name: "", arena: Arena::Untouched(arena), rows }
    }

    #[inline(always)]
    fn row(&mut self, item: u32, row: &'a [u8], into: &mut Vec<VoteCommand<'a>>, bad: &mut Vec<(u32, Refusal)>) {
        let Some((id, name, decision)) = plain_row(row) else {
            return self.unusual_row(item, row, into, bad);
        };
        let Some(approval) = parse_hyphenated(id).map(ApprovalId) else {
            return bad.push((item, refuse_approval_id()));
        };
        if name != self.raw && !self.set_name(name) {
            return bad.push((item, refuse_validator()));
        }
        match Decision::from_number(decision) {
            Some(decision) => into.push(VoteCommand { approval, validator: self.name, decision, extras: None, item }),
            None => bad.push((item, refuse_decision())),
        }
    }

    #[inline(never)]
    fn unusual_row(
        &mut self,
        item: u32,
        row: &'a [u8],
        into: &mut Vec<VoteCommand<'a>>,
        bad: &mut Vec<(u32, Refusal)>,
    ) {
        match self.read_unusual(row) {
            Ok((approval, decision, extras)) => {
                into.push(VoteCommand { approval, validator: self.name, decision, extras, item });
            }
            Err(refusal) => bad.push((item, refusal)),
        }
    }

    fn read_unusual(&mut self, row: &'a [u8]) -> Result<(ApprovalId, Decision, Option<Box<VoteExtras>>), Refusal> {
        let fields =
            VoteFields::scan(row).map_err(|Broken| Refusal::invalid("response", "is not an ApprovalResponse"))?;
        let approval = fields.approval()?;
        if fields.validator_id != self.raw && !self.set_name(fields.validator_id) {
            return Err(refuse_validator());
        }
        if self.name.is_empty() {
            return Err(refuse_validator());
        }
        let (decision, extras) = fields.rest()?;
        Ok((approval, decision, extras))
    }

    /// False, and nothing changed, when this is no legal name.
    #[inline]
    fn set_name(&mut self, name: &'a [u8]) -> bool {
        // As `ValidatorId::is_legal`, without a way out in the middle: the compiler makes vector code of it.
        let graphic = name.iter().fold(true, |all, byte| all & byte.is_ascii_graphic());
        if !graphic || !(1..=ValidatorId::BYTES_MAX).contains(&name.len()) {
            return false;
        }
        let upper = || name.iter().fold(false, |any, byte| any | byte.is_ascii_uppercase());
        let spelled = match name.len() == HYPHENATED_UUID && upper() && ValidatorId::is_hyphenated_uuid(name) {
            true => self.in_lower_case(name),
            false => name,
        };
        self.raw = name;
        self.name = std::str::from_utf8(spelled).expect("ASCII");
        true
    }

    #[cold]
    fn in_lower_case(&mut self, name: &[u8]) -> &'a [u8] {
        let free = match std::mem::replace(&mut self.arena, Arena::Free(&mut [])) {
            Arena::Free(free) => free,
            Arena::Untouched(arena) => {
                if arena.len() < self.rows {
                    arena.resize(self.rows, [0; HYPHENATED_UUID]);
                }
                arena.as_mut_slice()
            }
        };
        let (slot, free) = free.split_first_mut().expect("a slot a row");
        self.arena = Arena::Free(free);
        slot.copy_from_slice(name);
        slot.make_ascii_lowercase();
        slot
    }
}
