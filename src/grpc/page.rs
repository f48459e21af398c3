//! The page token of getApprovalStatus: where the next page begins. Opaque to the client.
//!
//! Base64 (URL-safe) of `version 1 | approval 16 | part 1 | name 0 to 64 | crc32c 4`. The name is the last
//! validator of the page before: it means the same in memory, in the archive and after a restart.

use super::status::invalid_field;
use crate::model::{ApprovalId, ValidatorId};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tonic::Status;

const VERSION: u8 = 2;
const HEAD_BYTES: usize = 1 + 16 + 1;

/// What a page begins with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Page {
    /// Votes behind this validator's.
    Votes(Option<ValidatorId>),
    /// Eligible validators behind this one.
    Eligible(Option<ValidatorId>),
}

impl Page {
    pub const FIRST: Page = Page::Votes(None);

    pub fn token(&self, approval: &ApprovalId) -> String {
        let (part, name) = match self {
            Page::Votes(None) => return String::new(),
            Page::Votes(Some(after)) => (0, after.as_str()),
            Page::Eligible(None) => (1, ""),
            Page::Eligible(Some(after)) => (2, after.as_str()),
        };
        let mut token = Vec::with_capacity(HEAD_BYTES + name.len() + 4);
        token.push(VERSION);
        token.extend_from_slice(&approval.0);
        token.push(part);
        token.extend_from_slice(name.as_bytes());
        token.extend_from_slice(&crc32c::crc32c(&token).to_le_bytes());
        URL_SAFE_NO_PAD.encode(token)
    }

    /// The empty token is the first page.
    pub fn parse(token: &str, approval: &ApprovalId) -> Result<Page, Status> {
        if token.is_empty() {
            return Ok(Page::FIRST);
        }
        let damaged = || invalid_field("page_token", "is no page token, or a damaged one: start at the first page");
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| damaged())?;
        let (body, checksum) = bytes.split_last_chunk::<4>().ok_or_else(damaged)?;
        if body.len() < HEAD_BYTES || crc32c::crc32c(body) != u32::from_le_bytes(*checksum) || body[0] != VERSION {
            return Err(damaged());
        }
        if body[1..17] != approval.0 {
            return Err(invalid_field("page_token", "is of another approval"));
        }
        let name = std::str::from_utf8(&body[HEAD_BYTES..]).ok().and_then(ValidatorId::parse);
        match (body[17], name) {
            (0, Some(after)) => Ok(Page::Votes(Some(after))),
            (1, None) if body.len() == HEAD_BYTES => Ok(Page::Eligible(None)),
            (2, Some(after)) => Ok(Page::Eligible(Some(after))),
            _ => Err(damaged()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_nothing_else() {
        let id = ApprovalId([3; 16]);
        let after = |name: &str| Some(ValidatorId::parse(name).expect("legal"));
        let longest = "v".repeat(ValidatorId::BYTES_MAX);
        for page in [Page::FIRST, Page::Votes(after("a")), Page::Eligible(None), Page::Eligible(after(&longest))] {
            let token = page.token(&id);
            assert_eq!(Page::parse(&token, &id).expect("a token"), page);
            if !token.is_empty() {
                assert!(Page::parse(&token, &ApprovalId([4; 16])).is_err(), "of another approval");
                assert!(Page::parse(&token[1..], &id).is_err());
                assert!(Page::parse(&token.replacen('A', "B", 1), &id).is_err());
            }
        }
        assert!(Page::parse("nonsense", &id).is_err());
    }
}
