//! What a watcher hears while votes are sent (`--watch`): one `watchApprovalUpdates` without a filter,
//! on a connection and a thread of its own, and how long after the answer (and after the last needed
//! vote was due) each event reached it.
//!
//! Lanes note when slices were due and answered, the watcher when each event came; the two are joined
//! after the run, so that nothing is looked up while it is measured.

use super::calls::Once;
use super::framing::{self, Change};
use super::report::LatencySummary;
use super::scheme::{Scheme, VALIDATOR_BYTES};
use super::timeline::{Clock, latencies};
use super::track::{Slice, TrackKind};
use crate::grpc::client::{Error, Target};
use crate::wire::{parse_uuid, v1};
use bytes::{BufMut, BytesMut};
use prost::Message;
use serde::Serialize;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tonic::Status;

/// After the run a watcher has heard everything once nothing came for this long …
const QUIET: Duration = Duration::from_millis(500);
/// … or, where others vote on the node too, that long after it.
const LISTEN_MAX: Duration = Duration::from_secs(10);
/// The watch is registered when its stream is first read, which nothing tells a client.
const SETTLE: Duration = Duration::from_millis(200);
/// A run that is watched keeps its answers and events in memory: about 60 bytes each.
pub const VOTES_MAX: f64 = 50e6;

/// Votes as they were answered.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    pub slice: Slice,
    pub refused: u32,
    /// When they were due (open loop) or sent.
    pub started: Instant,
    pub answered: Instant,
}

/// What is noted while a run is measured: grows without moving what it has, which for a vector of a
/// million stops lane or watcher for longer than the node lets a watcher fall behind.
#[derive(Debug)]
struct Notes<T>(Vec<Vec<T>>);

impl<T> Default for Notes<T> {
    fn default() -> Notes<T> {
        Notes(Vec::new())
    }
}

impl<T> Notes<T> {
    const CHUNK: usize = 4_096;

    fn push(&mut self, note: T) {
        match self.0.last_mut() {
            Some(last) if last.len() < Notes::<T>::CHUNK => last.push(note),
            _ => {
                let mut chunk = Vec::with_capacity(Notes::<T>::CHUNK);
                chunk.push(note);
                self.0.push(chunk);
            }
        }
    }

    fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().flatten()
    }
}

/// All lanes' answers.
#[derive(Debug, Default)]
pub struct Answers(Mutex<Notes<Answer>>);

impl Answers {
    pub fn note(&self, answer: Answer) {
        self.0.lock().expect("no holder panics").push(answer);
    }
}

/// An event, without what is not asked.
#[derive(Clone, Copy, Debug)]
struct Seen {
    id: [u8; 16],
    validator: u16,
    approved: bool,
    at: Instant,
}

/// What the watcher heard, in the report's words. Of votes answered in the measured seconds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Events {
    /// Votes that counted, and whose event came.
    pub seen: u64,
    /// Votes that counted, and whose event never came: the run is void.
    pub missing: u64,
    /// Of those seen, how many came before the vote's answer (their latency is 0).
    pub before_answer: u64,
    /// Vote answered → event at the watcher.
    pub answer_to_event_us: LatencySummary,
    /// Vote due → event at the watcher.
    pub due_to_event_us: LatencySummary,
    /// Finality: last needed vote due → APPROVED at the watcher.
    pub due_to_approved_us: LatencySummary,
}

/// The watcher's thread.
#[derive(Debug)]
pub struct Watcher {
    thread: JoinHandle<(Notes<Seen>, Result<(), Status>)>,
    stop: Arc<AtomicBool>,
}

impl Watcher {
    /// Returns once the watch stands.
    pub async fn start(target: &Target) -> Result<Watcher, Error> {
        let stop = Arc::new(AtomicBool::new(false));
        let (stands, standing) = oneshot::channel();
        let (target, stopped) = (target.clone(), stop.clone());
        let endpoint = target.endpoint.clone();
        let thread = thread::Builder::new()
            .name("load-watcher".into())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(listen(target, stands, &stopped))
            })
            .expect("a thread");
        let started = standing.await;
        started.unwrap_or_else(|_| Err(Error::Unreachable { endpoint, cause: "the watch was refused".into() }))?;
        tokio::time::sleep(SETTLE).await;
        Ok(Watcher { thread, stop })
    }

    /// Hears the rest, and joins it with the answers.
    pub fn finish(self, answers: &Answers, scheme: &Scheme, clock: &Clock) -> Result<Events, Status> {
        self.stop.store(true, Ordering::Relaxed);
        let (seen, ended) = self.thread.join().expect("the watcher does not panic");
        ended?;
        Ok(join(seen.iter(), answers.0.lock().expect("no holder panics").iter(), scheme, clock))
    }
}

async fn listen(
    target: Target,
    stands: oneshot::Sender<Result<(), Error>>,
    stop: &AtomicBool,
) -> (Notes<Seen>, Result<(), Status>) {
    let mut seen = Notes::default();
    let mut channel = match target.connect().await {
        Ok(channel) => channel,
        Err(error) => {
            // `start` waits for it, unless the whole run was given up.
            let _ = stands.send(Err(error));
            return (seen, Ok(()));
        }
    };
    let request = v1::ApprovalRequest::default().encode_to_vec();
    let mut body = BytesMut::with_capacity(5 + request.len());
    body.put_u8(0);
    body.put_u32(request.len() as u32);
    body.put_slice(&request);
    let mut messages = match framing::call(&mut channel, "WatchApprovalUpdates", Once(Some(body.freeze()))).await {
        Ok(messages) => messages,
        // `start` says that it was refused.
        Err(status) => return (seen, Err(status)),
    };
    let _ = stands.send(Ok(()));
    let mut stopped_at = None;
    loop {
        let message = match tokio::time::timeout(QUIET, messages.next()).await {
            Ok(Ok(Some(message))) => message,
            Ok(Ok(None)) => return (seen, Err(Status::internal("the node ended the watch"))),
            Ok(Err(status)) => return (seen, Err(status)),
            Err(_) if stop.load(Ordering::Relaxed) => return (seen, Ok(())),
            Err(_) => continue,
        };
        let at = Instant::now();
        match framing::read_change(&message) {
            Some(change) => event(&change, at).into_iter().for_each(|event| seen.push(event)),
            None => return (seen, Err(Status::internal("an update that is not an ApprovalStatus_Message"))),
        }
        if stop.load(Ordering::Relaxed) && at - *stopped_at.get_or_insert(at) > LISTEN_MAX {
            return (seen, Ok(()));
        }
    }
}

/// A vote's event; `None`: an opening, an expiry, or another client's vote.
fn event(change: &Change<'_>, at: Instant) -> Option<Seen> {
    let name: &[u8; VALIDATOR_BYTES] = change.validator.try_into().ok()?;
    let number = std::str::from_utf8(name.strip_prefix(b"validator-")?).ok()?.parse().ok()?;
    let approved = change.status == v1::ApprovalStatus::Approved as u64;
    Some(Seen { id: parse_uuid(change.approval_id)?, validator: number, approved, at })
}

fn join<'a>(
    seen: impl Iterator<Item = &'a Seen>,
    answers: impl Iterator<Item = &'a Answer>,
    scheme: &Scheme,
    clock: &Clock,
) -> Events {
    let events: HashMap<([u8; 16], u16), &Seen> = seen.map(|event| ((event.id, event.validator), event)).collect();
    let mut result = Events::default();
    let (mut answered, mut due, mut approved) = (latencies(), latencies(), latencies());
    let micros = |from: Instant, to: Instant| to.saturating_duration_since(from).as_micros() as u64;
    let measured = |answer: &&Answer| {
        clock.measures(answer.answered.saturating_duration_since(clock.start).as_secs() as usize)
            && matches!(answer.slice.kind, TrackKind::Vote { .. })
    };
    for answer in answers.filter(measured) {
        let validator = answer.slice.validator();
        let (mut came, resizes) = (0, "a histogram that resizes takes any value");
        for number in answer.slice.numbers(scheme) {
            let Some(event) = events.get(&(scheme.ids.id(number).bytes(), validator)) else { continue };
            came += 1;
            result.before_answer += u64::from(event.at < answer.answered);
            answered.record(micros(answer.answered, event.at)).expect(resizes);
            due.record(micros(answer.started, event.at)).expect(resizes);
            if event.approved {
                approved.record(micros(answer.started, event.at)).expect(resizes);
            }
        }
        result.seen += came;
        result.missing += u64::from(answer.slice.count - answer.refused).saturating_sub(came);
    }
    result.answer_to_event_us = LatencySummary::from(&answered);
    result.due_to_event_us = LatencySummary::from(&due);
    result.due_to_approved_us = LatencySummary::from(&approved);
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::scheme::Mix;

    #[test]
    fn answers_and_events_are_joined_vote_by_vote() {
        let scheme = Scheme::new(1, 0, 100, 3, 2, 0, Mix::DEFAULT);
        let start = Instant::now();
        let clock = Clock { start, warmup: Duration::ZERO, duration: Some(Duration::from_secs(1)) };
        let at = |micros| start + Duration::from_micros(micros);
        let slice =
            Slice { track: 0, kind: TrackKind::Vote { validator: 2, shuffled: true }, block: 0, start: 10, count: 4 };
        // The fourth was refused; the third's event never came, the second's came early.
        let answers = [Answer { slice, refused: 1, started: at(100), answered: at(500) }];
        let numbers: Vec<_> = slice.numbers(&scheme).collect();
        let seen = |number, approved, micros| Seen {
            id: scheme.ids.id(number).bytes(),
            validator: 2,
            approved,
            at: at(micros),
        };
        let came = [seen(numbers[0], true, 700), seen(numbers[1], false, 400)];
        let events = join(came.iter(), answers.iter(), &scheme, &clock);
        assert_eq!((events.seen, events.missing, events.before_answer), (2, 1, 1));
        assert_eq!((events.answer_to_event_us.max, events.due_to_event_us.max), (200, 600));
        assert_eq!((events.due_to_approved_us.count, events.due_to_approved_us.max), (1, 600));
    }

    #[test]
    fn notes_are_kept_in_order_over_many_chunks() {
        let mut notes = Notes::default();
        (0..10_000).for_each(|note| notes.push(note));
        assert!(notes.iter().copied().eq(0..10_000) && notes.0.len() == 3);
    }

    #[test]
    fn only_votes_of_a_generator_are_events() {
        let id = b"01890a5d-ac96-774b-bcce-b302099a8057";
        let change = |validator| Change { approval_id: id, status: 2, validator };
        let event = |validator| event(&change(validator), Instant::now());
        assert_eq!(event(b"validator-00012").map(|seen| (seen.validator, seen.approved)), Some((12, true)));
        assert!(event(b"").is_none() && event(b"alice").is_none() && event(b"validator-0001x").is_none());
    }
}
