//! The report of a run: one JSON object (versioned), a table for people, a log of histograms.

use super::checker::{Decided, Verdict};
use super::events::Events;
use super::lane::REASONS;
use super::machine::Machine;
use super::timeline::{Clock, Interval, Latencies};
use crate::model::Reason;
use base64::{Engine, prelude::BASE64_STANDARD};
use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

/// Fields may be added under this name, never changed.
pub const SCHEMA: &str = "assent.load/1";

#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    pub schema: &'static str,
    pub mode: String,
    /// `own`: messages encoded by hand; `generated`: an ordinary client.
    pub client: String,
    pub command: String,
    /// Why the figures do not count; `null` when they do.
    pub void: Option<String>,
    /// What ended it: `duration`, `count`, `exhausted`, `interrupted` or `lost`.
    pub ended: String,
    pub settings: Settings,
    pub votes_sent: u64,
    /// Answered, and counted: refused ones are not in it.
    pub votes_acknowledged: u64,
    pub votes_unknown: u64,
    /// By reason.
    pub votes_refused: BTreeMap<&'static str, u64>,
    /// Votes that stood already, as the node counts them.
    pub votes_repeated: u64,
    /// Acknowledged ones in the measured seconds.
    pub votes_per_second: f64,
    /// Opened and acknowledged, prepared ones included.
    pub approvals_opened: u64,
    pub opens_refused: BTreeMap<&'static str, u64>,
    /// In modes open and mixed: opened; in mode lifecycle: decided with all votes answered; else 0.
    pub approvals_per_second: f64,
    pub decided: Decided,
    pub latency_us: LatencySummary,
    /// With `--watch`: what a watcher heard.
    pub events: Option<Events>,
    pub series: Vec<Second>,
    /// The measured ones.
    pub seconds: f64,
    pub prepare: Prepare,
    pub durability: String,
    pub ledger: Verdict,
    pub server: Server,
    pub generator: Generator,
    pub machine: Option<Machine>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Settings {
    pub approvals: u64,
    pub validators: u16,
    pub required: u16,
    pub batch: u32,
    pub connections: usize,
    pub in_flight: u32,
    pub threads: usize,
    pub duration: Option<u64>,
    pub warmup: u64,
    pub rate: Option<f64>,
    pub count: Option<u64>,
    pub content: usize,
    pub decisions: String,
    pub seed: u64,
    pub instance: String,
    pub layout: &'static str,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct LatencySummary {
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
    pub mean: f64,
    pub count: u64,
}

impl From<&Latencies> for LatencySummary {
    fn from(latencies: &Latencies) -> LatencySummary {
        let at = |percentile| latencies.value_at_percentile(percentile);
        LatencySummary {
            p50: at(50.0),
            p90: at(90.0),
            p99: at(99.0),
            p999: at(99.9),
            max: latencies.max(),
            mean: latencies.mean(),
            count: latencies.len(),
        }
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct Second {
    /// From the start of the run, warm-up included.
    pub second: usize,
    /// Not warm-up and not the end's stragglers.
    pub measured: bool,
    pub votes: u64,
    pub approvals_opened: u64,
    pub approvals_decided: u64,
    pub refused: u64,
    pub p50_us: u64,
    pub p99_us: u64,
    pub max_us: u64,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Prepare {
    pub approvals: u64,
    pub seconds: f64,
    pub approvals_per_second: f64,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Server {
    pub version: String,
    pub shards: u32,
    pub rss_bytes: u64,
    /// Used during the run (warm-up included, preparing and checking not).
    pub cpu_seconds: f64,
    pub journal_bytes: u64,
    /// Of these, written during the run.
    pub journal_bytes_run: u64,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Generator {
    /// Used during the run, as the server's.
    pub cpu_seconds: f64,
    /// The same for each item sent.
    pub cpu_ns_per_item: f64,
    /// Open loop: how late the 99th percentile and the latest message was sent, waiting for room
    /// in flight included. High: the generator or the node cannot keep the rate.
    pub schedule_lag_us: u64,
    pub schedule_lag_max_us: u64,
}

/// Counts by reason's number as a map of names, without the zeros.
pub fn by_reason(counts: &[u64; REASONS]) -> BTreeMap<&'static str, u64> {
    let name = |number: usize| {
        let reason = Reason::ALL.iter().find(|reason| usize::from(reason.number()) == number);
        reason.map_or("OTHER", |reason| reason.name())
    };
    let mut map = BTreeMap::new();
    for (number, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        *map.entry(name(number)).or_default() += count;
    }
    map
}

pub fn series(intervals: &[Interval], clock: &Clock) -> Vec<Second> {
    let second = |(second, interval): (usize, &Interval)| Second {
        second,
        measured: clock.measures(second),
        votes: interval.votes,
        approvals_opened: interval.opens,
        approvals_decided: interval.decided,
        refused: interval.refused,
        p50_us: interval.latencies.value_at_percentile(50.0),
        p99_us: interval.latencies.value_at_percentile(99.0),
        max_us: interval.latencies.max(),
    };
    intervals.iter().enumerate().map(second).collect()
}

/// HdrHistogram's interval log (version 1.3), latencies in microseconds, one line a second.
pub fn write_hdr_log(out: &mut impl Write, intervals: &[Interval], started: SystemTime) -> io::Result<()> {
    let started = started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    writeln!(out, "#[Histogram log format version 1.3]")?;
    writeln!(out, "#[StartTime: {started:.3} (seconds since epoch)]")?;
    writeln!(out, "#[Latencies in microseconds; Interval_Max too]")?;
    writeln!(out, "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"")?;
    let mut serializer = V2DeflateSerializer::new();
    for (second, interval) in intervals.iter().enumerate() {
        let mut bytes = Vec::new();
        serializer.serialize(&interval.latencies, &mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
        let text = BASE64_STANDARD.encode(bytes);
        writeln!(out, "{:.3},1.000,{:.3},{text}", started + second as f64, interval.latencies.max() as f64)?;
    }
    Ok(())
}

/// `1234567` as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, value: String| writeln!(f, "  {name:<22} {value}");
        let reasons = |map: &BTreeMap<&str, u64>| {
            map.iter().map(|(reason, count)| format!("{} {reason}", grouped(*count))).collect::<Vec<_>>().join(", ")
        };
        if self.ended != "duration" && self.ended != "count" {
            row("ended", self.ended.clone())?;
        }
        if self.prepare.approvals > 0 {
            let Prepare { approvals, seconds, approvals_per_second } = self.prepare;
            let rate = grouped(approvals_per_second as u64);
            row("prepared", format!("{} approvals in {seconds:.1} s ({rate}/s)", grouped(approvals)))?;
        }
        if self.votes_sent > 0 {
            row("votes acknowledged", grouped(self.votes_acknowledged))?;
            row("votes/s", format!("{} over {:.1} s", grouped(self.votes_per_second as u64), self.seconds))?;
        }
        if self.approvals_per_second > 0.0 {
            row("approvals/s", format!("{} over {:.1} s", grouped(self.approvals_per_second as u64), self.seconds))?;
        }
        if !self.votes_refused.is_empty() {
            row("votes refused", reasons(&self.votes_refused))?;
        }
        if !self.opens_refused.is_empty() {
            row("opens refused", reasons(&self.opens_refused))?;
        }
        if self.votes_repeated > 0 {
            row("votes repeated", grouped(self.votes_repeated))?;
        }
        if self.votes_unknown > 0 {
            row("votes unknown", grouped(self.votes_unknown))?;
        }
        let Decided { approved, rejected, expired } = self.decided;
        if approved + rejected + expired > 0 {
            let (approved, rejected, expired) = (grouped(approved), grouped(rejected), grouped(expired));
            row("decided", format!("{approved} approved, {rejected} rejected, {expired} expired"))?;
        }
        if self.latency_us.count > 0 {
            let LatencySummary { p50, p90, p99, p999, max, .. } = &self.latency_us;
            let text = [("p50", p50), ("p90", p90), ("p99", p99), ("p99.9", p999), ("max", max)]
                .map(|(name, value)| format!("{name} {}", grouped(*value)));
            row("latency us", text.join("  "))?;
        }
        if let Some(events) = &self.events {
            let text = |LatencySummary { p50, p99, max, count, .. }: &LatencySummary| {
                let (p50, p99, max, count) = (grouped(*p50), grouped(*p99), grouped(*max), grouped(*count));
                format!("p50 {p50}  p99 {p99}  max {max}  ({count} events)")
            };
            row("answer to event us", text(&events.answer_to_event_us))?;
            row("vote to APPROVED us", text(&events.due_to_approved_us))?;
            if events.missing > 0 {
                row("events missing", grouped(events.missing))?;
            }
        }
        if self.settings.rate.is_some() {
            let Generator { schedule_lag_us, schedule_lag_max_us, .. } = &self.generator;
            row(
                "schedule lag us",
                format!("p99 {}  max {}", grouped(*schedule_lag_us), grouped(*schedule_lag_max_us)),
            )?;
        }
        let Generator { cpu_seconds, cpu_ns_per_item, .. } = &self.generator;
        row("generator CPU", format!("{cpu_seconds:.2} s, {cpu_ns_per_item:.1} ns an item"))?;
        let Server { version, shards, rss_bytes, cpu_seconds, journal_bytes_run, .. } = &self.server;
        row("server CPU", format!("{cpu_seconds:.2} s, {} MiB resident", rss_bytes >> 20))?;
        row("journal", format!("{} MiB written", journal_bytes_run >> 20))?;
        row("node", format!("version {version}, {shards} shards, durability {}", self.durability))?;
        let Verdict { acknowledged, missing, unexpected, unknown, unknown_counted, approvals_checked, .. } =
            &self.ledger;
        let counts = format!("{} acknowledged, {missing} missing, {unexpected} unexpected", grouped(*acknowledged));
        let unknown = match unknown {
            0 => String::new(),
            _ => format!(", {unknown_counted} of {unknown} never answered are there"),
        };
        row(
            "ledger",
            match self.ledger.balances {
                Some(true) => format!("balances: {counts}{unknown} ({} approvals asked)", grouped(*approvals_checked)),
                Some(false) => format!("DOES NOT BALANCE: {counts}{unknown}"),
                None => format!("not compared: {} acknowledged{}", grouped(*acknowledged), unknown),
            },
        )?;
        for example in &self.ledger.examples {
            row("", example.clone())?;
        }
        if let Some(why) = &self.void {
            row("VOID", why.clone())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::serialization::Deserializer;

    #[test]
    fn the_hdr_log_reads_back() {
        let mut interval = Interval::default();
        interval.latencies.record_n(1_234, 5).expect("records");
        let mut out = Vec::new();
        write_hdr_log(&mut out, &[Interval::default(), interval], UNIX_EPOCH).expect("writes");
        let text = String::from_utf8(out).expect("text");
        let last = text.lines().last().expect("lines");
        assert!(last.starts_with("1.000,1.000,1234.000,") || last.starts_with("1.000,1.000,1235.000,"), "{last}");
        let bytes = BASE64_STANDARD.decode(last.rsplit(',').next().expect("a field")).expect("base64");
        let read: Latencies = Deserializer::new().deserialize(&mut &bytes[..]).expect("a histogram");
        assert_eq!(read.len(), 5);
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 12, 123, 1_234, 1_234_567].map(grouped), ["0", "12", "123", "1,234", "1,234,567"]);
    }

    #[test]
    fn reasons_have_their_names() {
        let mut counts = [0; REASONS];
        (counts[4], counts[REASONS - 1]) = (3, 1);
        assert_eq!(by_reason(&counts), BTreeMap::from([("APPROVAL_DECIDED", 3), ("OTHER", 1)]));
    }
}
