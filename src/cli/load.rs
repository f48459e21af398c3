//! `assent load` and the hidden `assent noop`: flags into a plan, an outcome into files and an exit code.

use super::Exit;
use super::client::Endpoint;
use crate::grpc::client::Target;
use crate::load::{self, Condition, Failure, Layout, Ledger, Mix, Mode, Node, Outcome, Plan, Report, noop};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use std::fs::File;
use std::io::BufWriter;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Drive a node and check everything it acknowledged
///
/// Without --endpoint it starts a node of its own (free ports, a fresh data folder under --data) and
/// ends it afterwards. After the run it asks the node for every approval it touched and compares:
/// a ledger that does not balance makes the run void and the exit code 1.
///
///   assent load --mode rows                                 votes in batches, as fast as they go
///   assent load --mode unary --rate 20000                   open loop: latency at a fixed rate
///   assent load --mode lifecycle                            open, vote, decide; 1 M pending throughout
///   assent load --mode mixed                                opens, votes and expiries as a cluster has them
///   assent load --endpoint http://node:9004 --ledger F      drive a node that runs already …
///   assent load --verify F --endpoint http://node:9004      … and compare again after a kill -9
///
/// Exit codes: 0 fine, 1 void or --fail-if held, 2 usage, 3 the node cannot be reached or went away.
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct LoadArgs {
    #[arg(long, value_enum, default_value = "rows")]
    mode: Mode,

    /// Approvals to vote on, opened first; in modes lifecycle and mixed: pending throughout [default: 1,000,000]
    #[arg(long, value_name = "N")]
    approvals: Option<u64>,

    /// Validators of each approval (N of the rules) [default: 256; modes open, lifecycle
    /// and mixed: 5]
    #[arg(long, value_name = "N")]
    validators: Option<u16>,

    /// Approvals needed (Q of the rules) [default: two thirds of --validators, rounded up; 3 of 5]
    #[arg(long, value_name = "Q")]
    required: Option<u16>,

    /// Votes a message (rows, columns, lifecycle, mixed) or a call (batch) [default: 4,096; columns
    /// 8,192; lifecycle and mixed 1,024]
    #[arg(long, value_name = "VOTES")]
    batch: Option<u32>,

    #[arg(long, value_name = "C", default_value_t = 1)]
    connections: usize,

    /// Messages in flight on each connection [default: unary 128; stream and open 4,096; batch 4;
    /// rows, columns, lifecycle and mixed 16]
    #[arg(long, value_name = "F")]
    in_flight: Option<u32>,

    /// Seconds that are measured
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    duration: u64,

    /// Seconds before that, not measured [default: 2; with --count 0]
    #[arg(long, value_name = "SECONDS")]
    warmup: Option<u64>,

    /// Open loop: votes a second over all connections (modes open and lifecycle: approvals). Each
    /// message has a scheduled start, and its latency counts from there
    #[arg(long, value_name = "R")]
    rate: Option<f64>,

    /// A constant number of votes (modes open and lifecycle: approvals) instead of seconds
    #[arg(long, value_name = "ITEMS")]
    count: Option<u64>,

    /// Bytes of each approval's content
    #[arg(long, value_name = "BYTES", default_value_t = 256)]
    content: usize,

    /// Percent of votes that approve, reject and abstain
    #[arg(long, value_name = "A/R/B", default_value_t = Mix::DEFAULT)]
    decisions: Mix,

    /// Everything that is sent follows from it. The same seed on the same node makes repeats, not
    /// votes [default: random, and told]
    #[arg(long)]
    seed: Option<u64>,

    /// This is generator I of N: no two of them share an approval
    #[arg(long, value_name = "I/N", default_value = "1/1", value_parser = parse_instance)]
    instance: (u16, u16),

    /// Only open the approvals; vote later with --reuse
    #[arg(long, requires = "ledger")]
    prepare: bool,

    /// Go on where the file of --ledger ends: its approvals, none of its votes again
    #[arg(long, requires = "ledger")]
    reuse: bool,

    /// Keep what was acknowledged in this file
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,

    /// Send nothing: compare this file of --ledger with the node
    #[arg(long, value_name = "FILE", conflicts_with_all = ["ledger", "mode", "hdr"])]
    verify: Option<PathBuf>,

    /// `own` encodes by hand; `generated` is the ordinary client: generated code, a String an id
    #[arg(long, value_enum, default_value = "own")]
    client: ClientKind,

    /// How votes travel in modes lifecycle and mixed (columns: not in mixed)
    #[arg(long, value_enum, default_value = "rows")]
    layout: LayoutKind,

    /// Threads for the connections [default: one a connection, at most one a core]
    #[arg(long, value_name = "T")]
    threads: Option<usize>,

    /// A watcher hears every event: vote answered → event, and last needed vote → APPROVED, in the
    /// report. With --rate or --count
    #[arg(long)]
    watch: bool,

    /// Approvals whose votes are compared one by one (all are compared by tally)
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    sample: u64,

    /// Exit with 1 if this holds of the report: 'p99_us>5000', 'votes_per_second<2e6'. May be repeated
    #[arg(long, value_name = "CONDITION")]
    fail_if: Vec<Condition>,

    /// Write the report (of --verify: the comparison) as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Write a histogram of latencies for each second, in HdrHistogram's log format
    #[arg(long, value_name = "FILE")]
    hdr: Option<PathBuf>,

    /// Without --endpoint: the node's data folder is made in here, and removed if all went well
    #[arg(long, value_name = "DIR", default_value = "assent-load")]
    data: PathBuf,

    /// Without --endpoint: a further argument for the node's `serve`. May be repeated:
    /// --serve-arg=--shards=1
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    serve_arg: Vec<String>,

    /// Compare nothing: for the no-op service only, and the run is void
    #[arg(long, hide = true)]
    no_check: bool,

    #[command(flatten)]
    endpoint: Endpoint,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum ClientKind {
    Own,
    Generated,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum LayoutKind {
    Rows,
    Columns,
    Singles,
}

fn parse_instance(text: &str) -> Result<(u16, u16), String> {
    let parsed = text.split_once('/').and_then(|(i, n)| Some((i.parse::<u16>().ok()?, n.parse::<u16>().ok()?)));
    match parsed {
        Some((instance, count)) if (1..=count).contains(&instance) => Ok((instance - 1, count)),
        _ => Err("expected I/N with I from 1 to N: 2/4".into()),
    }
}

impl LoadArgs {
    fn plan(&self) -> Plan {
        let few = matches!(self.mode, Mode::Open | Mode::Lifecycle | Mode::Mixed);
        let validators = self.validators.unwrap_or(if few { 5 } else { 256 });
        let required = self.required.unwrap_or(match validators {
            5 => 3,
            _ => (u32::from(validators) * 2).div_ceil(3) as u16,
        });
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Plan {
            mode: self.mode,
            generated: self.client == ClientKind::Generated,
            layout: match self.layout {
                LayoutKind::Rows => Layout::Rows,
                LayoutKind::Columns => Layout::Columns,
                LayoutKind::Singles => Layout::Singles,
            },
            approvals: self.approvals.unwrap_or(1_000_000),
            validators,
            required,
            batch: self.batch.unwrap_or(match self.mode {
                Mode::Columns => 8_192,
                Mode::Lifecycle | Mode::Mixed => 1_024,
                _ => 4_096,
            }),
            connections: self.connections,
            in_flight: self.in_flight.unwrap_or(match self.mode {
                Mode::Unary => 128,
                Mode::Stream | Mode::Open => 4_096,
                Mode::Batch => 4,
                Mode::Rows | Mode::Columns | Mode::Lifecycle | Mode::Mixed => 16,
            }),
            threads: self.threads.unwrap_or(cores),
            duration: self.duration,
            warmup: self.warmup.unwrap_or(if self.count.is_some() { 0 } else { 2 }),
            rate: self.rate,
            count: self.count,
            content_bytes: self.content,
            decisions: self.decisions,
            seed: self.seed.unwrap_or_else(rand::random),
            instance: self.instance,
            prepare_only: self.prepare,
            check: !self.no_check,
            watch: self.watch,
            sample: self.sample,
            command: std::env::args().collect::<Vec<_>>().join(" "),
        }
    }
}

/// What stops a command: said on standard error, with its exit code.
struct Stop(Exit, String);

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Stop {
        let code = match failure {
            Failure::Usage(_) | Failure::Ledger(_) => Exit::Usage,
            Failure::Unreachable(_) => Exit::Unreachable,
            Failure::Refused(_) => Exit::Refused,
        };
        Stop(code, failure.to_string())
    }
}

pub fn run(args: &LoadArgs) -> Exit {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let result = match &args.verify {
        Some(ledger) => runtime.block_on(verify(args, ledger)),
        None => load(args, &runtime),
    };
    match result {
        Ok(code) => code,
        Err(Stop(code, what)) => {
            eprintln!("assent load: {what}");
            code
        }
    }
}

fn load(args: &LoadArgs, runtime: &tokio::runtime::Runtime) -> Result<Exit, Stop> {
    let usage = |what: String| Stop(Exit::Usage, what);
    let mut plan = args.plan();
    plan.check().map_err(usage)?;
    check_conditions(&args.fail_if).map_err(usage)?;
    let ledger = match (&args.ledger, args.reuse) {
        (Some(path), true) => {
            let ledger = Ledger::load(path).map_err(Failure::from)?;
            plan.adopt(&ledger).map_err(usage)?;
            ledger
        }
        (Some(path), false) if path.exists() => {
            let name = path.display();
            return Err(usage(format!("{name} is there already: --reuse goes on from it, --verify compares it")));
        }
        _ => Ledger { header: plan.header(), tracks: Vec::new() },
    };
    if let Some(path) = &args.ledger {
        // Now, not after the run, is the time to hear that it cannot be written.
        ledger.save(path).map_err(Failure::from)?;
    }
    let (target, node) = match args.endpoint.given() {
        Some(target) => (target, None),
        None => {
            let node = Node::start(&args.data, &args.serve_arg)
                .map_err(|error| Stop(Exit::Unreachable, format!("cannot start a node: {error:#}")))?;
            (Target::plain(node.endpoint.clone()), Some(node))
        }
    };
    let by = if plan.generated { ", generated client" } else { "" };
    println!("assent load: mode {}{by}, seed {}, on {}", plan.mode.name(), plan.seed, target.endpoint);
    let outcome = runtime.block_on(load::run(&plan, &target, ledger, args.ledger.as_deref()))?;
    if let (Some(node), None) = (node, &outcome.lost) {
        node.stop().map_err(|error| Stop(Exit::Refused, format!("{error:#}")))?;
    }
    print!("{}", outcome.report);
    write_files(args, &outcome).map_err(|error| Stop(Exit::Refused, format!("{error:#}")))?;
    Ok(verdict(args, &outcome))
}

/// The exit code, with its reason on standard error.
fn verdict(args: &LoadArgs, outcome: &Outcome) -> Exit {
    if let Some(lost) = &outcome.lost {
        let kept = args.ledger.as_ref().map_or_else(
            || "keep what is acknowledged with --ledger FILE, to compare it later".to_owned(),
            |path| format!("compare later: assent load --verify {} --endpoint …", path.display()),
        );
        eprintln!("assent load: the node went away: {lost}\n  {kept}");
        return Exit::Unreachable;
    }
    let mut failed = false;
    if let (Some(void), false) = (&outcome.report.void, args.no_check) {
        eprintln!("assent load: void: {void}");
        failed = true;
    }
    let report = serde_json::to_value(&outcome.report).expect("a report is JSON");
    for condition in &args.fail_if {
        let value = condition.find(&report).unwrap_or(0.0);
        if condition.holds(value) {
            eprintln!("assent load: --fail-if {condition}: it is {value}");
            failed = true;
        }
    }
    if failed { Exit::Refused } else { Exit::Done }
}

/// Counts of reasons that did not occur are absent from a report, and mean 0.
fn check_conditions(conditions: &[Condition]) -> Result<(), String> {
    // What a run without --watch does not have is 0 too.
    let watched = Report { events: Some(load::events::Events::default()), ..Report::default() };
    let empty = serde_json::to_value(watched).expect("a report is JSON");
    let known = |condition: &&Condition| {
        let text = condition.to_string();
        let by_reason = text.starts_with("votes_refused.") || text.starts_with("opens_refused.");
        // `balances` is null until it is known.
        by_reason || text.starts_with("ledger.balances") || condition.find(&empty).is_some()
    };
    match conditions.iter().find(|condition| !known(condition)) {
        Some(unknown) => Err(format!("--fail-if {unknown}: the report has no such number")),
        None => Ok(()),
    }
}

fn write_files(args: &LoadArgs, outcome: &Outcome) -> anyhow::Result<()> {
    if let Some(path) = &args.json {
        write_json(path, &serde_json::to_value(&outcome.report)?)?;
    }
    if let Some(path) = &args.hdr {
        load::write_hdr_log(&mut BufWriter::new(File::create(path)?), &outcome.intervals, outcome.started)?;
    }
    Ok(())
}

fn write_json(path: &Path, value: &Value) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    std::fs::write(path, text + "\n").map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))
}

async fn verify(args: &LoadArgs, ledger: &Path) -> Result<Exit, Stop> {
    let target = args.endpoint.target();
    let (verdict, decided, health) = load::verify(ledger, &target, args.sample).await?;
    let balances = verdict.balances == Some(true);
    let result = json!({
        "schema": "assent.load.verify/1",
        "acknowledged": verdict.acknowledged,
        "missing": verdict.missing,
        "unexpected": verdict.unexpected,
        "balances": balances,
        "unknown": verdict.unknown,
        "unknown_counted": verdict.unknown_counted,
        "approvals_checked": verdict.approvals_checked,
        "approvals_checked_by_vote": verdict.approvals_checked_by_vote,
        "examples": verdict.examples,
        "decided": decided,
        "server": {"version": health.version, "shards": health.shards, "durability": health.durability},
    });
    if let Some(path) = &args.json {
        write_json(path, &result).map_err(|error| Stop(Exit::Refused, format!("{error:#}")))?;
    }
    println!(
        "{}: {} acknowledged, {} missing, {} unexpected; {} of {} never answered are there",
        if balances { "balances" } else { "DOES NOT BALANCE" },
        verdict.acknowledged,
        verdict.missing,
        verdict.unexpected,
        verdict.unknown_counted,
        verdict.unknown,
    );
    verdict.examples.iter().for_each(|example| println!("  {example}"));
    Ok(if balances { Exit::Done } else { Exit::Refused })
}

/// A service with the same protos that decodes and acknowledges, without engine and disk: what
/// `load --no-check` measures as the ceiling
#[derive(Args, Debug)]
pub struct NoopArgs {
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9104")]
    grpc: SocketAddr,

    #[arg(long, value_enum, default_value = "own")]
    decoder: noop::Decoding,

    #[arg(long, value_name = "T", default_value_t = 2)]
    threads: usize,

    /// Written as JSON once it serves
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

pub fn run_noop(args: NoopArgs) -> anyhow::Result<Exit> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(args.threads.max(1)).enable_all().build()?;
    let ready = |address: SocketAddr| {
        eprintln!("assent noop: http://{address}, decoder {:?}", args.decoder);
        if let Some(path) = &args.ready_file {
            let text = json!({"grpc": address.to_string(), "pid": std::process::id()}).to_string();
            let beside = path.with_extension("writing");
            let written = std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, path));
            if let Err(error) = written {
                eprintln!("assent noop: {}: {error}", path.display());
            }
        }
    };
    runtime.block_on(noop::serve(args.grpc, args.decoder, ready))?;
    Ok(Exit::Done)
}

/// The disk alone, as the journal uses it: aligned blocks, each durable before the next
#[derive(Args, Debug)]
pub struct DiskArgs {
    /// Where the file is made (and removed)
    #[arg(long, value_name = "DIR", default_value = ".")]
    data: PathBuf,

    /// Bytes of a write, in whole 4 KiB
    #[arg(long, value_name = "BYTES", default_value_t = 4096)]
    block: usize,

    #[arg(long, value_name = "N", default_value_t = 1000)]
    writes: u64,
}

pub fn run_disk(args: &DiskArgs) -> anyhow::Result<Exit> {
    let report = crate::load::disk::measure(&args.data, args.block, args.writes)?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(Exit::Done)
}

/// Memory alone, as tables use it: 64-byte lines read at random
#[derive(Args, Debug)]
pub struct MemoryArgs {
    #[arg(long, value_name = "N", default_value_t = 1 << 30)]
    bytes: usize,

    #[arg(long, value_name = "N", default_value_t = 10_000_000)]
    reads: u64,
}

pub fn run_memory(args: &MemoryArgs) -> anyhow::Result<Exit> {
    println!("{}", serde_json::to_string(&crate::load::memory::measure(args.bytes, args.reads))?);
    Ok(Exit::Done)
}
