//! A real node on free ports in a folder of its own, and hands to use it with.
//!
//! [`Node`] is the real binary as a child process. It always ends with its `Node`, also when the
//! test panics, and is ended by its own id, never by name.

use serde::Deserialize;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a node may take to start, recovery included, and to stop.
pub const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A folder on the disk that the build uses (not in memory, so that syncs and O_DIRECT are real),
/// gone when dropped.
pub fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the build's folder can be written")
}

/// The real binary, with nothing of the caller's own settings. `PROMISES_BINARY=PATH` takes another build of it.
pub fn assent() -> Command {
    let built = || env!("CARGO_BIN_EXE_assent").into();
    let mut command = Command::new(std::env::var_os("PROMISES_BINARY").unwrap_or_else(built));
    let ours = |name: &str| name.starts_with("ASSENT_") || ["KAFKA_BROKERS", "DB_URL"].contains(&name);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(ours)) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// What a command said and how it ended.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs `assent` with these arguments to its end, in `folder`.
pub fn run(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Said {
    let output = assent()
        .args(arguments)
        .envs(environment.iter().copied())
        .current_dir(folder)
        .output()
        .expect("the binary runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it writes UTF-8");
    Said { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// The ready file.
#[derive(Clone, Debug, Deserialize)]
struct Ready {
    grpc: SocketAddr,
    http: SocketAddr,
    pid: u32,
}

/// A node that serves, or did until it was killed or stopped.
pub struct Node {
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    folder: Arc<TempDir>,
    process: Option<Process>,
    ready: Option<Ready>,
}

struct Process {
    child: Child,
    stderr: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

/// A node that ended instead of serving.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stderr: String,
}

impl Node {
    /// On a new folder, with these arguments behind `serve --data … --grpc … --http …`.
    pub fn start(arguments: &[&str]) -> Node {
        Node::start_on(Arc::new(folder()), arguments)
    }

    /// On this folder (the data lies in `data` below it).
    pub fn start_on(folder: Arc<TempDir>, arguments: &[&str]) -> Node {
        Node::try_start_on(folder, arguments).unwrap_or_else(|ended| {
            panic!("the node ended with {:?} instead of serving:\n{}", ended.code, ended.stderr)
        })
    }

    /// As [`Node::start_on`], for a node that may well refuse to start.
    pub fn try_start_on(folder: Arc<TempDir>, arguments: &[&str]) -> Result<Node, Ended> {
        Node::try_start_with(folder, arguments, &[])
    }

    /// As [`Node::try_start_on`], with these variables in its environment, at each restart too.
    pub fn try_start_with(
        folder: Arc<TempDir>,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Node, Ended> {
        let arguments = arguments.iter().map(|argument| argument.to_string()).collect();
        let environment = environment.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let mut node = Node { arguments, environment, folder, process: None, ready: None };
        node.spawn()?;
        Ok(node)
    }

    /// The same folder and arguments again, after a kill or a stop; ports are new.
    pub fn restart(&mut self) {
        let started = self.spawn();
        started.unwrap_or_else(|ended| panic!("the node did not come back ({:?}):\n{}", ended.code, ended.stderr));
    }

    /// The same folder with other arguments.
    pub fn restart_with(&mut self, arguments: &[&str]) {
        self.arguments = arguments.iter().map(|argument| argument.to_string()).collect();
        self.restart();
    }

    fn spawn(&mut self) -> Result<(), Ended> {
        assert!(self.process.is_none(), "the node still runs");
        let ready_file = self.folder.path().join("ready.json");
        // The one of the last process says nothing of this one. Missing is as good as removed.
        let _ = std::fs::remove_file(&ready_file);
        let mut command = assent();
        command.arg("serve").arg("--data").arg(self.data()).args(["--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
        command.arg("--ready-file").arg(&ready_file).args(&self.arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary runs");
        let stderr = Arc::new(Mutex::new(String::new()));
        let lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let text = Arc::clone(&stderr);
        let reader = thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut text = text.lock().expect("nobody panics with it");
                text.push_str(&line);
                text.push('\n');
            }
        });
        self.process = Some(Process { child, stderr, reader: Some(reader) });

        let deadline = Instant::now() + PATIENCE;
        loop {
            let process = self.process.as_mut().expect("it was just started");
            if let Some(status) = process.child.try_wait().expect("it is our child") {
                return Err(self.reap(status));
            }
            // It is renamed into place, so it is whole when it is there.
            let text = std::fs::read_to_string(&ready_file).ok();
            if let Some(ready) = text.and_then(|text| serde_json::from_str::<Ready>(&text).ok()) {
                assert_eq!(ready.pid, process.child.id(), "the ready file is this process's");
                self.ready = Some(ready);
                return Ok(());
            }
            assert!(Instant::now() < deadline, "the node is not ready after {PATIENCE:?}:\n{}", self.stderr());
            thread::sleep(LOOK_EVERY);
        }
    }

    /// The data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The folder that holds the data folder, to start another node on it.
    pub fn folder(&self) -> Arc<TempDir> {
        Arc::clone(&self.folder)
    }

    pub fn grpc(&self) -> SocketAddr {
        self.ready.as_ref().expect("the node runs").grpc
    }

    pub fn http(&self) -> SocketAddr {
        self.ready.as_ref().expect("the node runs").http
    }

    /// For `--endpoint`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.grpc())
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the node runs").child.id()
    }

    /// A new connection, for any generated client.
    pub async fn channel(&self) -> tonic::transport::Channel {
        let endpoint = tonic::transport::Endpoint::from_shared(self.endpoint()).expect("an address and a port");
        endpoint.connect_timeout(PATIENCE).connect().await.expect("the node listens")
    }

    /// What it wrote to stderr so far.
    pub fn stderr(&self) -> String {
        let process = self.process.as_ref().expect("the node runs");
        process.stderr.lock().expect("nobody panics with it").clone()
    }

    /// Waits until stderr holds this text.
    pub fn wait_for_line(&self, part: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.stderr().contains(part) {
            assert!(Instant::now() < deadline, "the node never said {part:?}:\n{}", self.stderr());
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Status and body of `GET path` on the window.
    pub fn get(&self, path: &str) -> (u16, String) {
        get(self.http(), path)
    }

    /// One sample of /metrics: `assent_votes_accepted_total{shard="0"}`.
    pub fn metric(&self, sample: &str) -> f64 {
        let (_, page) = self.get("/metrics");
        let line = page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no sample {sample} in\n{page}")).parse().expect("a number")
    }

    /// Waits until that sample is as wished, and gives it.
    pub fn wait_for(&self, sample: &str, is_so: impl Fn(f64) -> bool) -> f64 {
        self.wait_for_within(PATIENCE, sample, is_so)
    }

    pub fn wait_for_within(&self, patience: Duration, sample: &str, is_so: impl Fn(f64) -> bool) -> f64 {
        let deadline = Instant::now() + patience;
        loop {
            let value = self.metric(sample);
            if is_so(value) {
                return value;
            }
            assert!(Instant::now() < deadline, "{sample} is still {value} after {patience:?}:\n{}", self.stderr());
            thread::sleep(LOOK_EVERY * 10);
        }
    }

    /// kill -9, and the end awaited. Gives what it wrote to stderr.
    pub fn kill(&mut self) -> Ended {
        let process = self.process.as_mut().expect("the node runs");
        process.child.kill().expect("it is our child");
        let status = process.child.wait().expect("it is our child");
        self.reap(status)
    }

    /// SIGTERM; the end comes later, see [`Node::wait`].
    pub fn terminate(&self) {
        let id = libc::pid_t::try_from(self.pid()).expect("ids are small");
        // SAFETY: a signal to a child that was not awaited yet: the id is still its own.
        let sent = unsafe { libc::kill(id, libc::SIGTERM) };
        assert_eq!(sent, 0, "{}", std::io::Error::last_os_error());
    }

    /// Waits for the node to end by itself.
    pub fn wait(&mut self) -> Ended {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let process = self.process.as_mut().expect("the node runs");
            if let Some(status) = process.child.try_wait().expect("it is our child") {
                return self.reap(status);
            }
            assert!(Instant::now() < deadline, "the node does not end:\n{}", self.stderr());
            thread::sleep(LOOK_EVERY);
        }
    }

    /// SIGTERM, and exit code 0 expected.
    pub fn stop(&mut self) -> Ended {
        self.terminate();
        let ended = self.wait();
        assert_eq!(ended.code, Some(0), "after SIGTERM:\n{}", ended.stderr);
        ended
    }

    fn reap(&mut self, status: ExitStatus) -> Ended {
        let mut process = self.process.take().expect("it was running");
        self.ready = None;
        // The pipe is closed with the process: the reader ends after the last line.
        process.reader.take().expect("it is joined once").join().expect("it only collects lines");
        let stderr = process.stderr.lock().expect("nobody panics with it").clone();
        Ended { code: status.code(), stderr }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            // Ended already is as good; and whoever panics wants to know what the node said.
            let _ = process.child.kill();
            let _ = process.child.wait();
            if thread::panicking() {
                eprintln!(
                    "---- the node's stderr\n{}----",
                    process.stderr.lock().map(|text| text.clone()).unwrap_or_default()
                );
            }
        }
    }
}

/// Status and body of `GET path`.
pub fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let answer =
        exchange(address, format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").as_bytes());
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP answer: {answer:?}"));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line");
    (status, body.to_string())
}

/// Sends bytes and reads until the other side closes.
pub fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes a timeout");
    // The server may close before it has read everything: what it answered still counts.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}
