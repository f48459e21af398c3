//! How enums are written in tables: the value's name in the proto, without the enum's.

use crate::model::{ApprovalType, ContentHash, Decision, Outcome, Priority, Status};

macro_rules! names {
    ($enum:ident, $to:ident, $from:ident, $($value:ident = $name:literal),+) => {
        pub const fn $to(value: $enum) -> &'static str {
            match value {
                $($enum::$value => $name),+
            }
        }

        /// `None`: not a name that this version knows.
        pub fn $from(name: &str) -> Option<$enum> {
            match name {
                $($name => Some($enum::$value),)+
                _ => None,
            }
        }
    };
}

names!(
    ApprovalType,
    approval_type,
    parse_approval_type,
    LargeTransaction = "LARGE_TRANSACTION",
    ContractDeployment = "CONTRACT_DEPLOYMENT",
    ParameterChange = "PARAMETER_CHANGE",
    ContractUpgrade = "CONTRACT_UPGRADE",
    ValidatorChange = "VALIDATOR_CHANGE",
    TokenIssuance = "TOKEN_ISSUANCE",
    BridgeTransfer = "BRIDGE_TRANSFER",
    EmergencyAction = "EMERGENCY_ACTION",
    Other = "OTHER"
);
names!(Priority, priority, parse_priority, Normal = "NORMAL", High = "HIGH", Critical = "CRITICAL");
names!(
    Status,
    status,
    parse_status,
    Pending = "PENDING",
    Approved = "APPROVED",
    Rejected = "REJECTED",
    Expired = "EXPIRED"
);
names!(Decision, decision, parse_decision, Approved = "APPROVED", Rejected = "REJECTED", Abstain = "ABSTAIN");

pub const fn outcome(outcome: Outcome) -> &'static str {
    status(outcome.status())
}

/// As [`ContentHash`] shows itself: `sha256:` and hex digits, which no label starts with, or the label.
pub fn parse_content_hash(text: &str) -> Option<ContentHash> {
    let Some(digits) = text.strip_prefix("sha256:") else {
        return Some(ContentHash::Label(text.into()));
    };
    let mut hash = [0u8; 32];
    if digits.len() != 64 || !digits.is_ascii() {
        return None;
    }
    for (byte, at) in hash.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&digits[at..at + 2], 16).ok()?;
    }
    Some(ContentHash::Sha256(hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The proto's names, found through its own generated enums, so that a new value cannot be forgotten.
    #[test]
    fn names_are_the_protos() {
        use crate::wire::v1;
        for number in 0..=u8::MAX {
            let kind = v1::ApprovalType::try_from(i32::from(number)).ok().filter(|_| number != 0);
            let name = kind.map(|kind| kind.as_str_name().trim_start_matches("APPROVAL_TYPE_"));
            assert_eq!(ApprovalType::from_number(number).map(approval_type), name);
            let kind = v1::ApprovalPriority::try_from(i32::from(number)).ok().filter(|_| number != 0);
            let name = kind.map(|kind| kind.as_str_name().trim_start_matches("APPROVAL_PRIORITY_"));
            assert_eq!(Priority::from_number(number).map(priority), name);
            let kind = v1::ApprovalStatus::try_from(i32::from(number)).ok().filter(|_| number != 0);
            let name = kind.map(|kind| kind.as_str_name().trim_start_matches("APPROVAL_STATUS_"));
            assert_eq!(Status::from_number(number).map(status), name);
            let kind = v1::ValidatorDecision::try_from(i32::from(number)).ok().filter(|_| number != 0);
            let name = kind.map(|kind| kind.as_str_name().trim_start_matches("VALIDATOR_DECISION_"));
            assert_eq!(Decision::from_number(number).map(decision), name);
        }
    }

    #[test]
    fn names_are_read_back() {
        for number in 0..=u8::MAX {
            let read = ApprovalType::from_number(number).map(|value| parse_approval_type(approval_type(value)));
            assert_eq!(read, ApprovalType::from_number(number).map(Some));
            let read = Priority::from_number(number).map(|value| parse_priority(priority(value)));
            assert_eq!(read, Priority::from_number(number).map(Some));
            let read = Status::from_number(number).map(|value| parse_status(status(value)));
            assert_eq!(read, Status::from_number(number).map(Some));
            let read = Decision::from_number(number).map(|value| parse_decision(decision(value)));
            assert_eq!(read, Decision::from_number(number).map(Some));
        }
        assert_eq!((parse_status("pending"), parse_decision("")), (None, None));
    }

    #[test]
    fn content_hashes_are_read_back() {
        for hash in [ContentHash::Sha256([0xA7; 32]), ContentHash::Label("SHA256:12".into())] {
            assert_eq!(parse_content_hash(&hash.to_string()), Some(hash));
        }
        for text in
            ["sha256:", "sha256:12", &format!("sha256:{}", "g".repeat(64)), &format!("sha256:{}", "é".repeat(32))]
        {
            assert_eq!(parse_content_hash(text), None, "{text}");
        }
    }
}
