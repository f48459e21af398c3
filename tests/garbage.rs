//! Garbage on both ports, and a thousand connections: the node goes on serving, and its memory stays bounded.

use crate::support::approvals::{Client, request};
use crate::support::{Node, PATIENCE, exchange};
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What all this may cost beyond the node at rest.
const GROWTH_MAX: u64 = 200 << 20;

/// Resident memory in bytes.
fn resident(node: &Node) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number") << 10
}

async fn assert_serves(node: &Node, number: u64) {
    let served = async {
        let mut client = Client::of(node).await;
        client.open(request(number, 1, 1)).await.expect("it serves");
    };
    tokio::time::timeout(PATIENCE, served).await.expect("it answers");
    // Beyond its limit the window closes connections at once, until those that say nothing have had their time.
    let begun = Instant::now();
    while !exchange(node.http(), b"GET /healthz HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").contains(" 200 ")
    {
        assert!(begun.elapsed() < PATIENCE, "the window does not come back");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Sends what the other side takes, and reads what it says until it closes or is silent.
fn throw(address: SocketAddr, bytes: &[u8]) {
    let Ok(mut stream) = TcpStream::connect(address) else { panic!("it listens") };
    stream.set_write_timeout(Some(Duration::from_secs(2))).expect("a socket takes a timeout");
    stream.set_read_timeout(Some(Duration::from_millis(50))).expect("a socket takes a timeout");
    // Refused in the middle is as good as taken.
    let _ = stream.write_all(bytes);
    let mut answer = [0; 4096];
    let _ = stream.read(&mut answer);
}

fn frame(length: u32, kind: u8, flags: u8, stream: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(body);
    bytes
}

#[tokio::test]
async fn garbage_and_huge_frames_are_survived() {
    let node = Node::start(&[]);
    assert_serves(&node, 1).await;
    let before = resident(&node);
    let seed = rand::random();
    println!("seed {seed}");
    let mut rng = SmallRng::seed_from_u64(seed);
    for round in 0..40 {
        let mut bytes = vec![0; rng.random_range(1..200_000)];
        rng.fill_bytes(&mut bytes);
        let begin: &[u8] = [&b""[..], PREFACE, b"GET / HTTP/1.1\r\n", b"\x16\x03\x01"][round % 4];
        let thrown = [begin, &bytes].concat();
        throw(node.grpc(), &thrown);
        throw(node.http(), &thrown);
    }
    let settings = frame(0, 4, 0, 0, b"");
    let body = vec![0x41; 4 << 20];
    for huge in [
        frame((1 << 24) - 1, 0, 0, 1, &body),
        frame((1 << 24) - 1, 1, 4, 1, &body),
        // Headers without an end, and a flood of settings and pings.
        [frame(16_384, 1, 0, 1, &body[..16_384]), frame(16_384, 9, 0, 1, &body[..16_384]).repeat(200)].concat(),
        settings.repeat(100_000),
        frame(8, 6, 0, 0, &[7; 8]).repeat(100_000),
        frame(4, 3, 0, 1, &[0; 4]).repeat(1_000),
    ] {
        for _ in 0..8 {
            throw(node.grpc(), &[PREFACE, &settings, &huge].concat());
        }
    }
    // A head that never ends.
    throw(node.http(), &[b"GET / HTTP/1.1\r\nX: ", &body[..]].concat());
    assert_serves(&node, 2).await;
    let growth = resident(&node).saturating_sub(before);
    assert!(growth < GROWTH_MAX, "memory grew by {growth} bytes");
}

#[tokio::test]
async fn a_thousand_connections_on_both_ports_leave_it_serving() {
    let node = Node::start(&[]);
    assert_serves(&node, 1).await;
    let before = resident(&node);
    let mut held = Vec::new();
    for number in 0..1_000 {
        for address in [node.grpc(), node.http()] {
            let mut stream = TcpStream::connect(address).expect("it listens");
            // Half of them say half of what they should, the others nothing.
            if number % 2 == 0 {
                let _ = stream.write_all(if address == node.grpc() { &PREFACE[..10] } else { b"GET /metr" });
            }
            held.push(stream);
        }
    }
    assert_serves(&node, 2).await;
    let growth = resident(&node).saturating_sub(before);
    assert!(growth < GROWTH_MAX, "memory grew by {growth} bytes");
    drop(held);
    assert_serves(&node, 3).await;
}
