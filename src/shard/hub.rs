//! Everyone who watches, fed by one thread: it follows the ends of all logs while anybody watches,
//! decodes each event once and hands it to those whose filter it matches.
//!
//! A watcher that starts in the past is caught up by a thread of its own, from the journal, and joins
//! the others once it is near. A watcher whose buffer is full is ended, never waited for; neither
//! hub nor watchers ever make a shard wait.

use super::events::{EventError, EventReader, FeedEvent, Unknown};
use super::past::{Past, PastError};
use super::{Shards, StateFilter, Tail};
use crate::journal::{self, FolderMeta, LogMeta, frame_batches};
use crate::model::{ApprovalId, LogId, Position, RequesterRef, ValidatorRef};
use crate::queue::Bell;
use crossbeam::channel::{Receiver, Sender, bounded};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Registrations that wait for the hub's next turn.
const INBOX: usize = 1_024;
/// A watcher this close to the end of a log joins the hub, which reads the rest for it.
const NEAR_EVENTS: u64 = 512;
/// How often a hub without events looks for watchers that went away.
const PRUNE: Duration = Duration::from_millis(500);

/// An event for a watcher, and where it then stands in each log of the generation.
#[derive(Clone, Debug)]
pub struct FeedItem {
    pub event: Arc<FeedEvent>,
    pub positions: Arc<[Position]>,
}

/// Why a subscription ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FeedEnd {
    /// Its buffer was full: resume from the last item taken.
    TooSlow,
    /// The journal does not hold what comes next.
    NotHeld(String),
    /// As many watchers as the setting allows.
    TooMany,
    /// The node stops, or the journal could not be read.
    Broken(String),
}

/// Where a subscription begins.
#[derive(Clone, Debug)]
pub enum Start {
    /// With the next event.
    Now,
    /// Behind these positions: all of one generation.
    Behind(Vec<Position>),
}

/// The receiving end. Dropping it ends the subscription.
pub struct Subscription {
    items: mpsc::Receiver<FeedItem>,
    began: Option<oneshot::Receiver<Arc<[Position]>>>,
    end: Arc<Mutex<Option<FeedEnd>>>,
    _counted: Counted,
}

impl Subscription {
    /// Where the subscription begins: nothing behind these positions is missed. Once; `None` when it
    /// ended before.
    pub async fn began(&mut self) -> Option<Arc<[Position]>> {
        self.began.take()?.await.ok()
    }

    /// The next event, or why there are no more.
    pub async fn next(&mut self) -> Result<FeedItem, FeedEnd> {
        match self.items.recv().await {
            Some(item) => Ok(item),
            None => {
                let end = self.end.lock().unwrap_or_else(PoisonError::into_inner).clone();
                Err(end.unwrap_or_else(|| FeedEnd::Broken("the node is stopping".into())))
            }
        }
    }
}

/// One watcher less when dropped.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What fronts hold to watch.
#[derive(Clone)]
pub struct Feed {
    inner: Arc<Inner>,
}

struct Inner {
    data: PathBuf,
    meta: Arc<FolderMeta>,
    tails: Vec<Arc<Tail>>,
    bell: Arc<Bell>,
    inbox: Sender<Register>,
    watchers: Arc<AtomicUsize>,
}

/// A watcher that joins.
struct Register {
    watcher: Watcher,
    start: Start,
    began: Option<oneshot::Sender<Arc<[Position]>>>,
}

struct Watcher {
    filter: StateFilter,
    /// Events up to here are not for it; one for each log of the generation.
    after: Vec<u64>,
    items: mpsc::Sender<FeedItem>,
    end: Arc<Mutex<Option<FeedEnd>>>,
}

impl Watcher {
    fn wants(&self, event: &FeedEvent) -> bool {
        self.filter.matches(&event.approval, event.approval_type, &event.requester, event.priority)
    }

    fn end(&self, end: FeedEnd) {
        *self.end.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
    }
}

impl Feed {
    /// Starts the hub's thread; `bell` is the one that the tails ring.
    pub(super) fn start(
        data: PathBuf,
        meta: Arc<FolderMeta>,
        tails: Vec<Arc<Tail>>,
        bell: Arc<Bell>,
        shards: Shards,
    ) -> std::io::Result<Feed> {
        let (inbox, registrations) = bounded(INBOX);
        let inner = Inner { data, meta, tails, bell, inbox, watchers: Arc::default() };
        let feed = Feed { inner: Arc::new(inner) };
        let logs = feed.logs();
        let hub = Hub {
            logs: logs
                .iter()
                .zip(&feed.inner.tails)
                .map(|(log, tail)| LogEnd {
                    log: log.clone(),
                    tail: tail.clone(),
                    reader: EventReader::new(log.ordinal),
                    past: None,
                    next: 0,
                })
                .collect(),
            data: feed.inner.data.clone(),
            bell: feed.inner.bell.clone(),
            registrations,
            watchers: HashMap::new(),
            by_approval: HashMap::new(),
            by_rest: Vec::new(),
            number: 0,
            shards,
            events: Vec::new(),
        };
        std::thread::Builder::new().name("feed".into()).spawn(move || hub.run())?;
        Ok(feed)
    }

    fn logs(&self) -> &[LogMeta] {
        self.inner.meta.current().map_or(&[], |generation| &generation.logs)
    }

    /// The durable end of each log of this generation.
    pub fn positions(&self) -> Vec<Position> {
        let ends = self.logs().iter().zip(&self.inner.tails);
        ends.map(|(log, tail)| Position { log: LogId(log.id), sequence: tail.durable() }).collect()
    }

    /// Watchers now.
    pub fn watchers(&self) -> usize {
        self.inner.watchers.load(Ordering::Acquire)
    }

    /// Follows what matches, from `start` on, with a buffer of so many events.
    pub fn subscribe(
        &self,
        filter: StateFilter,
        start: Start,
        buffer_events: usize,
        watchers_max: usize,
    ) -> Result<Subscription, FeedEnd> {
        let counted = Counted(self.inner.watchers.clone());
        if self.inner.watchers.fetch_add(1, Ordering::AcqRel) >= watchers_max {
            return Err(FeedEnd::TooMany);
        }
        let (items, receiver) = mpsc::channel(buffer_events.max(2));
        let (began, has_begun) = oneshot::channel();
        let end = Arc::new(Mutex::new(None));
        let after = vec![0; self.logs().len()];
        let watcher = Watcher { filter, after, items, end: end.clone() };
        let subscription = Subscription { items: receiver, began: Some(has_begun), end, _counted: counted };
        let began = Some(began);
        match start {
            Start::Now => self.register(Register { watcher, start: Start::Now, began }),
            Start::Behind(positions) => {
                let feed = self.clone();
                let catch_up = move || feed.catch_up(watcher, positions, began);
                let spawned = std::thread::Builder::new().name("catch-up".into()).spawn(catch_up);
                spawned.map_err(|error| FeedEnd::Broken(format!("no thread to read the journal: {error}")))?;
            }
        }
        Ok(subscription)
    }

    fn register(&self, register: Register) {
        // The hub lives as long as the feed; a full inbox is a wait of one hub turn.
        let _hub_gone = self.inner.inbox.send(register);
        self.inner.bell.ring();
    }

    /// Reads the journal for one watcher until it is near the end, then lets it join.
    fn catch_up(
        &self,
        mut watcher: Watcher,
        positions: Vec<Position>,
        began: Option<oneshot::Sender<Arc<[Position]>>>,
    ) {
        match self.read_past(&watcher, positions) {
            Ok(Some(after)) => {
                watcher.after.clone_from(&after);
                let positions = self.logs().iter().zip(after);
                let positions = positions.map(|(log, sequence)| Position { log: LogId(log.id), sequence }).collect();
                self.register(Register { watcher, start: Start::Behind(positions), began });
            }
            // The receiver went away.
            Ok(None) => {}
            Err(end) => watcher.end(end),
        }
    }

    fn read_past(&self, watcher: &Watcher, positions: Vec<Position>) -> Result<Option<Vec<u64>>, FeedEnd> {
        let generations = &self.inner.meta.generations;
        let named = positions.first().map(|first| first.log);
        let began = generations
            .iter()
            .position(|generation| generation.logs.iter().any(|log| named.is_some_and(|named| named == LogId(log.id))));
        let Some(began) = began else {
            return Err(FeedEnd::NotHeld("the token names a log that this folder does not have".into()));
        };
        let mut after = Vec::new();
        for (at, generation) in generations.iter().enumerate().skip(began) {
            let is_current = at + 1 == generations.len();
            after = generation
                .logs
                .iter()
                .map(|log| {
                    let known = positions.iter().find(|position| position.log == LogId(log.id));
                    if at == began { known.map_or(0, |position| position.sequence) } else { 0 }
                })
                .collect();
            loop {
                let mut far = false;
                for (index, log) in generation.logs.iter().enumerate() {
                    let durable = match log.sealed {
                        Some(sealed) => sealed,
                        None => self.inner.tails[index].durable(),
                    };
                    if after[index] > durable {
                        return Err(FeedEnd::NotHeld("the token is ahead of this journal: was it rolled back?".into()));
                    }
                    let near = if is_current { NEAR_EVENTS.min(watcher.items.max_capacity() as u64 / 2) } else { 0 };
                    if durable - after[index] > near {
                        far = true;
                        if !self.read_log(watcher, &generation.logs, index, durable, &mut after)? {
                            return Ok(None);
                        }
                    }
                }
                if !far {
                    break;
                }
            }
        }
        Ok(Some(after))
    }

    /// Reads one log up to `durable` for one watcher, waiting for it; false when it went away.
    fn read_log(
        &self,
        watcher: &Watcher,
        logs: &[LogMeta],
        index: usize,
        durable: u64,
        after: &mut [u64],
    ) -> Result<bool, FeedEnd> {
        let mut past = Past::open(&self.inner.data, &logs[index], after[index] + 1).map_err(end_of)?;
        let mut events = Vec::new();
        while past.read(durable, &mut events).map_err(end_of)? {
            for event in events.drain(..) {
                after[index] = event.at.sequence();
                if watcher.wants(&event) {
                    let item = FeedItem { event: Arc::new(event), positions: positions_of(logs, after) };
                    if watcher.items.blocking_send(item).is_err() {
                        return Ok(false);
                    }
                }
            }
        }
        after[index] = durable;
        Ok(true)
    }
}

fn positions_of(logs: &[LogMeta], after: &[u64]) -> Arc<[Position]> {
    let both = logs.iter().zip(after);
    both.map(|(log, sequence)| Position { log: LogId(log.id), sequence: *sequence }).collect()
}

fn end_of(error: PastError) -> FeedEnd {
    match error {
        PastError::Journal(journal::Error::NoLongerHeld { .. }) => FeedEnd::NotHeld(error.to_string()),
        _ => FeedEnd::Broken(error.to_string()),
    }
}

struct LogEnd {
    log: LogMeta,
    tail: Arc<Tail>,
    reader: EventReader,
    past: Option<Past>,
    /// The next sequence to hand out.
    next: u64,
}

struct Hub {
    logs: Vec<LogEnd>,
    data: PathBuf,
    bell: Arc<Bell>,
    registrations: Receiver<Register>,
    watchers: HashMap<u64, Watcher>,
    by_approval: HashMap<ApprovalId, Vec<u64>>,
    by_rest: Vec<u64>,
    number: u64,
    shards: Shards,
    events: Vec<FeedEvent>,
}

impl Hub {
    fn run(mut self) {
        self.bell.belongs_to_this_thread();
        loop {
            let mut worked = false;
            while let Ok(register) = self.registrations.try_recv() {
                self.register(register);
                worked = true;
            }
            for index in 0..self.logs.len() {
                worked |= !self.watchers.is_empty() && self.follow(index);
            }
            if self.logs.iter().all(|log| log.tail.is_closed()) {
                return;
            }
            if worked {
                continue;
            }
            self.prune();
            let timeout = (!self.watchers.is_empty()).then_some(PRUNE);
            let (logs, registrations) = (&self.logs, &self.registrations);
            self.bell.sleep(timeout, || {
                !registrations.is_empty()
                    || logs
                        .iter()
                        .any(|log| log.tail.is_closed() || (log.tail.is_followed() && log.tail.durable() >= log.next))
            });
        }
    }

    fn register(&mut self, register: Register) {
        if self.watchers.is_empty() {
            for log in &mut self.logs {
                log.tail.follow(true);
                // Behind this, frames are in memory, or on disk if one slipped in between.
                log.next = log.tail.durable() + 1;
            }
        }
        let Register { mut watcher, start, began } = register;
        match start {
            Start::Now => watcher.after = self.logs.iter().map(|log| log.next - 1).collect(),
            Start::Behind(_) => {
                if let Err(end) = self.close_gap(&mut watcher) {
                    watcher.end(end);
                    return self.rest();
                }
            }
        }
        if let Some(began) = began {
            let after = watcher.after.iter().zip(&self.logs);
            let positions = after.map(|(after, log)| Position { log: LogId(log.log.id), sequence: *after }).collect();
            let _receiver_gone = began.send(positions);
        }
        self.number += 1;
        match watcher.filter.approval {
            Some(id) => self.by_approval.entry(id).or_default().push(self.number),
            None => self.by_rest.push(self.number),
        }
        self.watchers.insert(self.number, watcher);
    }

    /// A watcher joins behind or before the hub: the hub goes up to it, or reads for it what it misses.
    fn close_gap(&mut self, watcher: &mut Watcher) -> Result<(), FeedEnd> {
        for index in 0..self.logs.len() {
            while self.logs[index].next <= watcher.after[index] {
                self.follow(index);
            }
            let log = &self.logs[index];
            let upto = log.next - 1;
            if watcher.after[index] == upto {
                continue;
            }
            let mut past = Past::open(&self.data, &log.log, watcher.after[index] + 1).map_err(end_of)?;
            let mut events = Vec::new();
            while past.next() <= upto && past.read(log.tail.durable(), &mut events).map_err(end_of)? {}
            for event in events {
                if event.at.sequence() > upto {
                    break;
                }
                watcher.after[index] = event.at.sequence();
                if watcher.wants(&event) {
                    let metas = self.logs.iter().zip(&watcher.after);
                    let positions = metas.map(|(log, after)| Position { log: LogId(log.log.id), sequence: *after });
                    let item = FeedItem { event: Arc::new(event), positions: positions.collect() };
                    watcher.items.try_send(item).map_err(|_full| FeedEnd::TooSlow)?;
                }
            }
            watcher.after[index] = upto;
        }
        Ok(())
    }

    /// Hands out what is new in one log; true when there was something.
    fn follow(&mut self, index: usize) -> bool {
        let log = &mut self.logs[index];
        let mut worked = false;
        while let Some(frame) = log.tail.take() {
            worked = true;
            if frame.last_sequence < log.next {
                continue;
            }
            let log = &self.logs[index];
            if frame.first_sequence > log.next && !self.read_from_journal(index, frame.first_sequence - 1) {
                return true;
            }
            if !self.decode(index, &frame.payload) {
                return true;
            }
            self.hand_out(index, frame.last_sequence);
            return true;
        }
        let log = &self.logs[index];
        let durable = log.tail.durable();
        if log.tail.is_empty() && durable >= log.next {
            return self.read_from_journal(index, durable);
        }
        worked
    }

    /// Decodes a frame into `events`; asks the shard for references defined before the hub followed.
    fn decode(&mut self, index: usize, frame: &[u8]) -> bool {
        for batch in frame_batches(frame) {
            loop {
                let log = &mut self.logs[index];
                match log.reader.events(&batch, log.next, &mut self.events) {
                    Ok(()) => break,
                    Err(EventError::Unknown(unknown)) => {
                        if !self.resolve(index, unknown) {
                            self.end_all(FeedEnd::Broken("the node is stopping".into()));
                            return false;
                        }
                    }
                    Err(error @ EventError::Codec(_)) => {
                        self.end_all(FeedEnd::Broken(error.to_string()));
                        return false;
                    }
                }
            }
        }
        true
    }

    fn resolve(&mut self, index: usize, unknown: Vec<Unknown>) -> bool {
        let answer = self.shards.ask(index, 0, move |turn| {
            let known = unknown.into_iter().map(|unknown| match unknown {
                Unknown::Validator(number) => {
                    let name = turn.engine.validator_name(ValidatorRef(number));
                    Known::Validator(number, name.as_str().into())
                }
                Unknown::Requester(number) => Known::Requester(number, turn.engine.requester_id(RequesterRef(number))),
                Unknown::Set(_) => unreachable!("the hub's readers leave sets out"),
            });
            known.collect::<Vec<_>>()
        });
        let Ok(known) = crate::queue::block_on(answer) else { return false };
        let reader = &mut self.logs[index].reader;
        for known in known {
            match known {
                Known::Validator(number, name) => reader.define_validator(number, name),
                Known::Requester(number, id) => reader.define_requester(number, id),
            }
        }
        true
    }

    /// Frames that memory no longer has.
    fn read_from_journal(&mut self, index: usize, upto: u64) -> bool {
        let log = &mut self.logs[index];
        let opened = match log.past.take() {
            Some(past) => Ok(past),
            None => Past::open(&self.data, &log.log, log.next),
        };
        let read = opened.and_then(|mut past| {
            past.seek(log.next);
            let more = past.read(upto, &mut self.events)?;
            Ok((past, more))
        });
        match read {
            Ok((past, more)) => {
                let upto = past.next() - 1;
                log.past = Some(past);
                if more {
                    self.hand_out(index, upto);
                }
                more
            }
            Err(error) => {
                self.events.clear();
                self.end_all(end_of(error));
                false
            }
        }
    }

    fn hand_out(&mut self, index: usize, upto: u64) {
        let events = std::mem::take(&mut self.events);
        let mut ended = Vec::new();
        for event in &events {
            let sequence = event.at.sequence();
            self.logs[index].next = sequence + 1;
            let special = self.by_approval.get(&event.approval);
            let interested = special.into_iter().flatten().chain(&self.by_rest);
            let mut shared: Option<FeedItem> = None;
            for number in interested {
                let Some(watcher) = self.watchers.get(number) else { continue };
                if sequence <= watcher.after[index] || !watcher.wants(event) {
                    continue;
                }
                let item = shared.get_or_insert_with(|| FeedItem {
                    event: Arc::new(event.clone()),
                    positions: self
                        .logs
                        .iter()
                        .map(|log| Position { log: LogId(log.log.id), sequence: log.next - 1 })
                        .collect(),
                });
                match watcher.items.try_send(item.clone()) {
                    Ok(()) => {}
                    Err(mpsc::error::TrySendError::Full(_)) => {
                        watcher.end(FeedEnd::TooSlow);
                        ended.push(*number);
                    }
                    Err(mpsc::error::TrySendError::Closed(_)) => ended.push(*number),
                }
            }
            ended.drain(..).for_each(|number| self.forget(number));
        }
        self.logs[index].next = self.logs[index].next.max(upto + 1);
        self.events = events;
        self.events.clear();
        if self.watchers.is_empty() {
            self.rest();
        }
    }

    fn forget(&mut self, number: u64) {
        let Some(watcher) = self.watchers.remove(&number) else { return };
        match watcher.filter.approval {
            None => self.by_rest.retain(|known| *known != number),
            Some(id) => {
                if let Some(numbers) = self.by_approval.get_mut(&id) {
                    numbers.retain(|known| *known != number);
                    if numbers.is_empty() {
                        self.by_approval.remove(&id);
                    }
                }
            }
        }
    }

    fn end_all(&mut self, end: FeedEnd) {
        self.events.clear();
        let numbers: Vec<u64> = self.watchers.keys().copied().collect();
        for number in numbers {
            self.watchers[&number].end(end.clone());
            self.forget(number);
        }
        self.rest();
    }

    fn prune(&mut self) {
        let gone: Vec<u64> =
            self.watchers.iter().filter(|(_, watcher)| watcher.items.is_closed()).map(|(number, _)| *number).collect();
        gone.into_iter().for_each(|number| self.forget(number));
        self.rest();
    }

    /// Nobody watches: shards publish without copying, and nothing learnt is kept.
    fn rest(&mut self) {
        if !self.watchers.is_empty() {
            return;
        }
        for log in &mut self.logs {
            log.tail.follow(false);
            log.reader = EventReader::new(log.log.ordinal);
            log.past = None;
        }
    }
}

enum Known {
    Validator(u32, Arc<str>),
    Requester(u32, crate::model::RequesterId),
}
