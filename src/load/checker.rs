//! The checker: compares a ledger with what a node says, exactly.
//!
//! Every approval's tally is asked for in bulk and must equal the acknowledged votes, decision by
//! decision, its status the tally. Where votes are unknown, where a tally differs, and for a sample,
//! the votes are asked for by name: each acknowledged one must be there with its decision, an
//! unknown one may, nothing else may.

use super::ledger::{Index, Ledger};
use super::scheme::{EXPIRY_SECONDS, Scheme};
use super::track::{Fate, TrackKind, number};
use crate::grpc::client::{ANSWER_BYTES_MAX, Refused};
use crate::wire::v1::approval_grpc_service_client::ApprovalGrpcServiceClient;
use crate::wire::v1::{self, ApprovalStatus, ApprovalStatusMessage};
use futures_util::StreamExt;
use serde::Serialize;
use std::collections::HashMap;
use std::time::Duration;
use tonic::Status;
use tonic::transport::Channel;

/// Ids a bulk request.
const IDS_A_REQUEST: usize = 1_000;
const REQUESTS_IN_FLIGHT: usize = 8;
/// Mismatches that are told one by one.
const EXAMPLES_MAX: usize = 10;

/// What came of the comparison. Items are votes and opens.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Verdict {
    /// Nothing is missing and nothing unexpected; `None`: not compared.
    pub balances: Option<bool>,
    pub acknowledged: u64,
    /// Acknowledged, and the node does not have it.
    pub missing: u64,
    /// The node has it, and it was refused or never sent; or a status that the votes do not give.
    pub unexpected: u64,
    /// Never answered; of these, how many count.
    pub unknown: u64,
    pub unknown_counted: u64,
    pub approvals_checked: u64,
    /// Of these, vote by vote.
    pub approvals_checked_by_vote: u64,
    pub examples: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Decided {
    pub approved: u64,
    pub rejected: u64,
    pub expired: u64,
}

/// What is expected of one approval.
#[derive(Clone, Copy, Default)]
struct Expected {
    /// Acknowledged votes by decision.
    tally: [u16; 3],
    has_unknown: bool,
    has_refused: bool,
}

impl Expected {
    #[inline(always)]
    fn expect(&mut self, fate: Fate, decision: u8) {
        match fate {
            Fate::Acknowledged => self.tally[usize::from(decision - 1)] += 1,
            Fate::Unknown => self.has_unknown = true,
            Fate::Refused => self.has_refused = true,
            Fate::Unsent => {}
        }
    }
}

struct Check<'a> {
    scheme: &'a Scheme,
    index: Index<'a>,
    channels: &'a [Channel],
    /// All refused votes were so because the approval was decided.
    refused_means_decided: bool,
    verdict: Verdict,
    decided: Decided,
}

/// Asks the node for everything in the ledger. `progress` hears how many approvals are done.
pub async fn check(
    ledger: &Ledger,
    channels: &[Channel],
    sample: u64,
    mut progress: impl FnMut(u64),
) -> Result<(Verdict, Decided), Status> {
    let scheme = ledger.scheme();
    let decided_reason = usize::from(crate::model::Reason::ApprovalDecided.number());
    let refused_otherwise =
        ledger.header.votes_refused.iter().enumerate().any(|(reason, count)| reason != decided_reason && *count > 0);
    let mut check = Check {
        scheme: &scheme,
        index: ledger.index(&scheme),
        channels,
        refused_means_decided: !refused_otherwise,
        verdict: Verdict { acknowledged: ledger.acknowledged(), unknown: ledger.unknown(), ..Verdict::default() },
        decided: Decided::default(),
    };
    if scheme.expiring {
        // The last of them may have been opened just now.
        tokio::time::sleep(Duration::from_secs(EXPIRY_SECONDS + 1)).await;
    }
    let opens = |block| ledger.tracks.iter().filter(move |t| t.block == block && t.kind == TrackKind::Open);
    let mut blocks: Vec<u16> = ledger.tracks.iter().map(|track| track.block).collect();
    blocks.sort_unstable();
    blocks.dedup();
    let total: u64 = blocks.iter().flat_map(|block| opens(*block)).map(|track| track.sent - track.from).sum();
    // Every how many approvals one is looked at vote by vote.
    let every = total.checked_div(sample).unwrap_or(u64::MAX).max(1);
    for block in blocks {
        let expected = expectations(ledger, &scheme, &check.index, block);
        let offsets: Vec<u64> = opens(block).flat_map(|track| track.from..track.sent).collect();
        check.block(block, &offsets, &expected, every, &mut progress).await?;
    }
    check.verdict.balances = Some(check.verdict.missing == 0 && check.verdict.unexpected == 0);
    Ok((check.verdict, check.decided))
}

/// Replays the tracks of a block into a tally an approval.
fn expectations(ledger: &Ledger, scheme: &Scheme, index: &Index<'_>, block: u16) -> Vec<Expected> {
    let of_block = || ledger.tracks.iter().filter(|track| track.block == block);
    let mut size = of_block().filter(|track| track.kind == TrackKind::Open).map(|track| track.sent).max().unwrap_or(0);
    for track in of_block() {
        size = size.max(match track.kind {
            TrackKind::Vote { shuffled: true, .. } => ledger.header.approvals,
            TrackKind::Vote { .. } | TrackKind::Open => track.sent,
            // On what was opened.
            TrackKind::Drawn { .. } => 0,
        });
    }
    let mut expected = vec![Expected::default(); size as usize];
    for track in of_block() {
        let validator = match track.kind {
            TrackKind::Vote { validator, .. } => &scheme.validators[usize::from(validator)],
            TrackKind::Open => continue,
            TrackKind::Drawn { .. } => {
                for (offset, slot) in (0..).zip(&mut expected) {
                    let id = scheme.ids.id(number(block, offset));
                    for (who, validator) in (0..).zip(&scheme.validators) {
                        slot.expect(index.vote(scheme, who, block, offset), scheme.decision(validator, id));
                    }
                }
                continue;
            }
        };
        let all_counted = track.unknown.is_empty() && track.refused.is_empty();
        for slice in track.sent_slices() {
            let mut position = slice.start;
            slice.for_each_number(scheme, |number| {
                let slot = &mut expected[(number & u64::from(u32::MAX)) as usize];
                let fate = if all_counted { Fate::Acknowledged } else { track.fate(position) };
                position += 1;
                slot.expect(fate, scheme.decision(validator, scheme.ids.id(number)));
            });
        }
    }
    expected
}

/// What the rules make of a tally.
fn status_of(tally: [u16; 3], required: u16, total: u16) -> ApprovalStatus {
    let [approvals, rejections, abstentions] = tally.map(i32::from);
    if approvals >= i32::from(required) {
        ApprovalStatus::Approved
    } else if i32::from(total) - rejections - abstentions < i32::from(required) {
        ApprovalStatus::Rejected
    } else {
        ApprovalStatus::Pending
    }
}

fn client(channels: &[Channel], at: usize) -> ApprovalGrpcServiceClient<Channel> {
    ApprovalGrpcServiceClient::new(channels[at % channels.len()].clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
}

fn id_text(scheme: &Scheme, block: u16, offset: u64) -> String {
    let text = scheme.ids.id(number(block, offset)).text();
    std::str::from_utf8(&text).expect("ids are ASCII").to_owned()
}

impl Check<'_> {
    fn example(&mut self, what: impl FnOnce() -> String) {
        if self.verdict.examples.len() < EXAMPLES_MAX {
            self.verdict.examples.push(what());
        }
    }

    async fn block(
        &mut self,
        block: u16,
        offsets: &[u64],
        expected: &[Expected],
        every: u64,
        progress: &mut impl FnMut(u64),
    ) -> Result<(), Status> {
        let mut by_vote = Vec::new();
        let (scheme, channels) = (self.scheme, self.channels);
        let requests = offsets.chunks(IDS_A_REQUEST).enumerate().map(|(at, offsets)| {
            let ids: Vec<String> = offsets.iter().map(|offset| id_text(scheme, block, *offset)).collect();
            let client = client(channels, at);
            async move { Ok::<_, Status>((offsets, bulk(client, ids).await?)) }
        });
        let mut answers = futures_util::stream::iter(requests).buffer_unordered(REQUESTS_IN_FLIGHT);
        while let Some(answer) = answers.next().await {
            let (offsets, found) = answer?;
            for (offset, approval) in offsets.iter().zip(found) {
                let expected = expected[*offset as usize];
                self.verdict.approvals_checked += 1;
                let fate = self.index.open(block, *offset);
                let Some(approval) = approval else {
                    if fate == Fate::Acknowledged {
                        let votes: u64 = expected.tally.iter().map(|count| u64::from(*count)).sum();
                        self.verdict.missing += 1 + votes;
                        self.example(|| {
                            format!(
                                "approval {} is unknown, with {votes} acknowledged votes",
                                as_text(&scheme.ids.id(number(block, *offset)).text())
                            )
                        });
                    }
                    continue;
                };
                match fate {
                    Fate::Unknown => self.verdict.unknown_counted += 1,
                    Fate::Refused => {
                        self.verdict.unexpected += 1;
                        self.example(|| {
                            format!("approval {}: its opening was refused, and it is there", approval.approval_id)
                        });
                    }
                    _ => {}
                }
                let tally = tally_of(&approval);
                let must_expire = scheme.expires(scheme.ids.id(number(block, *offset)));
                self.status(&approval, tally, expected, must_expire);
                let sampled = (u64::from(block) + offset) % every == 0;
                if tally != expected.tally || expected.has_unknown || sampled {
                    by_vote.push(*offset);
                }
            }
            progress(self.verdict.approvals_checked);
        }
        drop(answers);
        let requests = by_vote.into_iter().enumerate().map(|(at, offset)| {
            let (client, id) = (client(channels, at), id_text(scheme, block, offset));
            async move { Ok::<_, Status>((offset, votes(client, id).await?)) }
        });
        let mut answers = futures_util::stream::iter(requests).buffer_unordered(REQUESTS_IN_FLIGHT * 4);
        while let Some(answer) = answers.next().await {
            let (offset, votes) = answer?;
            self.votes(block, offset, &votes);
        }
        Ok(())
    }

    fn status(&mut self, approval: &ApprovalStatusMessage, tally: [u16; 3], expected: Expected, must_expire: bool) {
        match approval.status() {
            ApprovalStatus::Approved => self.decided.approved += 1,
            ApprovalStatus::Rejected => self.decided.rejected += 1,
            ApprovalStatus::Expired => self.decided.expired += 1,
            ApprovalStatus::Pending | ApprovalStatus::Unspecified => {}
        }
        let by_rules = status_of(tally, self.scheme.required, self.scheme.total());
        let expired = approval.status() == ApprovalStatus::Expired && by_rules == ApprovalStatus::Pending;
        if (approval.status() != by_rules || must_expire) && !expired {
            self.verdict.unexpected += 1;
            self.example(|| {
                format!("approval {} is {:?} with {tally:?} votes", approval.approval_id, approval.status())
            });
        }
        if expected.has_refused && self.refused_means_decided && approval.status() == ApprovalStatus::Pending {
            self.verdict.unexpected += 1;
            self.example(|| format!("approval {} refused votes as decided, and is pending", approval.approval_id));
        }
    }

    /// Compares one approval vote by vote.
    fn votes(&mut self, block: u16, offset: u64, found: &HashMap<String, i32>) {
        self.verdict.approvals_checked_by_vote += 1;
        let id = self.scheme.ids.id(number(block, offset));
        let mut known = 0;
        for validator in 0..self.scheme.total() {
            let who = &self.scheme.validators[usize::from(validator)];
            let name = std::str::from_utf8(&who.name).expect("names are ASCII");
            let decision = i32::from(self.scheme.decision(who, id));
            let fate = self.index.vote(self.scheme, validator, block, offset);
            let found = found.get(name);
            known += usize::from(found.is_some());
            let as_sent = found.map(|found| *found == decision);
            match (fate, as_sent) {
                (Fate::Acknowledged, Some(true)) | (Fate::Unsent | Fate::Refused | Fate::Unknown, None) => {}
                (Fate::Unknown, Some(true)) => self.verdict.unknown_counted += 1,
                (Fate::Acknowledged, None) => {
                    self.verdict.missing += 1;
                    self.example(|| {
                        format!("vote of {name} on {} was acknowledged and is missing", as_text(&id.text()))
                    });
                }
                (_, Some(_)) => {
                    self.verdict.unexpected += 1;
                    self.verdict.missing += u64::from(fate == Fate::Acknowledged);
                    self.example(|| {
                        format!(
                            "vote of {name} on {}: {fate:?} with decision {decision}, found {found:?}",
                            as_text(&id.text())
                        )
                    });
                }
            }
        }
        if found.len() > known {
            let strangers = (found.len() - known) as u64;
            self.verdict.unexpected += strangers;
            self.example(|| {
                format!("approval {}: {strangers} votes of validators that are not ours", as_text(&id.text()))
            });
        }
    }
}

fn as_text(text: &[u8; 36]) -> &str {
    std::str::from_utf8(text).expect("ids are ASCII")
}

fn tally_of(approval: &ApprovalStatusMessage) -> [u16; 3] {
    [approval.approvals, approval.rejections, approval.abstentions].map(|count| count.try_into().unwrap_or(u16::MAX))
}

/// The approvals of these ids, in their order; `None`: unknown, also to the unary call.
async fn bulk(
    mut client: ApprovalGrpcServiceClient<Channel>,
    ids: Vec<String>,
) -> Result<Vec<Option<ApprovalStatusMessage>>, Status> {
    let mut found = HashMap::with_capacity(ids.len());
    let mut left = ids.clone();
    while !left.is_empty() {
        let asked = left.len();
        let request = v1::GetApprovalStatusesRequest { approval_ids: left };
        let answer = retried(
            &mut client,
            async |client, request: v1::GetApprovalStatusesRequest| client.get_approval_statuses(request).await,
            request,
        )
        .await?;
        found.extend(answer.approvals.into_iter().map(|approval| (approval.approval_id.clone(), approval)));
        left = answer.remaining_ids;
        if left.len() >= asked {
            return Err(Status::internal("getApprovalStatuses makes no progress"));
        }
    }
    let mut approvals = Vec::with_capacity(ids.len());
    for id in ids {
        let approval = match found.remove(&id) {
            Some(approval) => Some(approval),
            // No longer in memory, perhaps: the unary call also looks in the store.
            None => single(&mut client, &id, 1, String::new()).await?,
        };
        approvals.push(approval);
    }
    Ok(approvals)
}

async fn single(
    client: &mut ApprovalGrpcServiceClient<Channel>,
    id: &str,
    page_size: u32,
    page_token: String,
) -> Result<Option<ApprovalStatusMessage>, Status> {
    let request =
        v1::GetApprovalStatusRequest { approval_id: id.to_owned(), page_size, page_token, ..Default::default() };
    let answer = retried(
        client,
        async |client, request: v1::GetApprovalStatusRequest| client.get_approval_status(request).await,
        request,
    )
    .await;
    match answer {
        Ok(approval) => Ok(Some(approval)),
        Err(status) if status.code() == tonic::Code::NotFound => Ok(None),
        Err(status) => Err(status),
    }
}

/// Who voted what, all pages.
async fn votes(mut client: ApprovalGrpcServiceClient<Channel>, id: String) -> Result<HashMap<String, i32>, Status> {
    let (mut votes, mut token) = (HashMap::new(), String::new());
    loop {
        let Some(page) = single(&mut client, &id, 0, token).await? else {
            return Err(Status::internal(format!("approval {id} was there and is gone")));
        };
        votes.extend(page.votes.into_iter().map(|vote| (vote.validator_id, vote.decision)));
        token = page.next_page_token;
        if token.is_empty() {
            return Ok(votes);
        }
    }
}

/// An overloaded node says when to try again; that is done ten times.
async fn retried<Q: Clone, A>(
    client: &mut ApprovalGrpcServiceClient<Channel>,
    call: impl AsyncFn(&mut ApprovalGrpcServiceClient<Channel>, Q) -> Result<tonic::Response<A>, Status>,
    request: Q,
) -> Result<A, Status> {
    let mut attempts = 0;
    loop {
        match call(client, request.clone()).await {
            Ok(answer) => return Ok(answer.into_inner()),
            Err(status) => match Refused::from(&status).retry_after {
                Some(delay) if attempts < 10 => {
                    attempts += 1;
                    tokio::time::sleep(delay.max(std::time::Duration::from_millis(10))).await;
                }
                _ => return Err(status),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_follow_from_tallies() {
        assert_eq!(status_of([2, 0, 0], 3, 5), ApprovalStatus::Pending);
        assert_eq!(status_of([3, 2, 0], 3, 5), ApprovalStatus::Approved);
        assert_eq!(status_of([2, 2, 0], 3, 5), ApprovalStatus::Pending);
        assert_eq!(status_of([2, 2, 1], 3, 5), ApprovalStatus::Rejected);
        assert_eq!(status_of([0, 0, 3], 3, 5), ApprovalStatus::Rejected);
    }
}
