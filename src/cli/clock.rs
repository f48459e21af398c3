//! `assent clock accept`: an operator's word to a node that runs, through its data folder.

use super::Exit;
use crate::server::ACCEPT_CLOCK_FILE;
use anyhow::{Context, bail};
use std::path::PathBuf;

#[derive(Debug, clap::Subcommand)]
pub enum ClockCommand {
    /// Tell a node in doubt (CLOCK_JUMP) that its wall clock is right as it is now
    #[command(after_help = ACCEPT_HELP)]
    Accept {
        /// The node's data folder
        #[arg(long, value_name = "DIR", default_value = "data", env = "ASSENT_DATA")]
        data: PathBuf,
    },
}

const ACCEPT_HELP: &str = "\
A node whose wall clock jumped by more than 10 s, or whose journal ends that far ahead of it, refuses new approvals and
expires nothing until it is told that the clock is right. Look at the clock first: expiry is judged by it from then on.
A node that runs takes the word within a second and says so in its log; for one that does not, --accept-clock does it.

Example: assent clock accept --data data";

pub fn run(command: ClockCommand) -> anyhow::Result<Exit> {
    let ClockCommand::Accept { data } = command;
    if !data.join("meta").exists() {
        bail!("{} is no data folder: give the node's own with --data", data.display());
    }
    let path = data.join(ACCEPT_CLOCK_FILE);
    std::fs::write(&path, "").with_context(|| format!("cannot write {}", path.display()))?;
    println!("told the node on {}: its log says when it has taken it", data.display());
    Ok(Exit::Done)
}
