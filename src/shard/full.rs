//! What FULL adds to an approval: its events followed newest to oldest through the journal, each
//! naming the one before. A few threads of their own read; shards and fronts never wait for a disk.

use super::events::{EventReader, FeedEvent, FeedKind};
use super::past::PastError;
use super::{Tail, VoteLine};
use crate::journal::{FolderMeta, LogReader};
use crate::model::codec::{Record, decode};
use crate::model::{ApprovalState, EventKind, EventRef};
use crate::queue::{ReplySlot, reply};
use bytes::Bytes;
use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// FULL answers that are read at the same time.
const READERS: usize = 2;
/// Questions that wait for a reader; beyond that the answer comes without its details, and says so.
const QUESTIONS_MAX: usize = 256;
/// Segments whose definitions a reader keeps.
const SEGMENTS_KEPT: usize = 8;

/// Asks the readers. Cheap to clone.
#[derive(Clone)]
pub struct FullReader {
    questions: Sender<Question>,
}

struct Question {
    newest: EventRef,
    wanted: HashSet<Arc<str>>,
    answer: ReplySlot<Result<Full, String>>,
}

struct Full {
    content: Bytes,
    votes: HashMap<Arc<str>, FeedEvent>,
}

impl FullReader {
    /// Starts the readers.
    pub(super) fn start(data: &Path, meta: Arc<FolderMeta>, tails: Vec<Arc<Tail>>) -> std::io::Result<FullReader> {
        let (questions, inbox) = bounded(QUESTIONS_MAX);
        for number in 0..READERS {
            let (inbox, data, meta, tails) = (inbox.clone(), data.to_path_buf(), meta.clone(), tails.clone());
            let run = move || Reader { data, meta, tails, logs: HashMap::new(), segments: Vec::new() }.run(&inbox);
            std::thread::Builder::new().name(format!("full-{number}")).spawn(run)?;
        }
        Ok(FullReader { questions })
    }

    /// Fills in the votes of `lines`, and gives the content. Err: why that is not to be had.
    pub(super) async fn read(&self, state: &ApprovalState, lines: &mut [VoteLine]) -> Result<Bytes, String> {
        let (answer, wait) = reply();
        let wanted = lines.iter().map(|line| line.validator.clone()).collect();
        let question = Question { newest: state.last_event, wanted, answer };
        self.questions.try_send(question).map_err(|error| match error {
            TrySendError::Full(_) => "too many FULL views are being read: try again".to_string(),
            TrySendError::Disconnected(_) => "the node is stopping".to_string(),
        })?;
        let full = wait.wait().await.unwrap_or_else(|| Err("the node is stopping".into()))?;
        for line in lines {
            let Some(event) = full.votes.get(&line.validator) else { continue };
            let FeedKind::Voted { reason, signature, .. } = &event.kind else { continue };
            line.reason = reason.clone();
            line.signature = signature.clone();
            line.voted_at = Some(event.time);
            line.sequence = event.at.sequence();
        }
        Ok(full.content)
    }
}

struct Reader {
    data: PathBuf,
    meta: Arc<FolderMeta>,
    tails: Vec<Arc<Tail>>,
    logs: HashMap<u16, LogReader>,
    /// Definitions of segments read before: log, segment, sequence up to which, and what was defined.
    segments: Vec<Definitions>,
}

struct Definitions {
    log: u16,
    segment: u64,
    through: u64,
    events: EventReader,
}

impl Reader {
    fn run(mut self, inbox: &Receiver<Question>) {
        while let Ok(question) = inbox.recv() {
            if question.answer.is_asker_gone() {
                continue;
            }
            let full = self.chain(question.newest, &question.wanted).map_err(|error| error.to_string());
            question.answer.answer(full);
        }
    }

    fn chain(&mut self, newest: EventRef, wanted: &HashSet<Arc<str>>) -> Result<Full, PastError> {
        let mut full = Full { content: Bytes::new(), votes: HashMap::with_capacity(wanted.len()) };
        let mut at = newest;
        while !at.is_none() {
            let (event, content) = self.event(at)?;
            if let FeedKind::Voted { validator, .. } = &event.kind
                && wanted.contains(validator)
            {
                full.votes.insert(validator.clone(), event.clone());
            }
            if let Some(content) = content {
                full.content = content;
            }
            at = event.previous;
        }
        Ok(full)
    }

    /// One event, and its content if it is an opening.
    fn event(&mut self, at: EventRef) -> Result<(FeedEvent, Option<Bytes>), PastError> {
        let (ordinal, sequence) = (at.log_ordinal(), at.sequence());
        if !self.logs.contains_key(&ordinal) {
            let meta = self.meta.log(ordinal).expect("an event's log is in the folder");
            self.logs.insert(ordinal, LogReader::open(&self.data, meta)?);
        }
        let log = self.logs.get_mut(&ordinal).expect("just opened");
        let segment = log.segment_of(sequence)?;
        let known = self.segments.iter().position(|known| known.log == ordinal && known.segment == segment);
        let mut definitions = match known {
            Some(known) => self.segments.remove(known),
            None => Definitions { log: ordinal, segment, through: 0, events: EventReader::new(ordinal) },
        };
        if definitions.through < sequence {
            // As far as it is durable now, so that the next questions find it read.
            let current = self.meta.current().map_or(&[][..], |generation| &generation.logs);
            let end = current.iter().position(|log| log.ordinal == ordinal).map(|index| self.tails[index].durable());
            let through = end.unwrap_or(sequence).max(sequence);
            let mut outcome = Ok(());
            definitions.events = EventReader::new(ordinal);
            log.batches(segment, through, |batch| {
                if outcome.is_ok() {
                    outcome = definitions.events.definitions(&batch);
                }
            })?;
            outcome?;
            definitions.through = through;
        }
        let found = log.batch_of(sequence, |batch| {
            let mut events = Vec::new();
            definitions.events.events(&batch, sequence, &mut events)?;
            let event = events.into_iter().next().expect("the batch holds the event");
            let content = matches!(event.kind, FeedKind::Opened { .. })
                .then(|| content_of(batch.payload, sequence - batch.first_sequence));
            Ok::<_, PastError>((event, content))
        })??;
        self.segments.insert(0, definitions);
        self.segments.truncate(SEGMENTS_KEPT);
        Ok(found)
    }
}

/// Content of the opening that is the `index`-th event of a batch.
fn content_of(payload: &[u8], index: u64) -> Bytes {
    let (mut rest, mut at) = (payload, 0);
    while let Ok((record, length)) = decode(rest) {
        if let Record::Event(event) = &record {
            if at == index {
                if let EventKind::Opened(opened) = &event.kind {
                    return Bytes::copy_from_slice(opened.content);
                }
                break;
            }
            at += 1;
        }
        rest = &rest[length..];
    }
    Bytes::new()
}
