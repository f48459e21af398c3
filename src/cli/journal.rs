//! `assent journal verify` and `assent journal dump`: reads a data folder that no node is using.

use super::Exit;
use std::path::PathBuf;

#[derive(Debug, clap::Subcommand)]
pub enum JournalCommand {
    /// Check every frame's checksum and order; exit code 1 when anything is damaged
    #[command(after_help = "Run it on a stopped node's folder, or on a copy.\n\nExample: assent journal verify data")]
    Verify {
        /// The data folder
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
    /// Print every event, one a line, in the order of its log
    #[command(after_help = "Example: assent journal dump data --json | grep APPROVED | wc -l")]
    Dump {
        /// The data folder
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
}

pub fn run(command: JournalCommand) -> anyhow::Result<Exit> {
    match command {
        JournalCommand::Verify { folder: _ } | JournalCommand::Dump { folder: _, json: _ } => {
            anyhow::bail!("the journal's reader is not wired to this command yet")
        }
    }
}
