//! The hot door against the generated code: on any bytes that prost decodes the two say the same, and
//! what prost cannot decode is refused, as a message or as a row.

use super::*;
use crate::model::{Decision, Refusal, VoteExtras};
use crate::wire::{parse_open, parse_open_bytes, parse_vote};
use proptest::prelude::*;

const ITEMS_MAX: usize = 12;

/// A vote as the shard sees it, or the field that refuses it.
type Seen = Result<([u8; 16], String, Decision, Option<Box<VoteExtras>>), String>;

fn field_of(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Invalid(invalid) => invalid.field.to_string(),
        other => panic!("{other:?} at the door"),
    }
}

fn drain(mut source: Box<dyn CommandSource>, step: usize) -> Vec<(u32, Seen)> {
    let len = source.len();
    let mut seen = Vec::new();
    loop {
        let (mut votes, mut bad) = (Vec::new(), Vec::new());
        let more = source.fill(step, &mut votes, &mut bad);
        assert!(votes.len() + bad.len() <= step);
        seen.extend(
            votes
                .into_iter()
                .map(|vote| (vote.item, Ok((vote.approval.0, vote.validator.to_string(), vote.decision, vote.extras)))),
        );
        seen.extend(bad.iter().map(|(item, refusal)| (*item, Err(field_of(refusal)))));
        if !more {
            break;
        }
    }
    seen.sort_by_key(|(item, _)| *item);
    assert_eq!(seen.len(), len, "every item is a vote or refused");
    seen
}

fn drain_split(batch: VoteBatch, shards: usize, step: usize) -> Vec<(u32, Seen)> {
    let shard_of = |id: &ApprovalId| usize::from(id.0[15]) % shards;
    let mut seen = Vec::new();
    for (shard, source) in batch.split(shards, shard_of) {
        let part = drain(source, step);
        for (_, vote) in &part {
            assert!(vote.as_ref().map_or(true, |vote| shard_of(&ApprovalId(vote.0)) == shard));
        }
        seen.extend(part);
    }
    seen.sort_by_key(|(item, _)| *item);
    seen
}

fn numbered(votes: impl Iterator<Item = Seen>) -> Vec<(u32, Seen)> {
    votes.enumerate().map(|(item, vote)| (item as u32, vote)).collect()
}

fn by_generated(response: &v1::ApprovalResponse) -> Seen {
    match parse_vote(response) {
        Ok(vote) => Ok((vote.approval.0, vote.validator.as_str().to_string(), vote.decision, vote.extras)),
        Err(refusal) => Err(field_of(&refusal)),
    }
}

/// What the batch means, item by item, or the field that ends the stream.
fn by_generated_batch(batch: &v1::ApprovalBatch, stream: Option<&str>) -> Result<Vec<(u32, Seen)>, String> {
    let votes = match &batch.columns {
        None => numbered(batch.responses.iter().map(by_generated)),
        Some(_) if !batch.responses.is_empty() => return Err("batch".into()),
        Some(columns) => by_generated_columns(columns, stream)?,
    };
    if votes.len() > ITEMS_MAX { Err("batch".into()) } else { Ok(votes) }
}

fn by_generated_columns(columns: &v1::VoteColumns, stream: Option<&str>) -> Result<Vec<(u32, Seen)>, String> {
    let count = columns.decisions.len();
    if columns.approval_ids.len() != count * 16 {
        return Err("batch.columns.approval_ids".into());
    }
    let table = !columns.validators.is_empty() || !columns.validator_indexes.is_empty();
    if table && !columns.validator_id.is_empty() {
        return Err("batch.columns.validator_id".into());
    }
    if table && columns.validator_indexes.len() != count * 2 {
        return Err("batch.columns.validator_indexes".into());
    }
    Ok(numbered((0..count).map(|item| {
        let name = if table {
            let index = u16::from_le_bytes(columns.validator_indexes[item * 2..][..2].try_into().expect("two"));
            let name = columns.validators.get(usize::from(index)).ok_or("validator_indexes")?;
            ValidatorId::parse(name).ok_or("validator_id")?
        } else {
            let name = if columns.validator_id.is_empty() { stream.unwrap_or("") } else { &columns.validator_id };
            ValidatorId::parse(name).ok_or("validator_id")?
        };
        let decision = Decision::from_number(columns.decisions[item]).ok_or("decision")?;
        let id = columns.approval_ids[item * 16..][..16].try_into().expect("sixteen");
        Ok((id, name.as_str().to_string(), decision, None))
    })))
}

/// The whole comparison for one message on a fresh stream.
fn check(bytes: &[u8], step: usize, shards: usize) {
    let message = Bytes::copy_from_slice(bytes);
    let parse = || StreamParser::new(ITEMS_MAX).parse(&message);
    let generated = v1::ApprovalStreamRequest::decode(bytes);
    match (generated, parse()) {
        (Err(_), Err(_)) => {}
        (Err(_), Ok(item)) => match item {
            StreamItem::Open(open) => assert!(parse_open_bytes(&open, 64).is_err()),
            StreamItem::Vote(row) => {
                let mut run = RowRun::default();
                run.push(&row);
                assert!(drain(run.take().into_source(), step)[0].1.is_err());
            }
            StreamItem::Votes(votes) => {
                assert!(drain(votes.into_source(), step).iter().any(|(_, vote)| vote.is_err()), "{bytes:?}");
            }
            StreamItem::Nothing | StreamItem::Subscription(_) => panic!("prost refuses {bytes:?}"),
        },
        (Ok(generated), parsed) => agree(&generated, parsed, parse, step, shards),
    }
}

fn agree(
    generated: &v1::ApprovalStreamRequest,
    parsed: Result<StreamItem, Invalid>,
    parse: impl Fn() -> Result<StreamItem, Invalid>,
    step: usize,
    shards: usize,
) {
    use v1::approval_stream_request::Item;
    let stream = ValidatorId::parse(&generated.validator_id);
    if !generated.validator_id.is_empty() && stream.is_none() {
        assert_eq!(parsed.err().expect("no legal validator").field, "validator_id");
        return;
    }
    match (&generated.item, parsed) {
        (None, Ok(StreamItem::Nothing)) => {}
        (Some(Item::Request(request)), Ok(StreamItem::Open(open))) => {
            assert_eq!(format!("{:?}", parse_open(request, None, 64)), format!("{:?}", parse_open_bytes(&open, 64)));
        }
        (Some(Item::Response(response)), Ok(StreamItem::Vote(row))) => {
            let mut run = RowRun::default();
            run.push(&row);
            assert_eq!(drain(run.take().into_source(), step), [(0, by_generated(response))]);
        }
        (Some(Item::Batch(batch)), parsed) => {
            match (by_generated_batch(batch, stream.as_ref().map(ValidatorId::as_str)), parsed) {
                (Ok(votes), Ok(StreamItem::Votes(batch))) => {
                    assert_eq!(drain(batch.into_source(), step), votes);
                    let Ok(StreamItem::Votes(again)) = parse() else { panic!("parsed before") };
                    assert_eq!(drain_split(again, shards, step), votes);
                }
                (Err(field), Err(invalid)) => assert_eq!(invalid.field, field),
                (theirs, ours) => panic!("{theirs:?} but {:?}", ours.map(|_| ())),
            }
        }
        (Some(Item::Subscription(theirs)), Ok(StreamItem::Subscription(ours))) => assert_eq!(theirs, &*ours),
        (theirs, ours) => panic!("{theirs:?} but {:?}", ours.map(|_| "another kind")),
    }
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "val-[0-3]",
        2 => Just("01890A5D-AC96-774B-BCCE-B302099A8057".to_string()),
        1 => Just("01890a5d-ac96-774b-bcce-b302099a8057".to_string()),
        1 => Just(String::new()),
        1 => Just("a b".to_string()),
        1 => "[a-zA-Z0-9é]{0,70}",
    ]
}

fn id() -> impl Strategy<Value = String> {
    any::<[u8; 16]>().prop_flat_map(|bytes| {
        let uuid = uuid::Uuid::from_bytes(bytes);
        prop_oneof![
            6 => Just(uuid.hyphenated().to_string()),
            1 => Just(uuid.simple().to_string().to_uppercase()),
            1 => Just(uuid.braced().to_string()),
            1 => Just(uuid.urn().to_string()),
            1 => Just("nonsense".to_string()),
            1 => Just(String::new()),
        ]
    })
}

fn response() -> impl Strategy<Value = v1::ApprovalResponse> {
    let rare = |strategy: &'static str| prop_oneof![6 => Just(String::new()), 1 => strategy];
    (
        id(),
        name(),
        -1i32..6,
        rare("(sha256:)?[0-9a-f]{64}"),
        rare("[a-zé\0]{1,4}"),
        proptest::collection::vec(any::<u8>(), 0..2),
    )
        .prop_map(|(approval_id, validator_id, decision, content_hash, reason, signature)| v1::ApprovalResponse {
            approval_id,
            validator_id,
            decision,
            content_hash,
            reason,
            signature: signature.into(),
        })
}

fn columns() -> impl Strategy<Value = v1::VoteColumns> {
    let table = prop_oneof![1 => Just(Vec::new()), 1 => proptest::collection::vec(name(), 1..4)];
    (0usize..14, any::<u8>(), name(), table, -1i32..12).prop_map(|(count, seed, one, validators, skew)| {
        let byte = |at: usize| (at as u8).wrapping_mul(31).wrapping_add(seed);
        let skewed = |length: usize, on: i32| if skew == on { length + 1 } else { length };
        let table = !validators.is_empty();
        v1::VoteColumns {
            approval_ids: (0..skewed(count * 16, 0)).map(byte).collect::<Vec<_>>().into(),
            decisions: (0..count).map(|at| 1 + byte(at) % if skew == 3 { 4 } else { 3 }).collect::<Vec<_>>().into(),
            validator_id: if table && skew != 2 { String::new() } else { one },
            validator_indexes: match table {
                true => {
                    (0..skewed(count * 2, 1)).map(|at| if at % 2 == 0 { byte(at) % 4 } else { 0 }).collect::<Vec<_>>()
                }
                false => Vec::new(),
            }
            .into(),
            validators,
        }
    })
}

fn message() -> impl Strategy<Value = v1::ApprovalStreamRequest> {
    use v1::approval_stream_request::Item;
    let batch = prop_oneof![
        4 => proptest::collection::vec(response(), 0..14).prop_map(|responses| v1::ApprovalBatch { responses, columns: None }),
        4 => columns().prop_map(|columns| v1::ApprovalBatch { responses: vec![], columns: Some(columns) }),
        1 => (response(), columns()).prop_map(|(row, columns)| v1::ApprovalBatch { responses: vec![row], columns: Some(columns) }),
    ];
    let request =
        (id(), id(), 0u32..4, 0i32..3).prop_map(|(approval_id, requester_id, required_approvals, approval_type)| {
            v1::ApprovalRequest {
                approval_id,
                requester_id,
                required_approvals,
                total_validators: 3,
                approval_type,
                ..v1::ApprovalRequest::default()
            }
        });
    let subscription = "[a-z]{0,3}"
        .prop_map(|subscription_id| v1::StreamSubscription { subscription_id, ..v1::StreamSubscription::default() });
    let item = prop_oneof![
        1 => Just(None),
        1 => request.prop_map(|request| Some(Item::Request(request))),
        2 => response().prop_map(|response| Some(Item::Response(response))),
        8 => batch.prop_map(|batch| Some(Item::Batch(batch))),
        1 => subscription.prop_map(|subscription| Some(Item::Subscription(subscription))),
    ];
    let validator = prop_oneof![2 => Just(String::new()), 1 => name()];
    (item, validator).prop_map(|(item, validator_id)| v1::ApprovalStreamRequest { item, validator_id })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn well_formed_messages_mean_the_same(message in message(), step in 1usize..20, shards in 1usize..5) {
        check(&message.encode_to_vec(), step, shards);
    }

    // Two messages back to back are one, merged; changed bytes make fields unknown, of another type, or broken.
    #[test]
    fn odd_and_broken_messages_mean_the_same(
        first in message(),
        second in proptest::option::of(message()),
        noise in proptest::collection::vec((any::<usize>(), prop_oneof![0u8..64, any::<u8>()]), 0..3),
        step in 1usize..20,
        shards in 1usize..5,
    ) {
        let mut bytes = first.encode_to_vec();
        if let Some(second) = second {
            bytes.extend(second.encode_to_vec());
        }
        for (at, byte) in noise {
            if !bytes.is_empty() {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
        }
        check(&bytes, step, shards);
    }
}

/// Found by the above: two messages back to back, the first's name broken.
#[test]
fn a_name_that_another_replaces_is_judged_too() {
    let vote = v1::ApprovalResponse {
        approval_id: "00000000-0000-0000-0000-000000000000".into(),
        validator_id: "val-0".into(),
        decision: 1,
        ..v1::ApprovalResponse::default()
    };
    let item = Some(v1::approval_stream_request::Item::Response(vote));
    let named = |item| v1::ApprovalStreamRequest { validator_id: "val-1".into(), item }.encode_to_vec();
    let mut bytes = named(None);
    bytes[3] = 0x80;
    bytes.extend(named(item));
    check(&bytes, 1, 1);
    assert!(StreamParser::new(ITEMS_MAX).parse(&Bytes::from(bytes)).is_err());
}

#[test]
fn the_streams_validator_holds_from_its_message_on() {
    let columns = v1::VoteColumns {
        approval_ids: vec![1; 32].into(),
        decisions: vec![1, 2].into(),
        ..v1::VoteColumns::default()
    };
    let item =
        v1::approval_stream_request::Item::Batch(v1::ApprovalBatch { responses: vec![], columns: Some(columns) });
    let message = |validator_id: &str, item| {
        Bytes::from(v1::ApprovalStreamRequest { item, validator_id: validator_id.into() }.encode_to_vec())
    };
    let mut parser = StreamParser::new(ITEMS_MAX);
    let mut names = |message: &Bytes| match parser.parse(message) {
        Ok(StreamItem::Votes(votes)) => {
            drain(votes.into_source(), 9).into_iter().map(|(_, vote)| vote.map(|vote| vote.1)).collect::<Vec<_>>()
        }
        Ok(StreamItem::Nothing) => vec![],
        _ => panic!("votes or nothing"),
    };
    assert_eq!(names(&message("", Some(item.clone()))), [Err("validator_id".into()), Err("validator_id".into())]);
    assert!(names(&message("val-1", None)).is_empty());
    assert_eq!(names(&message("", Some(item.clone()))), [Ok("val-1".into()), Ok("val-1".into())]);
    assert_eq!(names(&message("val-2", Some(item.clone()))), [Ok("val-2".into()), Ok("val-2".into())]);
    assert_eq!(names(&message("", Some(item))), [Ok("val-2".into()), Ok("val-2".into())]);
}

#[test]
fn one_item_more_than_the_bound_ends_the_stream() {
    let row = v1::ApprovalResponse::default();
    for (count, passes) in [(ITEMS_MAX, true), (ITEMS_MAX + 1, false)] {
        let batch = v1::ApprovalBatch { responses: vec![row.clone(); count], columns: None };
        let item = Some(v1::approval_stream_request::Item::Batch(batch));
        let message = v1::ApprovalStreamRequest { item, validator_id: String::new() }.encode_to_vec();
        assert_eq!(StreamParser::new(ITEMS_MAX).parse(&message.into()).is_ok(), passes);
    }
}
