//! A TCP proxy that cuts its connections at a byte: a network that fails at the worst moment.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

/// Which way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    ToServer,
    ToClient,
}

#[derive(Default)]
struct Limits {
    /// Bytes still let through; `u64::MAX`: all.
    to_server: AtomicU64,
    to_client: AtomicU64,
    closed: AtomicBool,
}

/// Ends with its listener when dropped; what it carries is cut then.
pub struct Proxy {
    address: SocketAddr,
    limits: Arc<Limits>,
}

impl Proxy {
    /// To this port of 127.0.0.1.
    pub fn to(port: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let limits = Arc::new(Limits::default());
        limits.to_server.store(u64::MAX, Ordering::SeqCst);
        limits.to_client.store(u64::MAX, Ordering::SeqCst);
        let shared = Arc::clone(&limits);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if shared.closed.load(Ordering::SeqCst) {
                    return;
                }
                // A server that is down: the client's connection is closed at once.
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                carry(client, server, &shared);
            }
        });
        Proxy { address, limits }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// From now on `bytes` more go this way, over all connections; then both ends are cut, and so is
    /// each new connection, until [`Proxy::mend`].
    pub fn cut_after(&self, way: Way, bytes: u64) {
        self.limit(way).store(bytes, Ordering::SeqCst);
    }

    pub fn mend(&self) {
        self.cut_after(Way::ToServer, u64::MAX);
        self.cut_after(Way::ToClient, u64::MAX);
    }

    fn limit(&self, way: Way) -> &AtomicU64 {
        limit(&self.limits, way)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.limits.closed.store(true, Ordering::SeqCst);
        self.cut_after(Way::ToServer, 0);
        // Wakes the listener.
        let _ = TcpStream::connect(self.address);
    }
}

fn limit(limits: &Limits, way: Way) -> &AtomicU64 {
    match way {
        Way::ToServer => &limits.to_server,
        Way::ToClient => &limits.to_client,
    }
}

fn carry(client: TcpStream, server: TcpStream, limits: &Arc<Limits>) {
    for way in [Way::ToServer, Way::ToClient] {
        let (client, server) = (client.try_clone().expect("a socket"), server.try_clone().expect("a socket"));
        let limits = Arc::clone(limits);
        thread::spawn(move || {
            let (mut from, mut to) = if way == Way::ToServer { (&client, &server) } else { (&server, &client) };
            let mut bytes = [0; 16 << 10];
            while let Ok(read @ 1..) = from.read(&mut bytes) {
                let left = &limit(&limits, way);
                let take =
                    |left: u64| if left == u64::MAX { Some(left) } else { Some(left.saturating_sub(read as u64)) };
                let before = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).expect("always some");
                let passes = usize::try_from(before).unwrap_or(usize::MAX).min(read);
                if to.write_all(&bytes[..passes]).is_err() || passes < read {
                    break;
                }
            }
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.shutdown(Shutdown::Both);
        });
    }
}
