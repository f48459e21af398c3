//! Fields of the public contract are added, never changed or removed.
//!
//! `proto/approvals.fields` is the contract as it was promised, one line a field, enum value and
//! rpc. After adding something: `UPDATE_FIELDS=1 cargo test --test promises descriptor` writes the
//! new lines (and still refuses a change or a removal).

use prost_reflect::{Cardinality, DescriptorPool, FieldDescriptor, Kind};
use std::collections::BTreeSet;
use std::path::PathBuf;

const PACKAGE: &str = "aurigraph.approvals.v1";

/// The contract as it was compiled into this build.
pub fn pool() -> DescriptorPool {
    let bytes: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/assent.descriptor"));
    DescriptorPool::decode(bytes).expect("the build wrote it")
}

/// Lines like `message ApprovalRequest.content = 5 bytes`, sorted.
fn lines(pool: &DescriptorPool) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for message in pool.all_messages().filter(|message| message.package_name() == PACKAGE) {
        let name = message.name();
        lines.insert(format!("message {name}"));
        lines.extend(message.fields().map(|field| {
            let (number, kind) = (field.number(), kind(&field));
            format!("message {name}.{} = {number} {kind}", field.name())
        }));
    }
    for found in pool.all_enums().filter(|found| found.package_name() == PACKAGE) {
        lines
            .extend(found.values().map(|value| format!("enum {}.{} = {}", found.name(), value.name(), value.number())));
    }
    for service in pool.services().filter(|service| service.package_name() == PACKAGE) {
        for method in service.methods() {
            let side = |streams: bool, name: &str| format!("{}{name}", if streams { "stream " } else { "" });
            let takes = side(method.is_client_streaming(), method.input().name());
            let gives = side(method.is_server_streaming(), method.output().name());
            lines.insert(format!("rpc {}.{}({takes}) -> {gives}", service.name(), method.name()));
        }
    }
    lines
}

fn kind(field: &FieldDescriptor) -> String {
    let kind = match field.kind() {
        Kind::Message(message) => message.full_name().trim_start_matches(PACKAGE).trim_start_matches('.').to_string(),
        Kind::Enum(found) => found.name().to_string(),
        scalar => format!("{scalar:?}").to_lowercase(),
    };
    let repeated = if field.cardinality() == Cardinality::Repeated { "repeated " } else { "" };
    let choice = field.containing_oneof().map(|choice| format!(" oneof {}", choice.name())).unwrap_or_default();
    format!("{repeated}{kind}{choice}")
}

#[test]
fn nothing_promised_is_changed_or_removed() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("proto/approvals.fields");
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let promised: BTreeSet<String> =
        text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(String::from).collect();
    let now = lines(&pool());

    let gone: Vec<_> = promised.difference(&now).collect();
    assert!(
        gone.is_empty(),
        "the contract no longer holds what proto/approvals.fields promised; put it back under its number:\n{gone:#?}"
    );
    let added: Vec<_> = now.difference(&promised).collect();
    if std::env::var_os("UPDATE_FIELDS").is_some() {
        let mut text = String::from(
            "# The public contract, one line a field, enum value and rpc. Lines are added, never changed or removed\n\
             # (tests/descriptor.rs). Written by: UPDATE_FIELDS=1 cargo test --test promises descriptor\n",
        );
        now.iter().for_each(|line| text += &format!("{line}\n"));
        std::fs::write(&path, text).expect("the repository can be written");
        return;
    }
    assert!(
        added.is_empty(),
        "new in the contract; run `UPDATE_FIELDS=1 cargo test --test promises descriptor` and commit \
         proto/approvals.fields:\n{added:#?}"
    );
}

#[test]
fn enums_begin_unspecified_and_values_carry_their_enums_name() {
    for found in pool().all_enums().filter(|found| found.package_name() == PACKAGE) {
        let prefix: String = found.name().char_indices().fold(String::new(), |mut text, (at, letter)| {
            if at > 0 && letter.is_uppercase() {
                text.push('_');
            }
            text.push(letter.to_ascii_uppercase());
            text
        });
        for value in found.values() {
            assert!(value.name().starts_with(&format!("{prefix}_")), "{} in {}", value.name(), found.name());
        }
        assert_eq!(found.get_value(0).expect("a zero").name(), format!("{prefix}_UNSPECIFIED"));
    }
}
