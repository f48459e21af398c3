//! A run from its first connection to its report: prepare, drive, write the ledger, check, report.

use super::checker::{self, Decided, Verdict};
use super::crew::{Crew, End};
use super::events::{Answers, Watcher};
use super::lane::{Lane, LaneTally, Order, Phase, REASONS};
use super::ledger::{self, Ledger, Workload};
use super::machine::{Machine, Usage};
use super::noop;
use super::plan::{Mode, Plan, Transport};
use super::progress::Progress;
use super::report::{self, Generator, LatencySummary, Prepare, Report, Server, Settings, by_reason};
use super::stream::Layout;
use super::timeline::{Clock, Interval, Latencies, latencies};
use super::track::Track;
use crate::grpc::client::{self, Target, causes};
use crate::wire::v1::approval_grpc_service_client::ApprovalGrpcServiceClient;
use crate::wire::v1::{HealthCheckRequest, HealthCheckResponse};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};
use tonic::Status;
use tonic::transport::Channel;

#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Unreachable(String),
    /// The node was reached, and the run could not be made.
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Failure {
        match error {
            client::Error::Usage(what) => Failure::Usage(what),
            client::Error::Unreachable { .. } => Failure::Unreachable(error.to_string()),
        }
    }
}

/// What is left of a run.
#[derive(Debug)]
pub struct Outcome {
    pub report: Report,
    pub intervals: Vec<Interval>,
    pub started: SystemTime,
    /// The node went away in the middle (and what it said last).
    pub lost: Option<String>,
}

/// One phase's accounts.
#[derive(Default)]
struct Accounts {
    end: End,
    tally: LaneTally,
    lag: Option<Latencies>,
    intervals: Vec<Interval>,
    seconds: f64,
}

/// Makes the run. `ledger`: what it goes on from (or an empty one), and where it is kept.
pub async fn run(
    plan: &Plan,
    target: &Target,
    mut ledger: Ledger,
    ledger_path: Option<&Path>,
) -> Result<Outcome, Failure> {
    let crew = Crew::connect(target, plan.connections, plan.threads).await?;
    let before = health(&crew.channels[0]).await.map_err(|status| unreachable(&status))?;
    if !plan.check && before.version != noop::VERSION {
        return Err(Failure::Usage("--no-check is for the no-op service, which has nothing to check".into()));
    }
    let scheme = Arc::new(ledger.scheme());
    let mut report = new_report(plan, &before);
    let keep = |ledger: &Ledger| ledger_path.map_or(Ok(()), |path| ledger.save(path));

    let opens = plan.take_opens(&mut ledger);
    let mut lost = None;
    if opens.iter().any(|(track, count)| *count > 0 && track.sent < track.to) {
        let phase = Arc::new(Phase::new(scheme.clone(), forever()));
        let work = opens.into_iter().map(|(track, count)| (plan.prepare_cut(count), Order::RoundRobin, vec![track]));
        // Gaps of a reused ledger may be more than connections: they come one round after the other.
        let mut work: Vec<_> = work.collect();
        let bar = Progress::start("preparing", plan.approvals);
        while !work.is_empty() && lost.is_none() {
            let lanes: Vec<_> = work.drain(..work.len().min(plan.connections)).collect();
            let watch = |phase: &Phase| {
                let opens = phase.opens.load(Ordering::Relaxed);
                bar.at(opens, || Progress::rate(opens, phase.clock.start.elapsed().as_secs_f64(), "approvals"));
            };
            let transport = Transport::Stream(Layout::Singles);
            let accounts = drive(&crew, &phase, lanes, transport, plan, &mut ledger, watch).await;
            report.prepare.approvals += accounts.tally.opens_accepted;
            report.prepare.seconds += accounts.seconds;
            add(&mut ledger.header.opens_refused, &accounts.tally.opens_refused);
            let refused = by_reason(&accounts.tally.opens_refused);
            lost = accounts.end.lost.map(|status| lost_text(&status));
            if lost.is_none() && (!refused.is_empty() || accounts.end.interrupted) {
                ledger.tracks.extend(work.into_iter().flat_map(|(_, _, tracks)| tracks));
                ledger.coalesce();
                keep(&ledger)?;
                return Err(Failure::Refused(match accounts.end.interrupted {
                    true => "interrupted while preparing".into(),
                    false => format!("the node refused to open approvals: {refused:?}"),
                }));
            }
        }
        ledger.tracks.extend(work.into_iter().flat_map(|(_, _, tracks)| tracks));
    } else {
        ledger.tracks.extend(opens.into_iter().map(|(track, _)| track));
    }
    let Prepare { approvals, seconds, .. } = report.prepare;
    report.prepare.approvals_per_second = if seconds > 0.0 { approvals as f64 / seconds } else { 0.0 };

    let (mut accounts, started) = (Accounts::default(), SystemTime::now());
    let mut clock = forever();
    let (mut usage, mut health_before) = (Usage::default(), before);
    if lost.is_none() && !plan.prepare_only {
        health_before = health(&crew.channels[0]).await.map_err(|status| unreachable(&status))?;
        let order = match plan.mode {
            Mode::Lifecycle => Order::Rounds,
            Mode::Mixed => Order::Drawn,
            _ => Order::RoundRobin,
        };
        let work = plan.take_work(&mut ledger).into_iter().enumerate();
        let work: Vec<_> = work.map(|(lane, tracks)| (plan.cut(lane), order, tracks)).collect();
        usage = Usage::now();
        clock = Clock {
            start: Instant::now(),
            warmup: Duration::from_secs(plan.warmup),
            duration: plan.count.is_none().then(|| Duration::from_secs(plan.duration)),
        };
        let watcher = if plan.watch { Some(Watcher::start(target).await?) } else { None };
        clock.start = Instant::now();
        let mut phase = Phase::new(scheme.clone(), clock);
        phase.watched = watcher.is_some().then(Arc::<Answers>::default);
        let phase = Arc::new(phase);
        let total = plan.count.map_or((plan.warmup + plan.duration) * 1_000, |count| count);
        let bar = Progress::start(plan.mode.name(), total);
        let watch = |phase: &Phase| {
            let opens_only = plan.mode == Mode::Open;
            let counter = if opens_only { &phase.opens } else { &phase.votes };
            let (count, elapsed) = (counter.load(Ordering::Relaxed), phase.clock.start.elapsed());
            let position = if plan.count.is_some() { count } else { elapsed.as_millis() as u64 };
            let what = if opens_only { "approvals" } else { "votes" };
            bar.at(position, || Progress::rate(count, elapsed.as_secs_f64(), what));
        };
        accounts = drive(&crew, &phase, work, plan.transport(), plan, &mut ledger, watch).await;
        lost = accounts.end.lost.as_ref().map(lost_text);
        if let (Some(watcher), Some(answers)) = (watcher, &phase.watched) {
            match watcher.finish(answers, &scheme, &clock) {
                Ok(events) => report.events = Some(events),
                Err(status) => lost = lost.or(Some(format!("the watcher: {}", lost_text(&status)))),
            }
        }
    }
    let used = Usage::now().cpu_seconds - usage.cpu_seconds;
    let health_after = if lost.is_none() { health(&crew.channels[0]).await.ok() } else { None };
    add(&mut ledger.header.votes_refused, &accounts.tally.votes_refused);
    add(&mut ledger.header.opens_refused, &accounts.tally.opens_refused);
    ledger.coalesce();
    keep(&ledger)?;

    let (verdict, decided) = match (plan.check, &lost) {
        (true, None) => {
            let total: u64 =
                ledger.tracks.iter().filter(|track| track.is_open()).map(|track| track.sent - track.from).sum();
            let bar = Progress::start("checking", total);
            let progress = |done| bar.at(done, || format!("of {} approvals", report::grouped(total)));
            match checker::check(&ledger, &crew.channels, plan.sample, progress).await {
                Ok(checked) => checked,
                Err(status) => {
                    lost = Some(format!("while checking: {}", lost_text(&status)));
                    (not_compared(&ledger), Decided::default())
                }
            }
        }
        _ => (not_compared(&ledger), Decided::default()),
    };
    if accounts.tally.last_answer.is_some_and(|last| last < clock.start + clock.warmup) {
        // All work was done while warming up: then that is what there is to measure.
        clock.warmup = Duration::ZERO;
    }
    fill(&mut report, plan, &clock, &accounts, used);
    fill_server(&mut report, &health_before, health_after.as_ref());
    (report.ledger, report.decided) = (verdict, decided);
    report.votes_unknown = ledger.unknown();
    report.ended = ended(plan, &accounts, &clock, lost.is_some()).into();
    report.void = void(&report, plan, lost.as_deref());
    Ok(Outcome { report, intervals: accounts.intervals, started, lost })
}

fn forever() -> Clock {
    Clock { start: Instant::now(), warmup: Duration::ZERO, duration: None }
}

async fn drive(
    crew: &Crew,
    phase: &Arc<Phase>,
    work: Vec<(super::lane::Cut, Order, Vec<Track>)>,
    transport: Transport,
    plan: &Plan,
    ledger: &mut Ledger,
    watch: impl FnMut(&Phase),
) -> Accounts {
    let lane = |(cut, order, tracks)| Arc::new(Lane::new(phase.clone(), cut, order, tracks));
    let lanes: Vec<_> = work.into_iter().map(lane).collect();
    let started = Instant::now();
    let end = crew.drive(phase, &lanes, transport, plan.generated, plan.in_flight, watch).await;
    let mut accounts = Accounts { end, seconds: started.elapsed().as_secs_f64(), ..Accounts::default() };
    let mut lag = latencies();
    for lane in &lanes {
        let (tracks, tally, lane_lag) = lane.finish();
        ledger.tracks.extend(tracks);
        accounts.tally.add(&tally);
        lag.add(&lane_lag).expect("a histogram that resizes takes any value");
    }
    accounts.lag = Some(lag);
    accounts.intervals = phase.timeline.take();
    accounts
}

pub async fn health(channel: &Channel) -> Result<HealthCheckResponse, Status> {
    let mut client = ApprovalGrpcServiceClient::new(channel.clone());
    Ok(client.check_health(HealthCheckRequest {}).await?.into_inner())
}

fn unreachable(status: &Status) -> Failure {
    Failure::Unreachable(format!("the node does not answer checkHealth: {}", lost_text(status)))
}

fn lost_text(status: &Status) -> String {
    let refused = client::Refused::from(status).to_string();
    match std::error::Error::source(status).map(causes) {
        Some(cause) if !refused.contains(&cause) => format!("{refused} ({cause})"),
        _ => refused,
    }
}

fn add(sums: &mut [u64; REASONS], counts: &[u64; REASONS]) {
    sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
}

fn not_compared(ledger: &Ledger) -> Verdict {
    Verdict { acknowledged: ledger.acknowledged(), unknown: ledger.unknown(), ..Verdict::default() }
}

fn new_report(plan: &Plan, health: &HealthCheckResponse) -> Report {
    Report {
        schema: report::SCHEMA,
        mode: plan.mode.name().into(),
        client: if plan.generated { "generated" } else { "own" }.into(),
        command: plan.command.clone(),
        settings: Settings {
            approvals: plan.approvals,
            validators: plan.validators,
            required: plan.required,
            batch: plan.batch,
            connections: plan.connections,
            in_flight: plan.in_flight,
            threads: plan.threads.min(plan.connections),
            duration: plan.count.is_none().then_some(plan.duration),
            warmup: plan.warmup,
            rate: plan.rate,
            count: plan.count,
            content: plan.content_bytes,
            decisions: plan.decisions.to_string(),
            seed: plan.seed,
            instance: format!("{}/{}", plan.instance.0 + 1, plan.instance.1),
            layout: match plan.transport() {
                Transport::Stream(Layout::Rows) => "rows",
                Transport::Stream(Layout::Columns) => "columns",
                _ => "singles",
            },
        },
        durability: health.durability.clone(),
        machine: Some(Machine::this()),
        ..Report::default()
    }
}

fn fill(report: &mut Report, plan: &Plan, clock: &Clock, accounts: &Accounts, cpu_seconds: f64) {
    let tally = &accounts.tally;
    report.votes_sent = tally.votes_sent;
    report.votes_acknowledged = tally.votes_accepted;
    report.votes_refused = by_reason(&tally.votes_refused);
    report.opens_refused = by_reason(&tally.opens_refused);
    report.votes_repeated = tally.repeats;
    report.approvals_opened = report.prepare.approvals + tally.opens_accepted;
    let mut measured = Interval::default();
    let seconds = accounts.intervals.iter().enumerate().filter(|(second, _)| clock.measures(*second));
    seconds.for_each(|(_, interval)| measured.add(interval));
    // Work that is done before the end is not measured to the end.
    let worked =
        tally.last_answer.map_or(Duration::ZERO, |last| last.saturating_duration_since(clock.start + clock.warmup));
    report.seconds = clock.duration.map_or(worked, |duration| duration.min(worked)).as_secs_f64();
    let per_second = |count: u64| if report.seconds > 0.0 { count as f64 / report.seconds } else { 0.0 };
    report.votes_per_second = per_second(measured.votes);
    report.approvals_per_second = match plan.mode.workload() {
        Workload::Votes => 0.0,
        Workload::Open | Workload::Mixed => per_second(measured.opens),
        Workload::Lifecycle => per_second(measured.decided),
    };
    report.latency_us = LatencySummary::from(&measured.latencies);
    report.series = report::series(&accounts.intervals, clock);
    let items = tally.votes_sent + tally.opens_sent;
    let (lag_p99, lag_max) = accounts
        .lag
        .as_ref()
        .filter(|_| plan.rate.is_some())
        .map_or((0, 0), |lag| (lag.value_at_percentile(99.0), lag.max()));
    if items > 0 {
        report.generator = Generator {
            cpu_seconds,
            cpu_ns_per_item: cpu_seconds * 1e9 / items as f64,
            schedule_lag_us: lag_p99,
            schedule_lag_max_us: lag_max,
        };
    }
}

fn fill_server(report: &mut Report, before: &HealthCheckResponse, after: Option<&HealthCheckResponse>) {
    let last = after.unwrap_or(before);
    let (then, now) = (before.metrics.clone().unwrap_or_default(), last.metrics.clone().unwrap_or_default());
    report.server = Server {
        version: last.version.clone(),
        shards: last.shards,
        rss_bytes: now.rss_bytes,
        cpu_seconds: now.cpu_seconds - then.cpu_seconds,
        journal_bytes: now.journal_bytes,
        journal_bytes_run: now.journal_bytes.saturating_sub(then.journal_bytes),
    };
    report.votes_repeated = report.votes_repeated.max(now.total_repeats.saturating_sub(then.total_repeats));
}

fn ended(plan: &Plan, accounts: &Accounts, clock: &Clock, lost: bool) -> &'static str {
    if lost {
        "lost"
    } else if accounts.end.interrupted {
        "interrupted"
    } else if plan.prepare_only {
        "prepared"
    } else if plan.count.is_some() {
        "count"
    } else if clock
        .end()
        .is_some_and(|end| accounts.tally.last_answer.is_some_and(|last| last + Duration::from_secs(1) < end))
    {
        "exhausted"
    } else {
        "duration"
    }
}

fn void(report: &Report, plan: &Plan, lost: Option<&str>) -> Option<String> {
    if let Some(lost) = lost {
        Some(format!("the node went away: {lost}"))
    } else if !plan.check {
        Some("a no-op service: nothing was checked".into())
    } else if report.ledger.balances != Some(true) {
        Some("the ledger does not balance".into())
    } else if let Some(missing) = report.events.as_ref().map(|events| events.missing).filter(|missing| *missing > 0) {
        Some(format!("the watcher never heard of {missing} votes that counted"))
    } else if report.votes_repeated > 0 {
        Some(format!("{} votes stood already: not the first run with this seed?", report.votes_repeated))
    } else {
        None
    }
}

/// Compares a ledger with a node, later.
pub async fn verify(
    path: &Path,
    target: &Target,
    sample: u64,
) -> Result<(Verdict, Decided, HealthCheckResponse), Failure> {
    let ledger = Ledger::load(path)?;
    let channels = [target.connect().await?, target.connect().await?];
    let health = health(&channels[0]).await.map_err(|status| unreachable(&status))?;
    let bar = Progress::start("checking", 0);
    let progress = |done| bar.at(done, || format!("{} approvals", report::grouped(done)));
    let checked = checker::check(&ledger, &channels, sample, progress).await;
    let (verdict, decided) = checked.map_err(|status| unreachable(&status))?;
    Ok((verdict, decided, health))
}
