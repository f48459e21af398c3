//! A run as asked for: which tracks each connection works on, how it cuts and paces them.

use super::calls::CALL_VOTES_MAX;
use super::events;
use super::lane::{Cut, Pace, REASONS};
use super::ledger::{Header, Ledger, SCHEMA, Workload};
use super::scheme::Mix;
use super::stream::Layout;
use super::track::{Track, TrackKind};
use std::time::Duration;

#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Mode {
    /// submitValidatorResponse: one call a vote
    Unary,
    /// bidirectionalApprovalStream: one message a vote
    Stream,
    /// batchSubmitResponses: calls of --batch votes, one message a vote
    Batch,
    /// bidirectionalApprovalStream: batches of --batch votes as rows
    Rows,
    /// bidirectionalApprovalStream: batches of --batch votes as columns
    Columns,
    /// bidirectionalApprovalStream: approvals opened, no votes
    Open,
    /// bidirectionalApprovalStream: approvals opened, and all votes on the oldest, with --approvals
    /// pending throughout
    Lifecycle,
    /// bidirectionalApprovalStream, as a cluster has it: votes of all validators on a pool of
    /// --approvals pending ones, a few popular ones taking most (zipfian, theta 0.99), late votes refused
    /// as decided, an approval opened for each that is used up, and one of 32 left to expire
    Mixed,
}

impl Mode {
    pub const fn workload(self) -> Workload {
        match self {
            Mode::Open => Workload::Open,
            Mode::Lifecycle => Workload::Lifecycle,
            Mode::Mixed => Workload::Mixed,
            Mode::Unary | Mode::Stream | Mode::Batch | Mode::Rows | Mode::Columns => Workload::Votes,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Mode::Unary => "unary",
            Mode::Stream => "stream",
            Mode::Batch => "batch",
            Mode::Rows => "rows",
            Mode::Columns => "columns",
            Mode::Open => "open",
            Mode::Lifecycle => "lifecycle",
            Mode::Mixed => "mixed",
        }
    }
}

/// How a phase's work travels.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Transport {
    Stream(Layout),
    Unary,
    Batches,
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub mode: Mode,
    /// Generated code and Strings instead of messages by hand.
    pub generated: bool,
    /// How votes travel in modes lifecycle and mixed.
    pub layout: Layout,
    pub approvals: u64,
    pub validators: u16,
    pub required: u16,
    pub batch: u32,
    pub connections: usize,
    /// Messages (in mode batch: calls) in flight on each connection.
    pub in_flight: u32,
    pub threads: usize,
    pub duration: u64,
    pub warmup: u64,
    pub rate: Option<f64>,
    pub count: Option<u64>,
    pub content_bytes: usize,
    pub decisions: Mix,
    pub seed: u64,
    /// Which of how many.
    pub instance: (u16, u16),
    pub prepare_only: bool,
    pub check: bool,
    /// A watcher hears every event meanwhile.
    pub watch: bool,
    /// Approvals looked at vote by vote.
    pub sample: u64,
    pub command: String,
}

/// Opens in flight on a connection while preparing.
const PREPARE_IN_FLIGHT: u64 = 16_384;
/// Where every item is a message, at most this many are taken at once.
const GATHERED_ITEMS: u32 = 256;
const BLOCK_APPROVALS_MAX: u64 = 1 << 32;
/// The checker keeps a byte a validator of each approval.
const MIXED_VALIDATORS_MAX: u16 = 64;
/// Smaller pools may have none that is voted on.
const MIXED_POOL_MIN: u64 = 64;

impl Plan {
    /// What is wrong with it, in the words of the flags.
    pub fn check(&self) -> Result<(), String> {
        let wrong = |condition: bool, what: &str| if condition { Err(what.to_owned()) } else { Ok(()) };
        wrong(self.validators == 0 || self.validators > 32_767, "--validators: 1 to 32,767")?;
        wrong(!(1..=self.validators).contains(&self.required), "--required: 1 to --validators")?;
        wrong(self.approvals >= BLOCK_APPROVALS_MAX, "--approvals: below 2^32")?;
        wrong(self.approvals == 0 && self.mode.workload() == Workload::Votes, "--approvals: at least 1 to vote on")?;
        wrong(!(1..=1_024).contains(&self.connections), "--connections: 1 to 1,024")?;
        wrong(
            self.batch == 0 || self.in_flight == 0 || self.threads == 0,
            "--batch, --in-flight, --threads: at least 1",
        )?;
        wrong(self.batch > 65_536, "--batch: at most 65,536 (a node takes 16,384 by default)")?;
        wrong(
            self.mode == Mode::Batch && self.batch > CALL_VOTES_MAX,
            "--batch: at most 10,000 in mode batch: a summary lists that many refusals, and each must be accounted for",
        )?;
        wrong(self.content_bytes > 1 << 20, "--content: at most 1 MiB")?;
        wrong(self.rate.is_some_and(|rate| !(rate.is_finite() && rate > 0.0)), "--rate: above 0")?;
        if self.mode == Mode::Mixed {
            wrong(self.validators > MIXED_VALIDATORS_MAX, "--validators: at most 64 in mode mixed")?;
            wrong(self.generated, "--client: own in mode mixed")?;
            wrong(self.layout == Layout::Columns, "--layout: rows or singles in mode mixed")?;
            let pool = self.approvals / self.connections as u64;
            wrong(pool < MIXED_POOL_MIN, "--approvals: at least 64 a connection in mode mixed")?;
        }
        wrong(matches!(self.mode, Mode::Open | Mode::Mixed) && self.watch, "--watch: a mode whose votes are in order")?;
        let votes = self.count.map_or(f64::INFINITY, |count| count as f64);
        let votes = votes.min(self.rate.map_or(f64::INFINITY, |rate| rate * (self.warmup + self.duration) as f64));
        wrong(
            self.watch && votes > events::VOTES_MAX,
            "--watch: at most 50 million votes, so give --rate or --count: every event is kept until the end",
        )?;
        wrong(self.duration == 0 && self.count.is_none(), "--duration: at least 1 second")
    }

    pub fn header(&self) -> Header {
        Header {
            schema: SCHEMA.to_owned(),
            seed: self.seed,
            instance: self.instance.0,
            workload: self.mode.workload(),
            approvals: match self.mode.workload() {
                Workload::Votes | Workload::Mixed => self.approvals,
                Workload::Lifecycle | Workload::Open => 0,
            },
            validators: self.validators,
            required: self.required,
            content_bytes: self.content_bytes,
            decisions: self.decisions,
            votes_refused: [0; REASONS],
            opens_refused: [0; REASONS],
            tracks: 0,
        }
    }

    /// Goes on from a ledger: what decides its ids and votes is taken from it.
    pub fn adopt(&mut self, ledger: &Ledger) -> Result<(), String> {
        let header = &ledger.header;
        if header.workload != self.mode.workload() {
            return Err(format!(
                "--reuse: the ledger is of workload {:?}, and mode {} makes {:?}",
                header.workload,
                self.mode.name(),
                self.mode.workload()
            ));
        }
        if matches!(header.workload, Workload::Votes | Workload::Mixed) {
            self.approvals = header.approvals;
        }
        if header.workload != Workload::Votes {
            let blocks = ledger.tracks.iter().map(|track| track.block + 1).max().unwrap_or(0);
            if usize::from(blocks) != self.connections {
                return Err(format!("--reuse: the ledger was made with --connections {blocks}: say so again"));
            }
        }
        (self.seed, self.instance.0) = (header.seed, header.instance);
        (self.validators, self.required) = (header.validators, header.required);
        (self.content_bytes, self.decisions) = (header.content_bytes, header.decisions);
        Ok(())
    }

    fn lanes(&self) -> std::ops::Range<usize> {
        0..self.connections
    }

    /// A lane's part of `range`.
    fn part(&self, lane: usize, range: std::ops::Range<u64>) -> std::ops::Range<u64> {
        let (length, lanes) = (range.end - range.start, self.connections as u64);
        let cut = |lane: u64| range.start + (u128::from(length) * u128::from(lane) / u128::from(lanes)) as u64;
        cut(lane as u64)..cut(lane as u64 + 1)
    }

    /// Takes from the ledger what lanes go on with while preparing: opens, and how many of them.
    pub fn take_opens(&self, ledger: &mut Ledger) -> Vec<(Track, u64)> {
        match self.mode.workload() {
            Workload::Open => Vec::new(),
            Workload::Votes => {
                let opened = gaps(ledger.tracks.iter().filter(|track| track.kind == TrackKind::Open), self.approvals);
                let lane = |lane| {
                    opened.iter().filter_map(move |gap| {
                        let part = self.part(lane, gap.clone());
                        (!part.is_empty()).then(|| (Track::new(TrackKind::Open, 0, part.start, part.end), u64::MAX))
                    })
                };
                self.lanes().flat_map(lane).collect()
            }
            Workload::Mixed => self
                .lanes()
                .map(|lane| {
                    let open = take(ledger, TrackKind::Open, lane as u16);
                    let pool = self.part(lane, 0..self.approvals);
                    let left = (pool.end - pool.start).saturating_sub(open.sent);
                    (open, left)
                })
                .collect(),
            Workload::Lifecycle => self
                .lanes()
                .map(|lane| {
                    let votes = |track: &&Track| track.block as usize == lane && track.kind != TrackKind::Open;
                    let voted = ledger.tracks.iter().filter(votes).map(|track| track.sent).min().unwrap_or(0);
                    let open = take(ledger, TrackKind::Open, lane as u16);
                    let pending = open.sent.saturating_sub(voted);
                    let wanted = self.part(lane, 0..self.approvals);
                    (open, (wanted.end - wanted.start).saturating_sub(pending))
                })
                .collect(),
        }
    }

    /// Takes from the ledger what each lane works on in the run.
    pub fn take_work(&self, ledger: &mut Ledger) -> Vec<Vec<Track>> {
        match self.mode.workload() {
            Workload::Open => self.lanes().map(|lane| vec![take(ledger, TrackKind::Open, lane as u16)]).collect(),
            Workload::Lifecycle => self
                .lanes()
                .map(|lane| {
                    let kinds = (0..self.validators).map(|validator| TrackKind::Vote { validator, shuffled: false });
                    std::iter::once(TrackKind::Open).chain(kinds).map(|kind| take(ledger, kind, lane as u16)).collect()
                })
                .collect(),
            Workload::Mixed => self
                .lanes()
                .map(|lane| {
                    let pool = self.part(lane, 0..self.approvals);
                    let kind = TrackKind::Drawn { pool: (pool.end - pool.start) as u32 };
                    [TrackKind::Open, kind].map(|kind| take(ledger, kind, lane as u16)).into()
                })
                .collect(),
            Workload::Votes => {
                let kind = |validator| TrackKind::Vote { validator, shuffled: true };
                let unsent: Vec<_> = (0..self.validators)
                    .map(|validator| {
                        gaps(ledger.tracks.iter().filter(|track| track.kind == kind(validator)), self.approvals)
                    })
                    .collect();
                self.lanes()
                    .map(|lane| {
                        // Lanes start at different validators: they vote at the same time.
                        let first = lane * usize::from(self.validators) / self.connections;
                        let order = (0..self.validators)
                            .map(|step| ((first + usize::from(step)) % usize::from(self.validators)) as u16);
                        order
                            .flat_map(|validator| {
                                let gaps = unsent[usize::from(validator)].iter();
                                gaps.map(move |gap| (validator, self.part(lane, gap.clone())))
                            })
                            .filter(|(_, part)| !part.is_empty())
                            .map(|(validator, part)| Track::new(kind(validator), 0, part.start, part.end))
                            .collect()
                    })
                    .collect()
            }
        }
    }

    pub fn prepare_cut(&self, count: u64) -> Cut {
        Cut {
            slice: GATHERED_ITEMS,
            partial: true,
            in_flight: PREPARE_IN_FLIGHT,
            pace: None,
            count: Some(count),
            last_validator: None,
        }
    }

    pub fn cut(&self, lane: usize) -> Cut {
        let batch = match self.mode {
            Mode::Unary => 1,
            Mode::Stream | Mode::Open if self.rate.is_some() => 1,
            Mode::Stream | Mode::Open => GATHERED_ITEMS.min(self.in_flight),
            Mode::Mixed if self.layout == Layout::Singles && self.rate.is_some() => 1,
            Mode::Batch | Mode::Rows | Mode::Columns | Mode::Lifecycle | Mode::Mixed => self.batch,
        };
        let in_flight = match self.mode {
            Mode::Unary | Mode::Stream | Mode::Open => self.in_flight.into(),
            Mode::Batch | Mode::Rows | Mode::Columns | Mode::Lifecycle | Mode::Mixed => {
                u64::from(self.in_flight) * u64::from(self.batch)
            }
        };
        let lanes = self.connections as f64;
        let pace = self.rate.map(|rate| {
            let interval = Duration::from_secs_f64(f64::from(batch) * lanes / rate);
            Pace { interval, offset: interval.mul_f64(lane as f64 / lanes) }
        });
        let count = self.count.map(|count| {
            let part = self.part(lane, 0..count);
            part.end - part.start
        });
        Cut {
            slice: batch,
            partial: matches!(self.mode, Mode::Stream | Mode::Open),
            in_flight,
            pace,
            count,
            last_validator: (self.mode == Mode::Lifecycle).then(|| self.validators - 1),
        }
    }

    pub const fn transport(&self) -> Transport {
        match self.mode {
            Mode::Unary => Transport::Unary,
            Mode::Batch => Transport::Batches,
            Mode::Stream | Mode::Open => Transport::Stream(Layout::Singles),
            Mode::Rows => Transport::Stream(Layout::Rows),
            Mode::Columns => Transport::Stream(Layout::Columns),
            Mode::Lifecycle | Mode::Mixed => Transport::Stream(self.layout),
        }
    }
}

/// The ledger's track of a kind and block, or a new one.
fn take(ledger: &mut Ledger, kind: TrackKind, block: u16) -> Track {
    match ledger.tracks.iter().position(|track| track.kind == kind && track.block == block) {
        Some(at) => ledger.tracks.swap_remove(at),
        None => Track::new(kind, block, 0, BLOCK_APPROVALS_MAX),
    }
}

/// What of `0..to` none of the tracks has sent.
fn gaps<'a>(tracks: impl Iterator<Item = &'a Track>, to: u64) -> Vec<std::ops::Range<u64>> {
    let mut sent: Vec<_> = tracks.filter(|track| track.from < track.sent).map(|track| track.from..track.sent).collect();
    sent.sort_by_key(|range| range.start);
    let mut gaps = Vec::new();
    let mut at = 0;
    for range in sent {
        if at < range.start {
            gaps.push(at..range.start);
        }
        at = range.end;
    }
    if at < to {
        gaps.push(at..to);
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(mode: Mode, connections: usize) -> Plan {
        Plan {
            mode,
            generated: false,
            layout: Layout::Rows,
            approvals: 1_000,
            validators: 5,
            required: 3,
            batch: 10,
            connections,
            in_flight: 4,
            threads: 1,
            duration: 1,
            warmup: 0,
            rate: None,
            count: None,
            content_bytes: 16,
            decisions: Mix::DEFAULT,
            seed: 1,
            instance: (0, 1),
            prepare_only: false,
            check: true,
            watch: false,
            sample: 10,
            command: String::new(),
        }
    }

    #[test]
    fn lanes_share_all_votes_and_a_reused_ledger_goes_on() {
        let plan = plan(Mode::Rows, 3);
        let mut ledger = Ledger { header: plan.header(), tracks: Vec::new() };
        let opens = plan.take_opens(&mut ledger);
        assert_eq!(opens.iter().map(|(track, _)| track.to - track.from).sum::<u64>(), 1_000);
        for (mut track, _) in opens {
            track.take(0, u32::MAX);
            ledger.tracks.push(track);
        }
        assert!(plan.take_opens(&mut ledger).is_empty(), "all are open");
        let total = |lanes: &[Vec<Track>]| lanes.iter().flatten().map(|track| track.to - track.from).sum::<u64>();
        let mut work = plan.take_work(&mut ledger);
        assert_eq!(total(&work), 5_000);
        work[1][2].take(0, 100);
        ledger.tracks.extend(work.into_iter().flatten());
        let again = plan.take_work(&mut ledger);
        assert_eq!(total(&again), 4_900);
    }

    #[test]
    fn lifecycle_prepares_up_to_what_is_to_be_pending() {
        let plan = plan(Mode::Lifecycle, 2);
        let mut ledger = Ledger { header: plan.header(), tracks: Vec::new() };
        let mut opens = plan.take_opens(&mut ledger);
        assert_eq!(opens.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [500, 500]);
        for (track, count) in &mut opens {
            track.take(0, *count as u32);
        }
        ledger.tracks.extend(opens.into_iter().map(|(track, _)| track));
        let mut work = plan.take_work(&mut ledger);
        assert!(ledger.tracks.is_empty());
        for track in &mut work[0] {
            track.take(0, 10);
        }
        work[1][1].take(0, 10);
        ledger.tracks.extend(work.into_iter().flatten());
        let again = plan.take_opens(&mut ledger);
        assert_eq!(again.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [0, 0]);
    }

    #[test]
    fn the_pace_is_shared_by_the_lanes() {
        let mut plan = plan(Mode::Rows, 2);
        plan.rate = Some(1_000.0);
        let pace = plan.cut(1).pace.expect("open loop");
        assert_eq!((pace.interval, pace.offset), (Duration::from_millis(20), Duration::from_millis(10)));
    }

    #[test]
    fn bounds_are_named() {
        assert_eq!(plan(Mode::Rows, 1).check(), Ok(()));
        let mut wrong = plan(Mode::Batch, 1);
        wrong.batch = 10_001;
        assert!(wrong.check().expect_err("too large").contains("10,000"));
        wrong = plan(Mode::Rows, 0);
        assert!(wrong.check().is_err());
        wrong = plan(Mode::Rows, 1);
        wrong.required = 6;
        assert!(wrong.check().is_err());
    }
}
