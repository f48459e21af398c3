//! Subcommands and flags: arguments in, one function called, an exit code out.
//!
//! Every command ends with one of four codes: 0 done, 1 refused or failed, 2 usage, 3 unreachable.
//! `assent` alone is `assent serve`. Left to others: what a command does (`server`, `load`, the
//! client); here is only how it is asked for and how its answer is shown.

pub mod client;
mod clock;
mod doctor;
mod dump;
mod journal;
mod kafka;
mod list;
pub mod load;
mod migrate;
mod probe;
mod serve;
mod settings;
mod show;
mod sinks;
mod words;

use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::process::ExitCode;

/// How a command ended, as the process's exit code.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Exit {
    Done = 0,
    /// The node refused, a check failed, or the command could not do its work.
    Refused = 1,
    /// The arguments or the settings cannot be used.
    Usage = 2,
    /// No node answered.
    Unreachable = 3,
}

const TOUR: &str = "\
Try it:
  assent                                      a node on 127.0.0.1:9004, its journal in ./data
  assent doctor                               what this machine lacks, and what to do about it
  assent submit --required 2 --total 3        open an approval (in another terminal)
  assent vote APPROVAL_ID alice approved      and vote on it
  assent watch                                see every change as it happens
  assent load --mode rows                     how fast it is here

Exit codes: 0 done, 1 refused or failed, 2 wrong usage or settings, 3 no node answered.";

/// An approval engine: validators vote, quorum decides, and everyone who must know is told.
#[derive(Debug, Parser)]
#[command(name = "assent", version, after_help = TOUR, max_term_width = 100, override_usage = "assent [COMMAND]")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node (this is what `assent` alone does)
    Serve(serve::ServeArgs),
    /// Check this machine: kernel, disk, clock, limits, ports; and say what each finding means
    Doctor(doctor::DoctorArgs),
    /// Read a data folder: verify every byte of it, or print its events
    #[command(subcommand)]
    Journal(journal::JournalCommand),
    /// Tell a node that doubts its clock what to think of it
    #[command(subcommand)]
    Clock(clock::ClockCommand),
    /// The archive's schema: print it, or check that a database has it
    Migrate(migrate::MigrateArgs),
    /// Sinks of a data folder: list them, forget one, tell a node that one is mended
    #[command(subcommand)]
    Sinks(sinks::SinksCommand),
    /// The archive: tell a node that it is mended
    #[command(subcommand)]
    Archive(sinks::ArchiveCommand),
    /// Tell a node that its topics in Kafka are as they should be
    #[command(subcommand)]
    Kafka(kafka::KafkaCommand),
    /// List every setting with its flag, variable, default and bound
    Settings(settings::SettingsArgs),
    Submit(client::SubmitArgs),
    Vote(client::VoteArgs),
    Status(client::StatusArgs),
    Watch(client::WatchArgs),
    Pending(client::PendingArgs),
    List(list::ListArgs),
    Health(client::HealthArgs),
    Load(Box<load::LoadArgs>),
    #[command(hide = true)]
    Noop(load::NoopArgs),
    #[command(hide = true)]
    Disk(load::DiskArgs),
    #[command(hide = true)]
    Memory(load::MemoryArgs),
}

/// The whole process, from arguments to exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse_from(with_default_command(std::env::args_os().collect())) {
        Ok(cli) => cli,
        // Help and version end with 0, everything else with 2; clap prints both where they belong.
        Err(error) => error.exit(),
    };
    let ended = match cli.command {
        Command::Serve(args) => serve::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Journal(command) => journal::run(command),
        Command::Clock(command) => clock::run(command),
        Command::Migrate(args) => migrate::run(args),
        Command::Sinks(command) => sinks::run(command),
        Command::Archive(command) => sinks::run_archive(command),
        Command::Kafka(command) => kafka::run(command),
        Command::Settings(args) => settings::run(args),
        Command::Submit(args) => client::submit(args),
        Command::Vote(args) => client::vote(args),
        Command::Status(args) => client::status(args),
        Command::Watch(args) => client::watch(args),
        Command::Pending(args) => client::pending(args),
        Command::List(args) => list::run(args),
        Command::Health(args) => client::health(args),
        Command::Load(args) => Ok(load::run(&args)),
        Command::Noop(args) => load::run_noop(args),
        Command::Disk(args) => load::run_disk(&args),
        Command::Memory(args) => load::run_memory(&args),
    };
    let exit = ended.unwrap_or_else(|error| {
        eprintln!("assent: {error:#}");
        if error.is::<crate::config::Error>() { Exit::Usage } else { Exit::Refused }
    });
    ExitCode::from(exit as u8)
}

/// `assent` and `assent --data X` mean `assent serve …`.
fn with_default_command(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let own = ["-h", "--help", "-V", "--version"];
    let is_flag = |text: &str| text.starts_with('-') && !own.contains(&text);
    if arguments.get(1).is_none_or(|first| first.to_str().is_some_and(is_flag)) {
        arguments.insert(1.min(arguments.len()), "serve".into());
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_commands_hold_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn serve_is_what_assent_alone_does() {
        let parse =
            |line: &str| Cli::try_parse_from(with_default_command(line.split(' ').map(OsString::from).collect()));
        for line in ["assent", "assent --shards 2", "assent serve --shards=2", "assent --pin --data x"] {
            assert!(matches!(parse(line), Ok(Cli { command: Command::Serve(_) })), "{line}");
        }
        for line in ["assent --help", "assent serve --unknown", "assent frob", "assent serve --shards"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
