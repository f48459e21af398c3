//! `assent sinks` and `assent archive`: which sinks a folder feeds and how far they are, and an operator's word.

use super::Exit;
use crate::journal::{Locked, PosixStorage, Storage};
use crate::sinks::{Register, resume_file};
use anyhow::{Context, bail};
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub struct DataArg {
    /// The node's data folder
    #[arg(long, value_name = "DIR", default_value = "data", env = "ASSENT_DATA")]
    data: PathBuf,
}

#[derive(Debug, clap::Subcommand)]
pub enum SinksCommand {
    /// Show the sinks that a folder has fed, and how far each had got when that was last written
    List {
        #[command(flatten)]
        data: DataArg,
        /// One JSON object a sink
        #[arg(long)]
        json: bool,
    },
    /// Let a folder forget a sink that will not come back: the journal is no longer kept for it
    #[command(after_help = FORGET_HELP)]
    Forget {
        /// Its name, as `list` shows it
        name: String,
        #[command(flatten)]
        data: DataArg,
    },
    /// Tell a node that what stopped a sink is mended: it goes on where it was
    #[command(after_help = RESUME_HELP)]
    Resume {
        /// Its name, as health and metrics show it
        name: String,
        #[command(flatten)]
        data: DataArg,
    },
}

#[derive(Debug, clap::Subcommand)]
pub enum ArchiveCommand {
    /// Tell a node that what stopped its archive is mended: the same as `assent sinks resume archive`
    #[command(after_help = RESUME_HELP)]
    Resume {
        #[command(flatten)]
        data: DataArg,
    },
}

const FORGET_HELP: &str = "\
The node must be stopped. What the sink has is left as it is; configured again later, it goes on from its own position
if the journal still holds what follows, and is told what is missing otherwise.

Example: assent sinks forget file --data data";

const RESUME_HELP: &str = "\
A sink stops when no retry mends what is wrong (a full disk, a missing right, another deployment's database); health,
metrics and the log say why. The node goes on without it and takes this word within a second.

Example: assent sinks resume archive --data data";

pub fn run(command: SinksCommand) -> anyhow::Result<Exit> {
    match command {
        SinksCommand::List { data, json } => list(&checked(&data)?, json),
        SinksCommand::Forget { name, data } => forget(&checked(&data)?, &name),
        SinksCommand::Resume { name, data } => resume(&checked(&data)?, &name),
    }
}

pub fn run_archive(command: ArchiveCommand) -> anyhow::Result<Exit> {
    let ArchiveCommand::Resume { data } = command;
    resume(&checked(&data)?, "archive")
}

fn checked(data: &DataArg) -> anyhow::Result<PathBuf> {
    if !data.data.join("meta").exists() {
        bail!("{} is no data folder: give the node's own with --data", data.data.display());
    }
    Ok(data.data.clone())
}

fn list(data: &Path, json: bool) -> anyhow::Result<Exit> {
    let register = Register::read(data)?;
    for sink in register.sinks() {
        let positions = sink.positions.iter();
        if json {
            let positions: Vec<_> =
                positions.map(|at| serde_json::json!({"log": at.log.0, "sequence": at.sequence})).collect();
            println!("{}", serde_json::json!({"sink": sink.name, "positions": positions}));
            continue;
        }
        println!("{}", sink.name);
        positions.for_each(|at| println!("  log {} through {}", at.log.0, at.sequence));
    }
    if register.sinks().is_empty() && !json {
        println!("{}: no sink is registered", data.display());
    }
    Ok(Exit::Done)
}

fn forget(data: &Path, name: &str) -> anyhow::Result<Exit> {
    // A node that runs writes the register itself.
    let path = data.join("LOCK");
    let lock = PosixStorage.lock(&path, &format!("{}\n", std::process::id()));
    let _held = match lock.with_context(|| format!("cannot lock {}", path.display()))? {
        Locked::Held(held) => held,
        Locked::By(pid) => bail!("process {} works on {}: stop it first", pid.trim(), data.display()),
    };
    let mut register = Register::read(data)?;
    register.forget(name)?;
    register.write()?;
    println!("{}: {name} is forgotten, and nothing is kept for it any more", data.display());
    Ok(Exit::Done)
}

fn resume(data: &Path, name: &str) -> anyhow::Result<Exit> {
    if !Register::read(data)?.sinks().iter().any(|sink| sink.name == name) {
        bail!("no sink named {name} is registered in {}; `assent sinks list` shows those that are", data.display());
    }
    let path = resume_file(data, name);
    std::fs::write(&path, "").with_context(|| format!("cannot write {}", path.display()))?;
    println!("told the node on {}: its log says when {name} is up", data.display());
    Ok(Exit::Done)
}
