//! A node of the run's own: a child process on free ports with a fresh data folder, ended with it.

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const START_SECONDS_MAX: u64 = 60;
/// The node answers what is in flight and exits within 10 s; then some.
const STOP_SECONDS_MAX: u64 = 20;

/// What `serve --ready-file` writes once it serves.
#[derive(Debug, Deserialize)]
struct Ready {
    grpc: String,
}

#[derive(Debug)]
pub struct Node {
    child: Child,
    folder: PathBuf,
    pub endpoint: String,
}

impl Node {
    /// Starts `serve` of this very program in a new folder under `data`, and waits until it serves.
    pub fn start(data: &Path, serve_args: &[String]) -> anyhow::Result<Node> {
        let folder = fresh_folder(data)?;
        let (ready, log) = (folder.join("ready.json"), folder.join("node.log"));
        let log_file = File::create(&log)?;
        let child = Command::new(std::env::current_exe()?)
            .arg("serve")
            .arg("--data")
            .arg(folder.join("data"))
            .args(["--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--ready-file"])
            .arg(&ready)
            .args(serve_args)
            .stdin(Stdio::null())
            .stdout(log_file.try_clone()?)
            .stderr(log_file)
            .spawn()?;
        let mut node = Node { child, folder, endpoint: String::new() };
        let started = Instant::now();
        loop {
            if let Ok(text) = fs::read_to_string(&ready) {
                let ready: Ready = serde_json::from_str(&text)?;
                node.endpoint = format!("http://{}", ready.grpc);
                return Ok(node);
            }
            if let Some(status) = node.child.try_wait()? {
                anyhow::bail!("the node ended with {status} before it served; its last words:\n{}", tail(&log));
            }
            if started.elapsed() > Duration::from_secs(START_SECONDS_MAX) {
                anyhow::bail!("the node does not serve after {START_SECONDS_MAX} s; its last words:\n{}", tail(&log));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// SIGTERM, and its folder removed where it ended well.
    pub fn stop(mut self) -> anyhow::Result<()> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM)?;
        let asked = Instant::now();
        let status = loop {
            match self.child.try_wait()? {
                Some(status) => break status,
                None if asked.elapsed() > Duration::from_secs(STOP_SECONDS_MAX) => {
                    anyhow::bail!("the node did not end within {STOP_SECONDS_MAX} s of SIGTERM: killed");
                }
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        anyhow::ensure!(
            status.success(),
            "the node ended with {status}; its last words:\n{}",
            tail(&self.folder.join("node.log"))
        );
        fs::remove_dir_all(&self.folder)?;
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // After `stop` it is gone already; otherwise nobody waits for a clean end. Errors: it is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn fresh_folder(data: &Path) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(data)?;
    for number in 0u32.. {
        let folder = data.join(format!("load-{}-{number}", std::process::id()));
        match fs::create_dir(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => anyhow::bail!("{}: {error}", folder.display()),
        }
    }
    unreachable!("u32 has room for another folder")
}

/// The last lines of a log.
fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}
