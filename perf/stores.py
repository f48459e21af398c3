"""What the archive and Kafka cost, and how fast they are: `perf/run stores`, or its parts by name.

Sinks are fed by real nodes into real servers: SQLite in the node's own folder, PostgreSQL and Kafka started
on free ports with fresh folders and stopped by their ids (peers/). What a sink takes is read from the node's
own counters (`assent_sink_…`), which move when a transaction is committed.
"""
import shutil, tempfile, threading, time, uuid
from contextlib import ExitStack, contextmanager
from pathlib import Path

import peers
from kafka import Kafka
from runner import Node
from scenarios import peers_folder

# Lifecycle: an opening and the votes up to the decision, with Q = 3 of N = 5.
EVENTS_AN_APPROVAL = 4.1
# A header's name and value, of every record; their values' lengths are the longest.
HEADERS = {"deployment": 36, "log": 19, "sequence": 7, "type": 9, "content-type": 73, "schema-version": 1}


class Stores:
    """The servers of a scenario, and how a node is told of them."""

    def __init__(self, run, stack):
        self.run, self.stack, self.made, self.postgres, self.kafka = run, stack, 0, None, None

    def folder(self):
        return Path(self.stack.enter_context(gone_afterwards(self.run.data)))

    def settings(self, store):
        """Archive, further arguments and environment of a node with fresh tables or topics of its own."""
        self.made += 1
        archive, args, env = "--archive=none", [], {}
        if store == "sqlite":
            archive = "--archive=sqlite"
        if store in ("postgres", "both"):
            if not self.postgres:
                place = peers_folder(self.run)
                self.postgres = self.stack.enter_context(peers.Postgres(
                    self.stack.enter_context(gone_afterwards(place))).running())
            self.postgres.psql(f"CREATE DATABASE d{self.made}", "CHECKPOINT")
            archive = "--archive=postgres"
            env = {"DB_URL": f"postgres://postgres@127.0.0.1:{self.postgres.port}/d{self.made}"}
        if store in ("kafka", "both"):
            self.kafka = self.kafka or self.stack.enter_context(Kafka(self.folder()).running())
            args = [f"--kafka-brokers={self.kafka.address}", f"--kafka-topic-prefix={self.prefix()}"]
        return archive, args, env

    def prefix(self):
        return f"p{self.made}-"

    def psql(self, *statements):
        """In the newest database."""
        command = [self.postgres.tools["psql"], "-h", "127.0.0.1", "-p", self.postgres.port, "-U", "postgres", "-qAtX",
                   "-v", "ON_ERROR_STOP=1", "-d", f"d{self.made}"]
        return peers.call([*command, *(part for each in statements for part in ("-c", each))]).split()

    @contextmanager
    def node(self, store, folder=None, *args):
        archive, more, env = self.settings(store)
        node = Node(self.run, folder or self.folder(), *more, *args, archive=archive, env=env)
        try:
            yield node
        finally:
            node.stop()


@contextmanager
def gone_afterwards(place):
    folder = tempfile.mkdtemp(dir=place)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def stores(run):
    with ExitStack() as stack:
        yield Stores(run, stack)


def journal(run, made, approvals, pending, batch=1_024):
    """A folder with approvals opened and decided, and no sink yet."""
    folder = made.folder()
    node = Node(run, folder)
    try:
        if not run.load(f"journal-{pending}", "--mode", "lifecycle", "--approvals", pending, "--count", approvals, "--batch",
                        batch, endpoint=node.endpoint, note="the journal that is read, no figure"):
            raise RuntimeError("no journal was made")
    finally:
        node.stop()
    return folder


def drained(node, sink, seconds_max=600):
    """Waits until the sink has all; events, and the seconds from its first transaction to its last."""
    began, samples = time.time(), [(0.0, 0.0)]
    while time.time() - began < seconds_max:
        found, at = node.sink(sink), time.time()
        if found.get("events_total", 0) > samples[-1][1]:
            samples.append((at, found["events_total"]))
        elif len(samples) > 2 and found["lag_events"] == 0 and at - samples[-1][0] > 2.5:
            (first, before), (last, after) = samples[1], samples[-1]
            return {"events": after - before, "seconds": last - first, "events_per_second": (after - before) / (last - first)}
        time.sleep(0.02)
    raise RuntimeError(f"{sink} did not end: {node.sink(sink)}")


def drain(made, store, sink, journal):
    """A node on a copy of the journal, until its new sink has it all."""
    with gone_afterwards(made.run.data) as folder:
        shutil.copytree(journal, folder, dirs_exist_ok=True)
        with made.node(store, folder) as node:
            return drained(node, sink)


def copy(run):
    """The archive sink beside bare COPY of the same rows into the same tables: decided in the batch that opens, and later."""
    approvals = 200_000 if run.quick else 500_000
    with stores(run) as made:
        # Approvals under way at a time: few, and an opening and its decision share a batch of 16,384 events.
        for name, pending, batch in (("together", 64, 64), ("apart", 60_000, 1_024)):
            events = journal(run, made, approvals, pending, batch)
            # The first one makes the server's files and says the rows; later ones count.
            sinks, copies = [drain(made, "postgres", "archive", events)], []
            files = [f"{made.postgres.folder}/{table}" for table in ("approval_requests", "approval_responses")]
            tables = [path.rsplit("/", 1)[1] for path in files]
            made.psql(*(f"COPY {table} TO '{path}' (FORMAT binary)" for table, path in zip(tables, files)))
            rows = [int(made.psql(f"SELECT count(*) FROM {table}")[0]) for table in tables]
            updated, = made.psql("SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'approval_requests'")
            for _ in range(2 if run.quick else 4):
                made.psql(f"TRUNCATE {', '.join(tables)}", "CHECKPOINT")
                began = time.time()
                made.psql(*(f"\\copy {table} FROM '{path}' (FORMAT binary)" for table, path in zip(tables, files)))
                copies.append(time.time() - began)
                sinks.append(drain(made, "postgres", "archive", events))
            counted = sinks[1:]
            sink = sum(each["events_per_second"] for each in counted) / len(counted)
            bare = sum(rows) / (sum(copies) / len(copies))
            run.fact(f"copy-{name}", {"sinks": sinks, "copies_seconds": copies, "rows": rows, "outcomes_updated": int(updated),
                                      "sink_per_second": sink, "copy_per_second": bare},
                     f"sink {sink:,.0f} events/s, bare COPY {bare:,.0f} rows/s ({rows[0]:,} approvals, {rows[1]:,} votes, "
                     f"{int(updated) / rows[0] * 100:.0f} % of outcomes written after the opening's batch)")
        alone = drain(made, "sqlite", "archive", events)
        run.fact("drain-sqlite", alone, f"SQLite takes {alone['events_per_second']:,.0f} events/s of the same journal")


def kafka(run):
    """The Kafka sink beside the broker's own producer tool: same broker, same bytes a record, acks=all, lz4."""
    approvals = 200_000 if run.quick else 1_000_000
    with stores(run) as made:
        events = journal(run, made, approvals, 60_000)
        sinks, tools = [], []
        payloads = made.folder() / "payloads"
        for _ in range(2 if run.quick else 4):
            sinks.append(drain(made, "kafka", "kafka", events))
            if not tools:
                size = made.kafka.record_bytes(f"{made.prefix()}approval-events")
                size += sum(len(name) + value for name, value in HEADERS.items())
                write_payloads(payloads, int(size))
            made.kafka.make_topic(f"tool-{made.made}")
            tools.append(made.kafka.produce(f"tool-{made.made}", payloads, int(sinks[0]["events"])))
        # The first of each warms the broker.
        sink = sum(each["events_per_second"] for each in sinks[1:]) / len(sinks[1:])
        tool = sum(each for each, _ in tools[1:]) / len(tools[1:])
        run.fact("kafka", {"sinks": sinks, "tools": tools, "record_bytes": size, "sink_per_second": sink, "tool_per_second": tool},
                 f"sink {sink:,.0f} events/s in transactions, the broker's tool {tool:,.0f} records/s without, "
                 f"{size:.0f} bytes each, {made.kafka.version}")


def write_payloads(path, size):
    """Lines as repetitive as our records: what every record says, and an id."""
    same = "".join(f"{name}{'=' * length}" for name, length in HEADERS.items())
    with open(path, "w") as out:
        for _ in range(10_000):
            line = f"{uuid.uuid4()}{same}"
            out.write((line + uuid.uuid4().hex * (size // 32))[:size] + "\n")


def slope(samples):
    """Events a second by which a lag grows, over the later two thirds (least squares)."""
    samples = samples[len(samples) // 3:]
    count = len(samples)
    at, lag = (sum(each[column] for each in samples) / count for column in (0, 1))
    above = sum((time_ - at) * (lag_ - lag) for time_, lag_, _ in samples)
    return above / sum((time_ - at) ** 2 for time_, _, _ in samples)


def under_load(run, made, store, sinks, name, rate, seconds):
    """Lifecycle at a rate of approvals; lag of each sink, second by second, in the measured part."""
    lags, over = {sink: [] for sink in sinks}, threading.Event()
    with made.node(store) as node:
        def watch():
            while not over.wait(1):
                for sink in sinks:
                    found = node.sink(sink)
                    lags[sink].append((time.time(), found["lag_events"], found["events_total"]))
        watching = threading.Thread(target=watch)
        watching.start()
        try:
            report = run.load(name, "--mode", "lifecycle", "--approvals", 20_000, "--rate", rate, "--duration", seconds,
                              "--warmup", 4, "--batch", 256, "--in-flight", 256, endpoint=node.endpoint, note=f"open loop at {rate:,} approvals/s")
        finally:
            over.set()
            watching.join()
    result = {}
    for sink in sinks:
        samples = lags[sink][4:4 + seconds]
        (first, _, before), (last, lag, after) = samples[0], samples[-1]
        grows = slope(samples)
        taken = (after - before) / (last - first)
        # A transaction more or less, on a lag looked at once a second.
        result[sink] = {"events_per_second": taken, "lag_grows_per_second": grows, "lag_events": lag,
                        "flat": grows < 0.02 * taken, "samples": samples}
    return report, result


def sustained(run):
    """The highest rate of events that each store takes with a flat lag, the generator on the same cores."""
    seconds = 10 if run.quick else 120
    with stores(run) as made:
        for store, sinks, most in (("sqlite", ["archive"], 240_000), ("postgres", ["archive"], 240_000), ("kafka", ["kafka"], 400_000),
                                   ("both", ["archive", "kafka"], 160_000)):
            # What it takes when it has too much, then below that until it keeps up.
            name = f"sustained-{store}"
            _, found = under_load(run, made, store, sinks, f"{name}-too-much", int(most / EVENTS_AN_APPROVAL), 8)
            most = min(each["events_per_second"] for each in found.values())
            for share in (0.95, 0.85, 0.75, 0.6):
                report, found = under_load(run, made, store, sinks, f"{name}-load", int(share * most / EVENTS_AN_APPROVAL), seconds)
                if report and all(each["flat"] for each in found.values()):
                    break
            taken = {sink: each["events_per_second"] for sink, each in found.items()}
            flat = all(each["flat"] for each in found.values())
            run.fact(name, {"events_per_second": min(taken.values()), "flat": flat, "seconds": seconds, "sinks": found,
                            "most_per_second": most},
                     f"{min(taken.values()):,.0f} events/s for {seconds} s, the lag {'flat' if flat else 'GROWS'} at "
                     + ", ".join(f"{each['lag_events']:,.0f} events ({sink})" for sink, each in found.items())
                     + f"; {most:,.0f} when it has too much")


def catch_up(run):
    """PostgreSQL is away while 100 k votes/s go on; then the time until the archive has them all."""
    seconds = 10 if run.quick else 120
    with stores(run) as made, made.node("postgres") as node:
        wait_until(lambda: node.sink("archive").get("state") == 1)
        made.postgres.stop()
        run.load("catch-up-votes", "--mode", "rows", "--approvals", 100_000, "--rate", 100_000, "--duration", seconds, "--warmup", 0,
                 "--batch", 256, "--in-flight", 256, endpoint=node.endpoint, note="while PostgreSQL is away")
        time.sleep(2)
        lag, began = node.sink("archive")["lag_events"], time.time()
        made.postgres.start()
        wait_until(lambda: node.sink("archive")["events_total"] > 0)
        back = time.time() - began
        found = drained(node, "archive")
        run.fact("catch-up", {**found, "lag_events": lag, "outage_seconds": seconds, "back_seconds": back},
                 f"{lag:,.0f} events behind after {seconds} s at 100 k votes/s: noticed in {back:.1f} s, drained in "
                 f"{found['seconds']:.1f} s, {found['events_per_second']:,.0f} events/s")


def wait_until(holds, seconds_max=90):
    until = time.time() + seconds_max
    while not holds():
        if time.time() > until:
            raise RuntimeError("it did not come to that in time")
        time.sleep(0.05)


ALONE = ("none", "sqlite", "postgres", "kafka", "both")


def interference(run):
    """Latency of votes at 50 k/s, one a message, with each sink on and with none."""
    with stores(run) as made:
        for store in ALONE:
            with made.node(store) as node:
                run.load(f"interference-{store}", "--mode", "stream", "--approvals", 100_000, "--rate", 50_000, "--duration",
                         6 if run.quick else 20, "--warmup", 4, "--in-flight", 65_536, endpoint=node.endpoint, note=f"sinks: {store}")


def burst(run):
    """2 M votes/s for 5 seconds, and rows as fast as they go, with each archive and with none."""
    with stores(run) as made:
        for store in ("none", "sqlite", "postgres"):
            for name, rate in (("burst", ("--rate", 2_000_000, "--in-flight", 128)), ("rows-archive", ())):
                with made.node(store) as node:
                    run.load(f"{name}-{store}", "--mode", "rows", "--approvals", run.approvals, "--duration", run.seconds(5), *run.warm,
                             *rate, endpoint=node.endpoint, note=f"archive: {store}" + ", open loop at 2 M/s" * bool(rate))


def archived(run):
    """Lifecycle with each archive on (and lagging) and with none."""
    with stores(run) as made:
        for store in ("none", "sqlite", "postgres"):
            with made.node(store) as node:
                run.load(f"lifecycle-archive-{store}", "--mode", "lifecycle", "--approvals", run.approvals, "--duration",
                         run.seconds(10), *run.warm, endpoint=node.endpoint, note=f"archive: {store}")


def flat(run):
    """Memory after 50 M approvals opened and decided (Q = N = 1, no content) beside 5 M; `--quick`: 10 M and 2 M."""
    few, many = (2_000_000, 10_000_000) if run.quick else (5_000_000, 50_000_000)
    with stores(run) as made:
        ledger = made.folder() / "ledger"
        shape = ("--mode", "lifecycle", "--approvals", 1_000, "--validators", 1, "--required", 1, "--content", 0,
                 "--decisions", "100/0/0", "--rate", 20_000, "--ledger", ledger)
        # What is decided stays for a minute behind the archive: so much of it in both looks.
        with made.node("sqlite") as node:
            figures = []
            for name, count, more in (("flat-few", few, ()), ("flat-many", many - few, ("--reuse",))):
                if not run.load(name, *shape, *more, "--count", count, endpoint=node.endpoint, note="20 k approvals/s, archive: sqlite"):
                    raise RuntimeError(f"{name} did not end")
                found = node.metrics()
                figures.append({"rss_bytes": found["process_resident_memory_bytes"], "filter_bytes": found["assent_id_filter_bytes"],
                                "lag_events": node.sink("archive")["lag_events"]})
            before, after = figures
            run.fact("flat", {"few": before, "many": after},
                     f"RSS {before['rss_bytes'] / 2**20:,.0f} MiB after {few:,} approvals, "
                     f"{after['rss_bytes'] / 2**20:,.0f} MiB after {many:,}, of it {(after['filter_bytes'] - before['filter_bytes']) / 2**20:,.0f} MiB more filter; "
                     f"lag {before['lag_events']:,.0f} and {after['lag_events']:,.0f} events")


STORES = {f.__name__: f for f in (copy, kafka, sustained, catch_up, interference, burst, archived, flat)}
