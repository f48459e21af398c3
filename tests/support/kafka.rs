//! A real Apache Kafka: one broker for all tests, or one of its own for a test that kills it.
//!
//! Its jars are in the build folder, fetched by Maven once (`tests/run` does that; so does the first
//! test that needs them). A broker is the child of a shell that ends it when this process ends.

use super::folder;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Headers;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A broker on a busy machine, after a kill.
const STARTS_WITHIN: Duration = Duration::from_secs(90);
const READS_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);
const JARS: &str = "kafka-4.1.1";

/// Starts what its arguments name, says its id, ends it when stdin closes; the last argument is its folder
/// when that is to go too.
const KEEPER: &str = r#"folder=$1; shift
"$@" >"$folder/log" 2>&1 </dev/null & pid=$!
echo $pid
cat >/dev/null
kill -9 $pid 2>/dev/null
wait $pid 2>/dev/null
[ -z "$REMOVE" ] || rm -rf "$folder""#;

/// One broker; killed when dropped.
pub struct Broker {
    folder: Arc<TempDir>,
    port: u16,
    running: Option<Running>,
}

struct Running {
    keeper: Child,
    pid: u32,
}

impl Broker {
    /// One of its own, that clients find at its own port.
    pub fn start() -> Broker {
        let mut broker = Broker::prepare(None);
        broker.launch();
        broker
    }

    /// Ports and a folder, and no process yet. Clients find it at `advertised` (of a proxy to the port it is told) once they ask the broker itself.
    pub fn prepare(advertised: Option<&dyn Fn(u16) -> u16>) -> Broker {
        let (port, controller) = (free_port(), free_port());
        let advertised = advertised.map_or(port, |proxy| proxy(port));
        let folder = folder();
        let data = folder.path().join("data");
        let text = format!(
            "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{advertised}\ncontroller.listener.names=CONTROLLER\n\
             log.dirs={}\noffsets.topic.replication.factor=1\noffsets.topic.num.partitions=1\n\
             transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
             transaction.state.log.num.partitions=2\ngroup.initial.rebalance.delay.ms=0\nnum.partitions=1\n",
            data.display()
        );
        let settings = folder.path().join("server.properties");
        std::fs::write(&settings, text).expect("the folder is ours");
        let formatted = java(&["kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c"])
            .arg(&settings)
            .output()
            .expect("java runs (apt-get install default-jre-headless)");
        assert!(formatted.status.success(), "{}", String::from_utf8_lossy(&formatted.stderr));
        Broker { folder: Arc::new(folder), port, running: None }
    }

    /// Starts what was prepared or killed; returns when it answers.
    pub fn launch(&mut self) {
        self.launch_as("");
        let deadline = Instant::now() + STARTS_WITHIN;
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < deadline, "the broker does not answer:\n{}", self.log());
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn launch_as(&mut self, remove: &str) {
        let java = java(&["kafka.Kafka"]);
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(self.folder.path())
            .arg(java.get_program())
            .args(java.get_args())
            .arg(self.folder.path().join("server.properties"))
            .env("REMOVE", remove)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell runs");
        let mut said = String::new();
        let stdout = keeper.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut said).expect("the keeper says the broker's id");
        self.running = Some(Running { keeper, pid: said.trim().parse().expect("an id") });
    }

    /// kill -9.
    pub fn kill(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        let kill = Command::new("kill").args(["-9", &running.pid.to_string()]).status();
        assert!(kill.is_ok_and(|status| status.success()), "the broker was gone already:\n{}", self.log());
        drop(running.keeper.stdin.take());
        running.keeper.wait().expect("it is our child");
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take() {
            drop(running.keeper.stdin.take());
            let _ended = running.keeper.wait();
        }
    }
}

/// The broker that tests share, and a topic prefix of the caller's own.
pub fn shared() -> (String, String) {
    static BROKER: LazyLock<Mutex<Broker>> = LazyLock::new(|| {
        let mut broker = Broker::prepare(None);
        // Nobody drops it: its keeper removes the folder when this process ends.
        broker.launch_as("yes");
        Mutex::new(broker)
    });
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let broker = BROKER.lock().unwrap_or_else(PoisonError::into_inner);
    let deadline = Instant::now() + STARTS_WITHIN;
    while TcpStream::connect(("127.0.0.1", broker.port)).is_err() {
        assert!(Instant::now() < deadline, "the broker does not answer:\n{}", broker.log());
        std::thread::sleep(LOOK_EVERY);
    }
    (broker.address(), format!("t{}-", NEXT.fetch_add(1, Ordering::Relaxed)))
}

/// A record as a consumer sees it.
#[derive(Debug)]
pub struct Record {
    pub partition: i32,
    pub key: String,
    pub value: Vec<u8>,
    pub headers: Vec<(String, String)>,
}

impl Record {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Everything that a read_committed consumer gets from the topic, each partition in its order.
pub fn committed(brokers: &str, topic: &str) -> Vec<Record> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "reader")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .create()
        .expect("a consumer");
    let metadata = consumer.fetch_metadata(Some(topic), READS_WITHIN).expect("the broker answers");
    let partitions = metadata.topics()[0].partitions().len();
    assert!(partitions > 0, "{topic} is not there");
    let mut places = TopicPartitionList::new();
    for partition in 0..partitions {
        places.add_partition_offset(topic, partition as i32, Offset::Beginning).expect("a place");
    }
    consumer.assign(&places).expect("assigned");
    let (mut records, mut ended) = (Vec::new(), HashSet::new());
    let deadline = Instant::now() + READS_WITHIN;
    while ended.len() < partitions {
        assert!(Instant::now() < deadline, "{topic}: {ended:?} of {partitions} partitions were read to their end");
        match consumer.poll(LOOK_EVERY) {
            None => {}
            Some(Err(KafkaError::PartitionEOF(partition))) => drop(ended.insert(partition)),
            Some(Err(error)) => panic!("{topic}: {error}"),
            Some(Ok(record)) => {
                let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
                let headers = record.headers().into_iter().flat_map(|headers| headers.iter());
                records.push(Record {
                    partition: record.partition(),
                    key: text(record.key()),
                    value: record.payload().unwrap_or_default().to_vec(),
                    headers: headers.map(|header| (header.key.into(), text(header.value))).collect(),
                });
            }
        }
    }
    records
}

/// What the broker's own tool says of that many records of 100 bytes, lz4, acks=all.
pub fn producer_performance(brokers: &str, topic: &str, records: u64) -> String {
    let tool = java(&["org.apache.kafka.tools.ProducerPerformance", "--topic", topic, "--throughput", "-1"])
        .args(["--record-size", "100", "--num-records", &records.to_string(), "--producer-props"])
        .args([&format!("bootstrap.servers={brokers}"), "acks=all", "compression.type=lz4"])
        .output()
        .expect("java runs");
    let said = String::from_utf8_lossy(&tool.stdout).into_owned();
    assert!(tool.status.success(), "{said}{}", String::from_utf8_lossy(&tool.stderr));
    said.lines().last().unwrap_or_default().into()
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("it is bound").port()
}

/// A class of Kafka's.
fn java(arguments: &[&str]) -> Command {
    let mut command = Command::new("java");
    command.args(["-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]);
    command.arg("-cp").arg(format!("{}/*", jars().display())).args(arguments);
    command
}

fn jars() -> &'static Path {
    static JARS_FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
        let build = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it lies in the build's folder");
        let (jars, part) = (build.join(JARS), build.join(format!("{JARS}.{}", std::process::id())));
        if !jars.exists() {
            let fetched = Command::new("mvn")
                .args(["-q", "-B", "-f", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/kafka/pom.xml")])
                .arg("dependency:copy-dependencies")
                .arg(format!("-DoutputDirectory={}", part.display()))
                .status()
                .expect("Maven runs (apt-get install maven)");
            assert!(fetched.success(), "Maven could not fetch Apache Kafka");
            // Another process may have been faster: its jars are the same.
            if std::fs::rename(&part, &jars).is_err() {
                std::fs::remove_dir_all(&part).expect("it is ours");
            }
        }
        jars
    });
    &JARS_FOLDER
}
