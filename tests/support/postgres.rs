//! A real PostgreSQL on a free port in a folder of its own, and databases on it.
//!
//! [`database`] is a fresh database on a server that is started once, by the first test that needs one.
//! [`Server`] is one that a test may kill. A server is ended by its id with its `Server`, also when a test
//! panics; the shared one when the process ends. As root its programs run as `postgres`: it refuses root.

use assent::store::db_url::DbUrl;
use assent::store::postgres::{Postgres, PostgresOptions};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const START: Duration = Duration::from_secs(30);

/// A server with its data folder.
pub struct Server {
    port: u16,
    folder: TempDir,
    settings: Vec<String>,
    file_bytes_max: Option<u64>,
    postmaster: Option<Child>,
}

/// A database on a server that lives longer.
#[derive(Clone)]
pub struct Database {
    pub port: u16,
    pub name: String,
}

/// A fresh database on the shared server, its user `postgres`.
pub fn database() -> Database {
    static SHARED: OnceLock<(Server, Child)> = OnceLock::new();
    SHARED
        .get_or_init(|| {
            let server = Server::start(&["fsync=off", "max_connections=200"]);
            let watch = end_with_process(&server);
            (server, watch)
        })
        .0
        .database()
}

/// A static is never dropped: a watching process ends the server and removes its folder when this
/// process is gone, however it ended.
fn end_with_process(server: &Server) -> Child {
    let postmaster = server.postmaster.as_ref().expect("it runs").id();
    let script = "read _; kill -INT $0 2>/dev/null; \
        for i in 1 2 3 4 5 6 7 8 9 10; do kill -0 $0 2>/dev/null || break; sleep 0.2; done; rm -rf \"$1\"";
    let mut watch = as_postgres("sh");
    watch.args(["-c", script, &postmaster.to_string()]).arg(server.folder.path());
    // Its pipe's end closes with this process.
    watch.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("sh is there")
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn as_postgres(program: impl AsRef<std::ffi::OsStr>) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]).arg(program);
    command
}

/// The folder of `initdb` and `postgres`: the newest that is installed.
fn programs() -> PathBuf {
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten() {
        let version = entry.file_name().to_string_lossy().parse().unwrap_or(0);
        found.push((version, entry.path().join("bin")));
    }
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
        found.push((1, String::from_utf8_lossy(&output.stdout).trim().into()));
    }
    found.retain(|(_, folder)| folder.join("initdb").exists() && folder.join("postgres").exists());
    found.sort();
    found.pop().expect("PostgreSQL's server programs are missing: `tests/run` installs them").1
}

fn own(path: &Path) {
    if is_root() {
        let done = Command::new("chown").arg("-R").arg("postgres:postgres").arg(path).status();
        assert!(done.is_ok_and(|status| status.success()), "the folder can be given to postgres");
    }
}

impl Server {
    /// With these settings beside its own (`name=value`).
    pub fn start(settings: &[&str]) -> Server {
        Server::start_with(settings, None)
    }

    /// One that cannot make a file longer than this: its disk is full, as far as it can see.
    pub fn start_with_file_limit(bytes: u64) -> Server {
        Server::start_with(&[], Some(bytes))
    }

    fn start_with(settings: &[&str], file_bytes_max: Option<u64>) -> Server {
        // Not below the build's folder, which `postgres` may not be able to enter.
        let folder = tempfile::Builder::new().prefix("assent-postgres-").tempdir().expect("a folder");
        own(folder.path());
        let data = folder.path().join("data");
        let init = as_postgres(programs().join("initdb"))
            .arg("-D")
            .arg(&data)
            .args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync"])
            .current_dir(folder.path())
            .output()
            .expect("initdb runs");
        assert!(init.status.success(), "initdb: {}", String::from_utf8_lossy(&init.stderr));
        let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
        let settings = settings.iter().map(|setting| setting.to_string()).collect();
        let mut server = Server { port, folder, settings, file_bytes_max, postmaster: None };
        server.resume();
        server
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Puts a file into its data folder, as its own.
    pub fn put(&self, name: &str, content: &[u8]) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.data().join(name);
        std::fs::write(&path, content).expect("the folder can be written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("it is there");
        own(&path);
    }

    /// From its next start on.
    pub fn configure(&mut self, setting: &str) {
        self.settings.push(setting.into());
    }

    /// Starts it after it was killed or stopped.
    pub fn resume(&mut self) {
        assert!(self.postmaster.is_none(), "it runs");
        let mut command = match self.file_bytes_max {
            None => as_postgres(programs().join("postgres")),
            Some(bytes) => {
                let mut limited = as_postgres("sh");
                // In blocks of 512 bytes (POSIX).
                limited.args(["-c", "ulimit -f $0 && exec \"$@\"", &(bytes / 512).to_string()]);
                limited.arg(programs().join("postgres"));
                limited
            }
        };
        command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string(), "-k"]).arg(self.folder.path());
        command.args(["-c", "listen_addresses=127.0.0.1"]);
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        command.current_dir(self.folder.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("postgres runs");
        // Its log is drained, and kept for the message when it does not start.
        let lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let log = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
        let kept = std::sync::Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut kept = kept.lock().expect("nobody panics with it");
                if kept.len() < 100_000 {
                    kept.push_str(&line);
                    kept.push('\n');
                }
            }
        });
        self.postmaster = Some(child);
        let until = Instant::now() + START;
        while self.try_run("postgres", "SELECT 1").is_err() {
            assert!(
                Instant::now() < until,
                "PostgreSQL did not start:\n{}",
                log.lock().expect("nobody panics with it")
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// kill -9 to the postmaster. Its children notice and end; so does whatever they had not made durable.
    pub fn kill(&mut self) {
        let mut child = self.postmaster.take().expect("it runs");
        child.kill().expect("it is ours");
        child.wait().expect("it is ours");
        // The next postmaster does not start while a child of this one still uses the shared memory; it
        // finds out by itself and is started again until then.
        self.wait_for_children();
    }

    /// As `pg_ctl stop -m immediate`: without a checkpoint, as after a crash.
    pub fn stop_immediately(&mut self) {
        let done = as_postgres(programs().join("pg_ctl"))
            .arg("-D")
            .arg(self.data())
            .args(["-m", "immediate", "-w", "stop"])
            .current_dir(self.folder.path())
            .stdout(Stdio::null())
            .status();
        assert!(done.is_ok_and(|status| status.success()), "pg_ctl stops it");
        self.postmaster.take().expect("it ran").wait().expect("it is ours");
    }

    /// Until no process of this data folder is left (they notice the postmaster's death by a pipe).
    fn wait_for_children(&self) {
        let until = Instant::now() + START;
        let data = self.data();
        let works_here = || {
            std::fs::read_dir("/proc").into_iter().flatten().flatten().any(|process| {
                process.file_name().to_string_lossy().parse::<u32>().is_ok()
                    && std::fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd == data)
            })
        };
        while works_here() {
            assert!(Instant::now() < until, "children of a killed postmaster live on");
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = std::fs::remove_file(data.join("postmaster.pid"));
    }

    pub fn database(&self) -> Database {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        self.try_run("postgres", &format!("CREATE DATABASE {name}")).expect("a database");
        Database { port: self.port, name }
    }

    fn try_run(&self, database: &str, sql: &str) -> Result<Vec<Vec<Option<String>>>, tokio_postgres::Error> {
        Database { port: self.port, name: database.into() }.try_run(sql)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.postmaster.take() {
            // Fast shutdown: the signal that the documentation gives it. By its id.
            let id = rustix::process::Pid::from_child(&child);
            let _ = rustix::process::kill_process(id, rustix::process::Signal::INT);
            let _ = child.wait();
        }
    }
}

impl Database {
    pub fn url(&self) -> String {
        self.url_as("postgres", "")
    }

    /// As this user; parameters begin with `?`.
    pub fn url_as(&self, user: &str, parameters: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/{}{parameters}", self.port, self.name)
    }

    pub fn options(&self) -> PostgresOptions {
        options(&self.url())
    }

    pub fn store(&self) -> Postgres {
        Postgres::open(self.options()).expect("good options")
    }

    /// Statements; the rows of each as text.
    pub fn run(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        self.try_run(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"))
    }

    /// The one value that the statement answers.
    pub fn value(&self, sql: &str) -> String {
        let rows = self.run(sql);
        assert_eq!((rows.len(), rows.first().map(Vec::len)), (1, Some(1)), "{sql}");
        rows[0][0].clone().unwrap_or_else(|| "NULL".into())
    }

    pub fn try_run(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>, tokio_postgres::Error> {
        // On a thread of its own: a test may be asynchronous.
        std::thread::scope(|scope| scope.spawn(|| self.run_blocking(sql)).join().expect("no panic"))
    }

    fn run_blocking(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>, tokio_postgres::Error> {
        let url = self.url();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await?;
            tokio::spawn(connection);
            let mut rows = Vec::new();
            for message in client.simple_query(sql).await? {
                if let tokio_postgres::SimpleQueryMessage::Row(row) = message {
                    rows.push((0..row.len()).map(|column| row.get(column).map(String::from)).collect());
                }
            }
            Ok(rows)
        })
    }
}

pub fn options(url: &str) -> PostgresOptions {
    PostgresOptions::new(DbUrl::parse(url, None, None).expect("a good URL"))
}
