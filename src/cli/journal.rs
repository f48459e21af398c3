//! `assent journal verify` and `assent journal dump`: read a data folder, change nothing.

use super::{Exit, dump};
use crate::journal::{LogReport, Report, verify};
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Subcommand)]
pub enum JournalCommand {
    /// Read every byte and check it; exit code 1 when anything is damaged
    #[command(after_help = VERIFY_HELP)]
    Verify {
        /// The data folder
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// One JSON object with what was found
        #[arg(long)]
        json: bool,
    },
    /// Print every event, one a line, log by log and in the order of each
    #[command(after_help = DUMP_HELP)]
    Dump {
        /// The data folder
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// One proto-JSON ApprovalEvent a line
        #[arg(long)]
        json: bool,
    },
}

const VERIFY_HELP: &str = "\
Nothing is written. On the folder of a node that runs, the very end may be seen half-written.
A torn tail is normal after a crash: nobody was told of what it held, and the next start cuts it off.
Damage is not: restore the folder from a copy.

Example: assent journal verify data";

const DUMP_HELP: &str = "\
The folder is verified first, so it is read twice. Events older than the oldest segment are not in it.

Examples: assent journal dump data | tail
          assent journal dump data --json | grep -c APPROVAL_STATUS_APPROVED";

pub fn run(command: JournalCommand) -> anyhow::Result<Exit> {
    match command {
        JournalCommand::Verify { folder, json } => {
            let report = verify(&folder)?;
            match json {
                true => println!("{}", as_json(&report)),
                false => show(&folder, &report),
            }
            Ok(if report.is_sound() { Exit::Done } else { Exit::Refused })
        }
        JournalCommand::Dump { folder, json } => dump::run(&folder, json),
    }
}

fn show(folder: &Path, report: &Report) {
    println!("{}: deployment {}", folder.display(), deployment(report));
    for log in &report.logs {
        println!("{}", line(log));
        if let Some(torn) = &log.torn {
            println!("    torn tail at byte {} of {}: normal after a crash", torn.offset, torn.file.display());
        }
        if let Some(damage) = &log.damage {
            println!("    DAMAGED: {damage}");
        }
    }
    let events: u64 = report.logs.iter().map(|log| log.events).sum();
    let damaged = report.logs.iter().filter(|log| log.damage.is_some()).count();
    println!("{} log(s), {events} events, {damaged} damaged", report.logs.len());
}

fn line(log: &LogReport) -> String {
    let (first, last) = log.sequences;
    let held = if first > last { "no events".into() } else { format!("events {first} to {last}") };
    format!(
        "  generation {}, log {}: {held}, {} frames, {} segments, {} snapshots, {} bytes",
        log.generation, log.ordinal, log.frames, log.segments, log.snapshots, log.bytes
    )
}

fn deployment(report: &Report) -> uuid::Uuid {
    uuid::Uuid::from_bytes(report.meta.deployment)
}

fn as_json(report: &Report) -> serde_json::Value {
    let log = |log: &LogReport| {
        serde_json::json!({
            "generation": log.generation,
            "log": log.ordinal,
            "segments": log.segments,
            "snapshots": log.snapshots,
            "frames": log.frames,
            "batches": log.batches,
            "events": log.events,
            "first_sequence": log.sequences.0,
            "last_sequence": log.sequences.1,
            "bytes": log.bytes,
            "torn": log.torn.as_ref().map(|torn| serde_json::json!({ "file": torn.file, "offset": torn.offset })),
            "damage": log.damage,
        })
    };
    serde_json::json!({
        "schema": 1,
        "sound": report.is_sound(),
        "deployment_id": deployment(report).to_string(),
        "logs": report.logs.iter().map(log).collect::<Vec<_>>(),
    })
}
