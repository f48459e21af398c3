"""A run: starts nodes and generators, keeps their JSON in the run's folder, and judges what counts."""
import json, os, re, signal, subprocess, tempfile, time, urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "assent"
# More than this share of its threads' time, and the generator was what bounded the run.
GENERATOR_BUSY_MAX = 0.9
# What the generator is late by is in the latencies, which count from the schedule; this late and more than half of
# the tail, and the run says more of the generator than of the node.
LAG_US_MAX = 10_000
# Modes whose rate is in approvals, not in votes.
IN_APPROVALS = ("open", "lifecycle")
# The speed of voting is measured without an archive; what one costs is what stores measures, which names its own.
NO_ARCHIVE = "--archive=none"
# In flight under a schedule: so much that a late message is the generator's own lateness.
ROOM = {"rows": 128, "columns": 128, "batch": 32, "open": 65_536, "lifecycle": 256, "mixed": 256, "unary": 1_024}


def answered_per_second(report):
    """What `--rate` asks for, as it was answered: late votes that were refused were answered too."""
    measured = [second for second in report["series"] if second["measured"]]
    if report["mode"] in IN_APPROVALS:
        return report["approvals_per_second"]
    return sum(second["votes"] + second["refused"] for second in measured) / max(report["seconds"], 1e-9)


def generator_busy(report):
    """Share of its threads' time that the generator worked; None for a run of a count."""
    settings = report["settings"]
    if not settings["duration"]:
        return None
    return report["generator"]["cpu_seconds"] / (settings["duration"] + settings["warmup"]) / settings["threads"]


def void(report):
    """Why a run does not count: empty when it does."""
    if not report["ledger"]["balances"]:
        return "VOID: the ledger does not balance"
    busy, rate = generator_busy(report), report["settings"]["rate"]
    if busy and busy > GENERATOR_BUSY_MAX:
        return f"VOID: the generator was the bottleneck (busy {busy * 100:.0f} %)"
    if rate and answered_per_second(report) < 0.95 * rate:
        return f"VOID: {answered_per_second(report):,.0f}/s of the {rate:,.0f}/s asked for"
    lag, tail = report["generator"]["schedule_lag_us"], report["latency_us"]["p99"]
    if rate and lag > LAG_US_MAX and lag > tail / 2:
        return f"VOID: the generator was late (lag p99 {lag:,} us of {tail:,})"
    return ""


class Run:
    """`rows` is the table; `kept` the JSON by scenario, of pieces measured into this folder before too."""

    def __init__(self, out, data, quick, commit, rows, kept):
        self.out, self.data, self.quick, self.commit, self.rows, self.kept = out, data, quick, commit, rows, kept
        self.approvals = 200_000 if quick else 1_000_000
        # Given to every run with a duration.
        self.warm = ("--warmup", 1 if quick else 2)

    def seconds(self, full):
        return 2 if self.quick else full

    def votes(self, name, mode, *args, seconds=10, **options):
        """A run of the standard setting."""
        return self.load(name, "--mode", mode, "--approvals", self.approvals, "--duration", self.seconds(seconds),
                         *self.warm, *args, **options)

    def half_rate(self, name, mode, report, connections=1, seconds=6, **options):
        """Open loop at half of what a run did, for latency."""
        if not report:
            return
        rate = int((answered_per_second(report) if mode != "open" else report["approvals_per_second"]) / 2)
        if rate:
            self.votes(f"{name}-half-rate", mode, "--connections", connections, "--in-flight", ROOM[mode] // connections,
                       "--rate", rate, seconds=seconds, note=f"open loop at {rate:,}/s", **options)

    def keep(self, file, text):
        """What is kept says nothing of where this machine has its folders."""
        for path, name in ((BIN, "assent"), (self.data, "DATA"), (ROOT, "."), (Path("/var/tmp"), "TMP")):
            text = text.replace(str(path), name)
        (self.out / file).write_text(text)

    def load(self, name, *args, endpoint=None, note="", serve=(NO_ARCHIVE,)):
        """`serve`: settings of a node that is started for this run alone."""
        path = self.out / f"{name}.json"
        command = [str(BIN), "load", "--json", str(path), *map(str, args)]
        own = ["--data", str(self.data), *(f"--serve-arg={each}" for each in serve)]
        command += ["--endpoint", endpoint] if endpoint else own
        path.unlink(missing_ok=True)
        began = time.time()
        done = subprocess.run(command, capture_output=True, text=True)
        self.keep(f"{name}.txt", done.stdout + done.stderr)
        try:
            report = json.loads(path.read_text())
            self.keep(path.name, path.read_text())
        except Exception:
            print(f"{name:28} no report (exit {done.returncode}): {done.stderr.strip().splitlines()[-1:]}")
            self.add((name, "-", "-", "-", "-", "failed"))
            return None
        self.kept[name] = report
        why = void(report)
        if "--no-check" in args:
            # A ceiling that the generator bounds is at least this high.
            busy = generator_busy(report) or 0
            why = f"{note}; at least: bound by the generator ({busy * 100:.0f} % busy)" if busy > GENERATOR_BUSY_MAX else ""
        latency = report.get("latency_us") or {}
        rate = report["votes_per_second"] or 0
        opened = report.get("approvals_per_second") or 0
        self.row(name, rate, opened, latency, why or note, began)
        return report

    def add(self, row):
        """Measured again: the last one counts."""
        self.rows[:] = [other for other in self.rows if other[0] != row[0]] + [(*row, self.commit)]

    def row(self, name, votes, approvals, latency, note, began):
        row = (name, f"{votes:,.0f}", f"{approvals:,.0f}", f"{latency.get('p50', 0):,.0f}",
               f"{latency.get('p99', 0):,.0f}", note)
        self.add(row)
        print(f"{name:28} {row[1]:>14} votes/s {row[2]:>12} approvals/s  p50 {row[3]:>8} us  p99 {row[4]:>8} us  "
              f"{row[5]}  ({time.time() - began:.0f} s)", flush=True)

    def fact(self, name, figures, note):
        """A figure that is neither votes nor latency: its words are the note."""
        self.kept[name] = figures
        self.keep(f"{name}.json", json.dumps(figures, indent=1))
        self.add((name, "", "", "", "", note))
        print(f"{name:28} {note}", flush=True)

    def peer(self, name, measure, version):
        """One measurement of a peer."""
        began = time.time()
        report = measure()
        self.kept[name] = report
        self.keep(f"{name}.json", json.dumps({"version": version, **report}, indent=1))
        note = version if report["balances"] else "VOID"
        self.row(name, report["votes_per_second"], 0, report["latency_us"], note, began)

    def disk(self, name, block, writes):
        done = subprocess.run([str(BIN), "disk", "--data", str(self.data), "--block", str(block), "--writes",
                               str(writes)], capture_output=True, text=True)
        report = json.loads(done.stdout)
        self.keep(f"{name}.json", json.dumps(report, indent=1))
        self.kept[name] = report
        line = f"{report['bytes_per_second'] / 1e6:,.0f} MB/s"
        self.add((name, line, "", f"{report['p50_us']:,.0f}", f"{report['p99_us']:,.0f}", "bare disk"))
        print(f"{name:28} {line}, p50 {report['p50_us']:.0f} us, p99 {report['p99_us']:.0f} us", flush=True)

    def memory(self, name, size, reads):
        done = subprocess.run([str(BIN), "memory", "--bytes", str(size), "--reads", str(reads)], capture_output=True, text=True)
        report = json.loads(done.stdout)
        self.fact(name, report, f"64-byte lines at random over {size >> 20:,} MiB: {report['chased_ns']:.0f} ns each where "
                  f"one leads to the next, {report['overlapped_ns']:.1f} ns where places are known ahead")

    def server(self, *command, env=None):
        """A child that writes a ready file; ended by its own id. `env`: over this process's own."""
        ready = Path(tempfile.mktemp(dir=self.data, suffix=".json"))
        child = subprocess.Popen([str(BIN), *map(str, command), "--ready-file", str(ready)],
                                 env={**os.environ, **(env or {})}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(600):
            if ready.exists():
                break
            time.sleep(0.05)
        if not ready.exists():
            self.stop(child)
            raise RuntimeError(f"{command[0]} did not start")
        facts = json.loads(ready.read_text())
        return child, "http://" + facts["grpc"], facts.get("http") and "http://" + facts["http"]

    @staticmethod
    def stop(child):
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(timeout=20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


class Node:
    """A node on a folder that outlives it."""

    def __init__(self, run, folder, *args, archive=NO_ARCHIVE, env=None):
        self.run = run
        self.child, self.endpoint, self.http = run.server(
            "serve", "--data", folder, "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", archive, *args, env=env)

    def metrics(self):
        """Sums over labels."""
        sums = {}
        for line in urllib.request.urlopen(self.http + "/metrics").read().decode().splitlines():
            if not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                name = name.split("{")[0]
                sums[name] = sums.get(name, 0) + float(value)
        return sums

    def sink(self, sink):
        """A sink's own metrics, without `assent_sink_`."""
        page = urllib.request.urlopen(self.http + "/metrics").read().decode()
        found = re.findall(r'^assent_sink_(\w+)\{sink="' + sink + r'"\} (\S+)$', page, re.MULTILINE)
        return {name: float(value) for name, value in found}

    def histogram(self, name):
        """Counts up to each bound in seconds, labels summed."""
        counts = {}
        for line in urllib.request.urlopen(self.http + "/metrics").read().decode().splitlines():
            found = re.match(name + r'_bucket\{(?:.*,)?le="([^"]+)".*\} (\S+)$', line)
            if found:
                bound = float(found[1].replace("+Inf", "inf"))
                counts[bound] = counts.get(bound, 0) + float(found[2])
        return counts

    def turns(self):
        """Turns of the shard's loop: thread CPU time, wall time."""
        return [self.histogram(f"assent_turn_{clock}_seconds") for clock in ("cpu", "wall")]

    def kill(self):
        self.child.kill()
        self.child.wait()

    def stop(self):
        self.run.stop(self.child)



def between(before, after, share=1.0):
    """The bound under which this share of what a histogram took between two looks lies; 1.0: all of it."""
    counts = {bound: count - before.get(bound, 0) for bound, count in after.items()}
    total = counts.get(float("inf"), 0)
    return next((bound for bound, count in sorted(counts.items()) if total and count >= share * total), 0.0)
