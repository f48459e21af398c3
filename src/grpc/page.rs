//! The page token of getApprovalStatus: where the next page begins. Opaque to the client.
//!
//! Base64 (URL-safe) of `version 1 | approval 16 | part 1 | cursor 4 | crc32c 4`.

use super::status::invalid_field;
use crate::model::ApprovalId;
use crate::shard::VotesAfter;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tonic::Status;

const VERSION: u8 = 1;
const BYTES: usize = 1 + 16 + 1 + 4 + 4;

/// What a page begins with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Page {
    /// Votes behind this cursor of the shard's.
    Votes(VotesAfter),
    /// Eligible validators behind this cursor.
    Eligible(VotesAfter),
}

impl Page {
    pub const FIRST: Page = Page::Votes(VotesAfter(None));

    pub fn token(self, approval: &ApprovalId) -> String {
        let (part, cursor) = match self {
            Page::Votes(VotesAfter(None)) => return String::new(),
            Page::Votes(VotesAfter(Some(cursor))) => (0, cursor),
            Page::Eligible(VotesAfter(None)) => (1, 0),
            Page::Eligible(VotesAfter(Some(cursor))) => (2, cursor),
        };
        let mut token = Vec::with_capacity(BYTES);
        token.push(VERSION);
        token.extend_from_slice(&approval.0);
        token.push(part);
        token.extend_from_slice(&cursor.to_le_bytes());
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
        let bytes: [u8; BYTES] = bytes.try_into().map_err(|_| damaged())?;
        let (body, checksum) = bytes.split_last_chunk::<4>().expect("26 bytes");
        if crc32c::crc32c(body) != u32::from_le_bytes(*checksum) || body[0] != VERSION {
            return Err(damaged());
        }
        if body[1..17] != approval.0 {
            return Err(invalid_field("page_token", "is of another approval"));
        }
        let cursor = u32::from_le_bytes(body[18..22].try_into().expect("four bytes"));
        match body[17] {
            0 => Ok(Page::Votes(VotesAfter(Some(cursor)))),
            1 => Ok(Page::Eligible(VotesAfter(None))),
            2 => Ok(Page::Eligible(VotesAfter(Some(cursor)))),
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
        let after = |cursor| VotesAfter(Some(cursor));
        let first_eligible = Page::Eligible(VotesAfter(None));
        for page in [Page::FIRST, Page::Votes(after(0)), first_eligible, Page::Eligible(after(u32::MAX))] {
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
