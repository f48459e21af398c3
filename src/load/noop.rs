//! The ceiling: a service with the same protos that decodes and acknowledges, with no engine and no
//! disk, in a process of its own (`assent noop`, hidden). What the real service is measured
//! against; never a mode of it.

use crate::wire::v1::approval_grpc_service_server::{ApprovalGrpcService, ApprovalGrpcServiceServer};
use crate::wire::v1::{self, ApprovalStreamResponse, approval_stream_request::Item};
use bytes::{Buf, BufMut, Bytes};
use std::convert::Infallible;
use std::future::Future;
use std::hint::black_box;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio_stream::{Stream, StreamExt};
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{ClientStreamingService, Grpc, NamedService, StreamingService, UnaryService};
use tonic::{Request, Response, Status, Streaming};

/// What checkHealth gives as its version: how the generator knows that there is nothing to check.
pub const VERSION: &str = "noop";

#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Decoding {
    /// Messages through prost, a String an id.
    Generated,
    /// The hot messages by hand.
    Own,
}

/// Serves until the process ends. `ready` is called with the address once it listens.
pub async fn serve(address: SocketAddr, decoding: Decoding, ready: impl FnOnce(SocketAddr)) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::bind(address).await?;
    ready(listener.local_addr()?);
    let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
    let builder = tonic::transport::Server::builder()
        .initial_stream_window_size(8 << 20)
        .initial_connection_window_size(8 << 20)
        .max_frame_size(1 << 20)
        .http2_max_pending_accept_reset_streams(Some(1_000));
    let generated = ApprovalGrpcServiceServer::new(Noop).max_decoding_message_size(16 << 20);
    match decoding {
        Decoding::Generated => builder.clone().add_service(generated).serve_with_incoming(incoming).await?,
        Decoding::Own => {
            builder.clone().add_service(OwnDecoding { rest: generated }).serve_with_incoming(incoming).await?;
        }
    }
    Ok(())
}

/// Acknowledges what arrived whenever nothing more is waiting: as a commit would, without one.
struct Acknowledgements<T, F> {
    inbound: Streaming<T>,
    /// Items of a message; `None`: not a legal one.
    items: F,
    received: u64,
    acknowledged: u64,
    ended: bool,
}

/// At most this many messages an acknowledgement.
const MESSAGES_AN_ANSWER: usize = 256;

impl<T, F: FnMut(T) -> Option<u64> + Unpin> Acknowledgements<T, F> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<u64, Status>>> {
        for _ in 0..MESSAGES_AN_ANSWER {
            if self.ended {
                break;
            }
            match Pin::new(&mut self.inbound).poll_next(cx) {
                Poll::Ready(Some(Ok(message))) => match (self.items)(message) {
                    Some(items) => self.received += items,
                    None => return Poll::Ready(Some(Err(Status::invalid_argument("not a legal message")))),
                },
                Poll::Ready(Some(Err(status))) => return Poll::Ready(Some(Err(status))),
                Poll::Ready(None) => self.ended = true,
                Poll::Pending => break,
            }
        }
        if self.received > self.acknowledged {
            self.acknowledged = self.received;
            return Poll::Ready(Some(Ok(self.acknowledged)));
        }
        if self.ended { Poll::Ready(None) } else { Poll::Pending }
    }
}

impl<T, F: FnMut(T) -> Option<u64> + Unpin> Stream for Acknowledgements<T, F> {
    type Item = Result<ApprovalStreamResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let answer = |acked_through| ApprovalStreamResponse { acked_through, ..Default::default() };
        self.poll(cx).map(|next| next.map(|through| through.map(answer)))
    }
}

fn acknowledge<T, F>(inbound: Streaming<T>, items: F) -> Acknowledgements<T, F> {
    Acknowledgements { inbound, items, received: 0, acknowledged: 0, ended: false }
}

fn items_generated(message: v1::ApprovalStreamRequest) -> Option<u64> {
    let items = match &message.item {
        Some(Item::Request(_) | Item::Response(_)) => 1,
        Some(Item::Batch(batch)) => match &batch.columns {
            Some(columns) => columns.decisions.len() as u64,
            None => batch.responses.len() as u64,
        },
        Some(Item::Subscription(_)) | None => 0,
    };
    black_box(message);
    Some(items)
}

fn answer_to_vote(approval_id: String) -> v1::ApprovalStatusMessage {
    v1::ApprovalStatusMessage {
        approval_id,
        status: v1::ApprovalStatus::Pending.into(),
        approvals: 1,
        version: 2,
        ..Default::default()
    }
}

/// Everything through generated code.
struct Noop;

type BoxStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn nothing<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("a no-op service has no state"))
}

#[tonic::async_trait]
impl ApprovalGrpcService for Noop {
    type WatchApprovalUpdatesStream = BoxStream<v1::ApprovalStatusMessage>;
    type StreamPendingApprovalsStream = BoxStream<v1::ApprovalStatusMessage>;
    type BidirectionalApprovalStreamStream = BoxStream<ApprovalStreamResponse>;
    type StreamMetricsStream = BoxStream<v1::ServiceMetrics>;

    async fn submit_approval_request(
        &self,
        request: Request<v1::ApprovalRequest>,
    ) -> Result<Response<v1::ApprovalStatusMessage>, Status> {
        Ok(Response::new(answer_to_vote(request.into_inner().approval_id)))
    }

    async fn submit_validator_response(
        &self,
        request: Request<v1::ApprovalResponse>,
    ) -> Result<Response<v1::ApprovalStatusMessage>, Status> {
        Ok(Response::new(answer_to_vote(request.into_inner().approval_id)))
    }

    async fn batch_submit_responses(
        &self,
        request: Request<Streaming<v1::ApprovalResponse>>,
    ) -> Result<Response<v1::BatchSubmitSummary>, Status> {
        let mut votes = request.into_inner();
        let mut received = 0;
        while let Some(vote) = votes.next().await {
            black_box(vote?);
            received += 1;
        }
        Ok(Response::new(v1::BatchSubmitSummary { received, accepted: received, ..Default::default() }))
    }

    async fn bidirectional_approval_stream(
        &self,
        request: Request<Streaming<v1::ApprovalStreamRequest>>,
    ) -> Result<Response<BoxStream<ApprovalStreamResponse>>, Status> {
        Ok(Response::new(Box::pin(acknowledge(request.into_inner(), items_generated))))
    }

    async fn check_health(
        &self,
        _: Request<v1::HealthCheckRequest>,
    ) -> Result<Response<v1::HealthCheckResponse>, Status> {
        let usage = super::machine::Usage::now();
        Ok(Response::new(v1::HealthCheckResponse {
            state: v1::HealthState::Serving.into(),
            version: VERSION.into(),
            durability: "none".into(),
            metrics: Some(v1::ServiceMetrics {
                rss_bytes: usage.rss_bytes,
                cpu_seconds: usage.cpu_seconds,
                ..Default::default()
            }),
            ..Default::default()
        }))
    }

    async fn get_approval_status(
        &self,
        _: Request<v1::GetApprovalStatusRequest>,
    ) -> Result<Response<v1::ApprovalStatusMessage>, Status> {
        nothing()
    }

    async fn get_approval_statuses(
        &self,
        _: Request<v1::GetApprovalStatusesRequest>,
    ) -> Result<Response<v1::GetApprovalStatusesResponse>, Status> {
        nothing()
    }

    async fn watch_approval_updates(
        &self,
        _: Request<v1::ApprovalRequest>,
    ) -> Result<Response<Self::WatchApprovalUpdatesStream>, Status> {
        nothing()
    }

    async fn stream_pending_approvals(
        &self,
        _: Request<v1::StreamPendingApprovalsRequest>,
    ) -> Result<Response<Self::StreamPendingApprovalsStream>, Status> {
        nothing()
    }

    async fn stream_metrics(
        &self,
        _: Request<v1::StreamMetricsRequest>,
    ) -> Result<Response<Self::StreamMetricsStream>, Status> {
        nothing()
    }
}

/// The hot methods on raw messages, the rest through generated code.
#[derive(Clone)]
struct OwnDecoding {
    rest: ApprovalGrpcServiceServer<Noop>,
}

impl NamedService for OwnDecoding {
    const NAME: &'static str = <ApprovalGrpcServiceServer<Noop> as NamedService>::NAME;
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl tower::Service<http::Request<tonic::body::Body>> for OwnDecoding {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let grpc = || Grpc::new(RawCodec).max_decoding_message_size(16 << 20);
        match request.uri().path().rsplit('/').next() {
            Some("BidirectionalApprovalStream") => Box::pin(async move { Ok(grpc().streaming(OnStream, request).await) }),
            Some("BatchSubmitResponses") => Box::pin(async move { Ok(grpc().client_streaming(InCall, request).await) }),
            Some("SubmitValidatorResponse") => Box::pin(async move { Ok(grpc().unary(Single, request).await) }),
            _ => tower::Service::call(&mut self.rest, request),
        }
    }
}

struct OnStream;

/// `Acknowledgements` of raw messages, encoded.
struct RawAcknowledgements<F>(Acknowledgements<Bytes, F>);

impl<F: FnMut(Bytes) -> Option<u64> + Unpin> Stream for RawAcknowledgements<F> {
    type Item = Result<Bytes, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let answer = |acked_through| ApprovalStreamResponse { acked_through, ..Default::default() };
        self.0.poll(cx).map(|next| next.map(|through| through.map(|n| prost::Message::encode_to_vec(&answer(n)).into())))
    }
}

impl StreamingService<Bytes> for OnStream {
    type Response = Bytes;
    type ResponseStream = BoxStream<Bytes>;
    type Future = std::future::Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let answers = RawAcknowledgements(acknowledge(request.into_inner(), |message: Bytes| own::items(&message)));
        std::future::ready(Ok(Response::new(Box::pin(answers))))
    }
}

struct InCall;

impl ClientStreamingService<Bytes> for InCall {
    type Response = Bytes;
    type Future = BoxFuture<Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        Box::pin(async move {
            let mut votes = request.into_inner();
            let mut received = 0;
            while let Some(vote) = votes.next().await {
                own::vote(&vote?).ok_or_else(|| Status::invalid_argument("not a legal vote"))?;
                received += 1;
            }
            let summary = v1::BatchSubmitSummary { received, accepted: received, ..Default::default() };
            Ok(Response::new(prost::Message::encode_to_vec(&summary).into()))
        })
    }
}

struct Single;

impl UnaryService<Bytes> for Single {
    type Response = Bytes;
    type Future = std::future::Ready<Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let answer = own::vote(request.get_ref()).map(|id| {
            let answer = answer_to_vote(uuid::Uuid::from_bytes(id).hyphenated().to_string());
            Response::new(prost::Message::encode_to_vec(&answer).into())
        });
        std::future::ready(answer.ok_or_else(|| Status::invalid_argument("not a legal vote")))
    }
}

/// Messages as the bytes they came in.
#[derive(Clone, Copy)]
struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = RawCodec;
    type Decoder = RawCodec;

    fn encoder(&mut self) -> RawCodec {
        RawCodec
    }
    fn decoder(&mut self) -> RawCodec {
        RawCodec
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(64 << 10, 64 << 10)
    }
}

/// The seam for `wire`'s hot decoder: what the real service does with these messages before its
/// engine sees them (fields found, ids parsed, names and decisions checked).
mod own {
    use super::black_box;
    use crate::model::{Decision, ValidatorId};

    /// Items of an `ApprovalStreamRequest`.
    pub fn items(mut message: &[u8]) -> Option<u64> {
        let mut items = 0;
        while let Some((field, value)) = field(&mut message)? {
            items += match (field, value) {
                (1, Value::Bytes(_)) => 1,
                (2, Value::Bytes(response)) => vote(response).map(|_| 1)?,
                (3, Value::Bytes(batch)) => batch_items(batch)?,
                _ => 0,
            };
        }
        Some(items)
    }

    fn batch_items(mut batch: &[u8]) -> Option<u64> {
        let mut items = 0;
        while let Some((field, value)) = field(&mut batch)? {
            items += match (field, value) {
                (1, Value::Bytes(response)) => vote(response).map(|_| 1)?,
                (2, Value::Bytes(columns)) => columns_items(columns)?,
                _ => 0,
            };
        }
        Some(items)
    }

    fn columns_items(mut columns: &[u8]) -> Option<u64> {
        let (mut ids, mut decisions): (&[u8], &[u8]) = (&[], &[]);
        while let Some((field, value)) = field(&mut columns)? {
            match (field, value) {
                (1, Value::Bytes(bytes)) => ids = bytes,
                (2, Value::Bytes(bytes)) => decisions = bytes,
                _ => {}
            }
        }
        let (ids, rest) = ids.as_chunks::<16>();
        if !rest.is_empty() || ids.len() != decisions.len() {
            return None;
        }
        for (id, decision) in ids.iter().zip(decisions) {
            black_box((id, Decision::from_number(*decision)?));
        }
        Some(decisions.len() as u64)
    }

    /// The id of a legal `ApprovalResponse`.
    #[inline]
    pub fn vote(mut response: &[u8]) -> Option<[u8; 16]> {
        let (mut id, mut validator, mut decision) = (None, None, None);
        while let Some((field, value)) = field(&mut response)? {
            match (field, value) {
                (1, Value::Bytes(text)) => id = Some(hyphenated(text)?),
                (2, Value::Bytes(name)) => validator = ValidatorId::is_legal(name).then_some(name),
                (3, Value::Number(number)) => decision = Decision::from_number(number as u8),
                _ => {}
            }
        }
        black_box((id?, validator?, decision?));
        id
    }

    enum Value<'a> {
        Number(u64),
        Bytes(&'a [u8]),
    }

    /// The next field; `Some(None)` at the end, `None` if the bytes are no message.
    #[inline(always)]
    #[allow(clippy::option_option)]
    fn field<'a>(bytes: &mut &'a [u8]) -> Option<Option<(u64, Value<'a>)>> {
        if bytes.is_empty() {
            return Some(None);
        }
        let tag = varint(bytes)?;
        let value = match tag & 7 {
            0 => Value::Number(varint(bytes)?),
            2 => {
                let length = usize::try_from(varint(bytes)?).ok()?;
                let (value, rest) = bytes.split_at_checked(length)?;
                *bytes = rest;
                Value::Bytes(value)
            }
            _ => return None,
        };
        Some(Some((tag >> 3, value)))
    }

    #[inline(always)]
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

    const DIGITS: [u8; 256] = {
        let mut table = [0xFF; 256];
        let mut at = 0;
        while at < 16 {
            table[b"0123456789abcdef"[at] as usize] = at as u8;
            table[b"0123456789ABCDEF"[at] as usize] = at as u8;
            at += 1;
        }
        table
    };

    /// A hyphenated UUID; other spellings take the slow road in `wire`.
    #[inline(always)]
    fn hyphenated(text: &[u8]) -> Option<[u8; 16]> {
        const AT: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
        let text: &[u8; 36] = text.try_into().ok()?;
        let (mut id, mut wrong) = ([0; 16], 0);
        for (byte, at) in id.iter_mut().zip(AT) {
            let (high, low) = (DIGITS[usize::from(text[at])], DIGITS[usize::from(text[at + 1])]);
            wrong |= high | low;
            *byte = high << 4 | low & 0xF;
        }
        (wrong & 0xF0 == 0 && [8, 13, 18, 23].iter().all(|at| text[*at] == b'-')).then_some(id)
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use crate::load::scheme::{Mix, Scheme};
        use crate::load::track::{Slice, TrackKind};
        use crate::load::message;
        use prost::Message;

        #[test]
        fn counts_items_and_refuses_what_is_not_legal() {
            let scheme = Scheme::new(1, 0, 100, 3, 2, 10, Mix::DEFAULT);
            let slice =
                Slice { track: 0, kind: TrackKind::Vote { validator: 1, shuffled: true }, block: 0, start: 3, count: 40 };
            assert_eq!(items(&message::rows(&scheme, &slice).encode_to_vec()), Some(40));
            assert_eq!(items(&message::columns(&scheme, &slice).encode_to_vec()), Some(40));
            assert_eq!(items(&message::open(&scheme, 7).encode_to_vec()), Some(1));
            let mut single = message::vote(&scheme, 0, 7);
            assert_eq!(vote(&single.encode_to_vec()), Some(scheme.ids.id(7).bytes()));
            single.approval_id = "x".repeat(36);
            assert_eq!(vote(&single.encode_to_vec()), None);
            single.decision = 9;
            assert_eq!(vote(&single.encode_to_vec()), None);
        }
    }
}
