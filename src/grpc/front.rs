//! What a server serves: one tower service in front of the generated one.
//!
//! It takes the two hot methods as raw bytes, refuses new calls when the node stops, and holds every
//! call to its `grpc-timeout`: tonic's own answer at a deadline is CANCELLED, and it stops looking once
//! a stream's head is sent. Health, reflection and unknown paths go to an ordinary router.

use super::archive::Archive;
use super::batch::BatchCall;
use super::calls::{Call, method_of};
use super::codec::RawCodec;
use super::service::Approvals;
use super::stream::VoteStream;
use super::{Facts, Feed, Limits, Origin, Stopping, caller, status};
use crate::model::ApprovalId;
use crate::shard::{Known, Shards};
use crate::store::Store;
use crate::wire::DESCRIPTOR;
use crate::wire::v1::approval_grpc_service_server::{ApprovalGrpcServiceServer, SERVICE_NAME};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use prost::Message;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::server::{ClientStreamingService, Grpc, StreamingService};
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};
use tonic_health::server::HealthReporter;

const STREAM_PATH: &str = "/aurigraph.approvals.v1.ApprovalGrpcService/BidirectionalApprovalStream";
const BATCH_PATH: &str = "/aurigraph.approvals.v1.ApprovalGrpcService/BatchSubmitResponses";
const SERVICE_PREFIX: &str = "/aurigraph.approvals.v1.ApprovalGrpcService/";

/// What the front's methods use.
pub struct Deps {
    pub(super) shards: Shards,
    pub(super) feed: Arc<dyn Feed>,
    pub(super) facts: Arc<dyn Facts>,
    pub(super) origin: Origin,
    pub(super) limits: Limits,
    pub(super) stopping: Stopping,
    /// What memory no longer has. None: nothing leaves memory.
    pub(super) archive: Option<Arc<Archive>>,
    /// Listings of pending approvals that run now.
    pub(super) listings: Arc<AtomicUsize>,
}

impl Deps {
    pub fn new(
        shards: Shards,
        feed: Arc<dyn Feed>,
        facts: Arc<dyn Facts>,
        origin: Origin,
        limits: Limits,
        stopping: Stopping,
        archive: Option<Arc<dyn Store>>,
    ) -> Deps {
        let archive = archive.map(|store| Arc::new(Archive::new(store, facts.clone())));
        Deps { shards, feed, facts, origin, limits, stopping, archive, listings: Arc::default() }
    }

    /// Who knows of an id that memory was just found not to hold; nobody where it was never used in this
    /// folder: strangers' ids cost no look-up. Asked after memory, because an id is in the filter before
    /// its approval leaves memory.
    pub(super) fn archive_of(&self, id: &ApprovalId) -> Option<&Archive> {
        self.archive.as_deref().filter(|_| self.shards.known(id) == Known::Maybe)
    }
}

/// When a call's time is up; in a request's extensions.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(pub Instant);

/// The service, and the reporter of `grpc.health.v1`: the server says SERVING once it does (under `""`
/// and the service's name), and NOT_SERVING when it stops.
pub fn routes(deps: Deps) -> (Front, HealthReporter) {
    let (reporter, health) = tonic_health::server::health_reporter();
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTOR)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .expect("the descriptor was compiled with this program");
    let deps = Arc::new(deps);
    let message_bytes_max = deps.limits.message_bytes_max;
    let approvals = ApprovalGrpcServiceServer::new(Approvals(deps.clone()))
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Zstd)
        .max_decoding_message_size(message_bytes_max);
    let rest = Routes::new(health).add_service(reflection).prepare();
    (Front { deps, approvals, rest }, reporter)
}

/// The service by its name, for the health reporter.
pub const APPROVALS_SERVICE: &str = SERVICE_NAME;

/// Serves every path of the port. Cheap to clone; a clone for each connection.
#[derive(Clone)]
pub struct Front {
    deps: Arc<Deps>,
    approvals: ApprovalGrpcServiceServer<Approvals>,
    rest: Routes,
}

impl tower::Service<http::Request<Body>> for Front {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = FrontFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<Body>) -> FrontFuture {
        let path = request.uri().path();
        if !path.starts_with(SERVICE_PREFIX) {
            return FrontFuture { answer: Box::pin(self.rest.call(request)), deadline: None, call: None };
        }
        let call = method_of(&path[SERVICE_PREFIX.len()..]).map(|method| Call::new(method, self.deps.facts.clone()));
        if self.deps.stopping.is_set() {
            let refused = Stopping::status().into_http();
            return FrontFuture { answer: Box::pin(std::future::ready(Ok(refused))), deadline: None, call };
        }
        let deadline = request.headers().get("grpc-timeout").and_then(|value| parse_timeout(value.as_bytes()));
        let deadline = deadline.and_then(|timeout| Instant::now().checked_add(timeout)).map(Deadline);
        let answer: Answer = match path {
            STREAM_PATH => Box::pin(Hot::stream(self.deps.clone()).serve_stream(request, deadline)),
            BATCH_PATH => Box::pin(Hot::batch(self.deps.clone()).serve_batch(request)),
            _ => {
                if let Some(deadline) = deadline {
                    request.extensions_mut().insert(deadline);
                }
                self.approvals.call(request)
            }
        };
        FrontFuture { answer, deadline: deadline.map(Until::new), call }
    }
}

type Answer = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

/// A call's answer, or DEADLINE_EXCEEDED.
pub struct FrontFuture {
    answer: Answer,
    deadline: Option<Until>,
    /// Counted when it ends.
    call: Option<Call>,
}

struct Until {
    at: Instant,
    sleep: Pin<Box<tokio::time::Sleep>>,
}

impl Until {
    fn new(deadline: Deadline) -> Until {
        Until { at: deadline.0, sleep: Box::pin(tokio::time::sleep_until(deadline.0.into())) }
    }
}

impl Future for FrontFuture {
    type Output = Result<http::Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(answer) = self.answer.as_mut().poll(context) {
            let call = self.call.take();
            return Poll::Ready(answer.map(|answer| ended(call, named(answer))));
        }
        let Some(until) = &mut self.deadline else { return Poll::Pending };
        // The clock too: tonic's timer for the same deadline may wake this task first, and would
        // answer CANCELLED after this poll.
        if until.sleep.as_mut().poll(context).is_ready() || Instant::now() >= until.at {
            let call = self.call.take();
            return Poll::Ready(Ok(ended(call, status::deadline_exceeded().into_http())));
        }
        Poll::Pending
    }
}

fn ended(call: Option<Call>, answer: http::Response<Body>) -> http::Response<Body> {
    match call {
        Some(call) => call.answered(answer),
        None => answer,
    }
}

/// An answer that is only a status, from the reading of the request: a limit by its name.
fn named(answer: http::Response<Body>) -> http::Response<Body> {
    match Status::from_header_map(answer.headers()) {
        Some(status) if status::is_too_long(&status) => status::unread(status).into_http(),
        _ => answer,
    }
}

/// `grpc-timeout`: at most eight digits and a unit. What is no timeout is no deadline.
fn parse_timeout(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0u64, |number, digit| number * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(number * 3_600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// The two methods that tonic only frames.
struct Hot<M> {
    method: M,
    message_bytes_max: usize,
}

struct StreamMethod {
    deps: Arc<Deps>,
    deadline: Option<Deadline>,
}

struct BatchMethod(Arc<Deps>);

fn raw(message_bytes_max: usize) -> Grpc<RawCodec> {
    Grpc::new(RawCodec)
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Zstd)
        .max_decoding_message_size(message_bytes_max)
}

impl Hot<StreamMethod> {
    fn stream(deps: Arc<Deps>) -> Hot<StreamMethod> {
        Hot { message_bytes_max: deps.limits.message_bytes_max, method: StreamMethod { deps, deadline: None } }
    }

    async fn serve_stream(
        mut self,
        request: http::Request<Body>,
        deadline: Option<Deadline>,
    ) -> Result<http::Response<Body>, Infallible> {
        self.method.deadline = deadline;
        Ok(raw(self.message_bytes_max).streaming(self.method, request).await)
    }
}

impl Hot<BatchMethod> {
    fn batch(deps: Arc<Deps>) -> Hot<BatchMethod> {
        Hot { message_bytes_max: deps.limits.message_bytes_max, method: BatchMethod(deps) }
    }

    async fn serve_batch(self, request: http::Request<Body>) -> Result<http::Response<Body>, Infallible> {
        Ok(raw(self.message_bytes_max).client_streaming(self.method, request).await)
    }
}

impl StreamingService<Bytes> for StreamMethod {
    type Response = Bytes;
    type ResponseStream = VoteStream<Streaming<Bytes>>;
    type Future = std::future::Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let caller = caller(request.extensions());
        let stream = VoteStream::new(request.into_inner(), self.deps.clone(), caller, self.deadline);
        std::future::ready(Ok(Response::new(stream)))
    }
}

impl ClientStreamingService<Bytes> for BatchMethod {
    type Response = Bytes;
    type Future = BoxFuture<'static, Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let call = BatchCall::new(request.into_inner(), &self.0);
        Box::pin(async move { call.await.map(|summary| Response::new(summary.encode_to_vec().into())) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_paths_are_those_of_the_proto() {
        assert_eq!(SERVICE_PREFIX, format!("/{SERVICE_NAME}/"));
        let descriptor = prost_types::FileDescriptorSet::decode(DESCRIPTOR).expect("a descriptor");
        let services = descriptor.file.iter().flat_map(|file| &file.service);
        let methods: Vec<_> = services
            .flat_map(|service| &service.method)
            .map(|method| format!("{SERVICE_PREFIX}{}", method.name()))
            .collect();
        assert!(methods.iter().any(|path| path == STREAM_PATH) && methods.iter().any(|path| path == BATCH_PATH));
    }

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        let check =
            |text: &str, expected: Option<Duration>| assert_eq!(parse_timeout(text.as_bytes()), expected, "{text}");
        check("1H", Some(Duration::from_secs(3_600)));
        check("2M", Some(Duration::from_secs(120)));
        check("3S", Some(Duration::from_secs(3)));
        check("100m", Some(Duration::from_millis(100)));
        check("99999999u", Some(Duration::from_micros(99_999_999)));
        check("7n", Some(Duration::from_nanos(7)));
        check("", None);
        check("S", None);
        check("5", None);
        check("123456789S", None);
        check("-1S", None);
        check("1x", None);
    }
}
