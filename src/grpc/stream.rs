//! bidirectionalApprovalStream: one `Stream` that reads while it may, and says how far it is.
//!
//! A poll pushes what waits, reads the messages that are there while the bounds allow, and then yields at
//! most one acknowledgement: the newest, however many votes it covers. Not reading is the flow
//! control. The stream ends with OK when the client has closed its side, everything is acknowledged and
//! no subscription is left; on a fault it first acknowledges what came before.

use super::front::{Deadline, Deps};
use super::intake::{Intake, Settled};
use super::lanes::StreamLanes;
use super::status::{self, invalid_field};
use super::stopping::{End, Ends};
use super::watch::{self, Followed, WatchEnd};
use super::{Caller, Stopping};
use crate::shard::{StreamRefusal, Wait};
use crate::wire::{AckRefusal, StreamItem, StreamParser, encode_ack, v1};
use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::BoxStream;
use prost::Message;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tonic::{Code, Status};

/// Refusals in one message: 1 MiB is the bound of an answer, and each takes 17 bytes at most.
const REFUSALS_MAX: usize = 60_000;
/// With more items than these unanswered, a stream sleeps until it is woken: they take their time.
const AWAKE_ITEMS_MAX: u64 = 16;
/// Messages read in one poll, so that acknowledgements and other calls get their turn.
const MESSAGES_A_POLL: usize = 256;
/// Items read in one poll.
const ITEMS_A_POLL: u64 = 32_768;
const SUBSCRIPTION_ID_CHARS_MAX: usize = 64;
/// Ends of subscriptions that wait for the client to read them, beyond which nothing more is read.
const NOTICES_MAX: usize = 64;

pub(super) struct VoteStream<S> {
    inbound: S,
    intake: Intake,
    parser: StreamParser,
    /// Votes that came behind requests which are being looked up.
    behind: Option<StreamItem>,
    /// Last acknowledgement sent.
    told: u64,
    /// For what is not answered.
    wait: Option<Wait>,
    /// The last poll left no waker with the shards: the next comes by itself.
    is_awake: bool,
    refusals: Vec<StreamRefusal>,
    deps: Arc<Deps>,
    caller: Caller,
    ends: Ends,
    subscriptions: Vec<Subscription>,
    next_subscription: usize,
    notices: VecDeque<Bytes>,
    half_closed: bool,
    /// With this the stream ends, once everything is acknowledged.
    ending: Option<Status>,
    done: bool,
}

struct Subscription {
    id: String,
    changes: BoxStream<'static, Followed>,
    token: Bytes,
}

impl<S> VoteStream<S>
where
    S: Stream<Item = Result<Bytes, Status>> + Unpin,
{
    pub fn new(inbound: S, deps: Arc<Deps>, caller: Caller, deadline: Option<Deadline>) -> VoteStream<S> {
        VoteStream {
            inbound,
            intake: Intake::new(
                StreamLanes::new(deps.shards.clone(), deps.archive.clone()),
                deps.shards.ledger(),
                &deps.limits,
            ),
            parser: StreamParser::new(deps.limits.batch_items_max),
            behind: None,
            told: 0,
            wait: None,
            is_awake: false,
            refusals: Vec::new(),
            caller,
            ends: Ends::new(&deps.stopping, deadline),
            deps,
            subscriptions: Vec::new(),
            next_subscription: 0,
            notices: VecDeque::new(),
            half_closed: false,
            ending: None,
            done: false,
        }
    }

    fn may_read(&self) -> bool {
        !self.half_closed && self.ending.is_none() && self.notices.len() < NOTICES_MAX && self.intake.has_room()
    }

    /// Reads and pushes until there is nothing to read, or no room.
    fn read(&mut self, context: &mut Context<'_>) {
        let first = self.intake.numbered();
        for message in 0.. {
            if self.intake.poll_push(context).is_pending() {
                break;
            }
            let may_read = self.may_read();
            let looks_now = self.behind.is_some() || !may_read || !self.intake.may_join();
            if self.intake.is_looking() && looks_now && self.look_up(context).is_pending() {
                break;
            }
            if let Some(item) = self.behind.take() {
                self.take_item(item);
                continue;
            }
            if !may_read {
                break;
            }
            if message == MESSAGES_A_POLL || self.intake.numbered() - first >= ITEMS_A_POLL {
                context.waker().wake_by_ref();
                break;
            }
            match Pin::new(&mut self.inbound).poll_next(context) {
                Poll::Ready(Some(Ok(message))) => self.take(&message),
                Poll::Ready(Some(Err(status))) => self.ending = Some(status::unread(status)),
                Poll::Ready(None) => self.half_closed = true,
                // Nothing more is there to join those that wait.
                Poll::Pending if self.intake.is_looking() && self.look_up(context).is_ready() => {}
                Poll::Pending => break,
            }
        }
        self.intake.flush();
        // A full ring wakes this task when it has room.
        let _pushed_or_woken_later = self.intake.poll_push(context);
    }

    fn take(&mut self, message: &Bytes) {
        self.intake.hold(message.len());
        match self.parser.parse(message) {
            Ok(item) => self.take_item(item),
            Err(invalid) => self.ending = Some(status::invalid_argument(&invalid)),
        }
    }

    fn take_item(&mut self, item: StreamItem) {
        match item {
            StreamItem::Votes(_) | StreamItem::Vote(_) if self.intake.is_looking() => self.behind = Some(item),
            StreamItem::Votes(batch) => self.intake.votes(batch),
            StreamItem::Vote(response) => self.intake.vote(&response),
            StreamItem::Open(request) => {
                if let Some(reason) = self.intake.open(&request) {
                    self.deps.facts.request_refused(reason);
                }
            }
            StreamItem::Subscription(subscription) => self.subscribe(*subscription),
            StreamItem::Nothing => {}
        }
    }

    fn look_up(&mut self, context: &mut Context<'_>) -> Poll<()> {
        for settled in ready!(self.intake.poll_look_up(context)) {
            match settled {
                Settled::Repeat => self.deps.facts.request_repeated(),
                Settled::Refused(reason) => self.deps.facts.request_refused(reason),
            }
        }
        Poll::Ready(())
    }

    /// An acknowledgement when there is one to give.
    fn next_ack(&mut self) -> Option<Bytes> {
        self.intake.look();
        if self.intake.acked() == self.told {
            return None;
        }
        let through = self.intake.refusals(REFUSALS_MAX, &mut self.refusals);
        self.told = through;
        self.wait = None;
        let refusals: Vec<AckRefusal> = self.refusals.iter().map(ack_refusal).collect();
        let mut bytes = Vec::new();
        encode_ack(&mut bytes, through, &refusals);
        Some(bytes.into())
    }

    fn subscribe(&mut self, asked: v1::StreamSubscription) {
        let id = asked.subscription_id;
        let found = self.subscriptions.iter().position(|subscription| subscription.id == id);
        if asked.cancel {
            let token = found.map(|at| self.subscriptions.remove(at).token);
            let code = if token.is_some() { Code::Ok } else { Code::NotFound };
            return self.notice(id, code, String::new(), token.unwrap_or_default());
        }
        if !(1..=SUBSCRIPTION_ID_CHARS_MAX).contains(&id.chars().count()) {
            self.ending = Some(invalid_field("subscription.subscription_id", "must be 1 to 64 characters"));
            return;
        }
        if found.is_some() {
            self.ending = Some(invalid_field("subscription.subscription_id", "is in use: cancel it first"));
            return;
        }
        if self.subscriptions.len() >= self.deps.limits.subscriptions_per_stream_max {
            let message = "the limit subscriptions_per_stream_max is reached: cancel one, or open another stream";
            return self.notice(id, Code::ResourceExhausted, message.into(), Bytes::new());
        }
        let filter = asked.filter.unwrap_or_default();
        let token = filter.watch.as_ref().map(|watch| watch.resume_token.clone()).unwrap_or_default();
        match watch::follow(self.deps.clone(), self.caller.clone(), &filter, "subscription.filter.watch.resume_token") {
            Ok(changes) => self.subscriptions.push(Subscription { id, changes, token }),
            Err(status) => self.notice(id, status.code(), status.message().into(), Bytes::new()),
        }
    }

    fn notice(&mut self, subscription_id: String, code: Code, message: String, resume_token: Bytes) {
        let ended = v1::SubscriptionEnded { subscription_id, code: code as u32, message, resume_token };
        let response = v1::ApprovalStreamResponse { ended: Some(ended), ..self.bare() };
        self.notices.push_back(response.encode_to_vec().into());
    }

    fn bare(&self) -> v1::ApprovalStreamResponse {
        v1::ApprovalStreamResponse { acked_through: self.told, ..v1::ApprovalStreamResponse::default() }
    }

    /// The next change of a subscription, each in its turn.
    fn next_change(&mut self, context: &mut Context<'_>) -> Option<Bytes> {
        for _ in 0..self.subscriptions.len() {
            let at = self.next_subscription % self.subscriptions.len();
            match self.subscriptions[at].changes.as_mut().poll_next(context) {
                Poll::Pending => self.next_subscription = at + 1,
                Poll::Ready(Some(Ok(approval))) => {
                    self.next_subscription = at + 1;
                    let subscription = &mut self.subscriptions[at];
                    if !approval.resume_token.is_empty() {
                        subscription.token = approval.resume_token.clone();
                    }
                    let subscription_id = subscription.id.clone();
                    let update = v1::SubscriptionUpdate { subscription_id, approval: Some(approval) };
                    let response = v1::ApprovalStreamResponse { update: Some(update), ..self.bare() };
                    return Some(response.encode_to_vec().into());
                }
                Poll::Ready(ended) => {
                    let Subscription { id, token, .. } = self.subscriptions.remove(at);
                    let (code, message) = match ended {
                        Some(Err(WatchEnd { code, message, .. })) => (code, message),
                        _ => (Code::Ok, String::new()),
                    };
                    self.notice(id, code, message, token);
                    return self.notices.pop_front();
                }
            }
        }
        None
    }

    /// Nothing to do: looks again soon when that pays, or leaves it to a wake-up.
    fn stay_or_sleep(&mut self, context: &mut Context<'_>, is_registered: bool) {
        let unanswered = self.intake.numbered() - self.intake.acked();
        if !(1..=AWAKE_ITEMS_MAX).contains(&unanswered) {
            self.wait = None;
        } else if self.wait.get_or_insert_with(|| self.deps.shards.begin_wait()).looks_again(context) {
            self.intake.ledger().unregister();
            self.is_awake = true;
            return;
        }
        if !is_registered {
            self.intake.ledger().register(context.waker());
            // Progress from before that woke nobody.
            self.intake.look();
            if self.intake.acked() != self.told || self.intake.ledger().is_lost() {
                context.waker().wake_by_ref();
            }
        }
    }

    /// What ends the stream from outside: its deadline at once, a stopping node after what is in flight.
    fn look_at_ends(&mut self, context: &mut Context<'_>) -> Option<Status> {
        if self.intake.ledger().is_lost() {
            return Some(status::lost());
        }
        while let Poll::Ready(end) = self.ends.poll(context) {
            match end {
                End::Deadline => return Some(status::deadline_exceeded()),
                End::Stopping => {
                    for Subscription { id, token, .. } in std::mem::take(&mut self.subscriptions) {
                        self.notice(id, Code::Unavailable, "the node is stopping".into(), token);
                    }
                    self.ending.get_or_insert_with(Stopping::status);
                }
            }
        }
        None
    }
}

fn ack_refusal(refusal: &StreamRefusal) -> AckRefusal {
    let reason = refusal.reason();
    AckRefusal { index: refusal.item, code: status::code(reason) as u8, reason: reason.number() }
}

impl<S> Stream for VoteStream<S>
where
    S: Stream<Item = Result<Bytes, Status>> + Unpin,
{
    type Item = Result<Bytes, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.done {
            return Poll::Ready(None);
        }
        // Before the look, so that no progress in between is missed.
        let is_registered = !std::mem::take(&mut this.is_awake);
        if is_registered {
            this.intake.ledger().register(context.waker());
        }
        if let Some(status) = this.look_at_ends(context) {
            this.done = true;
            return Poll::Ready(Some(Err(status)));
        }
        this.read(context);
        if let Some(ack) = this.next_ack() {
            return Poll::Ready(Some(Ok(ack)));
        }
        if let Some(notice) = this.notices.pop_front() {
            return Poll::Ready(Some(Ok(notice)));
        }
        let is_answered = this.intake.is_quiet() && this.behind.is_none();
        if is_answered && let Some(status) = this.ending.take() {
            this.done = true;
            return Poll::Ready(Some(Err(status)));
        }
        if let Some(change) = this.next_change(context) {
            return Poll::Ready(Some(Ok(change)));
        }
        if is_answered && this.half_closed && this.subscriptions.is_empty() {
            this.done = true;
            return Poll::Ready(None);
        }
        this.stay_or_sleep(context, is_registered);
        Poll::Pending
    }
}
