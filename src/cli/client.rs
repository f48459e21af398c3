//! The client's subcommands: one call each, its answer on standard output, its refusal on standard
//! error with code, field and reason. How answers look is `show`'s.

use super::Exit;
use super::show::Show;
use super::words::{Named, parse_base64, parse_duration};
use crate::grpc::client::{Client, DEFAULT_ENDPOINT, Error, Refused, Target, Updates};
use crate::wire::v1;
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use clap::Args;
use std::future::Future;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Who asks, where nobody says: the nil UUID.
const NOBODY: &str = "00000000-0000-0000-0000-000000000000";

/// Where the node is.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Node")]
pub struct Endpoint {
    /// The node's gRPC address [default: http://127.0.0.1:9004]
    #[arg(long, value_name = "URL", env = "ASSENT_ENDPOINT")]
    endpoint: Option<String>,

    /// PEM file of the authority that signed the node's certificate (for https://)
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,

    /// PEM file of our own certificate, where the node asks for one
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// PEM file of its key
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

impl Endpoint {
    /// The node named by flag or environment, or the default one.
    pub fn target(&self) -> Target {
        Target {
            endpoint: self.endpoint.clone().unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned()),
            tls_ca: self.tls_ca.clone(),
            tls_cert: self.tls_cert.clone(),
            tls_key: self.tls_key.clone(),
        }
    }

    /// The node named, if one is.
    pub fn given(&self) -> Option<Target> {
        self.endpoint.is_some().then(|| self.target())
    }
}

/// What every client command takes.
#[derive(Args, Clone, Debug)]
pub struct Common {
    #[command(flatten)]
    endpoint: Endpoint,

    /// One proto-JSON object a line
    #[arg(long, help_heading = None)]
    pub(super) json: bool,
}

/// Open an approval for voting
///
/// Prints its id. The same --id again with the same request is answered with the approval as it
/// now stands; without --id the node draws one, and asking twice opens two.
///
///   assent submit --required 2 --total 3 --content 'pay 40,000 to ACME'
///   assent submit --required 2 --eligible alice,bob,carol --expires-in 1h
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct SubmitArgs {
    /// Approvals needed (Q)
    #[arg(long, value_name = "Q")]
    required: u32,
    /// Validators asked (N): 1 to 32,767; may be left out with --eligible
    #[arg(long, value_name = "N", default_value_t = 0, required_unless_present = "eligible")]
    total: u32,
    /// Only these may vote
    #[arg(long, value_name = "VALIDATOR,…", value_delimiter = ',')]
    eligible: Vec<String>,
    /// UUID of the approval [default: drawn by the node]
    #[arg(long, value_name = "UUID", default_value = "", hide_default_value = true)]
    id: String,
    /// large-transaction, contract-deployment, parameter-change, contract-upgrade, validator-change,
    /// token-issuance, bridge-transfer, emergency-action or other
    #[arg(long = "type", value_name = "TYPE", default_value = "other")]
    approval_type: Named<v1::ApprovalType>,
    /// normal, high or critical
    #[arg(long, default_value = "normal")]
    priority: Named<v1::ApprovalPriority>,
    /// UUID of who asks
    #[arg(long, value_name = "UUID", default_value = NOBODY)]
    requester: String,
    /// What is to be approved
    #[arg(long, value_name = "TEXT", conflicts_with = "content_file")]
    content: Option<String>,
    /// The same from a file
    #[arg(long, value_name = "FILE")]
    content_file: Option<PathBuf>,
    /// `sha256:<hex>` of the content, checked, or a label [default: filled in by the node]
    #[arg(long, value_name = "HASH", default_value = "", hide_default_value = true)]
    content_hash: String,
    /// Expires this long from now: 90s, 15m, 24h, 7d [default: the node's, 24h]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    expires_in: Option<Duration>,
    #[command(flatten)]
    common: Common,
}

/// Cast one validator's vote
///
/// The answer comes after the vote is on disk. The same vote again is a repeat and fine; another
/// decision is refused, and the refusal says which vote stands.
///
///   assent vote 0198c0de-… alice approved
///   assent vote 0198c0de-… bob rejected --reason 'wrong account'
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct VoteArgs {
    #[arg(value_name = "APPROVAL_ID")]
    approval: String,
    #[arg(value_name = "VALIDATOR")]
    validator: String,
    /// approved, rejected or abstain
    #[arg(value_name = "DECISION")]
    decision: Named<v1::ValidatorDecision>,
    /// Kept with the vote
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
    /// The vote counts only if this is the approval's hash
    #[arg(long, value_name = "HASH", default_value = "", hide_default_value = true)]
    content_hash: String,
    /// Opaque bytes kept with the vote, in base64
    #[arg(long, value_name = "BASE64", value_parser = parse_base64)]
    signature: Option<Bytes>,
    #[command(flatten)]
    common: Common,
}

/// Show an approval: state, tally and votes
#[derive(Args, Debug)]
pub struct StatusArgs {
    #[arg(value_name = "APPROVAL_ID", required = true)]
    approvals: Vec<String>,
    /// Also content, reasons, signatures and times of votes
    #[arg(long)]
    full: bool,
    #[command(flatten)]
    common: Common,
}

/// Follow approvals as they change
///
/// With an id: its state now, then every change, until it is decided. Otherwise every change from
/// now on of what matches. Ends with the token that --resume continues behind: nothing is missed
/// and nothing repeated.
#[derive(Args, Debug)]
pub struct WatchArgs {
    /// Only this approval
    #[arg(value_name = "APPROVAL_ID", default_value = "", hide_default_value = true)]
    approval: String,
    #[command(flatten)]
    filter: Filter,
    /// Begin with the state of everything that matches
    #[arg(long)]
    current: bool,
    /// Continue behind this token of an earlier watch with the same filter
    #[arg(long, value_name = "TOKEN", value_parser = parse_base64)]
    resume: Option<Bytes>,
    #[command(flatten)]
    common: Common,
}

/// List pending approvals: CRITICAL before HIGH before NORMAL, oldest first
#[derive(Args, Debug)]
pub struct PendingArgs {
    #[command(flatten)]
    filter: Filter,
    /// Only what this validator may vote on and has not
    #[arg(long, value_name = "VALIDATOR", default_value = "", hide_default_value = true)]
    awaiting: String,
    /// Go on with every change that matches
    #[arg(long)]
    follow: bool,
    /// With --follow: continue behind this token instead of starting with the pending ones
    #[arg(long, value_name = "TOKEN", requires = "follow", value_parser = parse_base64)]
    resume: Option<Bytes>,
    #[command(flatten)]
    common: Common,
}

/// Show the node's state, its parts' and its counters; exit code 1 unless it serves
#[derive(Args, Debug)]
pub struct HealthArgs {
    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug)]
pub(super) struct Filter {
    /// Only this type (as in submit)
    #[arg(long = "type", value_name = "TYPE")]
    approval_type: Option<Named<v1::ApprovalType>>,
    /// Only this priority
    #[arg(long)]
    priority: Option<Named<v1::ApprovalPriority>>,
    /// Only what this requester asked
    #[arg(long, value_name = "UUID", default_value = "", hide_default_value = true)]
    pub(super) requester: String,
}

impl Filter {
    pub(super) fn approval_type(&self) -> i32 {
        self.approval_type.as_ref().map_or(0, |named| named.number)
    }

    pub(super) fn priority(&self) -> i32 {
        self.priority.as_ref().map_or(0, |named| named.number)
    }
}

/// Why a command did not do what it should.
pub(super) enum Stop {
    Connect(Error),
    Refused(Refused),
    Output(std::io::Error),
    Other(anyhow::Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Connect(error)
    }
}
impl From<Refused> for Stop {
    fn from(refused: Refused) -> Stop {
        Stop::Refused(refused)
    }
}
impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Stop {
        Stop::Output(error)
    }
}

/// Runs a command on its own runtime, and says on standard error what went wrong.
pub(super) fn run_to_exit(command: impl Future<Output = Result<Exit, Stop>>) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(command) {
        Ok(exit) => Ok(exit),
        Err(Stop::Connect(error)) => {
            eprintln!("assent: {error}");
            Ok(if matches!(error, Error::Usage(_)) { Exit::Usage } else { Exit::Unreachable })
        }
        Err(Stop::Refused(refused)) => {
            eprintln!("assent: {refused}");
            Ok(if refused.is_unanswered() { Exit::Unreachable } else { Exit::Refused })
        }
        // Whoever read us has seen enough: `assent watch | head`.
        Err(Stop::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(Exit::Done),
        Err(Stop::Output(error)) => Err(error.into()),
        Err(Stop::Other(error)) => Err(error),
    }
}

pub fn submit(args: SubmitArgs) -> anyhow::Result<Exit> {
    run_to_exit(async move {
        let content = match (&args.content, &args.content_file) {
            (Some(text), _) => text.clone().into_bytes(),
            (None, Some(path)) => {
                std::fs::read(path).map_err(|error| Stop::Other(anyhow::anyhow!("{}: {error}", path.display())))?
            }
            (None, None) => Vec::new(),
        };
        let expires_at = args.expires_in.map(|after| {
            let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + after;
            // Whole microseconds, as the node keeps them.
            prost_types::Timestamp { seconds: at.as_secs() as i64, nanos: at.subsec_micros() as i32 * 1_000 }
        });
        let request = v1::ApprovalRequest {
            approval_id: args.id,
            approval_type: args.approval_type.number,
            priority: args.priority.number,
            requester_id: args.requester,
            content: content.into(),
            content_hash: args.content_hash,
            required_approvals: args.required,
            total_validators: args.total,
            expires_at,
            eligible_validators: args.eligible,
            ..Default::default()
        };
        let approval = client(&args.common).await?.submit(request).await?;
        Show::new(args.common.json).opened(&approval)?;
        Ok(Exit::Done)
    })
}

pub fn vote(args: VoteArgs) -> anyhow::Result<Exit> {
    run_to_exit(async move {
        let vote = v1::ApprovalResponse {
            approval_id: args.approval,
            validator_id: args.validator,
            decision: args.decision.number,
            content_hash: args.content_hash,
            reason: args.reason,
            signature: args.signature.unwrap_or_default(),
        };
        let approval = client(&args.common).await?.vote(vote).await?;
        Show::new(args.common.json).voted(&approval)?;
        Ok(Exit::Done)
    })
}

pub fn status(args: StatusArgs) -> anyhow::Result<Exit> {
    run_to_exit(async move {
        let mut client = client(&args.common).await?;
        let show = Show::new(args.common.json);
        let view = if args.full { v1::ApprovalView::Full } else { v1::ApprovalView::Basic };
        for approval_id in args.approvals {
            let request = v1::GetApprovalStatusRequest { approval_id, view: view.into(), ..Default::default() };
            let mut approval = client.status(request.clone()).await?;
            while !approval.next_page_token.is_empty() {
                let page_token = std::mem::take(&mut approval.next_page_token);
                let page = client.status(v1::GetApprovalStatusRequest { page_token, ..request.clone() }).await?;
                approval.votes.extend(page.votes);
                approval.eligible_validators.extend(page.eligible_validators);
                approval.next_page_token = page.next_page_token;
            }
            show.approval(&approval)?;
        }
        Ok(Exit::Done)
    })
}

pub fn watch(args: WatchArgs) -> anyhow::Result<Exit> {
    run_to_exit(async move {
        let filter = v1::ApprovalRequest {
            approval_id: args.approval,
            approval_type: args.filter.approval_type(),
            priority: args.filter.priority(),
            requester_id: args.filter.requester,
            watch: Some(v1::WatchOptions {
                resume_token: args.resume.unwrap_or_default(),
                include_current: args.current,
            }),
            ..Default::default()
        };
        let updates = client(&args.common).await?.watch(filter).await?;
        follow(updates, &Show::new(args.common.json)).await
    })
}

pub fn pending(args: PendingArgs) -> anyhow::Result<Exit> {
    run_to_exit(async move {
        let request = v1::StreamPendingApprovalsRequest {
            approval_type: args.filter.approval_type(),
            priority: args.filter.priority(),
            requester_id: args.filter.requester,
            awaiting_validator: args.awaiting,
            follow: args.follow,
            resume_token: args.resume.unwrap_or_default(),
        };
        let updates = client(&args.common).await?.pending(request).await?;
        follow(updates, &Show::new(args.common.json)).await
    })
}

pub fn health(args: HealthArgs) -> anyhow::Result<Exit> {
    run_to_exit(async move {
        let health = client(&args.common).await?.health().await?;
        Show::new(args.common.json).health(&health)?;
        let serves = matches!(health.state(), v1::HealthState::Serving | v1::HealthState::Degraded);
        Ok(if serves { Exit::Done } else { Exit::Refused })
    })
}

pub(super) async fn client(common: &Common) -> Result<Client, Error> {
    Client::connect(&common.endpoint.target()).await
}

/// Shows a stream to its end, or to Ctrl-C, and tells how to continue.
async fn follow(mut updates: Updates, show: &Show) -> Result<Exit, Stop> {
    let mut token = String::new();
    let ended = loop {
        let next = tokio::select! {
            next = updates.next() => next,
            () = interrupted() => break Ok(Exit::Done),
        };
        match next {
            Ok(Some(approval)) => {
                if !approval.resume_token.is_empty() {
                    token = BASE64_STANDARD.encode(&approval.resume_token);
                }
                if let Err(error) = show.change(&approval) {
                    break Err(error.into());
                }
            }
            Ok(None) => break Ok(Exit::Done),
            Err(refused) => {
                // It may be newer than the last message's: what did not match is passed over too.
                token = refused.facts.get("resume_token").cloned().unwrap_or(token);
                break Err(refused.into());
            }
        }
    };
    if !token.is_empty() {
        eprintln!("continue behind this with --resume {token}");
    }
    ended
}

async fn interrupted() {
    let mut terminate =
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).expect("a handler for SIGTERM");
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
