//! The hot door: an ApprovalStreamRequest's envelope, read by hand.
//!
//! One walk over a message frames it and counts its items; the votes themselves are decoded later, on
//! the thread of the shard that counts them. Shapes that the generated code merges (a oneof or the
//! columns given twice) are sent through it and come back in canonical form, so meaning never differs.
//! A fault in a message's framing refuses the message; a fault within one row refuses that row.

use super::columns::Columns;
use super::rows::{Framed, Rows, frame};
use super::scan::{Broken, Scan, put_varint};
use super::v1;
use crate::model::{ApprovalId, CommandSource, Invalid, ValidatorId};
use bytes::Bytes;
use prost::Message;
use std::sync::Arc;

/// What one message of a stream holds.
pub enum StreamItem {
    /// No item: only the stream's validator, or a kind of a later version.
    Nothing,
    /// An ApprovalRequest's bytes, for `parse_open_bytes`.
    Open(Bytes),
    /// An ApprovalResponse's bytes, for a [`RowRun`].
    Vote(Bytes),
    Votes(VoteBatch),
    Subscription(Box<v1::StreamSubscription>),
}

/// Reads a stream's messages one after the other, and remembers its validator.
pub struct StreamParser {
    validator: Option<Arc<str>>,
    batch_items_max: usize,
}

impl StreamParser {
    pub fn new(batch_items_max: usize) -> StreamParser {
        StreamParser { validator: None, batch_items_max }
    }

    /// Err: this is not a message of a stream, or its columns do not agree; the stream ends with
    /// INVALID_ARGUMENT after what came before is answered.
    pub fn parse(&mut self, message: &Bytes) -> Result<StreamItem, Invalid> {
        let envelope = match Envelope::scan(message).map_err(|Broken| broken("message"))? {
            Some(envelope) => return self.item(message, envelope),
            None => v1::ApprovalStreamRequest::decode(message.clone()).map_err(|_| broken("message"))?,
        };
        let canonical = Bytes::from(envelope.encode_to_vec());
        match Envelope::scan(&canonical) {
            Ok(Some(envelope)) => self.item(&canonical, envelope),
            _ => Err(broken("message")),
        }
    }

    fn item(&mut self, message: &Bytes, envelope: Envelope<'_>) -> Result<StreamItem, Invalid> {
        if !envelope.validator.is_empty() {
            let name = std::str::from_utf8(envelope.validator).ok().and_then(ValidatorId::parse);
            let name = name.ok_or_else(|| Invalid {
                field: "validator_id".into(),
                message: "must be 1 to 64 printable ASCII characters without spaces".into(),
            })?;
            self.validator = Some(name.as_str().into());
        }
        let Some((kind, range)) = envelope.item else { return Ok(StreamItem::Nothing) };
        let body = message.slice(range);
        Ok(match kind {
            1 => StreamItem::Open(body),
            2 => StreamItem::Vote(body),
            3 => StreamItem::Votes(self.batch(body)?),
            _ => {
                let subscription = v1::StreamSubscription::decode(body).map_err(|_| broken("subscription"))?;
                StreamItem::Subscription(Box::new(subscription))
            }
        })
    }

    fn batch(&self, body: Bytes) -> Result<VoteBatch, Invalid> {
        let Framed { rows, columns } = frame(&body).map_err(|Broken| broken("batch"))?;
        let batch = match &columns[..] {
            [] => VoteBatch(Kind::Rows(Rows::new(body, rows))),
            [_, ..] if rows != 0 => {
                let message = "holds rows and columns: send them as two batches".into();
                return Err(Invalid { field: "batch".into(), message });
            }
            [columns] => {
                VoteBatch(Kind::Columns(Columns::read(&body.slice(columns.clone()), self.validator.as_ref())?))
            }
            _ => {
                let merged = v1::ApprovalBatch::decode(body).map_err(|_| broken("batch"))?.columns;
                let columns = merged.expect("given more than once").encode_to_vec();
                VoteBatch(Kind::Columns(Columns::read(&columns.into(), self.validator.as_ref())?))
            }
        };
        if batch.len() > self.batch_items_max {
            let message = format!("holds {} items, the limit is {}", batch.len(), self.batch_items_max).into();
            return Err(Invalid { field: "batch".into(), message });
        }
        Ok(batch)
    }
}

fn broken(field: &'static str) -> Invalid {
    Invalid { field: field.into(), message: "is not what the proto says: it cannot be decoded".into() }
}

struct Envelope<'a> {
    item: Option<(u32, std::ops::Range<usize>)>,
    validator: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// `None`: of a shape that the generated code should read first.
    #[inline]
    fn scan(message: &'a [u8]) -> Result<Option<Envelope<'a>>, Broken> {
        let mut envelope = Envelope { item: None, validator: b"" };
        let mut scan = Scan::new(message);
        while let Some((number, value)) = scan.field()? {
            match number {
                1..=4 if envelope.item.is_some() => return Ok(None),
                1..=4 => envelope.item = Some((number, value.bytes()?)),
                // Given again: what stood before must be sound text too.
                5 if !envelope.validator.is_empty() => return Ok(None),
                5 => envelope.validator = &message[value.bytes()?],
                _ => {}
            }
        }
        Ok(Some(envelope))
    }
}

/// Votes that came together; items numbered from 0 within it.
pub struct VoteBatch(Kind);

enum Kind {
    Rows(Rows),
    Columns(Columns),
}

impl VoteBatch {
    pub fn len(&self) -> usize {
        match &self.0 {
            Kind::Rows(rows) => rows.len(),
            Kind::Columns(columns) => columns.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of it, for the only shard: no id is looked at here.
    pub fn into_source(self) -> Box<dyn CommandSource> {
        match self.0 {
            Kind::Rows(rows) => Box::new(rows),
            Kind::Columns(columns) => Box::new(columns),
        }
    }

    /// A source for each shard touched. Items keep their numbers, so a source's items ascend with gaps.
    pub fn split(self, shards: usize, shard_of: impl Fn(&ApprovalId) -> usize) -> Vec<(usize, Box<dyn CommandSource>)> {
        fn boxed<S: CommandSource + 'static>((shard, source): (usize, S)) -> (usize, Box<dyn CommandSource>) {
            (shard, Box::new(source))
        }
        match self.0 {
            _ if shards == 1 => vec![(0, self.into_source())],
            Kind::Rows(rows) => rows.split(shards, shard_of).map(boxed).collect(),
            Kind::Columns(columns) => columns.split(shards, shard_of).map(boxed).collect(),
        }
    }
}

/// Gathers single votes, one message each, into one batch of rows.
#[derive(Default)]
pub struct RowRun {
    body: Vec<u8>,
    count: u32,
}

impl RowRun {
    /// Takes an ApprovalResponse's bytes. What is wrong within it is found when the row is decoded.
    #[inline]
    pub fn push(&mut self, response: &[u8]) {
        self.body.reserve(response.len() + 6);
        self.body.push(0x0A);
        put_varint(&mut self.body, response.len() as u64);
        self.body.extend_from_slice(response);
        self.count += 1;
    }

    pub fn len(&self) -> usize {
        self.count as usize
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The rows so far; the run is empty afterwards.
    pub fn take(&mut self) -> VoteBatch {
        let body = std::mem::take(&mut self.body);
        VoteBatch(Kind::Rows(Rows::new(body.into(), std::mem::take(&mut self.count))))
    }
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
