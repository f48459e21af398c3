"""What each figure is held against: its absolute bar, and its ratio to the ceiling of the same run."""


def votes(kept, name):
    return kept[name]["votes_per_second"]


def at_least(figure, bar, unit="votes/s"):
    return f"{figure / bar:.2f} x {bar:,.0f} {unit}", figure >= bar


def ratio(figure, ceiling, bar, of):
    return f"{figure / ceiling * 100:.0f} % of {of} (bar {bar * 100:.0f})", figure >= ceiling * bar


def at_most(figure, bar, unit):
    return f"{figure:,.2f} of at most {bar:,.2f} {unit}", figure <= bar


def absolute(bar, figure="votes_per_second", unit="votes/s"):
    return lambda kept, name: at_least(kept[name][figure], bar, unit)


def of_ceiling(ceiling, bar):
    return lambda kept, name: ratio(votes(kept, name), votes(kept, ceiling), bar, ceiling)


def of_share(ceiling):
    """No bar: the share of its ceiling alone."""
    return lambda kept, name: (f"{votes(kept, name) / votes(kept, ceiling) * 100:.0f} % of {ceiling}", None)


def synced_p99(kept, name, more_us, figure=lambda report: report["latency_us"]["p99"]):
    bar = kept["disk-4k"]["p99_us"] + more_us
    return f"p99 {figure(kept[name]):,.0f} us (bare sync p99 + {more_us // 1000} ms = {bar:,.0f})", figure(kept[name]) <= bar


def lone(mode):
    def held(kept, name):
        disk = kept["disk-4k"]["seconds"] / kept["disk-4k"]["writes"] * 1e6
        floor = disk + kept[f"noop-single-{mode}"]["latency_us"]["mean"]
        mean = kept[name]["latency_us"]["mean"]
        words = f"mean {mean:,.0f} us = {mean / floor:.2f} x sync + no-op round trip ({floor:,.0f} us) (bar 1.3)"
        return words, mean <= 1.3 * floor
    return held


def watched(scenario, figure):
    return lambda kept, _: synced_p99(kept, scenario, 5_000, lambda report: report["events"][figure]["p99"])


def of_assent(assent):
    """A peer has no bar: how many times as many votes assent does."""
    return lambda kept, name: (f"{assent} does {votes(kept, assent) / votes(kept, name):,.1f} x", None)


def added_by_snapshots(kept, name):
    added = kept[name]["busy_p99_ms"] - kept[name]["calm_p99_ms"]
    return f"adds {added:.2f} ms to p99 (bar 5)", added <= 5 and kept[name]["snapshots"] > 0


def beside(other, bar, of):
    """A sink, and what the same server does without it."""
    return lambda kept, name: ratio(kept[name]["sink_per_second"], kept[name][other], bar, of)


def flat_lag(bar):
    def held(kept, name):
        words, met = at_least(kept[name]["events_per_second"], bar, "events/s")
        return words + ("" if kept[name]["flat"] else ", and the lag grows"), met and kept[name]["flat"]
    return held


def flat_memory(kept, name):
    few, many = kept[name]["few"], kept[name]["many"]
    bar = 1.05 * few["rss_bytes"] + many["filter_bytes"] - few["filter_bytes"]
    return at_most(many["rss_bytes"] / 2**20, bar / 2**20, "MiB (before + filter + 5 %)")


def beside_none(figure, of="none"):
    """No bar: with the archive beside without."""
    def held(kept, name):
        without = kept[f"{name.rsplit('-', 1)[0]}-{of}"]
        return f"{figure(kept[name]) / figure(without):.2f} x without", None
    return held


HALF_RATE = [lambda kept, name: synced_p99(kept, name, 3_000)]
BARS = {
    "rows": [absolute(5e6), of_ceiling("noop-generated-rows", 1), of_ceiling("noop-own-rows", 0.45)],
    "columns": [absolute(10e6)],
    "rows-generated-client": [absolute(2.5e6)],
    "batch": [absolute(2e6), of_share("noop-own-batch")],
    "lifecycle": [absolute(300e3, "approvals_per_second", "approvals/s")],
    "open": [absolute(600e3, "approvals_per_second", "approvals/s")],
    "unary-1": [of_ceiling("noop-own-unary", 0.85)],
    "unary-8": [of_ceiling("noop-own-unary-8", 0.65)],
    "unary-64": [of_share("noop-own-unary-64")],
    "unary-1-half-rate": HALF_RATE,
    "unary-8-half-rate": HALF_RATE,
    "snapshot-1m-under-load": [added_by_snapshots],
    "snapshot-10m-under-load": [added_by_snapshots],
    **{f"turns-{pending}": [lambda kept, name: at_most(kept[name]["cpu_ms"]["1.0"], 1, "ms CPU")]
       for pending in (100_000, 1_000_000, 10_000_000)},
    "single-unary": [lone("unary")],
    "single-stream": [lone("stream")],
    **{f"{scenario}: {title}": [watched(scenario, figure)] for scenario in ("events", "finality")
       for title, figure in (("events", "answer_to_event_us"), ("finality", "due_to_approved_us"))},
    "grow-10000000": [of_ceiling("grow-100000", 0.5)],
    "recover-1m": [absolute(3e6, "events_per_second", "events/s")],
    "recover-10m": [absolute(1.5e6, "events_per_second", "events/s")],
    "snapshot-10m": [lambda kept, name: at_most(kept[name]["seconds"], 10, "s")],
    "memory-1m": [lambda kept, name: at_most(kept[name]["bytes_an_approval"], 192, "bytes")],
    "memory-10m": [lambda kept, name: at_most(kept[name]["bytes_an_approval"], 192, "bytes")],
    "idle-1m": [lambda kept, name: at_most(kept[name]["percent_of_a_core"], 0.5, "% of a core")],
    "idle-10m": [lambda kept, name: at_most(kept[name]["percent_of_a_core"], 0.5, "% of a core")],
    "copy-together": [beside("copy_per_second", 0.7, "bare COPY")],
    "copy-apart": [beside("copy_per_second", 0.5, "bare COPY")],
    "kafka": [beside("tool_per_second", 0.7, "the broker's own tool")],
    "sustained-sqlite": [flat_lag(60e3)],
    "sustained-postgres": [flat_lag(60e3)],
    "sustained-kafka": [flat_lag(100e3)],
    "flat": [flat_memory],
    **{f"interference-{store}": [beside_none(lambda report: report["latency_us"]["p99"])]
       for store in ("sqlite", "postgres", "kafka", "both")},
    **{f"{name}-{store}": [beside_none(lambda report, rate=rate: report[rate])]
       for name, rate in (("burst", "votes_per_second"), ("rows-archive", "votes_per_second"),
                          ("lifecycle-archive", "approvals_per_second")) for store in ("sqlite", "postgres")},
    "postgres": [of_assent("unary-8")],
    "postgres-batch": [of_assent("rows")],
    "postgres-single": [of_assent("single-unary")],
    "redis": [of_assent("rows")],
    "redis-unpipelined": [of_assent("unary-8")],
    "redis-single": [of_assent("single-unary")],
}


def judge(name, kept):
    """(held against what, "yes", "no", "-" where its ceiling was not measured or there is no bar)."""
    words, met = [], []
    for bar in BARS.get(name, []):
        try:
            text, holds = bar(kept, name)
        except (KeyError, TypeError, ZeroDivisionError):
            continue
        words.append(text)
        met += [] if holds is None else [holds]
    return "; ".join(words), "-" if not met else "yes" if all(met) else "no"
