//! How the client's answers look: for people, or as proto-JSON, one object a line.

use crate::wire::{DESCRIPTOR, micros, v1};
use base64::{Engine, prelude::BASE64_STANDARD};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};
use std::io::{self, Write};
use std::sync::LazyLock;

/// Votes and eligible validators listed for people; the rest is counted.
const LISTED_MAX: usize = 100;

pub struct Show {
    json: bool,
}

impl Show {
    pub fn new(json: bool) -> Show {
        Show { json }
    }

    /// What `submit` was answered.
    pub fn opened(&self, approval: &v1::ApprovalStatusMessage) -> io::Result<()> {
        if self.json {
            return json(approval, "ApprovalStatus_Message");
        }
        let what = if approval.repeat { "stands already" } else { "is open" };
        let mut text = format!("{} {what}: {}\n", approval.approval_id, standing(approval));
        text += &format!("vote on it: assent vote {} VALIDATOR approved\n", approval.approval_id);
        print(&text)
    }

    /// What `vote` was answered.
    pub fn voted(&self, approval: &v1::ApprovalStatusMessage) -> io::Result<()> {
        if self.json {
            return json(approval, "ApprovalStatus_Message");
        }
        let repeat = if approval.repeat { " (this vote stood already)" } else { "" };
        print(&format!("{} {}{repeat}\n", approval.approval_id, standing(approval)))
    }

    /// All of an approval.
    pub fn approval(&self, approval: &v1::ApprovalStatusMessage) -> io::Result<()> {
        if self.json {
            return json(approval, "ApprovalStatus_Message");
        }
        let mut text = format!("{} {}\n", approval.approval_id, standing(approval));
        let mut row = |name: &str, value: &str| {
            if !value.is_empty() {
                text += &format!("  {name:<10} {value}\n");
            }
        };
        row("type", &word(approval.approval_type().as_str_name(), "APPROVAL_TYPE_"));
        row("priority", &word(approval.priority().as_str_name(), "APPROVAL_PRIORITY_"));
        row("requester", &approval.requester_id);
        row("hash", &approval.content_hash);
        row("created", &time(approval.created_at.as_ref()));
        row("expires", &time(approval.expires_at.as_ref()));
        row("finalized", &time(approval.finalized_at.as_ref()));
        if approval.eligible_count > 0 {
            row("eligible", &format!("{} validators", approval.eligible_count));
            approval.eligible_validators.iter().take(LISTED_MAX).for_each(|validator| row("", validator));
        }
        if !approval.content.is_empty() {
            row("content", &content(&approval.content));
        }
        row("detail", &approval.detail_reason);
        for vote in approval.votes.iter().take(LISTED_MAX) {
            row("vote", &vote_line(vote));
        }
        if approval.votes.len() > LISTED_MAX {
            row("", &format!("… and {} more votes (--json has them all)", approval.votes.len() - LISTED_MAX));
        }
        print(&text)
    }

    /// One message of a stream.
    pub fn change(&self, approval: &v1::ApprovalStatusMessage) -> io::Result<()> {
        if self.json {
            return json(approval, "ApprovalStatus_Message");
        }
        let what = match approval.event_type() {
            v1::ApprovalEventType::Unspecified => "STATE".to_owned(),
            event => word(event.as_str_name(), "APPROVAL_EVENT_TYPE_"),
        };
        let vote = approval.votes.first().map_or_else(String::new, |vote| format!("; {}", vote_line(vote)));
        let priority = word(approval.priority().as_str_name(), "APPROVAL_PRIORITY_");
        print(&format!("{what:<9} {} {priority:<8} {}{vote}\n", approval.approval_id, standing(approval)))
    }

    /// Above a list's rows, for people.
    pub fn list_head(&self) -> io::Result<()> {
        if self.json {
            return Ok(());
        }
        print(&list_row(["approval", "status", "priority", "type", "votes", "created"]))
    }

    /// One row of a list.
    pub fn listed(&self, approval: &v1::ApprovalStatusMessage) -> io::Result<()> {
        if self.json {
            return json(approval, "ApprovalStatus_Message");
        }
        let votes = format!(
            "{}/{} +{} of {}",
            approval.approvals,
            approval.required_approvals,
            approval.rejections + approval.abstentions,
            approval.total_validators
        );
        print(&list_row([
            &approval.approval_id,
            &word(approval.status().as_str_name(), "APPROVAL_STATUS_"),
            &word(approval.priority().as_str_name(), "APPROVAL_PRIORITY_"),
            &word(approval.approval_type().as_str_name(), "APPROVAL_TYPE_"),
            &votes,
            &time(approval.created_at.as_ref()),
        ]))
    }

    pub fn health(&self, health: &v1::HealthCheckResponse) -> io::Result<()> {
        if self.json {
            return json(health, "HealthCheckResponse");
        }
        let state = word(health.state().as_str_name(), "HEALTH_STATE_");
        let mut text = format!(
            "{state}: version {}, {} shards, durability {}, deployment {}\n",
            health.version, health.shards, health.durability, health.deployment_id
        );
        for part in &health.components {
            let state = word(part.state().as_str_name(), "HEALTH_STATE_");
            text += &format!("  {:<24} {state} {}\n", part.name, part.message);
        }
        if let Some(metrics) = &health.metrics {
            let rows = [
                ("approvals opened", metrics.total_requests_submitted),
                ("votes counted", metrics.total_responses_received),
                ("repeats", metrics.total_repeats),
                ("active approvals", metrics.active_approvals),
                ("approved", metrics.total_approved),
                ("rejected", metrics.total_rejected),
                ("expired", metrics.total_expired),
                ("watchers", metrics.watchers),
                ("journal MiB", metrics.journal_bytes >> 20),
                ("resident MiB", metrics.rss_bytes >> 20),
            ];
            for (name, value) in rows {
                text += &format!("  {name:<24} {value}\n");
            }
            for refused in &metrics.refused_by_reason {
                let reason = word(refused.reason().as_str_name(), "REFUSAL_REASON_");
                text += &format!("  {:<24} {}\n", format!("refused {reason}"), refused.count);
            }
            text += &format!("  {:<24} {:.1} of {:.0} s\n", "CPU seconds", metrics.cpu_seconds, metrics.uptime_seconds);
        }
        print(&text)
    }
}

fn list_row([id, status, priority, kind, votes, created]: [&str; 6]) -> String {
    format!("{id:<36} {status:<8} {priority:<8} {kind:<19} {votes:<14} {created}\n")
}

/// `PENDING, 1 of 2 approvals (1 approved, 0 rejected, 0 abstained of 3)`.
fn standing(approval: &v1::ApprovalStatusMessage) -> String {
    format!(
        "{}, {} of {} approvals ({} rejected, {} abstained, of {} validators)",
        word(approval.status().as_str_name(), "APPROVAL_STATUS_"),
        approval.approvals,
        approval.required_approvals,
        approval.rejections,
        approval.abstentions,
        approval.total_validators
    )
}

fn vote_line(vote: &v1::ValidatorVote) -> String {
    let mut text = format!("{} {}", vote.validator_id, word(vote.decision().as_str_name(), "VALIDATOR_DECISION_"));
    let at = time(vote.voted_at.as_ref());
    if !at.is_empty() {
        text += &format!(" at {at}");
    }
    if !vote.reason.is_empty() {
        text += &format!(": {}", printable(&vote.reason));
    }
    if !vote.signature.is_empty() {
        text += &format!(" (signature {})", BASE64_STANDARD.encode(&vote.signature));
    }
    text
}

fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_owned()
}

fn time(time: Option<&prost_types::Timestamp>) -> String {
    time.and_then(micros).map_or_else(String::new, |time| time.to_string())
}

/// Text as text, anything else by its size.
fn content(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.chars().all(|c| !c.is_control() || c.is_whitespace()) => printable(text),
        _ => format!("{} bytes (--json has them in base64)", bytes.len()),
    }
}

/// What strangers wrote must not steer the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{FFFD}' } else { c }).collect()
}

fn json(message: &impl Message, name: &str) -> io::Result<()> {
    static POOL: LazyLock<DescriptorPool> =
        LazyLock::new(|| DescriptorPool::decode(DESCRIPTOR).expect("the build made it"));
    let descriptor =
        POOL.get_message_by_name(&format!("aurigraph.approvals.v1.{name}")).expect("a message of the contract");
    let dynamic = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice()).expect("the same message");
    let mut line = serde_json::to_string(&dynamic).expect("a message is JSON");
    line.push('\n');
    print(&line)
}

/// A line at a time: whoever follows sees it when it happens.
fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb"), "a\u{FFFD}[2Jb");
        assert_eq!(content(b"\x00\x01"), "2 bytes (--json has them in base64)");
        assert_eq!(content("pay 40 € to ACME".as_bytes()), "pay 40 € to ACME");
    }
}
