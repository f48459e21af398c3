//! getApprovalStatus and getApprovalStatuses: from memory, and what memory no longer has from the
//! archive, in the same words and the same pages.

use super::archive::Archive;
use super::front::Deps;
use super::page::Page;
use super::status;
use crate::model::{ApprovalId, ApprovalState, LogId, Refusal, Status as ApprovalStatus, ValidatorId};
use crate::shard::VoteLine;
use crate::store::ArchivedVote;
use crate::wire::{parse_uuid, status_message, v1, vote_message};
use bytes::Bytes;
use prost::Message;
use std::collections::HashMap;
use tonic::Status;

/// Votes on a page, at most.
const PAGE_LINES_MAX: usize = 1_000;
/// 768 KiB of votes with their names, reasons, signatures and times at their longest.
const FULL_PAGE_LINES_MAX: usize = (768 << 10) / FULL_LINE_BYTES_MAX;
const FULL_LINE_BYTES_MAX: usize = 64 + 1_024 + 512 + 64;
const STATUSES_MAX: usize = 1_000;
pub(super) const STATUSES_BYTES_MAX: usize = 1 << 20;

/// A page of an approval, wherever it came from.
struct Reading {
    state: ApprovalState,
    log: LogId,
    votes: Vec<v1::ValidatorVote>,
    /// More votes follow behind this one.
    next: Option<ValidatorId>,
    /// Of FULL: the content, or why it and the rest are not to be had.
    details: Option<Result<Bytes, String>>,
}

/// One page: votes first; in the FULL view, behind the last vote, the eligible validators.
pub(super) async fn page(
    deps: &Deps,
    request: v1::GetApprovalStatusRequest,
) -> Result<v1::ApprovalStatusMessage, Status> {
    let id = parse_uuid(request.approval_id.as_bytes()).map(ApprovalId);
    let id = id.ok_or_else(|| status::invalid_field("approval_id", "must be a UUID"))?;
    let view = v1::ApprovalView::try_from(request.view);
    let view = view.map_err(|_| status::invalid_field("view", "must be BASIC or FULL"))?;
    let is_full = view == v1::ApprovalView::Full;
    let lines_max = match request.page_size as usize {
        0 => PAGE_LINES_MAX,
        size @ 1..=PAGE_LINES_MAX => size,
        _ => return Err(status::invalid_field("page_size", "must be 1 to 1,000, or 0 for 1,000")),
    };
    let lines_max = if is_full { lines_max.min(FULL_PAGE_LINES_MAX) } else { lines_max };
    let page = Page::parse(&request.page_token, &id)?;
    let refused = |refusal: Refusal| status::status(&refusal);
    let reading = read(deps, id, &page, lines_max, is_full).await.map_err(refused)?;
    let mut message = status_message(&reading.state, reading.log);
    message.votes = reading.votes;
    match reading.details {
        None => {}
        Some(Ok(content)) => {
            message.detail = v1::DetailStatus::Complete as i32;
            // Once is enough: the first page has it.
            message.content = if page == Page::FIRST { content } else { Bytes::new() };
        }
        Some(Err(why)) => {
            message.detail = v1::DetailStatus::Unavailable as i32;
            message.detail_reason = why;
        }
    }
    if let Some(next) = reading.next {
        message.next_page_token = Page::Votes(Some(next)).token(&id);
    } else if is_full && message.eligible_count != 0 {
        let after = if let Page::Eligible(after) = page { after } else { None };
        let next = match lines_max.saturating_sub(message.votes.len()) {
            0 => Some(Page::Eligible(after)),
            room => {
                let (names, next) = eligible(deps, id, after, room).await.map_err(refused)?;
                message.eligible_validators = names.iter().map(ValidatorId::to_string).collect();
                next.map(|last| Page::Eligible(Some(last)))
            }
        };
        message.next_page_token = next.map(|next| next.token(&id)).unwrap_or_default();
    }
    Ok(message)
}

async fn read(deps: &Deps, id: ApprovalId, page: &Page, max: usize, is_full: bool) -> Result<Reading, Refusal> {
    let archive = match from_memory(deps, id, page, max, is_full).await {
        Err(refusal @ (Refusal::NotFound | Refusal::ApprovalClosed)) => deps.archive_of(&id).ok_or(refusal)?,
        answer => return answer,
    };
    let found = archive.approval(id).await?.ok_or(Refusal::NotFound)?;
    // Opened and archived since memory was asked: memory knows more of it.
    if found.state.status == ApprovalStatus::Pending
        && let Ok(reading) = from_memory(deps, id, page, max, is_full).await
    {
        return Ok(reading);
    }
    let mut reading = Reading { state: found.state, log: found.log, votes: Vec::new(), next: None, details: None };
    if let Page::Votes(after) = page {
        let part = archive.votes(id, after.as_ref(), max).await?;
        reading.votes = part.items.iter().map(|vote| archived_vote(vote, is_full)).collect();
        reading.next = part.next;
    }
    if is_full {
        let content = if *page == Page::FIRST { archive.content(id).await? } else { Some(Bytes::new()) };
        reading.details = Some(content.ok_or_else(|| "the archive has no content of it".to_string()));
    }
    Ok(reading)
}

async fn from_memory(deps: &Deps, id: ApprovalId, page: &Page, max: usize, is_full: bool) -> Result<Reading, Refusal> {
    let shards = &deps.shards;
    let (after, votes_max) = match page {
        Page::Votes(after) => (after.clone(), max),
        Page::Eligible(_) => (None, 0),
    };
    let mut answer = shards.status(id, after, votes_max).await?;
    let mut details = None;
    if matches!(page, Page::Eligible(_)) {
        answer.next = None;
        details = is_full.then(|| Ok(Bytes::new()));
    } else if is_full {
        details = Some(match (shards.full(&answer.state, &mut answer.votes).await, &deps.archive) {
            (Err(why), Some(archive)) => {
                details_of(archive, id, &mut answer.votes).await.map_err(|other| format!("{why}; {other}"))
            }
            (read, _) => read,
        });
    }
    let votes = answer.votes.iter().map(vote_of).collect();
    let log = shards.log_of(answer.state.last_event);
    Ok(Reading { state: answer.state, log, votes, next: answer.next, details })
}

/// Content of an approval in memory, and the rest of these votes, where the journal no longer has them.
async fn details_of(archive: &Archive, id: ApprovalId, lines: &mut [VoteLine]) -> Result<Bytes, String> {
    let content = archive.content(id).await.map_err(|refusal| status::status(&refusal).message().to_string())?;
    let content = content.ok_or("the archive does not have it yet")?;
    let mut found = HashMap::with_capacity(lines.len());
    let wanted: HashMap<_, _> = lines.iter().enumerate().map(|(at, line)| (&*line.validator, at)).collect();
    let read = archive.each_vote(id, |vote| {
        if let Some(at) = wanted.get(vote.validator.as_str()) {
            found.insert(*at, vote);
        }
    });
    read.await.map_err(|refusal| status::status(&refusal).message().to_string())?;
    drop(wanted);
    if found.len() < lines.len() {
        return Err("the archive does not have all its votes yet".into());
    }
    for (at, vote) in found {
        let line = &mut lines[at];
        line.sequence = vote.at.sequence;
        line.voted_at = Some(vote.voted_at);
        (line.reason, line.signature) = (vote.reason, vote.signature);
    }
    Ok(content)
}

async fn eligible(
    deps: &Deps,
    id: ApprovalId,
    after: Option<ValidatorId>,
    max: usize,
) -> Result<(Vec<ValidatorId>, Option<ValidatorId>), Refusal> {
    match (deps.shards.eligible(id, after.clone(), max).await?, &deps.archive) {
        (Some(part), _) => Ok(part),
        (None, Some(archive)) => archive.eligible(id, after, max).await.map(|part| (part.items, part.next)),
        (None, None) => Ok((Vec::new(), None)),
    }
}

fn vote_of(line: &VoteLine) -> v1::ValidatorVote {
    vote_message(&line.validator, line.decision, &line.reason, &line.signature, line.voted_at, line.sequence)
}

/// BASIC says who voted what, and no more: as memory does.
fn archived_vote(vote: &ArchivedVote, is_full: bool) -> v1::ValidatorVote {
    match is_full {
        false => vote_message(vote.validator.as_str(), vote.decision, "", &[], None, 0),
        true => vote_message(
            vote.validator.as_str(),
            vote.decision,
            &vote.reason,
            &vote.signature,
            Some(vote.voted_at),
            vote.at.sequence,
        ),
    }
}

pub(super) async fn statuses(
    deps: &Deps,
    request: v1::GetApprovalStatusesRequest,
) -> Result<v1::GetApprovalStatusesResponse, Status> {
    if !(1..=STATUSES_MAX).contains(&request.approval_ids.len()) {
        return Err(status::invalid_field("approval_ids", "must be 1 to 1,000 UUIDs"));
    }
    let mut ids = Vec::with_capacity(request.approval_ids.len());
    for (at, text) in request.approval_ids.iter().enumerate() {
        let id = parse_uuid(text.as_bytes()).ok_or_else(|| {
            let field = format!("approval_ids[{at}]").into();
            status::invalid_argument(&crate::model::Invalid { field, message: "must be a UUID".into() })
        })?;
        ids.push(ApprovalId(id));
    }
    let states = standing(deps, ids).await.map_err(|refusal| status::status(&refusal))?;
    let mut answer = v1::GetApprovalStatusesResponse::default();
    let mut bytes = 0;
    for (state, text) in states.into_iter().zip(request.approval_ids) {
        let message = state.map(|(state, log)| status_message(&state, log));
        // Four bytes of framing, and the id in one of the two lists.
        bytes += 4 + message.as_ref().map_or(text.len(), Message::encoded_len);
        match message {
            _ if bytes > STATUSES_BYTES_MAX => answer.remaining_ids.push(text),
            Some(message) => answer.approvals.push(message),
            None => answer.unknown_ids.push(text),
        }
    }
    Ok(answer)
}

/// How each of these stands, and in which log: from memory, the rest from the archive.
pub(super) async fn standing(
    deps: &Deps,
    ids: Vec<ApprovalId>,
) -> Result<Vec<Option<(ApprovalState, LogId)>>, Refusal> {
    let shards = &deps.shards;
    let with_log = |state: ApprovalState| {
        let log = shards.log_of(state.last_event);
        (state, log)
    };
    let states = shards.statuses(ids.clone()).await?;
    let mut standing: Vec<_> = states.into_iter().map(|state| state.map(with_log)).collect();
    let is_asked = |at: &usize| standing[*at].is_none() && deps.archive_of(&ids[*at]).is_some();
    let missing: Vec<usize> = (0..ids.len()).filter(is_asked).collect();
    let Some(archive) = deps.archive.as_ref().filter(|_| !missing.is_empty()) else { return Ok(standing) };
    let found = archive.approvals(missing.iter().map(|at| ids[*at]).collect()).await?;
    let mut pending = Vec::new();
    for (at, found) in missing.into_iter().zip(found) {
        let Some(found) = found else { continue };
        if found.state.status == ApprovalStatus::Pending {
            pending.push(at);
        }
        standing[at] = Some((found.state, found.log));
    }
    // Opened and archived since memory was asked: memory knows more of them.
    if !pending.is_empty() {
        let newer = shards.statuses(pending.iter().map(|at| ids[*at]).collect()).await?;
        for (at, state) in pending.into_iter().zip(newer) {
            if let Some(state) = state {
                standing[at] = Some(with_log(state));
            }
        }
    }
    Ok(standing)
}
