//! The one table of metrics, and their rendering as Prometheus text.

use super::{
    CODES, Distribution, Histogram, METHODS, Metrics, OUTCOMES, REASONS, ShardMetrics, SinkMetrics, StripedHistogram,
    Totals,
};
use std::fmt::Write;

/// A metric: what outside readers rely on.
pub struct Metric {
    /// As Prometheus sees it.
    pub name: &'static str,
    /// As the contract names it, where it does.
    pub contract: Option<&'static str>,
    pub help: &'static str,
    pub read: Read,
}

/// Where its samples come from; says type and labels too.
pub enum Read {
    /// A sum over the node that only grows.
    Total(fn(&Totals) -> f64),
    /// A value of the node now.
    Now(fn(&Totals) -> f64),
    /// A counter of the node outside its totals.
    Count(fn(&Metrics) -> u64),
    /// A gauge of the node outside its totals.
    Level(fn(&Metrics) -> u64),
    /// One counter for each of these values of a label; an empty value is left out.
    CountBy(&'static str, &'static [&'static str], fn(&Metrics, usize) -> u64),
    /// Counters by method and code; those at zero are left out, they would be 170.
    Calls,
    /// A counter for each shard.
    Shard(fn(&ShardMetrics) -> u64),
    /// A gauge for each shard.
    ShardNow(fn(&ShardMetrics) -> u64),
    /// A counter for each sink.
    Sink(fn(&SinkMetrics) -> u64),
    /// A gauge for each sink.
    SinkNow(fn(&SinkMetrics) -> f64),
    /// A histogram for each shard.
    ShardHistogram(Scale, fn(&ShardMetrics) -> &Histogram),
    Histogram(Scale, fn(&Metrics) -> &StripedHistogram),
    /// 1, with the node's version and durability as labels.
    Info,
    /// Seconds since 1970.
    StartTime,
}

/// What a histogram's whole numbers are, and which bounds are shown (1, 2 and 5 in each decade).
#[derive(Clone, Copy)]
pub enum Scale {
    /// Nanoseconds, shown as seconds.
    Seconds {
        from_nanos: u64,
        to_nanos: u64,
    },
    Plain {
        from: u64,
        to: u64,
    },
}

impl Read {
    /// The word of a TYPE line.
    pub fn kind(&self) -> &'static str {
        match self {
            Read::Total(_) | Read::Count(_) | Read::CountBy(..) | Read::Calls | Read::Shard(_) | Read::Sink(_) => {
                "counter"
            }
            Read::Now(_) | Read::Level(_) | Read::ShardNow(_) | Read::SinkNow(_) | Read::Info | Read::StartTime => {
                "gauge"
            }
            Read::ShardHistogram(..) | Read::Histogram(..) => "histogram",
        }
    }

    /// Names of its labels, for the README.
    pub fn labels(&self) -> &'static str {
        match self {
            Read::Shard(_) | Read::ShardNow(_) | Read::ShardHistogram(..) => "shard",
            Read::Sink(_) | Read::SinkNow(_) => "sink",
            Read::CountBy(label, ..) => label,
            Read::Calls => "method, code",
            Read::Info => "version, durability",
            _ => "",
        }
    }
}

const fn metric(name: &'static str, read: Read, help: &'static str) -> Metric {
    Metric { name, contract: None, help, read }
}

const fn promised(name: &'static str, contract: &'static str, read: Read, help: &'static str) -> Metric {
    Metric { name, contract: Some(contract), help, read }
}

/// 10 us to 10 s: calls and commits.
const CALL: Scale = Scale::Seconds { from_nanos: 10_000, to_nanos: 10_000_000_000 };
/// 1 us to 1 s: turns of a shard's loop.
const TURN: Scale = Scale::Seconds { from_nanos: 1_000, to_nanos: 1_000_000_000 };
const BATCH: Scale = Scale::Plain { from: 1, to: 1_000_000 };

use Read::{Calls, Count, CountBy, Info, Level, Now, Shard, ShardHistogram, ShardNow, Sink, SinkNow, StartTime, Total};

/// Every metric, in the order of the README's table.
#[rustfmt::skip]
pub static METRICS: &[Metric] = &[
    promised("assent_requests_submitted_total", "totalRequestsSubmitted", Total(|t| t.requests_submitted as f64),
        "Approval requests answered: opened, repeated or refused."),
    promised("assent_responses_received_total", "totalResponsesReceived", Total(|t| t.responses_received as f64),
        "Votes answered: accepted, repeated or refused."),
    promised("assent_events_emitted_total", "totalEventsEmitted", Total(|t| t.events_emitted as f64),
        "Events made durable: openings, votes, expiries."),
    promised("assent_active_approvals", "activeApprovals", Now(|t| t.active_approvals as f64),
        "Approvals that are pending."),
    promised("assent_request_duration_seconds", "averageLatencyMs", Read::Histogram(CALL, |m| &m.front.unary_seconds),
        "Unary calls, from the request read to the answer ready."),

    metric("assent_approvals_opened_total", Shard(|s| s.requests_opened.get()), "Approvals opened."),
    metric("assent_request_repeats_total", Shard(|s| s.request_repeats.get()), "Requests that repeated one that stands."),
    metric("assent_requests_refused_total", CountBy("reason", &REASONS, requests_refused), "Requests refused, by reason."),
    metric("assent_votes_accepted_total", Shard(|s| s.votes_accepted.get()), "First votes that counted."),
    metric("assent_vote_repeats_total", Shard(|s| s.vote_repeats.get()), "Votes that repeated one that stands."),
    metric("assent_votes_refused_total", CountBy("reason", &REASONS, votes_refused), "Votes refused, by reason."),
    metric("assent_approvals_decided_total", CountBy("outcome", &OUTCOMES, decided), "Approvals decided, by outcome."),
    metric("assent_reads_total", Shard(|s| s.reads.get()), "Reads answered from memory."),
    metric("assent_archive_look_ups_total", Count(|m| m.front.look_ups.get()), "Questions that calls and streams put to the archive."),
    metric("assent_archive_request_repeats_total", Count(|m| m.front.request_repeats.get()), "Requests that repeated one that only the archive holds."),
    metric("assent_archive_vote_repeats_total", Count(|m| m.front.vote_repeats.get()), "Votes that repeated one that only the archive holds."),
    metric("assent_approvals_in_memory", ShardNow(|s| s.in_memory.get()), "Approvals in memory: pending, and decided but not archived."),
    metric("assent_approvals_pending", ShardNow(|s| s.pending.get()), "Approvals that are pending, by shard."),
    metric("assent_approvals_evicted_total", Shard(|s| s.evicted.get()), "Decided and archived approvals that left memory."),
    metric("assent_id_filter_bytes", Level(|m| m.id_filter.bytes.get()), "Memory of the filter of ids known before."),
    metric("assent_id_filter_ids", Level(|m| m.id_filter.ids.get()), "Ids in that filter."),
    metric("assent_id_filter_generations_dropped_total", Count(|m| m.id_filter.dropped.get()), "Generations of that filter dropped because its memory was used up."),
    metric("assent_validators_known", ShardNow(|s| s.validators.get()), "Distinct validator names held."),
    metric("assent_eligible_sets", ShardNow(|s| s.eligible_sets.get()), "Distinct sets of eligible validators held."),
    metric("assent_eligible_set_bytes", ShardNow(|s| s.eligible_bytes.get()), "Bytes of those sets."),

    metric("assent_commits_total", Shard(|s| s.commits.get()), "Frames written and synced."),
    metric("assent_commit_bytes_total", Shard(|s| s.commit_bytes.get()), "Bytes of those frames."),
    metric("assent_commit_duration_seconds", ShardHistogram(CALL, |s| &s.commit_seconds), "Write and sync of one frame."),
    metric("assent_commit_events", ShardHistogram(BATCH, |s| &s.commit_events), "Events in one frame."),
    metric("assent_journal_bytes", ShardNow(|s| s.journal_bytes.get()), "Bytes of the journal's files."),
    metric("assent_journal_segments", ShardNow(|s| s.journal_segments.get()), "Segments that hold events."),
    metric("assent_appended_sequence", ShardNow(|s| s.appended_sequence.get()), "Newest event decided."),
    metric("assent_durable_sequence", ShardNow(|s| s.durable_sequence.get()), "Newest event on disk."),
    metric("assent_published_sequence", ShardNow(|s| s.published_sequence.get()), "Newest event given to followers."),
    metric("assent_snapshots_total", Shard(|s| s.snapshots.get()), "Snapshots completed."),
    metric("assent_snapshot_sequence", ShardNow(|s| s.snapshot_sequence.get()), "Sequence that the newest snapshot covers."),
    metric("assent_recovered_events", ShardNow(|s| s.recovered_events.get()), "Events replayed at start."),
    metric("assent_recovery_seconds", Now(|t| t.recovery_seconds), "Time that recovery took at start, of the slowest shard."),

    metric("assent_turn_cpu_seconds", ShardHistogram(TURN, |s| &s.turn_cpu_seconds), "Thread CPU time of one turn of a shard's loop."),
    metric("assent_turn_wall_seconds", ShardHistogram(TURN, |s| &s.turn_wall_seconds), "Wall time of one turn of a shard's loop."),
    metric("assent_ring_full_total", Shard(|s| s.ring_full.get()), "Pushes that found a shard's ring full."),
    metric("assent_wakeups_total", Shard(|s| s.wakeups.get()), "Times that a sleeping shard was woken."),
    metric("assent_watchdog_wakeups_total", Shard(|s| s.watchdog.get()), "Times that the watchdog had to wake a shard; more than 0 deserves a report."),

    metric("assent_grpc_calls_total", Calls, "Calls that ended, by method and code."),
    metric("assent_grpc_connections", Level(|m| m.front.connections.get()), "gRPC connections open."),
    metric("assent_grpc_connections_refused_total", Count(|m| m.front.connections_refused.get()), "gRPC connections refused at the limit."),
    metric("assent_grpc_streams", Level(|m| m.front.streams.get()), "Bidirectional and batch streams open."),
    metric("assent_watchers", Now(|t| t.watchers as f64), "Watches, follows and subscriptions open."),
    metric("assent_watchers_closed_total", Count(|m| m.front.watchers_closed.get()), "Watchers closed because they did not keep up."),
    metric("assent_updates_sent_total", Count(|m| m.front.updates_sent.get()), "Messages of state and change sent to watchers."),
    metric("assent_http_connections", Level(|m| m.window.connections.get()), "HTTP connections open."),
    metric("assent_http_connections_refused_total", Count(|m| m.window.connections_refused.get()), "HTTP connections refused at the limit."),
    metric("assent_http_requests_total", Count(|m| m.window.requests.get()), "HTTP requests answered."),

    metric("assent_sink_state", SinkNow(|s| s.state.get() as f64), "0 starting, 1 up, 2 lagging, 3 down (it tries again), 4 stopped (it waits for an operator)."),
    metric("assent_sink_lag_events", SinkNow(|s| s.lag_events.get() as f64), "Durable events that the sink has not acknowledged."),
    metric("assent_sink_lag_bytes", SinkNow(|s| s.lag_bytes.get() as f64), "Bytes of journal that hold them."),
    metric("assent_sink_lag_seconds", SinkNow(|s| s.lag_millis.get() as f64 / 1e3), "How long the oldest of them has waited, at least since this start."),
    metric("assent_sink_events_total", Sink(|s| s.events.get()), "Events that the sink acknowledged."),
    metric("assent_sink_batches_total", Sink(|s| s.batches.get()), "Batches that it acknowledged."),
    metric("assent_sink_retries_total", Sink(|s| s.retries.get()), "Tries that found it unavailable."),
    metric("assent_sink_rejects_total", Sink(|s| s.rejects.get()), "Events that it refused for their content, put aside."),

    metric("assent_build_info", Info, "1, with the node's version and durability as labels."),
    metric("assent_uptime_seconds", Now(|t| t.uptime_seconds), "Seconds since the process started serving or recovering."),
    metric("process_start_time_seconds", StartTime, "When the process started, in seconds since 1970."),
    metric("process_resident_memory_bytes", Now(|t| t.process.rss_bytes as f64), "Resident memory."),
    metric("process_cpu_seconds_total", Total(|t| t.process.cpu_seconds), "User and system time of all threads."),
    metric("process_open_fds", Now(|t| t.process.open_files as f64), "Open file descriptors."),
];

fn requests_refused(metrics: &Metrics, reason: usize) -> u64 {
    let shards: u64 = metrics.shards.iter().map(|shard| shard.requests_refused.get(reason)).sum();
    shards + metrics.front.requests_refused.get(reason)
}

fn votes_refused(metrics: &Metrics, reason: usize) -> u64 {
    let shards: u64 = metrics.shards.iter().map(|shard| shard.votes_refused.get(reason)).sum();
    shards + metrics.front.votes_refused.get(reason)
}

fn decided(metrics: &Metrics, outcome: usize) -> u64 {
    metrics.shards.iter().map(|shard| shard.decided[outcome].get()).sum()
}

/// The README's table: Prometheus name, contract name, type, labels, help.
pub fn markdown() -> String {
    let mut text = String::from("| metric | contract | type | labels | what it says |\n|---|---|---|---|---|\n");
    for metric in METRICS {
        let contract = metric.contract.map_or(String::new(), |name| format!("`{name}`"));
        let (kind, labels) = (metric.read.kind(), metric.read.labels());
        text += &format!("| `{}` | {contract} | {kind} | {labels} | {} |\n", metric.name, metric.help);
    }
    text
}

pub(super) fn render(metrics: &Metrics) -> String {
    let totals = metrics.totals();
    let mut page = Page { text: String::with_capacity(64 << 10) };
    for metric in METRICS {
        page.head(metric);
        let name = metric.name;
        match &metric.read {
            Read::Total(read) | Read::Now(read) => page.sample(name, &[], read(&totals)),
            Read::Count(read) | Read::Level(read) => page.sample(name, &[], read(metrics) as f64),
            Read::CountBy(label, values, read) => {
                for (at, value) in values.iter().enumerate().filter(|(_, value)| **value != "UNSPECIFIED") {
                    page.sample(name, &[(label, value)], read(metrics, at) as f64);
                }
            }
            Read::Calls => {
                for (method, method_name) in METHODS.iter().enumerate() {
                    for (code, code_name) in CODES.iter().enumerate() {
                        let count = metrics.front.calls(method, code);
                        if count > 0 {
                            page.sample(name, &[("method", method_name), ("code", code_name)], count as f64);
                        }
                    }
                }
            }
            Read::Shard(read) | Read::ShardNow(read) => {
                for (index, shard) in metrics.shards.iter().enumerate() {
                    page.sample(name, &[("shard", &index.to_string())], read(shard) as f64);
                }
            }
            Read::Sink(read) => {
                for sink in metrics.sinks() {
                    page.sample(name, &[("sink", sink.name)], read(&sink) as f64);
                }
            }
            Read::SinkNow(read) => {
                for sink in metrics.sinks() {
                    page.sample(name, &[("sink", sink.name)], read(&sink));
                }
            }
            Read::ShardHistogram(scale, read) => {
                for (index, shard) in metrics.shards.iter().enumerate() {
                    page.histogram(name, &[("shard", &index.to_string())], *scale, &read(shard).read());
                }
            }
            Read::Histogram(scale, read) => page.histogram(name, &[], *scale, &read(metrics).read()),
            Read::Info => {
                let labels = [("version", metrics.identity.version), ("durability", metrics.identity.durability)];
                page.sample(name, &labels, 1.0);
            }
            Read::StartTime => page.sample(name, &[], metrics.identity.started_at_seconds),
        }
    }
    page.text
}

struct Page {
    text: String,
}

impl Page {
    fn head(&mut self, metric: &Metric) {
        // A HELP line escapes the backslash and the line's end.
        let help = metric.help.replace('\\', "\\\\").replace('\n', "\\n");
        let (name, kind) = (metric.name, metric.read.kind());
        writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}").expect("a String takes everything");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.text.push_str(name);
        if !labels.is_empty() {
            self.text.push('{');
            for (at, (label, value)) in labels.iter().enumerate() {
                let comma = if at > 0 { "," } else { "" };
                write!(self.text, "{comma}{label}=\"{}\"", escaped(value)).expect("a String takes everything");
            }
            self.text.push('}');
        }
        writeln!(self.text, " {value}").expect("a String takes everything");
    }

    fn histogram(&mut self, name: &str, labels: &[(&str, &str)], scale: Scale, read: &Distribution) {
        let (from, to, unit) = match scale {
            Scale::Seconds { from_nanos, to_nanos } => (from_nanos, to_nanos, 1e9),
            Scale::Plain { from, to } => (from, to, 1.0),
        };
        let bucket = format!("{name}_bucket");
        for (bound, count) in read.cumulative(from, to) {
            let bound = (bound as f64 / unit).to_string();
            self.sample(&bucket, &[labels, &[("le", bound.as_str())]].concat(), count as f64);
        }
        let count = read.count() as f64;
        self.sample(&bucket, &[labels, &[("le", "+Inf")]].concat(), count);
        self.sample(&format!("{name}_sum"), labels, read.sum as f64 / unit);
        self.sample(&format!("{name}_count"), labels, count);
    }
}

/// A label's value escapes the backslash, the quote and the line's end.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Identity, Method};
    use std::collections::HashSet;

    fn metrics(version: &'static str) -> std::sync::Arc<Metrics> {
        Metrics::new(Identity { version, durability: "journal", shards: 2, started_at_seconds: 1.5 })
    }

    #[test]
    fn names_are_legal_and_unique() {
        let mut seen = HashSet::new();
        for metric in METRICS {
            assert!(seen.insert(metric.name), "{} stands twice", metric.name);
            assert!(metric.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{}", metric.name);
            assert_eq!(metric.name.ends_with("_total"), metric.read.kind() == "counter", "{}", metric.name);
            assert!(metric.help.ends_with('.'), "{}", metric.name);
        }
    }

    #[test]
    fn renders_what_was_counted() {
        let metrics = metrics("1.0 \"q\"\\");
        metrics.shard(1).votes_accepted.add(3);
        metrics.shard(0).votes_refused.add(4, 2);
        metrics.front.votes_refused.add(1, 1);
        metrics.front.call_ended(Method::CheckHealth, 0);
        metrics.front.unary_seconds.record(1_500_000);
        metrics.shard(0).commit_events.record(20);
        let text = metrics.render();
        for line in [
            "# TYPE assent_votes_accepted_total counter",
            "assent_votes_accepted_total{shard=\"0\"} 0",
            "assent_votes_accepted_total{shard=\"1\"} 3",
            "assent_responses_received_total 6",
            "assent_votes_refused_total{reason=\"APPROVAL_DECIDED\"} 2",
            "assent_votes_refused_total{reason=\"INVALID_ARGUMENT\"} 1",
            "assent_grpc_calls_total{method=\"CheckHealth\",code=\"OK\"} 1",
            "assent_request_duration_seconds_bucket{le=\"0.001\"} 0",
            "assent_request_duration_seconds_bucket{le=\"0.002\"} 1",
            "assent_request_duration_seconds_bucket{le=\"+Inf\"} 1",
            "assent_request_duration_seconds_sum 0.0015",
            "assent_commit_events_bucket{shard=\"0\",le=\"20\"} 1",
            "assent_build_info{version=\"1.0 \\\"q\\\"\\\\\",durability=\"journal\"} 1",
            "process_start_time_seconds 1.5",
        ] {
            assert!(text.lines().any(|found| found == line), "no line {line:?} in\n{text}");
        }
    }

    #[test]
    fn totals_say_the_same() {
        let metrics = metrics("1");
        metrics.shard(0).requests_opened.add(2);
        metrics.shard(1).requests_refused.add(8, 1);
        metrics.shard(1).decided[2].add(1);
        metrics.front.unary_seconds.record(2_000_000);
        let totals = metrics.totals();
        assert_eq!((totals.requests_submitted, totals.requests_opened, totals.refused[8]), (3, 2, 1));
        assert_eq!((totals.expired, totals.average_latency_ms), (1, 2.0));
    }
}
