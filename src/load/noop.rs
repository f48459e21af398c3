//! The ceiling: a service with the same protos that decodes and acknowledges, with no engine and no
//! disk, in a process of its own (`assent noop`, hidden). What the real service is measured
//! against; never a mode of it.

use crate::model::CONTENT_BYTES_CEILING;
use crate::wire::v1::approval_grpc_service_server::{ApprovalGrpcService, ApprovalGrpcServiceServer};
use crate::wire::v1::{self, ApprovalStreamResponse, approval_stream_request::Item};
use crate::wire::{RowRun, StreamItem, StreamParser, VoteBatch, parse_open_bytes};
use bytes::{Buf, BufMut, Bytes};
use std::convert::Infallible;
use std::future::Future;
use std::hint::black_box;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio_stream::{Stream, StreamExt};
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{ClientStreamingService, Grpc, NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};

/// What checkHealth gives as its version: how the generator knows that there is nothing to check.
pub const VERSION: &str = "noop";

#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Decoding {
    /// Messages through prost, a String an id.
    Generated,
    /// The hot messages by `wire`'s own decoder, as the real service reads them.
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
struct Acknowledgements<T, R> {
    inbound: Streaming<T>,
    reader: R,
    received: u64,
    acknowledged: u64,
    ended: bool,
}

/// Takes messages apart.
trait Reader<T> {
    /// Items of a message; `None`: not a legal one.
    fn items(&mut self, message: T) -> Option<u64>;
    /// Finishes what was gathered: an acknowledgement comes.
    fn flush(&mut self) -> Option<()>;
}

fn not_legal() -> Status {
    Status::invalid_argument("not a legal message")
}

/// At most this many messages an acknowledgement.
const MESSAGES_AN_ANSWER: usize = 256;

impl<T, R: Reader<T> + Unpin> Acknowledgements<T, R> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<u64, Status>>> {
        for _ in 0..MESSAGES_AN_ANSWER {
            if self.ended {
                break;
            }
            match Pin::new(&mut self.inbound).poll_next(cx) {
                Poll::Ready(Some(Ok(message))) => match self.reader.items(message) {
                    Some(items) => self.received += items,
                    None => return Poll::Ready(Some(Err(not_legal()))),
                },
                Poll::Ready(Some(Err(status))) => return Poll::Ready(Some(Err(status))),
                Poll::Ready(None) => self.ended = true,
                Poll::Pending => break,
            }
        }
        if self.received > self.acknowledged {
            if self.reader.flush().is_none() {
                return Poll::Ready(Some(Err(not_legal())));
            }
            self.acknowledged = self.received;
            return Poll::Ready(Some(Ok(self.acknowledged)));
        }
        if self.ended { Poll::Ready(None) } else { Poll::Pending }
    }
}

impl<T, R: Reader<T> + Unpin> Stream for Acknowledgements<T, R> {
    type Item = Result<ApprovalStreamResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let answer = |acked_through| ApprovalStreamResponse { acked_through, ..Default::default() };
        self.poll(cx).map(|next| next.map(|through| through.map(answer)))
    }
}

fn acknowledge<T, R>(inbound: Streaming<T>, reader: R) -> Acknowledgements<T, R> {
    Acknowledgements { inbound, reader, received: 0, acknowledged: 0, ended: false }
}

/// The generated code has done all that is to do.
struct GeneratedReader;

impl Reader<v1::ApprovalStreamRequest> for GeneratedReader {
    fn items(&mut self, message: v1::ApprovalStreamRequest) -> Option<u64> {
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

    fn flush(&mut self) -> Option<()> {
        Some(())
    }
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
        Ok(Response::new(Box::pin(acknowledge(request.into_inner(), GeneratedReader))))
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

    async fn list_approvals(
        &self,
        _: Request<v1::ListApprovalsRequest>,
    ) -> Result<Response<v1::ListApprovalsResponse>, Status> {
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
            Some("BidirectionalApprovalStream") => {
                Box::pin(async move { Ok(grpc().streaming(OnStream, request).await) })
            }
            Some("BatchSubmitResponses") => Box::pin(async move { Ok(grpc().client_streaming(InCall, request).await) }),
            _ => tower::Service::call(&mut self.rest, request),
        }
    }
}

struct OnStream;

/// `Acknowledgements` of raw messages, encoded.
struct RawAcknowledgements(Acknowledgements<Bytes, OwnReader>);

impl Stream for RawAcknowledgements {
    type Item = Result<Bytes, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let answer = |acked_through| ApprovalStreamResponse { acked_through, ..Default::default() };
        self.0
            .poll(cx)
            .map(|next| next.map(|through| through.map(|n| prost::Message::encode_to_vec(&answer(n)).into())))
    }
}

impl StreamingService<Bytes> for OnStream {
    type Response = Bytes;
    type ResponseStream = BoxStream<Bytes>;
    type Future = std::future::Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let answers = RawAcknowledgements(acknowledge(request.into_inner(), OwnReader::new()));
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
            let (mut reader, mut received) = (OwnReader::new(), 0);
            while let Some(vote) = votes.next().await {
                reader.single(&vote?).ok_or_else(not_legal)?;
                received += 1;
            }
            reader.flush().ok_or_else(not_legal)?;
            let summary = v1::BatchSubmitSummary { received, accepted: received, ..Default::default() };
            Ok(Response::new(prost::Message::encode_to_vec(&summary).into()))
        })
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

/// What the real service does with these messages before its engine sees them, by `wire`'s own code:
/// fields found, ids parsed, names and decisions checked.
struct OwnReader {
    parser: StreamParser,
    singles: RowRun,
}

/// Messages are taken up to this, whatever a real node is set to.
const BATCH_ITEMS_MAX: usize = 65_536;
/// Votes are decoded this many at a time, as on a shard's thread.
const COMMANDS: usize = 1_024;

impl OwnReader {
    fn new() -> OwnReader {
        OwnReader { parser: StreamParser::new(BATCH_ITEMS_MAX), singles: RowRun::default() }
    }

    fn single(&mut self, response: &[u8]) -> Option<()> {
        self.singles.push(response);
        if self.singles.len() >= COMMANDS { self.flush() } else { Some(()) }
    }
}

impl Reader<Bytes> for OwnReader {
    fn items(&mut self, message: Bytes) -> Option<u64> {
        match self.parser.parse(&message).ok()? {
            StreamItem::Nothing | StreamItem::Subscription(_) => Some(0),
            StreamItem::Open(request) => {
                black_box(parse_open_bytes(&request, CONTENT_BYTES_CEILING).ok()?);
                Some(1)
            }
            StreamItem::Vote(response) => self.single(&response).map(|()| 1),
            StreamItem::Votes(batch) => {
                let items = batch.len() as u64;
                decode(batch).map(|()| items)
            }
        }
    }

    fn flush(&mut self) -> Option<()> {
        if self.singles.is_empty() { Some(()) } else { decode(self.singles.take()) }
    }
}

/// Decodes all votes into commands; `None`: one is not legal.
fn decode(batch: VoteBatch) -> Option<()> {
    let mut source = batch.into_source();
    loop {
        let (mut commands, mut bad) = (Vec::with_capacity(COMMANDS), Vec::new());
        let more = source.fill(COMMANDS, &mut commands, &mut bad);
        black_box(&commands);
        if !bad.is_empty() {
            return None;
        }
        if !more {
            return Some(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::message;
    use crate::load::scheme::{Mix, Scheme};
    use crate::load::track::{Slice, TrackKind};
    use prost::Message;

    #[test]
    fn counts_items_and_refuses_what_is_not_legal() {
        let scheme = Scheme::new(1, 0, 100, 3, 2, 10, Mix::DEFAULT);
        let slice =
            Slice { track: 0, kind: TrackKind::Vote { validator: 1, shuffled: true }, block: 0, start: 3, count: 40 };
        let mut reader = OwnReader::new();
        let mut items = |message: v1::ApprovalStreamRequest| {
            let items = reader.items(message.encode_to_vec().into())?;
            reader.flush().map(|()| items)
        };
        assert_eq!(items(message::rows(&scheme, &slice)), Some(40));
        assert_eq!(items(message::columns(&scheme, &slice)), Some(40));
        assert_eq!(items(message::open(&scheme, 7)), Some(1));
        assert_eq!(items(message::vote_on_stream(&scheme, 0, 7)), Some(1));
        let mut wrong = message::rows(&scheme, &slice);
        if let Some(Item::Batch(batch)) = &mut wrong.item {
            batch.responses[39].decision = 9;
        }
        assert_eq!(items(wrong), None);
    }
}
