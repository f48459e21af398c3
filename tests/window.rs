//! Liveness, readiness and metrics over HTTP, bounded against strangers; TLS with the right, the
//! wrong and no client certificate.

use crate::support::{exchange, folder, get};
use assent::health::Health;
use assent::http::{Options, Window, serve, tls};
use assent::metrics::{Identity, Metrics};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

/// A window of its own, without a node behind it.
struct Served {
    address: SocketAddr,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    stop: Option<oneshot::Sender<()>>,
    runtime: Runtime,
    task: Option<tokio::task::JoinHandle<()>>,
}

fn window(options: Options) -> Served {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let identity = Identity { version: "1.2.3", durability: "journal", shards: 1, started_at_seconds: 0.0 };
    let (health, metrics) = (Health::new(), Metrics::new(identity));
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let (stop, stopped) = oneshot::channel::<()>();
    let pages = Window { health: Arc::clone(&health), metrics: Arc::clone(&metrics) };
    let task = runtime.spawn(serve(listener, options, pages, async {
        let _ = stopped.await;
    }));
    Served { address, health, metrics, stop: Some(stop), runtime, task: Some(task) }
}

fn plain() -> Options {
    Options { connections_max: 64, header_timeout: Duration::from_secs(5), tls: None }
}

#[test]
fn ready_only_while_every_component_serves() {
    let served = window(plain());
    let shard = served.health.register("shard-0");
    assert_eq!(get(served.address, "/healthz"), (200, "ok\n".into()));
    let (status, body) = get(served.address, "/readyz");
    assert_eq!(status, 503);
    assert!(body.contains("\"shard-0\"") && body.contains("\"starting\""), "{body}");
    shard.serving();
    assert_eq!(get(served.address, "/readyz").0, 200);
    shard.degraded("slow disk");
    let (status, body) = get(served.address, "/readyz");
    assert_eq!(status, 200);
    assert!(body.contains("slow disk"), "{body}");
    shard.died("sync failed");
    assert_eq!((get(served.address, "/readyz").0, get(served.address, "/healthz").0), (503, 503));
}

#[test]
fn metrics_are_prometheus_text() {
    let served = window(plain());
    served.metrics.shard(0).votes_accepted.add(7);
    let (status, body) = get(served.address, "/metrics");
    assert_eq!(status, 200);
    assert!(body.contains("\nassent_votes_accepted_total{shard=\"0\"} 7\n"), "{body}");
    for line in body.lines().filter(|line| !line.starts_with('#')) {
        let (_, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
}

#[test]
fn other_paths_get_a_hint_and_other_methods_none() {
    let served = window(plain());
    let (status, body) = get(served.address, "/");
    assert_eq!(status, 404);
    assert!(body.contains("/healthz, /readyz and /metrics"), "{body}");
    let posted = exchange(
        served.address,
        b"POST /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    );
    assert!(posted.starts_with("HTTP/1.1 405"), "{posted}");
}

#[test]
fn a_head_without_end_is_refused() {
    let served = window(plain());
    let mut request = b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: ".to_vec();
    request.resize(1 << 20, b'a');
    let answer = exchange(served.address, &request);
    assert!(answer.starts_with("HTTP/1.1 431") || answer.is_empty(), "{answer}");
    assert_eq!(get(served.address, "/healthz").0, 200);
}

#[test]
fn garbage_and_half_open_connections_do_not_take_the_places() {
    let options = Options { connections_max: 4, header_timeout: Duration::from_millis(300), tls: None };
    let served = window(options);
    let answer = exchange(served.address, &[0xff; 4_096]);
    assert!(answer.starts_with("HTTP/1.1 400") || answer.is_empty(), "{answer}");
    // Four strangers that say nothing take every place …
    let mut silent: Vec<_> = (0..4).map(|_| TcpStream::connect(served.address).expect("it listens")).collect();
    let deadline = Instant::now() + Duration::from_secs(10);
    while served.metrics.window.connections.get() < 4 {
        assert!(Instant::now() < deadline, "they are accepted");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(exchange(served.address, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"), "", "the fifth is closed");
    assert!(served.metrics.window.connections_refused.get() >= 1);
    // … until their time is over.
    for stream in &mut silent {
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket takes a timeout");
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).expect("it is closed by the server");
    }
    while served.metrics.window.connections.get() > 0 {
        assert!(Instant::now() < deadline, "places are given back");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(get(served.address, "/healthz").0, 200);
}

#[test]
fn stops_when_told_though_a_client_lingers() {
    let mut served = window(plain());
    let _lingering = TcpStream::connect(served.address).expect("it listens");
    served.stop.take().expect("once").send(()).expect("it still serves");
    let task = served.task.take().expect("once");
    let ended = served.runtime.block_on(async { tokio::time::timeout(Duration::from_secs(5), task).await });
    ended.expect("within its time").expect("without a panic");
    assert!(TcpStream::connect(served.address).is_err(), "the port is free again");
}

/// An authority, and certificates that it signed, as PEM files.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("ring makes keys");
        Authority { issuer: CertifiedIssuer::self_signed(params, key).expect("it signs itself") }
    }

    /// Certificate and key for a name, written below `folder`.
    pub fn sign(&self, name: &str, folder: &Path, file: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().expect("ring makes keys");
        let params = CertificateParams::new(vec![name.to_string()]).expect("a legal name");
        let certificate = params.signed_by(&key, &self.issuer).expect("it signs");
        let paths = (folder.join(format!("{file}.pem")), folder.join(format!("{file}.key")));
        std::fs::write(&paths.0, certificate.pem()).expect("it is ours");
        std::fs::write(&paths.1, key.serialize_pem()).expect("it is ours");
        paths
    }

    pub fn write(&self, path: &Path) -> PathBuf {
        std::fs::write(path, self.issuer.pem()).expect("it is ours");
        path.into()
    }
}

/// `GET /healthz` over TLS: the answer, or why there was none.
fn get_tls(address: SocketAddr, authority: &Path, client: Option<&(PathBuf, PathBuf)>) -> Result<String, String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority).expect("PEM")).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("ring");
    let builder = builder.with_root_certificates(roots);
    let config = match client {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let chain = vec![CertificateDer::from_pem_file(cert).expect("PEM")];
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key).expect("PEM")).expect("they match")
        }
    };
    let name = ServerName::try_from("localhost").expect("a legal name");
    let connection = ClientConnection::new(Arc::new(config), name).expect("a legal configuration");
    let stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket takes a timeout");
    let mut stream = StreamOwned::new(connection, stream);
    let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request).map_err(|error| error.to_string())?;
    let mut answer = String::new();
    // A client whose certificate is refused learns it with the first read: that is TLS 1.3.
    match stream.read_to_string(&mut answer) {
        Err(error) if answer.is_empty() => Err(error.to_string()),
        _ => Ok(answer),
    }
}

#[test]
fn tls_takes_the_right_client_and_no_other() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let (ours, theirs) = (Authority::new(), Authority::new());
    let ca = ours.write(&path("ca.pem"));
    let (cert, key) = ours.sign("localhost", folder.path(), "server");
    let client = ours.sign("alice", folder.path(), "alice");
    let stranger = theirs.sign("alice", folder.path(), "stranger");
    let served = |client_ca: Option<&Path>| {
        let config = tls::load(&cert, &key, client_ca, &[b"http/1.1"]).expect("the files are good");
        window(Options { tls: Some(config), ..plain() })
    };

    let open = served(None);
    assert!(get_tls(open.address, &ca, None).expect("no client certificate is asked for").ends_with("ok\n"));
    let other_ca = theirs.write(&path("other-ca.pem"));
    get_tls(open.address, &other_ca, None).expect_err("a client does not trust another authority's server");
    assert_eq!(exchange(open.address, b"GET /healthz HTTP/1.1\r\n\r\n").find("200"), None, "plain text gets nothing");

    let mutual = served(Some(&ca));
    assert!(get_tls(mutual.address, &ca, Some(&client)).expect("the right certificate").ends_with("ok\n"));
    get_tls(mutual.address, &ca, None).expect_err("no certificate");
    get_tls(mutual.address, &ca, Some(&stranger)).expect_err("another authority's certificate");
}

#[test]
fn bad_tls_files_are_named_with_their_flag() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let authority = Authority::new();
    let ca = authority.write(&path("ca.pem"));
    let (cert, key) = authority.sign("localhost", folder.path(), "server");
    let (_, other_key) = authority.sign("localhost", folder.path(), "other");
    std::fs::write(path("empty"), "").expect("it is ours");
    std::fs::write(path("broken"), "-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----\n")
        .expect("it is ours");
    let check = |cert: &Path, key: &Path, ca: &Path, parts: &[&str]| {
        let error = tls::load(cert, key, Some(ca), &[]).expect_err("it must not load").to_string();
        parts.iter().for_each(|part| assert!(error.contains(part), "{error:?} does not say {part:?}"));
    };
    check(&path("none"), &key, &ca, &["--tls-cert", "none", "cannot be read"]);
    check(&path("empty"), &key, &ca, &["--tls-cert", "holds no certificate"]);
    check(&path("broken"), &key, &ca, &["--tls-cert", "not PEM"]);
    check(&cert, &path("empty"), &ca, &["--tls-key", "holds no private key"]);
    check(&cert, &other_key, &ca, &["--tls-key", "does not belong"]);
    check(&cert, &key, &path("empty"), &["--tls-client-ca", "holds no certificate"]);
    tls::load(&cert, &key, Some(&ca), &[b"h2"]).expect("the files are good");
}
