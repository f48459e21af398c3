//! A sink that keeps what an engine emits as a journal would, in frames and segments, and checks on
//! the way what every follower relies on: references are defined in their segment before they are
//! used, each event names its predecessor, and every record reads back as it was written.

use assent::engine::{Engine, ReplayError, Replayer};
use assent::model::codec::{self, Record};
use assent::model::*;
use std::collections::HashMap;

pub struct Frame {
    pub segment: u64,
    pub first_sequence: u64,
    pub bytes: Vec<u8>,
}

pub struct Recorder {
    pub log_ordinal: u16,
    pub segment: u64,
    pub sequence: u64,
    pub frames: Vec<Frame>,
    pub answers: Vec<(u32, VoteAnswer)>,
    pub newest: HashMap<ApprovalId, EventRef>,
    /// A name that went and came back is defined again.
    pub names_went: bool,
    validators: HashMap<ValidatorRef, String>,
    requesters: HashMap<RequesterRef, RequesterId>,
    sets: HashMap<SetRef, [u8; 32]>,
}

impl Recorder {
    pub fn new(log_ordinal: u16) -> Recorder {
        let (validators, requesters, sets) = Default::default();
        let mut recorder = Recorder {
            log_ordinal,
            segment: 0,
            sequence: 0,
            frames: Vec::new(),
            answers: Vec::new(),
            newest: HashMap::new(),
            names_went: false,
            validators,
            requesters,
            sets,
        };
        recorder.next_segment();
        recorder
    }

    pub fn next_segment(&mut self) {
        self.segment += 1;
        self.validators.clear();
        self.requesters.clear();
        self.sets.clear();
        self.next_frame();
    }

    pub fn next_frame(&mut self) {
        let frame = Frame { segment: self.segment, first_sequence: self.sequence + 1, bytes: Vec::new() };
        self.frames.push(frame);
    }

    /// Replays everything into an engine.
    pub fn replay(&self, engine: &mut Engine, skip: impl Fn(u32) -> u64) -> Result<u64, ReplayError> {
        let mut replayer = Replayer::new(self.log_ordinal);
        let (mut segment, mut events) = (0, 0);
        for frame in &self.frames {
            if frame.segment != segment {
                replayer.segment_started(engine);
                segment = frame.segment;
            }
            events += replayer.apply_batch(engine, frame.first_sequence, &frame.bytes, &skip)?;
        }
        replayer.segment_started(engine);
        Ok(events)
    }

    fn frame(&mut self) -> &mut Vec<u8> {
        &mut self.frames.last_mut().expect("there is a frame").bytes
    }

    fn check_last(&mut self, start: usize, expected: &Record<'_>) {
        let bytes = &self.frame()[start..];
        let (record, length) = codec::decode(bytes).expect("what was written can be read");
        assert_eq!(length, bytes.len());
        assert_eq!(record, *expected);
    }
}

impl EventSink for Recorder {
    fn segment(&self) -> u64 {
        self.segment
    }

    fn define_validator(&mut self, number: ValidatorRef, name: &str) {
        assert!(
            self.validators.insert(number, name.to_owned()).as_deref() != Some(name) || self.names_went,
            "defined twice"
        );
        let start = self.frame().len();
        codec::encode_define_validator(number, name, self.frame());
        self.check_last(start, &Record::DefineValidator { number, name });
    }

    fn define_requester(&mut self, number: RequesterRef, id: &RequesterId) {
        assert!(self.requesters.insert(number, *id) != Some(*id) || self.names_went, "defined twice");
        let start = self.frame().len();
        codec::encode_define_requester(number, id, self.frame());
        self.check_last(start, &Record::DefineRequester { number, id: *id });
    }

    fn define_set(&mut self, number: SetRef, digest: &[u8; 32], members: &[ValidatorRef]) {
        assert!(self.sets.insert(number, *digest) != Some(*digest) || self.names_went, "defined twice");
        assert!(members.iter().all(|member| self.validators.contains_key(member)), "members come first");
        let start = self.frame().len();
        codec::encode_define_set(number, digest, members, self.frame());
        let bytes = &self.frame()[start..];
        let Ok((Record::DefineSet { members: read, .. }, length)) = codec::decode(bytes) else {
            panic!("what was written can be read")
        };
        assert!(length == bytes.len() && read.iter().eq(members.iter().copied()));
    }

    fn append(&mut self, event: &Event<'_>) -> EventRef {
        self.sequence += 1;
        let previous = self.newest.get(&event.approval).copied().unwrap_or(EventRef::NONE);
        assert_eq!(event.previous, previous, "an event names its predecessor");
        match &event.kind {
            EventKind::Opened(opened) => {
                assert!(self.requesters.contains_key(&opened.requester));
                assert!(opened.eligible.is_none_or(|set| self.sets.contains_key(&set)));
            }
            EventKind::Voted(voted) => {
                assert!(self.requesters.contains_key(&voted.requester));
                assert!(self.validators.contains_key(&voted.validator));
            }
            EventKind::Expired(expired) => assert!(self.requesters.contains_key(&expired.requester)),
        }
        let start = self.frame().len();
        codec::encode_event(event, self.frame());
        self.check_last(start, &Record::Event(event.clone()));
        let at = EventRef::new(self.log_ordinal, self.sequence);
        self.newest.insert(event.approval, at);
        at
    }

    fn append_vote(&mut self, vote: &PlainVote) -> EventRef {
        let at = self.append(&vote.event());
        let mut plain = [0; codec::PLAIN_VOTE_BYTES];
        codec::encode_vote_plain(vote, &mut plain);
        assert!(self.frame().ends_with(&plain), "both ways write the same bytes");
        assert_eq!(codec::decode_vote_plain(&plain), Some(*vote));
        at
    }
}

impl VoteSink for Recorder {
    fn answer(&mut self, item: u32, answer: VoteAnswer) {
        self.answers.push((item, answer));
    }
}
