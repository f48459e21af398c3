//! Subcommands and flags.

pub mod client;
pub mod load;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// An approval engine: validators vote, quorum decides, and everyone who must know is told
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Load(Box<load::LoadArgs>),
    #[command(hide = true)]
    Noop(load::NoopArgs),
}

/// Parses the arguments and runs what they ask for.
pub fn run() -> ExitCode {
    match Cli::parse().command {
        Command::Load(args) => load::run(*args),
        Command::Noop(args) => load::run_noop(args),
    }
}
