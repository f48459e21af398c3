"""Apache Kafka on this machine: one broker, started fresh, and its own tools."""
import os, re, signal, subprocess, time, socket
from contextlib import contextmanager
from pathlib import Path

from peers import Missing, call, free_port, program, stop

ROOT = Path(__file__).resolve().parent.parent.parent
# Where the tests have it too: tests/run fetches it.
JARS = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "kafka-4.1.1"
BROKER_HEAP, TOOL_HEAP = "1g", "512m"
PARTITIONS = 6
SETTINGS = """process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
log.dirs={folder}/data
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
"""


class Kafka:
    def __init__(self, folder):
        self.java, self.folder, self.port = program("java"), folder, free_port()
        if not JARS.is_dir():
            raise Missing("Apache Kafka is not in the build's folder (tests/run fetches it)")
        self.address, self.version = f"127.0.0.1:{self.port}", f"Apache {JARS.name}"

    def command(self, heap, name, *args):
        return [self.java, "-Xms256m", f"-Xmx{heap}", "-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
                "-cp", f"{JARS}/*", name, *map(str, args)]

    def tool(self, name, *args):
        return call(self.command(TOOL_HEAP, name, *args))

    @contextmanager
    def running(self):
        settings = Path(self.folder) / "server.properties"
        settings.write_text(SETTINGS.format(port=self.port, controller=free_port(), folder=self.folder))
        self.tool("kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c", settings)
        with open(f"{self.folder}/log", "w") as log:
            child = subprocess.Popen(self.command(BROKER_HEAP, "kafka.Kafka", settings), stdout=log, stderr=log)
        try:
            for _ in range(600):
                if child.poll() is not None:
                    raise RuntimeError(Path(f"{self.folder}/log").read_text()[-400:])
                with socket.socket() as client:
                    if not client.connect_ex(("127.0.0.1", self.port)):
                        break
                time.sleep(0.1)
            else:
                raise RuntimeError("the broker does not answer")
            yield self
        finally:
            # What it holds is thrown away.
            stop(child, signal.SIGKILL)

    def make_topic(self, topic):
        self.tool("org.apache.kafka.tools.TopicCommand", "--bootstrap-server", self.address, "--create", "--topic", topic,
                  "--partitions", PARTITIONS)

    def produce(self, topic, payloads, records):
        """Records/s of the broker's own tool: acks=all, lz4, as fast as it goes; values are lines of a file."""
        said = self.tool("org.apache.kafka.tools.ProducerPerformance", "--topic", topic, "--throughput", -1, "--num-records",
                         records, "--payload-file", payloads, "--producer-props", f"bootstrap.servers={self.address}",
                         "acks=all", "compression.type=lz4").strip().splitlines()[-1]
        return float(re.search(r"([\d.]+) records/sec", said)[1]), said

    def record_bytes(self, topic):
        """Mean bytes of a record's key and value, in the first segment of a partition; headers are not told."""
        log, = sorted(Path(self.folder, "data", f"{topic}-0").glob("*0.log"))[:1]
        said = self.tool("kafka.tools.DumpLogSegments", "--files", log, "--deep-iteration")
        sizes = re.findall(r"keySize: (\d+) valueSize: (\d+)", said)
        return sum(int(key) + int(value) for key, value in sizes) / len(sizes)
