//! The resume token: where a watch stands, for a client to carry. Opaque to it, checked on return.
//!
//! ```text
//! version 1 | deployment 16 | generation 4 | filter 16 | logs 1 | (log 8, sequence 8) each | crc32c 4
//! ```
//! Little-endian. At most 32 logs: 554 bytes.

use super::status::invalid_field;
use crate::model::{LogId, Position};
use bytes::Bytes;
use tonic::Status;

const VERSION: u8 = 1;
const LOGS_MAX: usize = 32;
const HEAD_BYTES: usize = 1 + 16 + 4 + 16 + 1;
const POSITION_BYTES: usize = 16;
const CHECKSUM_BYTES: usize = 4;
pub(super) const TOKEN_BYTES_MAX: usize = 1_024;

const _: () = assert!(HEAD_BYTES + LOGS_MAX * POSITION_BYTES + CHECKSUM_BYTES <= TOKEN_BYTES_MAX);

/// Whose positions these are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Origin {
    /// The data folder's UUID.
    pub deployment: [u8; 16],
    /// Of logs: grows when the number of shards changes.
    pub generation: u32,
}

/// Where a watch stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ResumeToken {
    pub generation: u32,
    pub positions: Vec<Position>,
}

impl Origin {
    /// A token behind these positions; empty without any (the initial state).
    pub fn token(&self, filter: &[u8; 16], positions: &[Position]) -> Bytes {
        if positions.is_empty() {
            return Bytes::new();
        }
        assert!(positions.len() <= LOGS_MAX, "a generation has at most 32 logs");
        let mut token = Vec::with_capacity(HEAD_BYTES + positions.len() * POSITION_BYTES + CHECKSUM_BYTES);
        token.push(VERSION);
        token.extend_from_slice(&self.deployment);
        token.extend_from_slice(&self.generation.to_le_bytes());
        token.extend_from_slice(filter);
        token.push(positions.len() as u8);
        for position in positions {
            token.extend_from_slice(&position.log.0.to_le_bytes());
            token.extend_from_slice(&position.sequence.to_le_bytes());
        }
        token.extend_from_slice(&crc32c::crc32c(&token).to_le_bytes());
        token.into()
    }

    /// Reads a token of this deployment and filter; `field` is where the client gave it.
    pub fn parse(&self, token: &[u8], filter: &[u8; 16], field: &'static str) -> Result<ResumeToken, Status> {
        let refuse = |message: &str| Err(invalid_field(field, message));
        let damaged = "is no resume token, or a damaged one: start over without it";
        let Some((body, checksum)) = token.split_last_chunk::<CHECKSUM_BYTES>() else { return refuse(damaged) };
        if body.len() < HEAD_BYTES || crc32c::crc32c(body) != u32::from_le_bytes(*checksum) {
            return refuse(damaged);
        }
        if body[0] != VERSION {
            return refuse("is a resume token of another version: start over without it");
        }
        if body[1..17] != self.deployment {
            return refuse("is a resume token of another deployment");
        }
        let generation = u32::from_le_bytes(body[17..21].try_into().expect("four bytes"));
        if generation > self.generation {
            return refuse("is a resume token of a later history than this folder's: was it rolled back?");
        }
        if body[21..37] != *filter {
            return refuse("is a resume token of another filter: start over, or give the same filter");
        }
        let logs = usize::from(body[37]);
        let positions = &body[HEAD_BYTES..];
        if !(1..=LOGS_MAX).contains(&logs) || positions.len() != logs * POSITION_BYTES {
            return refuse(damaged);
        }
        let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        let positions = positions
            .chunks_exact(POSITION_BYTES)
            .map(|both| Position { log: LogId(number(&both[..8])), sequence: number(&both[8..]) })
            .collect();
        Ok(ResumeToken { generation, positions })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;
    use tonic_types::StatusExt;

    const ORIGIN: Origin = Origin { deployment: [7; 16], generation: 3 };
    const FILTER: [u8; 16] = [9; 16];

    fn positions(count: u64) -> Vec<Position> {
        (1..=count).map(|log| Position { log: LogId(log << 40), sequence: log * 11 }).collect()
    }

    fn refused(origin: &Origin, token: &[u8], filter: &[u8; 16], part: &str) {
        let status = origin.parse(token, filter, "watch.resume_token").expect_err("refused");
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(part), "{}", status.message());
        let details = status.get_error_details();
        assert_eq!(details.bad_request().expect("field").field_violations[0].field, "watch.resume_token");
    }

    #[test]
    fn what_was_written_is_read() {
        for count in [1, 2, 32] {
            let token = ORIGIN.token(&FILTER, &positions(count));
            assert!(token.len() <= TOKEN_BYTES_MAX);
            let read = ORIGIN.parse(&token, &FILTER, "watch.resume_token").expect("a token");
            assert_eq!(read, ResumeToken { generation: 3, positions: positions(count) });
            let later = Origin { generation: 4, ..ORIGIN };
            assert_eq!(later.parse(&token, &FILTER, "watch.resume_token").expect("a token").generation, 3);
        }
        assert!(ORIGIN.token(&FILTER, &[]).is_empty(), "no token during the initial state");
    }

    #[test]
    fn another_deployment_filter_or_history_is_refused() {
        let token = ORIGIN.token(&FILTER, &positions(2));
        refused(&Origin { deployment: [8; 16], ..ORIGIN }, &token, &FILTER, "deployment");
        refused(&Origin { generation: 2, ..ORIGIN }, &token, &FILTER, "history");
        refused(&ORIGIN, &token, &[1; 16], "filter");
    }

    #[test]
    fn damage_is_refused() {
        let token = ORIGIN.token(&FILTER, &positions(2));
        for end in 0..token.len() {
            refused(&ORIGIN, &token[..end], &FILTER, "damaged");
        }
        for at in 0..token.len() {
            let mut bent = token.to_vec();
            bent[at] ^= 0x10;
            refused(&ORIGIN, &bent, &FILTER, "damaged");
        }
        let mut other = token[..token.len() - 4].to_vec();
        other[0] = 2;
        other.extend(crc32c::crc32c(&other).to_le_bytes());
        refused(&ORIGIN, &other, &FILTER, "version");
        let mut longer = token[..token.len() - 4].to_vec();
        longer.extend([0; 16]);
        longer.extend(crc32c::crc32c(&longer).to_le_bytes());
        refused(&ORIGIN, &longer, &FILTER, "damaged");
    }
}
