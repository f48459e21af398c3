//! gRPC on a raw HTTP/2 body, as the hot modes use it: many messages in one frame up without a
//! second copy, and the few, small answers down read by hand.

use bytes::{Buf, Bytes, BytesMut};
use http_body::Body;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use tonic::Status;
use tonic::transport::Channel;
use tower::Service;

/// The service's path, before the method's name.
pub const SERVICE: &str = "/aurigraph.approvals.v1.ApprovalGrpcService/";

/// Buffers that return when the transport is done with them: warm memory, and the allocator sees
/// nothing that one thread makes and another frees.
#[derive(Debug, Default)]
pub struct Pool(Mutex<Vec<Vec<u8>>>);

/// Buffers beyond this many are freed.
const POOL_BUFFERS_MAX: usize = 64;

struct Pooled {
    buffer: Vec<u8>,
    home: Arc<Pool>,
}

impl AsRef<[u8]> for Pooled {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let mut free = self.home.0.lock().expect("no holder panics");
        if free.len() < POOL_BUFFERS_MAX {
            free.push(buffer);
        }
    }
}

impl Pool {
    pub fn take(&self) -> Vec<u8> {
        self.0.lock().expect("no holder panics").pop().unwrap_or_default()
    }

    pub fn lend(self: &Arc<Pool>, buffer: Vec<u8>) -> Bytes {
        Bytes::from_owner(Pooled { buffer, home: self.clone() })
    }
}

/// Sends a call with this body; answers when the node sends its headers.
pub async fn call<B>(channel: &mut Channel, method: &str, body: B) -> Result<Messages, Status>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let request = http::Request::post(format!("{SERVICE}{method}"))
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .body(tonic::body::Body::new(body))
        .expect("a legal request");
    std::future::poll_fn(|cx| channel.poll_ready(cx)).await.map_err(lost)?;
    let response = channel.call(request).await.map_err(lost)?;
    if response.status() != http::StatusCode::OK {
        return Err(Status::unknown(format!("HTTP status {}", response.status())));
    }
    match Status::from_header_map(response.headers()) {
        Some(status) if status.code() != tonic::Code::Ok => Err(status),
        _ => Ok(Messages { body: response.into_body(), buffer: BytesMut::new() }),
    }
}

fn lost(error: tonic::transport::Error) -> Status {
    Status::unavailable(crate::grpc::client::causes(&error))
}

/// The messages of an answer.
#[derive(Debug)]
pub struct Messages {
    body: tonic::body::Body,
    buffer: BytesMut,
}

impl Messages {
    /// The next message; `None` after the last one of a call that ended OK.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(message) = self.split()? {
                return Ok(Some(message));
            }
            let frame = std::future::poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx)).await;
            match frame {
                None => return Err(Status::unavailable("the stream ended without a status")),
                Some(Err(status)) => return Err(status),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.buffer.extend_from_slice(&data),
                    Err(frame) => {
                        let trailers = frame.into_trailers().unwrap_or_default();
                        return match Status::from_header_map(&trailers) {
                            Some(status) if status.code() != tonic::Code::Ok => Err(status),
                            Some(_) => Ok(None),
                            None => Err(Status::unavailable("the stream ended without a status")),
                        };
                    }
                },
            }
        }
    }

    fn split(&mut self) -> Result<Option<Bytes>, Status> {
        let Some((prefix, rest)) = self.buffer.split_first_chunk::<5>() else { return Ok(None) };
        if prefix[0] != 0 {
            return Err(Status::internal("a compressed answer, which was not asked for"));
        }
        let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
        if rest.len() < length {
            return Ok(None);
        }
        self.buffer.advance(5);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}

/// What the generator reads of an `ApprovalStreamResponse`: refusals go to `refusals` as (item, reason).
pub fn read_acknowledgement(mut message: &[u8], refusals: &mut Vec<(u64, u8)>) -> Option<u64> {
    let mut acked_through = 0;
    while !message.is_empty() {
        match varint(&mut message)? {
            // acked_through
            0x08 => acked_through = varint(&mut message)?,
            // refusals
            0x12 => {
                let mut refusal = take(&mut message)?;
                let (mut item, mut reason) = (0, 0);
                while !refusal.is_empty() {
                    match varint(&mut refusal)? {
                        0x08 => item = varint(&mut refusal)?,
                        0x18 => reason = varint(&mut refusal)?,
                        tag => skip(tag, &mut refusal)?,
                    }
                }
                refusals.push((item, u8::try_from(reason).ok()?));
            }
            tag => skip(tag, &mut message)?,
        }
    }
    Some(acked_through)
}

/// Whether an `ApprovalStatus_Message` says `repeat`.
pub fn read_repeat(mut message: &[u8]) -> Option<bool> {
    while !message.is_empty() {
        match varint(&mut message)? {
            // repeat = 18: two bytes of tag
            0x90 => return Some(varint(&mut message)? != 0),
            tag => skip(tag, &mut message)?,
        }
    }
    Some(false)
}

/// What the generator reads of an `ApprovalStatus_Message` on a watch; empty where it is absent.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Change<'a> {
    pub approval_id: &'a [u8],
    /// The number of its ApprovalStatus.
    pub status: u64,
    /// Whose vote made the change.
    pub validator: &'a [u8],
}

pub fn read_change(mut message: &[u8]) -> Option<Change<'_>> {
    let mut change = Change::default();
    while !message.is_empty() {
        match varint(&mut message)? {
            // approval_id
            0x0A => change.approval_id = take(&mut message)?,
            // status
            0x10 => change.status = varint(&mut message)?,
            // votes (19)
            0x9A => {
                let mut vote = take(&mut message)?;
                while !vote.is_empty() {
                    match varint(&mut vote)? {
                        // validator_id
                        0x0A => change.validator = take(&mut vote)?,
                        tag => skip(tag, &mut vote)?,
                    }
                }
            }
            tag => skip(tag, &mut message)?,
        }
    }
    Some(change)
}

#[inline]
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7F) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn take<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(varint(bytes)?).ok()?;
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn skip(tag: u64, bytes: &mut &[u8]) -> Option<()> {
    match tag & 7 {
        0 => varint(bytes).map(drop),
        1 => bytes.split_off(..8).map(drop),
        2 => take(bytes).map(drop),
        5 => bytes.split_off(..4).map(drop),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::v1;
    use proptest::prelude::*;
    use prost::Message;

    proptest! {
        #[test]
        fn reads_what_generated_code_writes(
            acked_through: u64, refusals in proptest::collection::vec((any::<u64>(), 0u32..17, 0i32..14), 0..20),
            update: bool,
        ) {
            let message = v1::ApprovalStreamResponse {
                acked_through,
                refusals: refusals.iter().map(|(index, code, reason)| v1::Refusal { index: *index, code: *code, reason: *reason }).collect(),
                update: update.then(|| v1::SubscriptionUpdate { subscription_id: "s".into(), approval: None }),
                ended: None,
            };
            let mut read = Vec::new();
            prop_assert_eq!(read_acknowledgement(&message.encode_to_vec(), &mut read), Some(acked_through));
            let expected: Vec<_> = refusals.iter().map(|(index, _, reason)| (*index, *reason as u8)).collect();
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_acknowledgement(&bytes, &mut Vec::new());
            let _ = read_repeat(&bytes);
            let _ = read_change(&bytes);
        }
    }

    #[test]
    fn repeats_are_seen() {
        let mut answer = v1::ApprovalStatusMessage {
            approval_id: "a".into(),
            sequence: 1 << 40,
            eligible_digest: vec![1, 2, 3].into(),
            resume_token: vec![0x90, 0x01, 0x01].into(),
            ..Default::default()
        };
        assert_eq!(read_repeat(&answer.encode_to_vec()), Some(false));
        answer.repeat = true;
        assert_eq!(read_repeat(&answer.encode_to_vec()), Some(true));
    }

    #[test]
    fn a_change_is_read_as_generated_code_writes_it() {
        let message = v1::ApprovalStatusMessage {
            approval_id: "an-id".into(),
            status: 2,
            content_hash: "sha256:00".into(),
            sequence: 1 << 40,
            votes: vec![v1::ValidatorVote {
                validator_id: "validator-00007".into(),
                decision: 1,
                sequence: 9,
                ..Default::default()
            }],
            resume_token: vec![1, 2, 3].into(),
            event_type: 3,
            ..Default::default()
        };
        let bytes = message.encode_to_vec();
        let expected = Change { approval_id: b"an-id", status: 2, validator: b"validator-00007" };
        assert_eq!(read_change(&bytes), Some(expected));
    }

    #[test]
    fn buffers_come_home() {
        let pool = Arc::new(Pool::default());
        let mut buffer = pool.take();
        buffer.extend_from_slice(&[7; 1_000]);
        let lent = pool.lend(buffer);
        assert_eq!((lent.len(), pool.take().capacity()), (1_000, 0));
        drop(lent);
        let back = pool.take();
        assert!(back.is_empty() && back.capacity() >= 1_000);
    }
}
