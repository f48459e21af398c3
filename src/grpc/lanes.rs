//! Where a stream's items go: to the shards, and a request whose id may be known first past the archive.

use super::archive::Archive;
use crate::model::{ApprovalId, Reason, Refusal};
use crate::shard::{Absence, Known, Shards, Work};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// A full ring is looked at again after this time.
const RING_FULL_PAUSE: Duration = Duration::from_millis(2);

/// Where items go: the shards, or a test.
pub(super) trait Lanes {
    fn count(&self) -> usize;
    fn shard_of(&self, id: &ApprovalId) -> usize;
    fn poll_push(&self, context: &mut Context<'_>, shard: usize, work: &mut Option<Work>) -> Poll<()>;
    fn known(&self, id: &ApprovalId) -> Known;
    /// Of these ids, each with its request's digest, in the order asked.
    fn look_up(&self, asked: Vec<(ApprovalId, [u8; 16])>) -> LookUp;
}

pub(super) type LookUp = BoxFuture<'static, Vec<Found>>;

/// What a look-up says of an id.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found {
    /// In memory: the shard answers.
    InMemory,
    /// Nowhere.
    Absent(Absence),
    /// In the archive, opened by the same request.
    Same,
    /// In the archive, opened by a different request.
    Different,
    /// Nobody can say now.
    Unanswered(Reason),
}

/// The node's.
pub(super) struct StreamLanes {
    shards: Shards,
    archive: Option<Arc<Archive>>,
}

impl StreamLanes {
    pub fn new(shards: Shards, archive: Option<Arc<Archive>>) -> StreamLanes {
        StreamLanes { shards, archive }
    }
}

impl Lanes for StreamLanes {
    fn count(&self) -> usize {
        self.shards.count()
    }

    #[inline]
    fn shard_of(&self, id: &ApprovalId) -> usize {
        self.shards.shard_of(id)
    }

    #[inline]
    fn poll_push(&self, context: &mut Context<'_>, shard: usize, work: &mut Option<Work>) -> Poll<()> {
        self.shards.poll_push(context, shard, work)
    }

    /// Without an archive nothing leaves memory: the shard knows.
    fn known(&self, id: &ApprovalId) -> Known {
        match self.archive {
            Some(_) => self.shards.known(id),
            None => Known::New,
        }
    }

    fn look_up(&self, asked: Vec<(ApprovalId, [u8; 16])>) -> LookUp {
        let (shards, archive) = (self.shards.clone(), self.archive.clone());
        look_up(shards, archive, asked).boxed()
    }
}

async fn look_up(shards: Shards, archive: Option<Arc<Archive>>, asked: Vec<(ApprovalId, [u8; 16])>) -> Vec<Found> {
    let mut found = vec![Found::InMemory; asked.len()];
    let Some(archive) = archive else { return found };
    let ids: Vec<ApprovalId> = asked.iter().map(|(id, _)| *id).collect();
    let states = loop {
        match shards.statuses(ids.clone()).await {
            Ok(states) => break states,
            // Flow control, as for a push: the stream waits until the ring has room, or the node is gone.
            Err(Refusal::Overloaded) => tokio::time::sleep(RING_FULL_PAUSE).await,
            Err(refusal) => return vec![Found::Unanswered(refusal.reason()); asked.len()],
        }
    };
    let absence = Absence::now();
    let absent = (0..asked.len()).filter(|at| states[*at].is_none());
    // What is new is here because something before it had to be looked up.
    let (new, missing): (Vec<usize>, Vec<usize>) = absent.partition(|at| shards.known(&ids[*at]) == Known::New);
    new.into_iter().for_each(|at| found[at] = Found::Absent(absence));
    if missing.is_empty() {
        return found;
    }
    match archive.approvals(missing.iter().map(|at| ids[*at]).collect()).await {
        Ok(archived) => {
            for (at, archived) in missing.into_iter().zip(archived) {
                found[at] = match archived {
                    None => Found::Absent(absence),
                    Some(archived) if archived.digest == asked[at].1 => Found::Same,
                    Some(_) => Found::Different,
                };
            }
        }
        Err(refusal) => missing.into_iter().for_each(|at| found[at] = Found::Unanswered(refusal.reason())),
    }
    found
}
