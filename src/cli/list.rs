//! `assent list`: what the archive holds, a row an approval.

use super::Exit;
use super::client::{Common, Filter, client, run_to_exit};
use super::show::Show;
use super::words::{Named, parse_time};
use crate::wire::v1;
use clap::Args;
use prost_types::Timestamp;

/// Approvals asked for at a time.
const PAGE: usize = 1_000;

/// List approvals, newest first, decided ones too
///
/// Reads the node's archive, which follows what happens by a moment; what is still in memory is shown
/// as it stands now.
///
///   assent list --status approved --from 24h
///   assent list --validator alice --limit 20 --json
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct ListArgs {
    /// pending, approved, rejected or expired
    #[arg(long)]
    status: Option<Named<v1::ApprovalStatus>>,
    #[command(flatten)]
    filter: Filter,
    /// Only what this validator has voted on
    #[arg(long, value_name = "VALIDATOR", default_value = "", hide_default_value = true)]
    validator: String,
    /// Created at or after this: 2026-01-31T12:00:00Z, or so long ago: 90s, 15m, 24h, 7d
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    from: Option<Timestamp>,
    /// Created before this
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    to: Option<Timestamp>,
    /// At most so many
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// Continue where an earlier list with the same filter ended
    #[arg(long, value_name = "TOKEN", default_value = "", hide_default_value = true)]
    page: String,
    #[command(flatten)]
    common: Common,
}

pub fn run(args: ListArgs) -> anyhow::Result<Exit> {
    run_to_exit(async move {
        let mut client = client(&args.common).await?;
        let show = Show::new(args.common.json);
        let mut request = v1::ListApprovalsRequest {
            status: args.status.map_or(0, |named| named.number),
            approval_type: args.filter.approval_type(),
            priority: args.filter.priority(),
            requester_id: args.filter.requester,
            validator_id: args.validator,
            created_from: args.from,
            created_to: args.to,
            page_size: 0,
            page_token: args.page,
        };
        let mut left = usize::try_from(args.limit).unwrap_or(usize::MAX);
        show.list_head()?;
        while left > 0 {
            request.page_size = left.min(PAGE) as u32;
            let page = client.list(request.clone()).await?;
            page.approvals.iter().try_for_each(|approval| show.listed(approval))?;
            left -= page.approvals.len().min(left);
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                return Ok(Exit::Done);
            }
        }
        eprintln!("there are more: go on with --page {}", request.page_token);
        Ok(Exit::Done)
    })
}
