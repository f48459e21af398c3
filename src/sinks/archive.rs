//! The archive as a sink: events become rows, one transaction a batch, its position among them.

use super::{Batch, BatchLimits, Error, Run, Sink, event_message};
use crate::model::{ApprovalId, Decided, LogId, Position};
use crate::shard::{FeedEvent, FeedKind};
use crate::store::{self, NewApproval, NewOutcome, NewVote, Reject, Store, WriteBatch, Writer};
use crate::wire::EventJson;
use std::collections::HashMap;
use std::sync::Arc;

/// Writes into a store.
pub struct ArchiveSink {
    store: Arc<dyn Store>,
    deployment: [u8; 16],
    limits: BatchLimits,
    /// Made anew after every error.
    writer: Option<Box<dyn Writer>>,
}

impl ArchiveSink {
    pub fn new(store: Arc<dyn Store>, deployment: [u8; 16], limits: BatchLimits) -> ArchiveSink {
        ArchiveSink { store, deployment, limits, writer: None }
    }

    fn writer(&mut self) -> Result<&mut Box<dyn Writer>, Error> {
        self.writer.as_mut().ok_or_else(|| Error::Unavailable("not connected yet".into()))
    }
}

impl Sink for ArchiveSink {
    fn name(&self) -> &'static str {
        "archive"
    }

    fn limits(&self) -> BatchLimits {
        self.limits
    }

    /// Whoever asks the archive relies on its being complete.
    fn needs_all(&self) -> bool {
        true
    }

    fn resume(&mut self) -> Result<Vec<Position>, Error> {
        // The old connection is gone before a new one asks for the same place.
        self.writer = None;
        let mut writer = self.store.writer()?;
        writer.adopt(self.deployment)?;
        let positions = writer.positions()?;
        self.writer = Some(writer);
        Ok(positions)
    }

    fn deliver(&mut self, batch: &Batch) -> Result<(), Error> {
        let rows = rows(batch);
        Ok(self.writer()?.write(&rows)?)
    }

    fn reject(&mut self, run: &Run, reason: &str) -> Result<(), Error> {
        let event = &run.events[0];
        let mut json = Vec::new();
        EventJson::default().write_line(&event_message(event, run.log), &mut json).expect("memory takes everything");
        let at = run.after();
        let reject = Reject { at, approval: event.approval, event: json, reason: reason.into() };
        Ok(self.writer()?.reject(&reject, at)?)
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Error {
        match error {
            store::Error::Unavailable(_) => Error::Unavailable(error.to_string()),
            store::Error::Refused(_) => Error::Refused(error.to_string()),
            store::Error::Stopped(_) => Error::Stopped(error.to_string()),
        }
    }
}

/// A batch as rows. An approval opened and decided in it is one row, written once.
fn rows(batch: &Batch) -> WriteBatch {
    let mut rows = WriteBatch::default();
    let mut opened: HashMap<ApprovalId, usize> = HashMap::new();
    for run in &batch.runs {
        for event in &run.events {
            if let Some(outcome) = row(event, run.log, &mut rows, &mut opened) {
                match opened.get(&event.approval) {
                    Some(index) => rows.approvals[*index].outcome = Some(outcome),
                    None => rows.outcomes.push(outcome),
                }
            }
        }
        rows.after.push(run.after());
    }
    rows
}

/// Adds an event's own row; gives the outcome, where it decides.
fn row(
    event: &FeedEvent,
    log: LogId,
    rows: &mut WriteBatch,
    opened: &mut HashMap<ApprovalId, usize>,
) -> Option<NewOutcome> {
    let at = Position { log, sequence: event.at.sequence() };
    let outcome = |decided: &Decided| NewOutcome {
        id: event.approval,
        outcome: decided.outcome,
        tally: event.tally,
        finalized_at: decided.finalized_at,
        version: event.version(),
        decided: at,
    };
    match &event.kind {
        FeedKind::Opened { content_hash, required, total, created_at, expires_at, details } => {
            let details = details.as_ref().expect("the pump reads openings with their details");
            opened.insert(event.approval, rows.approvals.len());
            rows.approvals.push(NewApproval {
                id: event.approval,
                approval_type: event.approval_type,
                priority: event.priority,
                requester: event.requester,
                content: details.content.clone(),
                content_hash: content_hash.clone(),
                required: *required,
                total: *total,
                created_at: *created_at,
                expires_at: *expires_at,
                digest: details.digest,
                eligible: details.eligible.clone(),
                opened: at,
                outcome: None,
            });
            None
        }
        FeedKind::Voted { validator, decision, reason, signature, decided } => {
            rows.votes.push(NewVote {
                approval: event.approval,
                validator: validator.clone(),
                decision: *decision,
                reason: reason.clone(),
                signature: signature.clone(),
                voted_at: event.time,
                version: event.version(),
                at,
            });
            decided.as_deref().map(outcome)
        }
        FeedKind::Expired { decided } => Some(outcome(decided)),
    }
}
