//! The two unary submits: judged, asked of the shard, and where memory does not know the approval, of
//! the archive. Repeats and outcomes are answered from there as they would be from memory.

use super::archive::Archive;
use super::front::Deps;
use crate::model::{ApprovalId, ApprovalState, LogId, Refusal, Status};
use crate::shard::{Absence, Known, OwnedVote, Shards, Voted};
use crate::store::Archived;
use crate::wire::{parse_open, parse_vote, status_message, v1};

/// An approval as it stands, and its log.
type Standing = (ApprovalState, LogId);

pub(super) async fn open(deps: &Deps, request: v1::ApprovalRequest) -> Result<v1::ApprovalStatusMessage, Refusal> {
    let drawn = ApprovalId(uuid::Uuid::now_v7().into_bytes());
    let count = |refusal: &Refusal| deps.facts.request_refused(refusal.reason());
    let request = parse_open(&request, Some(drawn), deps.limits.content_bytes_max).inspect_err(count)?;
    let shards = &deps.shards;
    let opened = match &deps.archive {
        None => shards.open(request, None).await,
        Some(archive) => {
            // What is certainly new and what memory holds needs no look-up.
            let is_at_hand = shards.known(&request.id) == Known::New || in_memory(shards, request.id).await?.is_some();
            let first = if is_at_hand { shards.open(request.clone(), None).await } else { Err(Refusal::LookUpFirst) };
            match first {
                Err(Refusal::LookUpFirst) => {
                    let absence = Absence::now();
                    match archive.approval(request.id).await.inspect_err(count)? {
                        None => shards.open(request, Some(absence)).await,
                        Some(found) if found.digest == request.digest => {
                            deps.facts.request_repeated();
                            let (state, log) = newest(shards, found).await?;
                            return Ok(v1::ApprovalStatusMessage { repeat: true, ..status_message(&state, log) });
                        }
                        Some(_) => {
                            count(&Refusal::IdTaken);
                            Err(Refusal::IdTaken)
                        }
                    }
                }
                answer => answer,
            }
        }
    };
    let opened = opened.inspect_err(|refusal| never_judged(refusal, count))?;
    let log = shards.log_of(opened.state.last_event);
    Ok(v1::ApprovalStatusMessage { repeat: opened.repeat, ..status_message(&opened.state, log) })
}

pub(super) async fn vote(deps: &Deps, response: v1::ApprovalResponse) -> Result<v1::ApprovalStatusMessage, Refusal> {
    let count = |refusal: &Refusal| deps.facts.vote_refused(refusal.reason());
    let vote = parse_vote(&response).inspect_err(count)?;
    let vote =
        OwnedVote { approval: vote.approval, validator: vote.validator, decision: vote.decision, extras: vote.extras };
    let shards = &deps.shards;
    let voted = match shards.vote(vote.clone()).await {
        Err(refusal @ (Refusal::NotFound | Refusal::ApprovalClosed)) => {
            let closed = match deps.archive_of(&vote.approval) {
                Some(archive) => closed_vote(archive, shards, vote).await,
                None => Err(refusal),
            };
            match closed {
                Ok(Closed::Repeat((state, log))) => {
                    deps.facts.vote_repeated();
                    return Ok(v1::ApprovalStatusMessage { repeat: true, ..status_message(&state, log) });
                }
                // The shard has counted what it refused itself.
                Ok(Closed::Voted(answer)) => answer,
                Err(refusal) => {
                    count(&refusal);
                    return Err(refusal);
                }
            }
        }
        answer => answer,
    };
    let voted = voted.inspect_err(|refusal| never_judged(refusal, count))?;
    let log = shards.log_of(voted.state.last_event);
    Ok(v1::ApprovalStatusMessage { repeat: voted.repeat, ..status_message(&voted.state, log) })
}

/// What became of a vote on an approval that was not in memory.
enum Closed {
    /// It stands in the archive.
    Repeat(Standing),
    /// It was in memory after all.
    Voted(Result<Voted, Refusal>),
}

/// In the order of the rules: not there; a vote of this validator stands; decided.
async fn closed_vote(archive: &Archive, shards: &Shards, vote: OwnedVote) -> Result<Closed, Refusal> {
    let found = archive.approval(vote.approval).await?.ok_or(Refusal::NotFound)?;
    let Some(outcome) = found.state.status.outcome() else {
        // Opened and archived since the shard was asked; otherwise the journal does not have it.
        return match shards.vote(vote).await {
            Err(Refusal::NotFound | Refusal::ApprovalClosed) => Err(Refusal::ArchiveUnavailable(
                "the archive holds this approval as pending and the journal does not: was the folder rolled back?"
                    .into(),
            )),
            answer => Ok(Closed::Voted(answer)),
        };
    };
    match archive.vote(vote.approval, vote.validator).await? {
        Some(standing) if standing.decision == vote.decision => Ok(Closed::Repeat((found.state, found.log))),
        Some(standing) => Err(Refusal::VoteStands(standing.decision)),
        None => Err(Refusal::ApprovalDecided(outcome)),
    }
}

/// As memory holds it: an overdue one is made Expired first.
pub(super) async fn in_memory(shards: &Shards, id: ApprovalId) -> Result<Option<ApprovalState>, Refusal> {
    Ok(shards.statuses(vec![id]).await?.pop().flatten())
}

/// The archive follows: of what it holds as pending, memory knows more.
pub(super) async fn newest(shards: &Shards, found: Archived) -> Result<Standing, Refusal> {
    if found.state.status == Status::Pending
        && let Some(state) = in_memory(shards, found.state.id).await?
    {
        let log = shards.log_of(state.last_event);
        return Ok((state, log));
    }
    Ok((found.state, found.log))
}

/// Shards count what they refuse; what never got there, or only lacked a look-up, is counted here.
fn never_judged(refusal: &Refusal, count: impl Fn(&Refusal)) {
    if matches!(refusal, Refusal::Overloaded | Refusal::LookUpFirst) {
        count(refusal);
    }
}
