//! The events of a data folder as lines: for people, or as proto-JSON.

use super::Exit;
use crate::journal::{BatchView, LogReader, verify};
use crate::model::codec::{self, Record};
use crate::model::{Decided, Event, EventKind, LogId, Micros, RequesterId, RequesterRef, Status, Tally, ValidatorRef};
use crate::wire::{self, v1};
use anyhow::{Context, bail};
use std::collections::HashMap;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Writes every event of the folder to stdout.
pub fn run(folder: &Path, json: bool) -> anyhow::Result<Exit> {
    let report = verify(folder)?;
    let json = json.then(wire::EventJson::default);
    let mut out = BufWriter::new(io::stdout().lock());
    for found in &report.logs {
        let log = report.meta.log(found.ordinal).context("the report names only logs of the meta file")?;
        let mut names = Names { log: LogId(log.id), validators: HashMap::new(), requesters: HashMap::new() };
        let mut reader = LogReader::open(folder, log)?;
        while let Some(frame) = reader.next(found.sequences.1)? {
            for batch in frame.batches() {
                let written = names.batch(&batch, |event| write_event(&mut out, event, json.as_ref()));
                if let Err(error) = written {
                    return closed_or(error);
                }
            }
        }
    }
    if let Err(error) = out.flush() {
        return closed_or(error.into());
    }
    for log in &report.logs {
        if let Some(damage) = &log.damage {
            eprintln!("assent: log {} is damaged; what came before is above. {damage}", log.ordinal);
        }
    }
    Ok(if report.is_sound() { Exit::Done } else { Exit::Refused })
}

/// A reader that closed the pipe (`| head`) has what it wanted.
fn closed_or(error: anyhow::Error) -> anyhow::Result<Exit> {
    match error.downcast_ref::<io::Error>() {
        Some(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Done),
        _ => Err(error),
    }
}

/// What a segment's definitions say so far: each segment defines its references anew.
struct Names {
    log: LogId,
    validators: HashMap<ValidatorRef, String>,
    requesters: HashMap<RequesterRef, RequesterId>,
}

impl Names {
    fn batch(
        &mut self,
        batch: &BatchView<'_>,
        mut take: impl FnMut(v1::ApprovalEvent) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        if batch.segment_start {
            self.validators.clear();
            self.requesters.clear();
        }
        let (mut rest, mut sequence) = (batch.payload, batch.first_sequence);
        while !rest.is_empty() {
            let (record, length) =
                codec::decode(rest).with_context(|| format!("log {}, at sequence {sequence}", self.log.0))?;
            rest = &rest[length..];
            match record {
                Record::DefineValidator { number, name } => drop(self.validators.insert(number, name.into())),
                Record::DefineRequester { number, id } => drop(self.requesters.insert(number, id)),
                Record::DefineSet { .. } => {}
                Record::Event(event) => {
                    take(self.message(&event, sequence, Micros(batch.now_micros))?)?;
                    sequence += 1;
                }
            }
        }
        Ok(())
    }

    /// The event as streams publish it (ApprovalEvent).
    fn message(&self, event: &Event<'_>, sequence: u64, now: Micros) -> anyhow::Result<v1::ApprovalEvent> {
        let mut approval = v1::ApprovalStatusMessage { approval_id: event.approval.to_string(), ..Default::default() };
        approval.log = self.log.0;
        approval.sequence = sequence;
        let mut vote = None;
        let kind = match &event.kind {
            EventKind::Opened(opened) => {
                approval.status = Status::Pending as i32;
                approval.approval_type = opened.approval_type as i32;
                approval.priority = opened.priority as i32;
                approval.requester_id = self.requester(opened.requester)?;
                approval.content_hash = opened.content_hash.to_string();
                approval.required_approvals = opened.required.into();
                approval.total_validators = opened.total.into();
                approval.created_at = Some(wire::timestamp(opened.created_at));
                approval.expires_at = Some(wire::timestamp(opened.expires_at));
                approval.content = opened.content.to_vec().into();
                v1::ApprovalEventType::Created
            }
            EventKind::Voted(voted) => {
                approval.approval_type = voted.approval_type as i32;
                approval.priority = voted.priority as i32;
                approval.requester_id = self.requester(voted.requester)?;
                approval.status = Status::Pending as i32;
                fill_tally(&mut approval, voted.tally);
                let Some(name) = self.validators.get(&voted.validator) else {
                    bail!("sequence {sequence} names a validator that its segment does not define");
                };
                let (reason, signature) = (voted.reason, voted.signature);
                vote = Some(wire::vote_message(name, voted.decision, reason, signature, Some(now), sequence));
                match &voted.decided {
                    None => v1::ApprovalEventType::Updated,
                    Some(decided) => fill_decided(&mut approval, decided),
                }
            }
            EventKind::Expired(expired) => {
                approval.approval_type = expired.approval_type as i32;
                approval.priority = expired.priority as i32;
                approval.requester_id = self.requester(expired.requester)?;
                fill_tally(&mut approval, expired.tally);
                fill_decided(&mut approval, &expired.decided)
            }
        };
        Ok(v1::ApprovalEvent {
            log: self.log.0,
            sequence,
            event_type: kind as i32,
            time: Some(wire::timestamp(now)),
            approval: Some(approval),
            vote,
        })
    }

    fn requester(&self, number: RequesterRef) -> anyhow::Result<String> {
        let found = self.requesters.get(&number).map(RequesterId::to_string);
        found.with_context(|| format!("requester {} is used and not defined in its segment", number.0))
    }
}

fn fill_tally(approval: &mut v1::ApprovalStatusMessage, tally: Tally) {
    approval.approvals = tally.approvals.into();
    approval.rejections = tally.rejections.into();
    approval.abstentions = tally.abstentions.into();
}

fn fill_decided(approval: &mut v1::ApprovalStatusMessage, decided: &Decided) -> v1::ApprovalEventType {
    approval.status = decided.outcome.status() as i32;
    approval.content_hash = decided.content_hash.to_string();
    approval.required_approvals = decided.required.into();
    approval.total_validators = decided.total.into();
    approval.created_at = Some(wire::timestamp(decided.created_at));
    approval.expires_at = Some(wire::timestamp(decided.expires_at));
    approval.finalized_at = Some(wire::timestamp(decided.finalized_at));
    v1::ApprovalEventType::Finalized
}

fn write_event(out: &mut impl Write, event: v1::ApprovalEvent, json: Option<&wire::EventJson>) -> anyhow::Result<()> {
    match json {
        None => Ok(writeln!(out, "{}", line(&event))?),
        Some(json) => Ok(json.write_line(&event, out)?),
    }
}

/// `LOG SEQUENCE TIME what happened`.
fn line(event: &v1::ApprovalEvent) -> String {
    let approval = event.approval.clone().unwrap_or_default();
    let micros = event.time.as_ref().and_then(wire::micros).unwrap_or_default();
    let head = format!("{} {} {micros} {}", event.log, event.sequence, approval.approval_id);
    let tally =
        format!("({} for, {} against, {} abstained)", approval.approvals, approval.rejections, approval.abstentions);
    let status = approval.status().as_str_name().trim_start_matches("APPROVAL_STATUS_").to_string();
    match (&event.vote, event.event_type()) {
        (None, v1::ApprovalEventType::Created) => format!(
            "{head} opened by {}: {} of {} must approve until {}, content {}",
            approval.requester_id,
            approval.required_approvals,
            approval.total_validators,
            approval.expires_at.as_ref().and_then(wire::micros).unwrap_or_default(),
            approval.content_hash
        ),
        (Some(vote), kind) => {
            let decision = vote.decision().as_str_name().trim_start_matches("VALIDATOR_DECISION_").to_string();
            let decided = if kind == v1::ApprovalEventType::Finalized { format!(": {status}") } else { String::new() };
            format!("{head} {} voted {decision} {tally}{decided}", vote.validator_id)
        }
        (None, _) => format!("{head} {status} {tally}"),
    }
}
