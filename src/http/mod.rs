//! The window: liveness, readiness and metrics over HTTP/1.1.
//!
//! `/healthz`: 200 while the process lives and nothing in it died. `/readyz`: 200 once recovered and
//! while every component serves, else 503; either way JSON of the components. `/metrics`:
//! Prometheus text. It reads what rooms wrote and asks nobody, so it answers while shards recover.
//! A stranger can hold neither memory nor a place for long: see [`Options`].

pub mod tls;

use crate::health::Health;
use crate::metrics::{Held, Metrics};
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

/// Request line and headers together; beyond that: 431.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// A connection is closed after this time, whatever it does: a client that reads slowly, too, must
/// give its place back. Scrapers reconnect.
const CONNECTION_SECONDS_MAX: u64 = 60;
/// What answers in flight get when the node stops.
const DRAIN: Duration = Duration::from_secs(1);
/// Pause after a failed accept (no file descriptors left, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Bounds and TLS of the listener.
#[derive(Clone)]
pub struct Options {
    pub connections_max: usize,
    /// For the TLS handshake, and again for each request's head.
    pub header_timeout: Duration,
    /// From [`tls::load`] with `http/1.1`; `None`: plain.
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

/// What the pages are made from.
#[derive(Clone)]
pub struct Window {
    pub health: Arc<Health>,
    pub metrics: Arc<Metrics>,
}

/// Serves until `shutdown` is ready, then lets answers in flight finish. A failed accept is logged
/// and tried again: the window never takes the node down.
pub async fn serve(listener: TcpListener, options: Options, window: Window, shutdown: impl Future<Output = ()>) {
    let router = router(window.clone());
    let acceptor = options.tls.clone().map(TlsAcceptor::from);
    let (stop, stopped) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("HTTP: a connection could not be accepted: {error}");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if connections.len() >= options.connections_max {
            // Closed without a word: at the limit even an answer costs too much.
            window.metrics.window.connections_refused.increment();
            continue;
        }
        let (router, acceptor, stopped) = (router.clone(), acceptor.clone(), stopped.clone());
        let (metrics, header_timeout) = (Arc::clone(&window.metrics), options.header_timeout);
        connections.spawn(async move {
            let _open: Held<'_> = metrics.window.connections.hold();
            let life = connection(stream, acceptor, router, header_timeout, stopped);
            // Either it ended, or its time did; there is nobody to tell.
            let _ = timeout(Duration::from_secs(CONNECTION_SECONDS_MAX), life).await;
        });
    }
    drop(listener);
    drop(stop);
    let drained = async { while connections.join_next().await.is_some() {} };
    if timeout(DRAIN, drained).await.is_err() {
        tracing::debug!("HTTP: connections still open at the end are cut");
    }
}

/// The pages. Public for tests that need no socket.
pub fn router(window: Window) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .fallback(not_found)
        .with_state(window)
}

async fn connection(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    router: Router,
    header_timeout: Duration,
    stopped: watch::Receiver<()>,
) {
    // A refused option costs latency, nothing else.
    let _ = stream.set_nodelay(true);
    match acceptor {
        None => talk(stream, router, header_timeout, stopped).await,
        Some(acceptor) => match timeout(header_timeout, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => talk(stream, router, header_timeout, stopped).await,
            Ok(Err(error)) => tracing::debug!("HTTP: TLS handshake failed: {error}"),
            Err(_) => tracing::debug!("HTTP: TLS handshake took too long"),
        },
    }
}

async fn talk<S>(stream: S, router: Router, header_timeout: Duration, mut stopped: watch::Receiver<()>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(header_timeout).max_buf_size(HEAD_BYTES_MAX);
    let service = TowerToHyperService::new(router);
    let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = &mut serving => ended,
        _ = stopped.changed() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("HTTP: connection ended: {error}");
    }
}

async fn healthz(State(window): State<Window>) -> Response {
    window.metrics.window.requests.increment();
    match window.health.alive() {
        true => (StatusCode::OK, "ok\n").into_response(),
        false => components(&window, StatusCode::SERVICE_UNAVAILABLE),
    }
}

async fn readyz(State(window): State<Window>) -> Response {
    window.metrics.window.requests.increment();
    match window.health.ready() {
        true => components(&window, StatusCode::OK),
        false => components(&window, StatusCode::SERVICE_UNAVAILABLE),
    }
}

async fn metrics(State(window): State<Window>) -> Response {
    window.metrics.window.requests.increment();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], window.metrics.render()).into_response()
}

async fn not_found(State(window): State<Window>) -> Response {
    window.metrics.window.requests.increment();
    let hint = "not here; there are /healthz, /readyz and /metrics (gRPC has a port of its own, 9004 by default)\n";
    (StatusCode::NOT_FOUND, hint).into_response()
}

fn components(window: &Window, status: StatusCode) -> Response {
    let list: Vec<_> = window
        .health
        .components()
        .into_iter()
        .map(|part| serde_json::json!({ "name": part.name, "state": part.state.name(), "message": part.message }))
        .collect();
    let body = serde_json::json!({
        "ready": window.health.ready(),
        "state": window.health.state().name(),
        "components": list,
    });
    (status, [(header::CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response()
}
