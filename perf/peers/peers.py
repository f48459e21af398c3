"""PostgreSQL and Redis as durable voting services: started fresh, asked a few questions with known answers,
measured, counted, stopped. README.md here says what is the same as for assent and what favours the peer."""
import csv, glob, os, pwd, re, shutil, signal, socket, subprocess, tempfile, time
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
VALIDATORS, REQUIRED = 256, 171


class Missing(Exception):
    """A program that is not installed: the peer is not run."""


def program(name, *places):
    found = shutil.which(name) or next((p for place in places for p in sorted(glob.glob(f"{place}/{name}"))[::-1]), None)
    if not found:
        raise Missing(f"{name} is not installed")
    return found


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def call(command, **options):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {(done.stderr or done.stdout).strip()[-400:]}")
    return done.stdout


def expect(answers, expected):
    if answers != expected:
        raise RuntimeError(f"the vote's script answers {answers} instead of {expected}")


def stop(child, how=signal.SIGTERM):
    child.send_signal(how)
    try:
        child.wait(timeout=60)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


class Postgres:
    def __init__(self, folder):
        places = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin")
        self.tools = {name: program(name, *places) for name in ("initdb", "postgres", "psql", "pgbench")}
        self.folder, self.port, self.child = folder, free_port(), None
        self.as_other = []  # The server refuses to be root.
        self.version = call([self.tools["postgres"], "--version"]).strip()
        if os.geteuid() == 0:
            try:
                owner = pwd.getpwnam("postgres")
            except KeyError:
                raise Missing("PostgreSQL refuses to run as root, and there is no user postgres") from None
            self.as_other = [program("runuser"), "-u", "postgres", "--"]
            os.chown(folder, owner.pw_uid, owner.pw_gid)

    @contextmanager
    def running(self):
        self.make()
        try:
            self.start()
            yield self
        finally:
            self.stop()

    def make(self):
        """The cluster, with its settings."""
        data = f"{self.folder}/data"
        call([*self.as_other, self.tools["initdb"], "-D", data, "-A", "trust", "-U", "postgres", "--no-sync"],
             cwd=self.folder)
        settings = (HERE / "postgres.conf").read_text() + \
            f"\nport = {self.port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = ''\n"
        with open(f"{data}/postgresql.conf", "a") as out:
            out.write(settings)

    def start(self):
        data = f"{self.folder}/data"
        with open(f"{self.folder}/log", "w") as log:
            # Where this is runuser's process, the server's own is in its pid file.
            self.child = subprocess.Popen([*self.as_other, self.tools["postgres"], "-D", data], stdout=log, stderr=log,
                                          cwd=self.folder)
        for _ in range(300):
            pid = Path(f"{data}/postmaster.pid")
            if pid.exists() and "ready" in pid.read_text():
                return
            if self.child.poll() is not None:
                raise RuntimeError(Path(f"{self.folder}/log").read_text()[-400:])
            time.sleep(0.1)
        raise RuntimeError(f"{self.tools['postgres']} does not answer")

    def stop(self):
        """Its clients are cut off."""
        pid = Path(f"{self.folder}/data/postmaster.pid")
        if pid.exists():
            os.kill(int(pid.read_text().split()[0]), signal.SIGINT)
        if self.child:
            try:
                self.child.wait(timeout=60)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
            self.child = None

    def psql(self, *statements):
        command = [self.tools["psql"], "-h", "127.0.0.1", "-p", self.port, "-U", "postgres", "-qAtX",
                   "-v", "ON_ERROR_STOP=1"]
        return call([*command, *(part for each in statements for part in ("-c", each))]).split()

    def prepare(self, approvals):
        call([self.tools["psql"], "-h", "127.0.0.1", "-p", self.port, "-U", "postgres", "-qX", "-v", "ON_ERROR_STOP=1",
              "-f", HERE / "postgres.sql"])
        votes = ["vote(0, 0::smallint, 1::smallint)", "vote(-1, 0::smallint, 1::smallint)",
                 "vote(-1, 0::smallint, 1::smallint)", "vote(-1, 0::smallint, 2::smallint)",
                 "vote_batch(1::smallint, '{-1,-2}', '{1,2}')", "vote(-1, 2::smallint, 1::smallint)",
                 "(SELECT status FROM approval WHERE id = -1)", "(SELECT status FROM approval WHERE id = -2)"]
        self.psql("INSERT INTO approval VALUES (-1, 3, 2), (-2, 3, 2)")
        expect(self.psql(*(f"SELECT {vote}" for vote in votes)), "4 0 1 2 2 3 2 1".split())
        self.psql("TRUNCATE approval, vote",
                  f"INSERT INTO approval SELECT i, {VALIDATORS}, {REQUIRED} FROM generate_series(0, {approvals - 1}) i",
                  "VACUUM ANALYZE approval", "CHECKPOINT")

    def count(self):
        """Votes that count; the tallies must say the same."""
        kept, = self.psql("SELECT count(*) FROM vote")
        tallied, = self.psql("SELECT sum(approvals + rejections + abstentions) FROM approval")
        return int(kept), kept == tallied

    def measure(self, script, approvals, clients, seconds, base):
        """pgbench with prepared statements; latencies from its log of every transaction."""
        logs = tempfile.mkdtemp(dir=self.folder)
        command = [self.tools["pgbench"], "-h", "127.0.0.1", "-p", self.port, "-U", "postgres", "-n", "-M", "prepared",
                   "-f", HERE / script, "-c", clients, "-j", 2, "-T", seconds, "-D", "n=0", "-D", f"clients={clients}",
                   "-D", f"approvals={approvals}", "-D", f"base={base}", "-l", f"--log-prefix={logs}/t", "postgres"]
        before, _ = self.count()
        output = call(command)
        # Its own rate leaves out the time that connecting takes.
        transactions, rate = (float(re.search(pattern, output)[1]) for pattern in
                              (r"actually processed: (\d+)", r"tps = ([\d.]+) \(without"))
        after, balances = self.count()
        micros = sorted(int(line.split(" ", 3)[2]) for path in Path(logs).iterdir() for line in open(path))
        shutil.rmtree(logs)
        return report(after - before, transactions / rate, balances, micros, output)


def report(votes, seconds, balances, micros, output):
    at = lambda share: micros[min(int(len(micros) * share), len(micros) - 1)] if micros else 0
    return {"votes_per_second": votes / seconds, "votes": votes, "seconds": seconds, "balances": balances,
            "latency_us": {"p50": at(0.5), "p99": at(0.99), "max": at(1),
                           "mean": sum(micros) / max(len(micros), 1)}, "output": output}


class Redis:
    def __init__(self, folder):
        self.tools = {name: program(name) for name in ("redis-server", "redis-cli", "redis-benchmark")}
        self.folder, self.port = folder, free_port()
        self.version = " ".join(call([self.tools["redis-server"], "--version"]).split()[:3])

    @contextmanager
    def running(self):
        with open(f"{self.folder}/log", "w") as log:
            child = subprocess.Popen([self.tools["redis-server"], str(HERE / "redis.conf"), "--port", str(self.port),
                                      "--dir", self.folder], stdout=log, stderr=log)
        try:
            for _ in range(300):
                if child.poll() is not None:
                    raise RuntimeError(Path(f"{self.folder}/log").read_text()[-400:])
                try:
                    if self.cli("PING").strip() == "PONG":
                        break
                except RuntimeError:
                    pass
                time.sleep(0.1)
            yield self
        finally:
            stop(child)

    def cli(self, *command):
        return call([self.tools["redis-cli"], "-p", self.port, *command])

    def script(self, name):
        return self.cli("SCRIPT", "LOAD", (HERE / name).read_text()).strip()

    def prepare(self, approvals):
        self.vote, self.open, self.tally = map(self.script, ("redis-vote.lua", "redis-open.lua", "redis-count.lua"))
        self.cli("EVALSHA", self.open, 0, 0, 1, 3, 2)
        # With 1 approval, a vote's number is its validator's.
        votes = [(0, 1, 1), (0, 1, 1), (0, 1, 2), (1, 1, 1), (2, 1, 1), (8, 9, 1)]
        expect([int(self.cli("EVALSHA", self.vote, 0, *vote)) for vote in votes], [0, 1, 2, 0, 3, 4])
        self.cli("FLUSHALL")
        for start in range(0, approvals, 10_000):
            self.cli("EVALSHA", self.open, 0, start, min(start + 10_000, approvals), VALIDATORS, REQUIRED)
        self.approvals = approvals

    def count(self):
        tallied = kept = 0
        for start in range(0, self.approvals, 50_000):
            answer = self.cli("EVALSHA", self.tally, 0, start, min(start + 50_000, self.approvals))
            by_tally, by_vote = map(int, answer.split())
            tallied, kept = tallied + by_tally, kept + by_vote
        return kept, kept == tallied

    def benchmark(self, votes, clients, pipeline, threads):
        """Numbers are drawn at random: one in a few hundred is drawn twice, and then a repeat that does not count."""
        command = [self.tools["redis-benchmark"], "-p", self.port, "-c", clients, "-P", pipeline, "-n", votes,
                   "-r", self.approvals * VALIDATORS, "--threads", threads, "--csv",
                   "EVALSHA", self.vote, "0", "__rand_int__", str(self.approvals)]
        return call(command)

    def measure(self, clients, pipeline, seconds, threads=1):
        """A short run says how many votes the seconds take; its votes are not counted."""
        trial = list(csv.DictReader(self.benchmark(2_000 * pipeline, clients, pipeline, threads).splitlines()))
        votes = int(float(trial[0]["rps"]) * seconds)
        before, _ = self.count()
        output = self.benchmark(votes, clients, pipeline, threads)
        after, balances = self.count()
        row, = csv.DictReader(output.splitlines())
        # redis-benchmark's own clock: its start and end are not the server's time.
        result = report(after - before, votes / float(row["rps"]), balances, [], output)
        micros = {"p50": "p50", "p99": "p99", "max": "max", "mean": "avg"}
        return {**result, "latency_us": {ours: float(row[f"{its}_latency_ms"]) * 1_000 for ours, its in micros.items()}}
