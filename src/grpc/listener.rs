//! Connections of the gRPC port: counted, bounded, with TLS where it is configured.
//!
//! A connection that says nothing at first (half-open, a port scan) is closed after
//! [`FIRST_BYTE_SECONDS_MAX`]; one over the limit at once.

use super::front::{APPROVALS_SERVICE, Deps, routes};
use super::{PeerCertificate, ServerOptions, Stopping};
use crate::metrics::Metrics;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// For the first byte, and again for the TLS handshake.
const FIRST_BYTE_SECONDS_MAX: u64 = 10;
/// Pause after a failed accept (no file descriptors left, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections accepted and not yet taken up by the server.
const BACKLOG: usize = 64;

/// One connection, counted until it is dropped.
pub struct Connection {
    stream: Stream,
    certificate: PeerCertificate,
    metrics: Arc<Metrics>,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Accepts until the receiver is dropped, then frees the port.
pub fn incoming(
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    connections_max: usize,
    metrics: Arc<Metrics>,
) -> ReceiverStream<io::Result<Connection>> {
    let (sender, receiver) = mpsc::channel(BACKLOG);
    let acceptor = tls.map(TlsAcceptor::from);
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                () = sender.closed() => return,
                accepted = listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!("gRPC: a connection could not be accepted: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            if metrics.front.connections.get() >= connections_max as u64 {
                metrics.front.connections_refused.increment();
                continue;
            }
            // Counted from here, handshakes included; Connection's drop takes it back.
            metrics.front.connections.add(1);
            let (sender, acceptor, metrics) = (sender.clone(), acceptor.clone(), metrics.clone());
            tokio::spawn(async move {
                match open(stream, acceptor, metrics.clone()).await {
                    Ok(connection) => {
                        // Gone when the node stops.
                        let _stopping = sender.send(Ok(connection)).await;
                    }
                    Err(error) => tracing::debug!("gRPC: a connection ended before it began: {error}"),
                }
            });
        }
    });
    ReceiverStream::new(receiver)
}

/// The served port.
pub struct Port {
    health: HealthReporter,
    served: JoinHandle<Result<(), tonic::transport::Error>>,
}

/// Serves every path of the port until `stopping`; then no new connection is taken up, and those
/// there are end with their calls.
pub fn serve(
    options: &ServerOptions,
    deps: Deps,
    incoming: ReceiverStream<io::Result<Connection>>,
    stopping: Stopping,
) -> Port {
    let (front, health) = routes(deps);
    let server = options.server();
    let served =
        tokio::spawn(async move { server.serve_with_incoming_shutdown(front, incoming, stopping.wait()).await });
    Port { health, served }
}

impl Port {
    /// Says through `grpc.health.v1` whether the node serves.
    pub async fn announce(&self, serving: bool) {
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in ["", APPROVALS_SERVICE] {
            self.health.set_service_status(service, status).await;
        }
    }

    /// Waits until the last connection ended.
    pub async fn drained(self) {
        match self.served.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!("gRPC: the server ended: {error}"),
            Err(error) => tracing::error!("gRPC: the server ended: {error}"),
        }
    }
}

async fn open(tcp: TcpStream, acceptor: Option<TlsAcceptor>, metrics: Arc<Metrics>) -> io::Result<Connection> {
    let mut connection = Connection { stream: Stream::Plain(tcp), certificate: PeerCertificate(None), metrics };
    let patience = Duration::from_secs(FIRST_BYTE_SECONDS_MAX);
    let Stream::Plain(tcp) = &connection.stream else { unreachable!("made plain above") };
    // Small answers go out at once: nothing here is worth a wait for more.
    tcp.set_nodelay(true)?;
    timeout(patience, tcp.readable()).await.map_err(|_| io::ErrorKind::TimedOut)??;
    let Some(acceptor) = acceptor else { return Ok(connection) };
    let Connection { stream: Stream::Plain(tcp), .. } = &mut connection else { unreachable!("made plain above") };
    let tcp = std::mem::replace(tcp, unconnected()?);
    let tls = timeout(patience, acceptor.accept(tcp)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    let certificates = tls.get_ref().1.peer_certificates();
    let first = certificates.and_then(|all| all.first());
    connection.certificate = PeerCertificate(first.map(|certificate| Arc::from(certificate.as_ref())));
    connection.stream = Stream::Tls(Box::new(tls));
    Ok(connection)
}

/// A place holder while TLS has the socket.
fn unconnected() -> io::Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    TcpStream::from_std(socket.into())
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.metrics.front.connections.subtract(1);
    }
}

impl Connected for Connection {
    type ConnectInfo = PeerCertificate;

    fn connect_info(&self) -> PeerCertificate {
        self.certificate.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(context, into),
            Stream::Tls(stream) => Pin::new(stream).poll_read(context, into),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(context),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
