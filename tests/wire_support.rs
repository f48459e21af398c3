//! Real shards behind a real connection, and a feed that the test writes.

use assent::grpc::{
    APPROVALS_SERVICE, Deps, Facts, Feed, Limits, Origin, ServerOptions, Stopper, Subscribe, WatchEnd, WatchItem,
    routes, stopping,
};
use assent::journal::PosixStorage;
use assent::metrics::ShardMetrics;
use assent::model::{ApprovalId, Decision, LogId, Position, Refusal, ValidatorId};
use assent::shard::{Executor, Options, OwnedVote, Started, start};
use assent::store::Store;
use assent::wire::v1::approval_grpc_service_client::ApprovalGrpcServiceClient;
use assent::wire::{parse_open, v1};
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::BoxStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::transport::Channel;
use tonic_types::StatusExt;

pub type Client = ApprovalGrpcServiceClient<Channel>;
pub type Change = Result<WatchItem, WatchEnd>;

/// Says what the test tells it to, and remembers what it was asked.
#[derive(Default)]
pub struct ScriptedFeed {
    pub asked: Mutex<Vec<Subscribe>>,
    pub senders: Mutex<Vec<mpsc::UnboundedSender<Change>>>,
}

pub const LOG: LogId = LogId(77);

impl Feed for ScriptedFeed {
    fn positions(&self) -> Vec<Position> {
        vec![Position { log: LOG, sequence: 1 }]
    }

    fn subscribe(&self, subscribe: Subscribe) -> BoxStream<'static, Change> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.asked.lock().expect("asked").push(subscribe);
        self.senders.lock().expect("senders").push(sender);
        UnboundedReceiverStream::new(receiver).boxed()
    }
}

impl ScriptedFeed {
    /// To the subscription of this number, once it is there.
    pub async fn send(&self, number: usize, change: Change) {
        loop {
            if let Some(sender) = self.senders.lock().expect("senders").get(number) {
                sender.send(change).expect("a watcher");
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

struct NoFacts;

impl Facts for NoFacts {
    fn health(&self) -> v1::HealthCheckResponse {
        v1::HealthCheckResponse { version: "test".into(), ..v1::HealthCheckResponse::default() }
    }
    fn metrics(&self) -> v1::ServiceMetrics {
        v1::ServiceMetrics { active_approvals: 7, ..v1::ServiceMetrics::default() }
    }
}

pub struct Front {
    pub client: Client,
    pub channel: Channel,
    pub address: std::net::SocketAddr,
    pub feed: Arc<ScriptedFeed>,
    pub stopper: Stopper,
    pub service: assent::grpc::Front,
    started: Option<Started>,
    metrics: Vec<Arc<ShardMetrics>>,
    folder: tempfile::TempDir,
}

impl Drop for Front {
    fn drop(&mut self) {
        if let Some(mut started) = self.started.take() {
            started.finish().expect("shards end");
        }
    }
}

impl Front {
    pub async fn new(shards: usize) -> Front {
        Front::with(shards, Limits::default()).await
    }

    pub async fn with(shards: usize, limits: Limits) -> Front {
        Front::with_archive(shards, limits, None).await
    }

    pub async fn with_archive(shards: usize, limits: Limits, archive: Option<Arc<dyn Store>>) -> Front {
        Front::keeping(shards, limits, archive, Duration::from_secs(60)).await
    }

    /// One whose folder has had approvals of these numbers, and whose memory has let go of them all.
    pub async fn that_forgot(shards: usize, archive: Arc<dyn Store>, numbers: impl IntoIterator<Item = u64>) -> Front {
        let front = Front::keeping(shards, Limits::default(), Some(archive), Duration::ZERO).await;
        let Started { shards, archive, .. } = front.started();
        let numbers: Vec<u64> = numbers.into_iter().collect();
        // No more at a time than a ring holds.
        for some in numbers.chunks(32) {
            let opened = some.iter().map(|number| {
                let request = v1::ApprovalRequest { required_approvals: 1, total_validators: 1, ..request(*number) };
                let request = parse_open(&request, None, 1 << 20).expect("legal");
                async move { shards.open(request, None).await.map(drop) }
            });
            let opened: Result<(), Refusal> = join_all(opened).await.into_iter().collect();
            opened.expect("they open");
            let voted = some.iter().map(|number| {
                let (approval, decision) = (ApprovalId(*id(*number).as_bytes()), Decision::Approved);
                let validator = ValidatorId::parse("nobody").expect("legal");
                shards.vote(OwnedVote { approval, validator, decision, extras: None })
            });
            assert!(join_all(voted).await.iter().all(Result::is_ok), "they are decided");
        }
        archive.turn_on();
        for (shard, metrics) in front.metrics.iter().enumerate() {
            let log = shards.log_of_partition(shards.partitions(shard).start);
            archive.archived(Position { log, sequence: metrics.durable_sequence.get() });
        }
        while front.metrics.iter().any(|metrics| metrics.in_memory.get() > 0) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        front
    }

    /// What is decided and archived stays in memory so long.
    async fn keeping(shards: usize, limits: Limits, archive: Option<Arc<dyn Store>>, decided_keep: Duration) -> Front {
        let folder = tempfile::tempdir().expect("a folder");
        let options = Options {
            data: folder.path().into(),
            shards,
            executor: Executor::Plain,
            executor_options: Default::default(),
            pin: false,
            ring_capacity: 64,
            limits: assent::engine::Limits::for_memory(1 << 30),
            decided_keep,
            id_filter_bytes: 1 << 20,
            snapshot: Default::default(),
            journal: assent::journal::Options::default(),
            accept_clock: false,
        };
        let metrics: Vec<_> = (0..shards).map(|_| Arc::new(ShardMetrics::default())).collect();
        let started = start(PosixStorage, &options, &metrics).expect("shards");
        let answers = started.answers.clone();
        tokio::spawn(async move {
            while let Some(batch) = answers.receive().await {
                batch.into_iter().for_each(|answer| answer());
            }
        });
        let feed = Arc::new(ScriptedFeed::default());
        let (stopper, is_stopping) = stopping();
        let origin = Origin { deployment: started.deployment, generation: 1 };
        let deps =
            Deps::new(started.shards.clone(), feed.clone(), Arc::new(NoFacts), origin, limits, is_stopping, archive);
        let (front, reporter) = routes(deps);
        reporter.set_service_status(APPROVALS_SERVICE, tonic_health::ServingStatus::Serving).await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let incoming = TcpListenerStream::new(listener);
        let server = ServerOptions::default().server();
        let service = front.clone();
        tokio::spawn(server.serve_with_incoming_shutdown(front, incoming, std::future::pending::<()>()));
        let endpoint = Channel::from_shared(format!("http://{address}")).expect("an endpoint");
        let channel = endpoint.connect().await.expect("a connection");
        let client = Client::new(channel.clone()).max_encoding_message_size(64 << 20);
        Front { client, channel, address, feed, stopper, service, started: Some(started), metrics, folder }
    }

    pub fn started(&self) -> &Started {
        self.started.as_ref().expect("until it is dropped")
    }

    pub fn data(&self) -> &std::path::Path {
        self.folder.path()
    }

    pub async fn open(&mut self, request: v1::ApprovalRequest) -> v1::ApprovalStatusMessage {
        self.client.submit_approval_request(request).await.expect("opened").into_inner()
    }
}

pub fn id(number: u64) -> uuid::Uuid {
    uuid::Uuid::from_u64_pair(number.wrapping_mul(0x9E37_79B9_7F4A_7C15), number)
}

pub fn request(number: u64) -> v1::ApprovalRequest {
    v1::ApprovalRequest {
        approval_id: id(number).to_string(),
        approval_type: 1,
        requester_id: id(1_000_000).to_string(),
        content: b"pay".to_vec().into(),
        required_approvals: 2,
        total_validators: 3,
        ..v1::ApprovalRequest::default()
    }
}

pub fn vote(number: u64, validator: &str, decision: i32) -> v1::ApprovalResponse {
    v1::ApprovalResponse {
        approval_id: id(number).to_string(),
        validator_id: validator.into(),
        decision,
        ..v1::ApprovalResponse::default()
    }
}

/// The reason in a refusal's ErrorInfo, and the field of its BadRequest.
pub fn reason(status: &tonic::Status) -> (tonic::Code, String, String) {
    let details = status.get_error_details();
    let reason = details.error_info().map(|info| info.reason.clone()).unwrap_or_default();
    let field = details.bad_request().map(|bad| bad.field_violations[0].field.clone()).unwrap_or_default();
    (status.code(), reason, field)
}
