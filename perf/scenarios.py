"""The scenarios of perf/run: each says what it measures, and leaves JSON and rows of the table."""
import json, os, re, shutil, subprocess, tempfile, time
from pathlib import Path

import peers
from runner import BIN, ROOT, Node, between

N = 1_000_000


def calibrate(run):
    """The machine: bare disk, memory at random, the no-op service (our decoder, the generated one)."""
    run.disk("disk-4k", 4 << 10, 2_000)
    if not run.quick:
        run.disk("disk-256k", 256 << 10, 2_000)
    run.disk("disk-1m", 1 << 20, 200 if run.quick else 1_000)
    run.memory("memory", 1 << 30, 2_000_000 if run.quick else 10_000_000)
    own = ("rows", "columns", "batch", "unary")
    for decoder, modes in (("own", own[::3] if run.quick else own), ("generated", ("rows",))):
        child, endpoint, _ = run.server("noop", "--grpc", "127.0.0.1:0", "--decoder", decoder)

        def noop(name, mode, *args, note="ceiling: no engine, no disk"):
            run.votes(f"noop-{name}", mode, "--no-check", *args, seconds=5, endpoint=endpoint, note=note)

        try:
            for mode in modes:
                noop(f"{decoder}-{mode}", mode)
            if decoder == "own":
                for mode in ("unary", "stream"):
                    noop(f"single-{mode}", mode, "--in-flight", 1, note="a round trip")
        finally:
            run.stop(child)


TWO_SHARDS = "--serve-arg=--shards=2"


def rows(run):
    """Votes as rows over the bidirectional stream; half rate; an ordinary client; 8 and 64 connections; 2 shards."""
    report = run.votes("rows", "rows")
    run.votes("rows-generated-client", "rows", "--client", "generated")
    if run.quick:
        return
    run.half_rate("rows", "rows", report)
    run.votes("rows-8-connections", "rows", "--connections", 8, "--in-flight", 2, seconds=5)
    run.votes("rows-64-connections", "rows", "--connections", 64, "--in-flight", 1, "--batch", 1_024, seconds=5)
    run.votes("rows-2-shards", "rows", TWO_SHARDS, seconds=5)
    run.votes("rows-uring", "rows", "--serve-arg=--io=uring", seconds=5)


def columns(run):
    """Votes as columns; half rate; 2 shards."""
    report = run.votes("columns", "columns")
    if not run.quick:
        run.half_rate("columns", "columns", report)
        run.votes("columns-2-shards", "columns", TWO_SHARDS, seconds=5)


def batch(run):
    """batchSubmitResponses, one message a vote; half rate."""
    report = run.votes("batch", "batch")
    if not run.quick:
        run.half_rate("batch", "batch", report)


def opens(run):
    """Approvals opened over the stream, 256-byte content; half rate."""
    report = run.votes("open", "open")
    if not run.quick:
        run.half_rate("open", "open", report)


def lifecycle(run):
    """Q = 3 of N = 5, 256-byte content, opened and voted, 1 M pending throughout; half rate; 2 shards."""
    report = run.votes("lifecycle", "lifecycle")
    if not run.quick:
        run.half_rate("lifecycle", "lifecycle", report)
        run.votes("lifecycle-2-shards", "lifecycle", TWO_SHARDS, seconds=5)


def mixed(run):
    """Opens, votes and expiries as a cluster sends them, zipfian approvals, late votes refused; half rate."""
    report = run.votes("mixed", "mixed")
    if not run.quick:
        run.half_rate("mixed", "mixed", report)


def unary(run):
    """submitValidatorResponse on 1, 8 and 64 connections: throughput, then open loop at half of it."""
    for connections in (1,) if run.quick else (1, 8, 64):
        at = ("--connections", connections)
        if not run.quick:
            # In the same minute: on several connections a shared machine's figures move most.
            child, endpoint, _ = run.server("noop", "--grpc", "127.0.0.1:0", "--decoder", "own")
            try:
                run.votes("noop-own-unary" + f"-{connections}" * (connections > 1), "unary", "--no-check", *at, "--in-flight",
                          128 // connections, seconds=5, endpoint=endpoint, note="ceiling: no engine, no disk")
            finally:
                run.stop(child)
        report = run.votes(f"unary-{connections}", "unary", *at, "--in-flight", 128 // connections)
        run.half_rate(f"unary-{connections}", "unary", report, connections)


def single(run):
    """One client, one vote at a time, nothing else running."""
    for mode in ("unary", "stream"):
        run.load(f"single-{mode}", "--mode", mode, "--approvals", 100_000, "--connections", 1, "--in-flight", 1,
                 "--duration", run.seconds(8), *run.warm)


def grow(run):
    """Rows at 100 k, 1 M and 10 M pending: votes, memory, the longest turn of a shard's loop."""
    for pending in (100_000, 200_000) if run.quick else (100_000, N, 10 * N):
        folder = Path(tempfile.mkdtemp(dir=run.data))
        node = Node(run, folder)
        try:
            empty = node.metrics()["process_resident_memory_bytes"]
            turns = node.turns()
            # 256 votes an approval: a hundred thousand have no more than seconds of them.
            long = ("--duration", run.seconds(8), *run.warm) if pending >= N else ("--count", 250 * pending)
            report = run.load(f"grow-{pending}", "--mode", "rows", "--approvals", pending, *long, endpoint=node.endpoint)
            cpu, wall = longest(turns, node.turns())
            if report:
                each = (report["server"]["rss_bytes"] - empty) / pending
                run.fact(f"turns-{pending}", {"cpu_ms": cpu, "wall_ms": wall, "bytes_an_approval": each},
                         f"longest turn of the shard's loop within {cpu['1.0']:g} ms CPU, "
                         f"{wall['1.0']:g} ms by the wall, opening included (99.99 % within {cpu['0.9999']:g} and {wall['0.9999']:g}); "
                         f"{each:,.0f} bytes of resident growth an approval")
        finally:
            node.stop()
            shutil.rmtree(folder)


def longest(before, after):
    """Of the turns between two looks, CPU and wall: the bounds in ms under which 99 %, 99.99 % and all of them lie."""
    return [{str(share): between(*both, share) * 1e3 for share in (0.99, 0.9999, 1.0)} for both in zip(before, after)]


WATCHED = ("--in-flight", 65_536, "--rate", 100_000, "--validators", 4, "--required", 3, "--watch")


def watched(run, name, *args):
    """100 k votes/s with a watcher; approvals are decided all the time, and the votes after that refused."""
    began, seconds = time.time(), run.seconds(10)
    report = run.load(name, *args, *WATCHED, "--approvals", 25_000 * (seconds + 4), "--duration", seconds, *run.warm)
    for figure, title in (("answer_to_event_us", "events"), ("due_to_approved_us", "finality")):
        if report and report["events"]:
            latency = report["events"][figure]
            run.row(f"{name}: {title}", report["votes_per_second"], 0, latency,
                    f"{latency['count']:,} events, max {latency['max']:,} us", began)


def events(run):
    """One vote a message at 100 k votes/s: vote acknowledged to event, last needed vote to APPROVED, at a watcher."""
    watched(run, "events", "--mode", "stream")


def finality(run):
    """The same with votes in small batches, as validators with a backlog send them."""
    watched(run, "finality", "--mode", "rows", "--batch", 100)


NO_SNAPSHOT = ("--snapshot-events", 10**12, "--snapshot-bytes", 1 << 50)


def recover(run):
    """Replay of a journal without a snapshot, loading one, one made under load, memory an approval, an idle node."""
    for pending in (N // 5,) if run.quick else (N, 10 * N):
        folder = Path(tempfile.mkdtemp(dir=run.data))
        try:
            recover_at(run, pending, folder)
        finally:
            shutil.rmtree(folder)


def recover_at(run, pending, folder):
    million = f"{pending // N}m" if pending >= N else f"{pending // 1_000}k"
    node = Node(run, folder, *NO_SNAPSHOT)
    try:
        empty = node.metrics()["process_resident_memory_bytes"]
        # Five votes an approval, of which none approves: all stay pending.
        report = run.load(f"recover-{million}-votes", "--mode", "rows", "--approvals", pending, "--validators", 16,
                          "--required", 4, "--decisions", "0/50/50", "--count", 5 * pending, endpoint=node.endpoint)
        if not report:
            return
        grown = report["server"]["rss_bytes"] - empty
        run.fact(f"memory-{million}", {"bytes_an_approval": grown / pending},
                 f"{grown / pending:,.0f} bytes of resident growth for a pending approval with 5 votes")
    finally:
        node.kill()

    node = Node(run, folder, *NO_SNAPSHOT)
    try:
        found = node.metrics()
        if not found["assent_recovered_events"]:
            raise RuntimeError("the node read no event back")
        replayed, seconds = found["assent_recovered_events"], found["assent_recovery_seconds"]
        run.fact(f"recover-{million}", {"events": replayed, "seconds": seconds, "events_per_second": replayed / seconds},
                 f"{replayed:,.0f} events replayed in {seconds:.2f} s: {replayed / seconds:,.0f} events/s")
        time.sleep(1 if run.quick else 3)
        idle, begin = run.seconds(8), node.metrics()["process_cpu_seconds_total"]
        time.sleep(idle)
        share = (node.metrics()["process_cpu_seconds_total"] - begin) / idle * 100
        run.fact(f"idle-{million}", {"percent_of_a_core": share}, f"{share:.2f} % of a core over {idle} s, idle")
    finally:
        node.kill()

    # A thousand events more, and a snapshot is made.
    node = Node(run, folder, "--snapshot-events", 1_000)
    try:
        run.load(f"recover-{million}-few", "--mode", "rows", "--approvals", 1_000, "--count", 10_000,
                 endpoint=node.endpoint)
        for _ in range(600):
            if node.metrics()["assent_snapshots_total"] > 0:
                break
            time.sleep(0.1)
    finally:
        node.stop()
    node = Node(run, folder, *NO_SNAPSHOT)
    try:
        found = node.metrics()
        seconds, tail = found["assent_recovery_seconds"], found["assent_recovered_events"]
        run.fact(f"snapshot-{million}", {"seconds": seconds, "events_behind_it": tail},
                 f"{pending:,} pending from a snapshot in {seconds:.2f} s, {tail:,.0f} events behind it")
        calm = at_a_rate(run, f"snapshot-{million}-calm", node, "no snapshot meanwhile")
    finally:
        node.stop()

    # The same load while snapshots are made, one after the other.
    node = Node(run, folder, "--snapshot-events", 50_000)
    try:
        before, turns = node.metrics()["assent_snapshots_total"], node.turns()
        busy = at_a_rate(run, f"snapshot-{million}-busy", node, "while snapshots are made")
        made = node.metrics()["assent_snapshots_total"] - before
        cpu, wall = longest(turns, node.turns())
        if calm and busy:
            calm, busy = (report["latency_us"]["p99"] / 1e3 for report in (calm, busy))
            run.fact(f"snapshot-{million}-under-load", {"calm_p99_ms": calm, "busy_p99_ms": busy, "snapshots": made, "cpu_ms": cpu, "wall_ms": wall},
                     f"p99 {calm:.2f} ms without, {busy:.2f} ms while {made:.0f} snapshots of {pending:,} were made; longest "
                     f"turn of the shard's loop within {cpu['1.0']:g} ms CPU, {wall['1.0']:g} ms by the wall")
    finally:
        node.stop()


def at_a_rate(run, name, node, note):
    """100 k votes/s on a node that has much pending."""
    return run.load(name, "--mode", "stream", "--approvals", 100_000, "--rate", 100_000, "--duration", run.seconds(10),
                    *run.warm, "--in-flight", 65_536, endpoint=node.endpoint, note=note)


def at_peer(run, kind, measures):
    """A peer on a fresh folder. Whatever it does, the others run."""
    folder = tempfile.mkdtemp(dir=peers_folder(run))
    try:
        peer = kind(folder)
        with peer.running():
            peer.prepare(N // 10 if run.quick else N)
            for name, measure in measures(peer, N // 10 if run.quick else N):
                run.peer(name, measure, peer.version)
    except peers.Missing as missing:
        run.fact(kind.__name__.lower(), {"missing": str(missing)}, f"not run: {missing}")
    except Exception as error:
        run.fact(kind.__name__.lower(), {"error": str(error)}, f"not run: {error}".replace("\n", " ")[:300])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def peers_folder(run):
    """The run's own folder, unless the peer's user cannot get there."""
    if os.geteuid():
        return run.data
    run.data.chmod(0o755)
    reached = all(parent.stat().st_mode & 0o001 for parent in (run.data, *run.data.parents))
    return run.data if reached else Path("/var/tmp")


def postgres(run):
    """PostgreSQL with a stored procedure: a vote a transaction on 64 connections, 1,000 votes on 8, one client alone."""
    def measures(peer, approvals):
        seconds = run.seconds(10)
        # Each goes on with validators that have not voted.
        yield "postgres", lambda: peer.measure("postgres-single.pgbench", approvals, 64, seconds, 0)
        yield "postgres-batch", lambda: peer.measure("postgres-batch.pgbench", approvals, 8, seconds, 100 * approvals)
        yield "postgres-single", lambda: peer.measure("postgres-single.pgbench", approvals, 1, run.seconds(8), 50 * approvals)
    at_peer(run, peers.Postgres, measures)


def redis(run):
    """Redis with a Lua script, appendfsync always: 50 connections, pipelined 16 and not; one client alone."""
    def measures(peer, _):
        yield "redis", lambda: peer.measure(50, 16, run.seconds(10))
        yield "redis-unpipelined", lambda: peer.measure(50, 1, run.seconds(8))
        yield "redis-single", lambda: peer.measure(1, 1, run.seconds(8))
    at_peer(run, peers.Redis, measures)


GHZ_VOTES, GHZ_APPROVALS = 100_000, 8
CALL = "aurigraph.approvals.v1.ApprovalGrpcService.SubmitValidatorResponse"
SERVED, VOTES = "assent_request_duration_seconds", "assent_votes_accepted_total"


def ghz(run):
    """An outside client on submitValidatorResponse, 128 in flight on 1 connection, beside ours on the same node."""
    program = shutil.which("ghz")
    if not program:
        run.fact("ghz", {"missing": "ghz"}, "not run: ghz is not installed (go install github.com/bojand/ghz/cmd/ghz@latest)")
        return
    folder = Path(tempfile.mkdtemp(dir=run.data))
    node, votes = Node(run, folder), GHZ_VOTES // (10 if run.quick else 1)
    try:
        # As many validators as there may be: all of them are needed, so every vote counts.
        submit = [str(BIN), "submit", "--endpoint", node.endpoint, "--total", "32767", "--required", "32767"]
        opened = [re.search(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", subprocess.run(
            submit, capture_output=True, text=True, check=True).stdout)[0] for _ in range(GHZ_APPROVALS)]
        data = folder / "votes.json"
        data.write_text(json.dumps([{"approval_id": opened[at % GHZ_APPROVALS], "validator_id": f"v{at}",
                                     "decision": "VALIDATOR_DECISION_APPROVED"} for at in range(votes)]))
        for client in ("ghz", "ours"):
            before, began, counted = node.histogram(SERVED), time.time(), node.metrics()[VOTES]
            if client == "ghz":
                done = subprocess.run([program, "--insecure", "--proto", str(ROOT / "proto" / "approvals.proto"), "--call", CALL, "-c", "128", "--connections", "1", "-n",
                                       str(votes), "-D", data, "-O", "json", node.endpoint.removeprefix("http://")],
                                      capture_output=True, text=True)
                if done.returncode:
                    raise RuntimeError(f"ghz: {(done.stderr or done.stdout).strip()[-300:]}")
                report = json.loads(done.stdout)
                at = {each["percentage"]: each["latency"] / 1e3 for each in report["latencyDistribution"]}
                rate, latency = report["rps"], {"p50": at[50], "p99": at[99]}
                errors = votes - report["statusCodeDistribution"].get("OK", 0)
                # A line a call, and the votes again: megabytes.
                del report["details"], report["options"]
                run.keep("ghz-report.json", json.dumps(report, indent=1))
            else:
                report = run.load("ghz-ours-load", "--mode", "unary", "--approvals", 100_000, "--count", votes,
                                  "--sample", 0, endpoint=node.endpoint)
                rate, latency = report["votes_per_second"], report["latency_us"]
                errors = votes - report["votes_acknowledged"]
            served = {share: between(before, node.histogram(SERVED), share) * 1e6 for share in (0.5, 0.99)}
            counted = node.metrics()[VOTES] - counted
            run.kept[f"ghz-{client}"] = {"client_rate": rate, "latency_us": latency, "errors": errors,
                                         "votes_counted": counted, "node_p50_us": served[0.5], "node_p99_us": served[0.99]}
            run.keep(f"ghz-{client}.json", json.dumps(run.kept[f"ghz-{client}"], indent=1))
            note = "" if counted == votes and not errors else f"VOID: {counted:,.0f} of {votes:,} counted, {errors} errors; "
            run.row(f"ghz-{client}", rate, 0, latency, f"{note}{errors} errors; the node's own histogram of these calls: "
                    f"p50 <= {served[0.5]:,.0f} us, p99 <= {served[0.99]:,.0f} us", began)
    finally:
        node.stop()
        shutil.rmtree(folder)


SCENARIOS = {f.__name__: f for f in (calibrate, rows, columns, batch, opens, lifecycle, mixed, unary, single, events,
                                     finality, grow, recover, postgres, redis, ghz)}
