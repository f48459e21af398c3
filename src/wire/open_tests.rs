//! Every rule of opening, field by field, through both readers of a request.

use super::*;
use proptest::prelude::*;
use prost::Message;

const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";
const REQUESTER: &str = "6fa459ea-ee8a-4ca4-894e-db77e160355e";
const CONTENT_BYTES_MAX: usize = 1_000;

fn request() -> v1::ApprovalRequest {
    v1::ApprovalRequest {
        approval_id: ID.into(),
        approval_type: 1,
        requester_id: REQUESTER.into(),
        content: Bytes::from_static(b"pay 5"),
        required_approvals: 2,
        total_validators: 3,
        ..v1::ApprovalRequest::default()
    }
}

fn changed(change: impl FnOnce(&mut v1::ApprovalRequest)) -> v1::ApprovalRequest {
    let mut request = request();
    change(&mut request);
    request
}

/// What both readers say, which must be the same.
fn parse(request: &v1::ApprovalRequest) -> Result<OpenRequest, Refusal> {
    let generated = parse_open(request, None, CONTENT_BYTES_MAX);
    let raw = parse_open_bytes(&request.encode_to_vec().into(), CONTENT_BYTES_MAX);
    assert_eq!(format!("{generated:?}"), format!("{raw:?}"));
    generated
}

/// The field that refuses the request, "" for none.
fn check(change: impl FnOnce(&mut v1::ApprovalRequest), field: &str) {
    let request = changed(change);
    match parse(&request) {
        Ok(_) => assert_eq!(field, "", "{request:?} passes"),
        Err(Refusal::Invalid(invalid)) => assert_eq!(invalid.field, field, "{request:?}"),
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn every_field_is_judged() {
    check(|_| {}, "");
    check(|r| r.approval_id.clear(), "approval_id");
    check(|r| r.approval_id = "7".into(), "approval_id");
    check(|r| r.approval_id = format!("urn:uuid:{ID}"), "");
    check(|r| r.approval_type = 0, "approval_type");
    check(|r| r.approval_type = 9, "");
    check(|r| r.approval_type = 10, "approval_type");
    check(|r| r.approval_type = 257, "approval_type");
    check(|r| r.priority = 3, "");
    check(|r| r.priority = 4, "priority");
    check(|r| r.priority = -1, "priority");
    check(|r| r.requester_id.clear(), "requester_id");
    check(|r| r.requester_id = "me".into(), "requester_id");
    check(|r| r.content = Bytes::new(), "");
    check(|r| r.content = vec![0; CONTENT_BYTES_MAX].into(), "");
    check(|r| r.content = vec![0; CONTENT_BYTES_MAX + 1].into(), "content");
    check(|r| r.content_hash = "x".repeat(255), "");
    check(|r| r.content_hash = "x".repeat(256), "content_hash");
    check(|r| r.content_hash = "a\u{1f}".into(), "content_hash");
    check(|r| r.content_hash = "ä".into(), "content_hash");
    check(|r| r.content_hash = "sha256:12".into(), "content_hash");
    check(|r| r.content_hash = format!("sha256:{}", "0".repeat(64)), "content_hash");
    check(|r| r.content_hash = sha_text(b"pay 5"), "");
    check(|r| r.content_hash = sha_text(b"pay 5").to_uppercase().replace("SHA256", "sha256"), "");
    check(|r| r.content_hash = "SHA256:12".into(), "");
    check(|r| r.required_approvals = 0, "required_approvals");
    check(|r| r.required_approvals = 3, "");
    check(|r| r.required_approvals = 4, "required_approvals");
    check(|r| r.required_approvals = 65_537, "required_approvals");
    check(|r| r.total_validators = 0, "total_validators");
    check(|r| r.total_validators = 32_767, "");
    check(|r| r.total_validators = 32_768, "total_validators");
    check(|r| r.total_validators = 65_539, "total_validators");
    check(|r| r.created_at = Some(Timestamp::default()), "created_at");
    check(|r| r.expires_at = Some(Timestamp::default()), "");
    check(|r| r.expires_at = Some(Timestamp { seconds: -1, nanos: 0 }), "expires_at");
    check(|r| r.expires_at = Some(Timestamp { seconds: 1, nanos: -1 }), "expires_at");
    check(|r| r.expires_at = Some(Timestamp { seconds: 253_402_300_800, nanos: 0 }), "expires_at");
    check(|r| r.eligible_validators = names(["a", "b", "c"]), "");
    check(|r| r.eligible_validators = names(["a", "b"]), "total_validators");
    check(|r| r.eligible_validators = names(["a", "b", "a"]), "eligible_validators");
    check(|r| r.eligible_validators = names([ID, &ID.to_uppercase(), "c"]), "eligible_validators");
    check(|r| r.eligible_validators = names(["a", "b c", "d"]), "eligible_validators[1]");
    check(|r| r.eligible_validators = names(["a", "b", ""]), "eligible_validators[2]");
    let too_many = (0..32_768).map(|number| number.to_string()).collect();
    check(|r| (r.eligible_validators, r.total_validators) = (too_many, 0), "eligible_validators");
    check(|r| r.watch = Some(v1::WatchOptions::default()), "watch");
}

fn names<const N: usize>(names: [&str; N]) -> Vec<String> {
    names.map(String::from).into()
}

fn sha_text(content: &[u8]) -> String {
    ContentHash::Sha256(Sha256::digest(content).into()).to_string()
}

#[test]
fn what_passes_is_normalised() {
    let open = parse(&changed(|r| {
        r.approval_id = format!("{{{}}}", ID.to_uppercase());
        r.expires_at = Some(Timestamp { seconds: 5, nanos: 1_999 });
        r.eligible_validators = names(["c", &ID.to_uppercase(), "a"]);
        r.total_validators = 0;
    }))
    .expect("legal");
    assert_eq!(open.id.to_string(), ID);
    assert_eq!(open.priority, Priority::Normal);
    assert_eq!(open.expires_at, Some(Micros(5_000_001)));
    assert_eq!(open.content_hash.to_string(), sha_text(b"pay 5"));
    assert_eq!((open.required, open.total), (2, 3));
    let members: Vec<_> = open.eligible.as_ref().expect("set").members.iter().map(ValidatorId::as_str).collect();
    assert_eq!(members, [ID, "a", "c"], "sorted, UUIDs in lower case");
}

#[test]
fn an_empty_id_takes_the_drawn_one() {
    let drawn = ApprovalId([7; 16]);
    let open = parse_open(&changed(|r| r.approval_id.clear()), Some(drawn), CONTENT_BYTES_MAX).expect("legal");
    assert_eq!(open.id, drawn);
    assert_eq!(open.digest, parse(&request()).expect("legal").digest, "the id is not part of the request");
}

#[test]
fn the_digest_tells_requests_apart_and_spellings_together() {
    let digest = |change: fn(&mut v1::ApprovalRequest)| parse(&changed(change)).expect("legal").digest;
    let base = digest(|_| {});
    let others: [fn(&mut v1::ApprovalRequest); 10] = [
        |r| r.approval_type = 2,
        |r| r.priority = 1,
        |r| r.requester_id = ID.into(),
        |r| r.content = Bytes::from_static(b"pay 6"),
        |r| r.content = Bytes::new(),
        |r| r.content_hash = sha_text(b"pay 5"),
        |r| r.required_approvals = 1,
        |r| r.total_validators = 4,
        |r| r.expires_at = Some(Timestamp::default()),
        |r| r.eligible_validators = names(["a", "b", "c"]),
    ];
    let mut seen = vec![base];
    for other in others {
        let other = digest(other);
        assert!(!seen.contains(&other), "a field sent, even as its default, is another request");
        seen.push(other);
    }
    assert_eq!(digest(|r| r.requester_id = format!("{{{}}}", REQUESTER.to_uppercase())), base);
    assert_eq!(
        digest(|r| r.expires_at = Some(Timestamp { seconds: 9, nanos: 1_000 })),
        digest(|r| r.expires_at = Some(Timestamp { seconds: 9, nanos: 1_999 })),
    );
    assert_eq!(
        digest(|r| r.eligible_validators = names(["a", "b", "c"])),
        digest(|r| r.eligible_validators = names(["c", "b", "a"])),
    );
    assert_eq!(
        digest(|r| r.content_hash = sha_text(b"pay 5")),
        digest(|r| r.content_hash = sha_text(b"pay 5").to_uppercase().replace("SHA256", "sha256")),
    );
    assert_eq!(
        hex(&base),
        "965841099a65b0d4e2989769c2ca802c",
        "format version 1: the same request hashes alike for ever"
    );
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    // Fields twice, split messages, unknown fields: two encodings back to back are one message.
    #[test]
    fn both_readers_agree_on_any_bytes(
        cut in 0usize..200,
        noise in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..4),
        twice in any::<bool>(),
    ) {
        let full = changed(|r| {
            r.priority = 2;
            r.expires_at = Some(Timestamp { seconds: 300, nanos: 5_000 });
            r.eligible_validators = names(["a", "b", "c"]);
            r.content_hash = "label".into();
        });
        let mut bytes = full.encode_to_vec();
        if twice {
            bytes.extend(changed(|r| r.expires_at = Some(Timestamp { seconds: 0, nanos: 7_000 })).encode_to_vec());
        }
        for (at, byte) in noise {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        if cut < 20 {
            bytes.truncate(bytes.len() - cut);
        }
        let raw = parse_open_bytes(&bytes.clone().into(), CONTENT_BYTES_MAX);
        match v1::ApprovalRequest::decode(&bytes[..]) {
            Ok(generated) => {
                let generated = parse_open(&generated, None, CONTENT_BYTES_MAX);
                prop_assert_eq!(format!("{:?}", generated), format!("{:?}", raw));
            }
            Err(_) => prop_assert!(raw.is_err(), "prost refuses what passed: {:?}", bytes),
        }
    }
}
