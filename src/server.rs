//! The wiring diagram as code: build, start, say so; and stop in reverse.

mod facts;
mod sinks;

use crate::config::{Config, Durability, Io};
use crate::grpc::{self, Deps, Origin, ServerOptions, Stopper};
use crate::health::{Health, Reporter};
use crate::http;
use crate::journal::{GlommioStorage, PosixStorage};
use crate::metrics::{Identity, Metrics};
use crate::shard::{self, Executor, Gate, MemoryStorage, Started};
use crate::store::Store;
use anyhow::{Context, anyhow, bail};
use facts::NodeFacts;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// How often the node looks after what no event announces: the clock, an operator's word, a shard's end.
const TICK: Duration = Duration::from_secs(1);

/// Runs a node until it is told to stop, or must.
pub fn run(config: Config) -> anyhow::Result<()> {
    let started_at = SystemTime::now();
    let tls = load_tls(&config)?;
    let (executor, io) = choose_io(&config)?;
    let durability = match config.durability {
        Durability::Journal => "journal",
        Durability::Memory => "memory",
    };
    let metrics = Metrics::new(Identity {
        version: env!("CARGO_PKG_VERSION"),
        durability,
        shards: config.shard.count,
        started_at_seconds: started_at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
    });
    let health = Health::new();
    let register = sinks::register(&config)?;
    let reporters = Reporters::new(&health, config.shard.count);

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.grpc.worker_threads)
        .thread_name("front")
        .enable_all()
        .build()
        .context("start the threads of the fronts")?;
    // Both ports are taken before the folder is touched, and the window says "not ready" while it is read.
    let (grpc_listener, http_listener) = runtime.block_on(async {
        anyhow::Ok((bind(config.grpc_addr, "--grpc").await?, bind(config.http_addr, "--http").await?))
    })?;
    let addresses = Addresses { grpc: grpc_listener.local_addr()?, http: http_listener.local_addr()? };
    let window = Window::open(&runtime, &config, tls.http, http_listener, &health, &metrics);

    let began = Instant::now();
    let mut started = start_shards(&config, executor, &metrics)?;
    let journal = journal_line(&config, io, began.elapsed());
    let store = sinks::archive_store(&config)?;
    let mut watch = sinks::start(&config, &mut started, store.clone(), register, &metrics, &health)?;
    let outcome = runtime.block_on(async {
        let node =
            Node { config: &config, metrics: &metrics, health: &health, reporters: &reporters, addresses, store };
        let outcome = node.serve(grpc_listener, tls.grpc, &mut started, &journal).await;
        // What is durable by now and not delivered is so at the next start.
        drop(watch.take());
        window.close().await;
        outcome
    });
    // Streams that are still open are cut: their clients know from the status that they must resume.
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

/// Where the node listens.
#[derive(Clone, Copy)]
struct Addresses {
    grpc: SocketAddr,
    http: SocketAddr,
}

/// The HTTP port, from before recovery until after everything else.
struct Window {
    stop: oneshot::Sender<()>,
    served: tokio::task::JoinHandle<()>,
}

impl Window {
    fn open(
        runtime: &tokio::runtime::Runtime,
        config: &Config,
        tls: Option<Arc<rustls::ServerConfig>>,
        listener: TcpListener,
        health: &Arc<Health>,
        metrics: &Arc<Metrics>,
    ) -> Window {
        let (stop, stopped) = oneshot::channel::<()>();
        let options = http::Options {
            connections_max: config.http.connections_max,
            header_timeout: Duration::from_secs(config.http.header_timeout_seconds),
            tls,
        };
        let pages = http::Window { health: health.clone(), metrics: metrics.clone() };
        let served = runtime.spawn(http::serve(listener, options, pages, async {
            let _stopper_gone = stopped.await;
        }));
        Window { stop, served }
    }

    async fn close(self) {
        let _window_gone = self.stop.send(());
        let _ended = self.served.await;
    }
}

struct Tls {
    grpc: Option<Arc<rustls::ServerConfig>>,
    http: Option<Arc<rustls::ServerConfig>>,
}

fn load_tls(config: &Config) -> anyhow::Result<Tls> {
    let (Some(cert), Some(key)) = (&config.tls.cert, &config.tls.key) else {
        return Ok(Tls { grpc: None, http: None });
    };
    let load = |alpn: &[&[u8]]| http::tls::load(cert, key, config.tls.client_ca.as_deref(), alpn);
    Ok(Tls { grpc: Some(load(&[b"h2"])?), http: Some(load(&[b"http/1.1"])?) })
}

/// Which pair of executor and storage runs the shards, in words too.
fn choose_io(config: &Config) -> anyhow::Result<(Executor, &'static str)> {
    if config.durability == Durability::Memory {
        return Ok((Executor::Plain, "none"));
    }
    match config.io {
        // Measured: the plain pair decides more votes a second here (perf/README.md).
        Io::Auto | Io::Posix => Ok((Executor::Plain, "posix")),
        Io::Uring => match shard::glommio_works() {
            Ok(()) => Ok((Executor::Glommio, "uring")),
            Err(error) => bail!(
                "--io uring: io_uring is not to be had here ({error}); `assent doctor` says why, --io posix needs nothing"
            ),
        },
    }
}

fn start_shards(config: &Config, executor: Executor, metrics: &Arc<Metrics>) -> anyhow::Result<Started> {
    let (limits, journal) = (&config.limits, &config.journal);
    let shards = config.shard.count;
    let share = |total: usize| total.div_ceil(shards);
    let options = shard::Options {
        data: config.data_dir.clone(),
        shards,
        executor,
        executor_options: shard::ExecutorOptions { spin_micros: config.shard.spin_micros, pin_core: None },
        pin: config.shard.pin,
        ring_capacity: config.shard.ring_slots,
        limits: shard::Limits {
            approvals_max: share(limits.approvals_max),
            validators_max: share(limits.validators_max),
            eligible_sets_max: share(limits.eligible_sets_max),
            eligible_set_bytes_max: share(limits.eligible_bytes_max),
            content_bytes_max: limits.content_bytes_max,
            lifetime_default_us: limits.lifetime_default_seconds * 1_000_000,
            lifetime_max_us: limits.lifetime_max_seconds * 1_000_000,
        },
        decided_keep: Duration::from_secs(limits.decided_keep_seconds),
        id_filter_bytes: limits.id_filter_bytes,
        snapshot: shard::SnapshotOptions {
            // Nothing to shorten where nothing is read back.
            tail_events_max: match config.durability {
                Durability::Journal => journal.snapshot_events,
                Durability::Memory => u64::MAX,
            },
            tail_bytes_max: match config.durability {
                Durability::Journal => journal.snapshot_bytes,
                Durability::Memory => u64::MAX,
            },
        },
        journal: crate::journal::Options {
            segment_bytes: journal.segment_bytes,
            pool_segments: journal.pool_segments,
            frame_bytes_max: journal.frame_bytes_max,
            folder_bytes_max: (journal.folder_bytes_max > 0).then_some(journal.folder_bytes_max),
            reserve_bytes: journal.reserve_bytes,
            background: true,
        },
        accept_clock: config.accept_clock,
    };
    let blocks = metrics.shards();
    let started = match (config.durability, executor) {
        (Durability::Memory, _) => shard::start(MemoryStorage, &options, blocks),
        (Durability::Journal, Executor::Plain) => shard::start(PosixStorage, &options, blocks),
        (Durability::Journal, Executor::Glommio) => shard::start(GlommioStorage, &options, blocks),
    };
    Ok(started?)
}

/// What the serving node is made of.
struct Node<'a> {
    config: &'a Config,
    metrics: &'a Arc<Metrics>,
    health: &'a Arc<Health>,
    reporters: &'a Reporters,
    addresses: Addresses,
    store: Option<Arc<dyn Store>>,
}

impl Node<'_> {
    /// Serves gRPC until the node is told to stop, or must.
    async fn serve(
        &self,
        listener: TcpListener,
        tls: Option<Arc<rustls::ServerConfig>>,
        started: &mut Started,
        journal: &str,
    ) -> anyhow::Result<()> {
        let Node { config, metrics, health, reporters, addresses, ref store } = *self;
        // A commit's answers come as one letter, and are handed out here, where waking is cheap.
        let answers = started.answers.clone();
        tokio::spawn(async move {
            while let Some(batch) = answers.receive().await {
                batch.into_iter().for_each(|answer| answer());
            }
        });

        let (stopper, stopping) = grpc::stopping();
        let facts = Arc::new(NodeFacts::new(metrics.clone(), health.clone(), started.deployment));
        let limits = grpc::Limits {
            content_bytes_max: config.limits.content_bytes_max,
            batch_items_max: config.limits.batch_items_max,
            unacknowledged_max: config.limits.unacknowledged_max as u64,
            message_bytes_max: config.limits.message_bytes_max,
            subscriptions_per_stream_max: config.limits.subscriptions_per_stream_max,
            pending_streams_max: config.limits.pending_streams_max,
            ..grpc::Limits::default()
        };
        let origin = Origin { deployment: started.deployment, generation: started.generation };
        let feed = Arc::new(grpc::HubFeed::new(
            started.feed.clone(),
            started.shards.clone(),
            metrics.clone(),
            config.limits.watcher_buffer_bytes,
            config.limits.watchers_max,
        ));
        let deps = Deps::new(started.shards.clone(), feed, facts, origin, limits, stopping.clone(), store.clone());
        let options = ServerOptions {
            stream_window_bytes: config.grpc.stream_window_bytes,
            connection_window_bytes: config.grpc.connection_window_bytes,
            frame_bytes: config.grpc.frame_bytes,
            keepalive_interval: Duration::from_secs(config.grpc.keepalive_interval_seconds),
            keepalive_timeout: Duration::from_secs(config.grpc.keepalive_timeout_seconds),
            streams_per_connection_max: config.limits.streams_per_connection_max as u32,
            ..ServerOptions::default()
        };
        let incoming = grpc::incoming(listener, tls, config.limits.connections_max, metrics.clone());
        let port = grpc::serve(&options, deps, incoming, stopping);

        reporters.serving();
        port.announce(true).await;
        if let Some(path) = &config.ready_file {
            write_ready_file(path, addresses)?;
        }
        say(config, started, journal, addresses);

        let why = until_told(started, reporters, config).await;
        tracing::info!("stopping: {why}");
        port.announce(false).await;
        reporters.stopping();
        stop(started, stopper, port, config.shutdown_seconds, why).await
    }
}

async fn bind(addr: SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(addr).await.with_context(|| {
        format!("cannot listen on {addr} ({flag}): if another node runs there, stop it or choose another port")
    })
}

/// Why a node stops.
enum Why {
    Signal(&'static str),
    ShardEnded(String),
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Why::Signal(name) => write!(f, "{name} received; what is in flight is answered first"),
            Why::ShardEnded(message) => f.write_str(message),
        }
    }
}

async fn until_told(started: &Started, reporters: &Reporters, config: &Config) -> Why {
    let mut terminate = signal(SignalKind::terminate()).expect("SIGTERM can be listened to");
    let mut interrupt = signal(SignalKind::interrupt()).expect("SIGINT can be listened to");
    let mut tick = tokio::time::interval(TICK);
    let mut clock = ClockWatch::default();
    loop {
        tokio::select! {
            _ = terminate.recv() => return Why::Signal("SIGTERM"),
            _ = interrupt.recv() => return Why::Signal("SIGINT"),
            _ = tick.tick() => {}
        }
        if let Ok((shard, outcome)) = started.ended.try_recv() {
            let message = outcome.err().unwrap_or_else(|| "ended by itself".into());
            reporters.died(shard, &message);
            return Why::ShardEnded(format!("shard {shard}: {message}"));
        }
        clock.look(&started.gate, reporters, &config.data_dir);
    }
}

/// Says once that the clock is in doubt, and takes an operator's word that it is right.
#[derive(Default)]
struct ClockWatch {
    said: bool,
}

/// An operator writes this file into the data folder (`assent clock accept`).
pub const ACCEPT_CLOCK_FILE: &str = "accept-clock";

impl ClockWatch {
    fn look(&mut self, gate: &Gate, reporters: &Reporters, data: &Path) {
        let doubted = gate.is_clock_doubted();
        if doubted && !self.said {
            let how = "the wall clock jumped by more than 10 s, or the journal ends ahead of it: new approvals are \
                       refused and nothing expires until it is accepted. If the clock is right now, run `assent \
                       clock accept` with this node's --data, or restart with --accept-clock";
            tracing::error!("{how}");
            reporters.clock.degraded(how);
        }
        // A word that comes without a doubt is taken away: it must not answer for the next one.
        if std::fs::remove_file(data.join(ACCEPT_CLOCK_FILE)).is_ok() {
            if doubted {
                tracing::info!("the clock is accepted as it is");
                gate.accept_clock();
            } else {
                tracing::info!("the clock is not in doubt: there is nothing to accept");
            }
        }
        if !doubted && self.said {
            reporters.clock.serving();
        }
        self.said = doubted;
    }
}

/// Stops in reverse: fronts first, then the shards once their rings are empty.
async fn stop(
    started: &mut Started,
    stopper: Stopper,
    port: grpc::Port,
    patience_seconds: u64,
    why: Why,
) -> anyhow::Result<()> {
    started.gate.stop();
    stopper.stop();
    let patience = Duration::from_secs(patience_seconds.saturating_sub(2).max(1));
    if tokio::time::timeout(patience, port.drained()).await.is_err() {
        tracing::warn!("connections still open after {} s are cut", patience.as_secs());
    }
    let finished = started.finish();
    match (why, finished) {
        (Why::Signal(_), Ok(())) => Ok(()),
        (Why::Signal(_), Err(message)) => Err(anyhow!(message)),
        (Why::ShardEnded(message), _) => Err(anyhow!(message)),
    }
}

fn write_ready_file(path: &Path, addresses: Addresses) -> anyhow::Result<()> {
    let text = serde_json::json!({
        "grpc": addresses.grpc.to_string(), "http": addresses.http.to_string(), "pid": std::process::id(),
    });
    let beside = path.with_extension("new");
    std::fs::write(&beside, text.to_string())
        .and_then(|()| std::fs::rename(&beside, path))
        .with_context(|| format!("cannot write the ready file {}", path.display()))
}

/// What each part says of itself.
struct Reporters {
    journal: Reporter,
    clock: Reporter,
    shards: Vec<Reporter>,
    grpc: Reporter,
}

impl Reporters {
    fn new(health: &Arc<Health>, shards: usize) -> Reporters {
        Reporters {
            journal: health.register("journal"),
            clock: health.register("clock"),
            shards: (0..shards).map(|shard| health.register(format!("shard-{shard}"))).collect(),
            grpc: health.register("grpc"),
        }
    }

    fn serving(&self) {
        self.journal.serving();
        self.clock.serving();
        self.shards.iter().for_each(Reporter::serving);
        self.grpc.serving();
    }

    fn stopping(&self) {
        self.grpc.not_serving("the node is stopping");
    }

    fn died(&self, shard: usize, message: &str) {
        self.shards[shard].died(message);
    }
}

/// What the banner says of the journal.
fn journal_line(config: &Config, io: &str, took: Duration) -> String {
    match config.durability {
        Durability::Memory => "memory only: NOTHING survives this process (--durability memory)".to_string(),
        Durability::Journal => {
            format!("{} ({io}), recovered in {:.2} s", config.data_dir.display(), took.as_secs_f64())
        }
    }
}

/// What a person needs, once, on standard output.
fn say(config: &Config, started: &Started, journal: &str, Addresses { grpc, http }: Addresses) {
    let scheme = if config.tls.enabled() { "https" } else { "http" };
    let (mut approvals, mut events) = (0, 0);
    for report in &started.reports {
        approvals += report.approvals_from_snapshot;
        events += report.events_replayed;
        if let Some(torn) = &report.torn_tail {
            tracing::warn!("a frame that was never acknowledged was cut off: {torn}");
        }
    }
    let endpoint = if grpc.port() == 9004 { String::new() } else { format!(" --endpoint {scheme}://{grpc}") };
    println!("assent {}", env!("CARGO_PKG_VERSION"));
    println!("  gRPC      {scheme}://{grpc}");
    println!("  HTTP      {scheme}://{http}  (/healthz /readyz /metrics)");
    println!("  journal   {journal}");
    match started.fresh {
        true => println!("  recovered nothing: the folder is new"),
        false => println!("  recovered {approvals} approvals, {events} events read back"),
    }
    println!("  shards    {}", config.shard.count);
    println!("Next: assent submit --required 2 --total 3{endpoint}");
}
