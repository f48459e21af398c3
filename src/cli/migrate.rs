//! `assent migrate`: what the archive's schema is, and whether a database has it. A node applies it by itself.

use super::Exit;
use crate::store::db_url::DbUrl;
use crate::store::postgres::{self, Postgres, PostgresOptions};
use crate::store::{migrate, sqlite};
use anyhow::Context;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct MigrateArgs {
    #[command(flatten)]
    what: What,
    /// The PostgreSQL database that the archive is in; without it, SQLite in the data folder
    #[arg(long, value_name = "URL", env = "DB_URL", hide_env_values = true)]
    db_url: Option<String>,
    /// The data folder
    #[arg(long, value_name = "DIR", env = "ASSENT_DATA", default_value = "data")]
    data: PathBuf,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct What {
    /// Print the migrations as SQL
    #[arg(long)]
    print: bool,
    /// Say which are applied; exit code 1 when any is missing, changed or newer than this version
    #[arg(long)]
    check: bool,
}

const HELP: &str = "\
A node applies what is missing when it starts; nothing is written here.

Examples: assent migrate --check --data data
          assent migrate --print | less";

/// Where an archive is.
enum Target {
    /// In this data folder.
    Sqlite(PathBuf),
    Postgres(Box<DbUrl>),
}

impl Target {
    fn of(args: &MigrateArgs) -> anyhow::Result<Target> {
        match &args.db_url {
            None => Ok(Target::Sqlite(args.data.clone())),
            Some(url) => {
                let variable = |name| std::env::var(name).ok();
                let (user, password) = (variable("PGUSER"), variable("PGPASSWORD"));
                let url = DbUrl::parse(url, user.as_deref(), password.as_deref()).context("--db-url or DB_URL")?;
                Ok(Target::Postgres(Box::new(url)))
            }
        }
    }

    fn print(&self) -> String {
        match self {
            Target::Sqlite(_) => migrate::print_sqlite(),
            Target::Postgres(_) => postgres::migrate::print(),
        }
    }

    fn check(&self) -> Result<migrate::Schema, crate::store::Error> {
        match self {
            Target::Sqlite(folder) => sqlite::check(folder),
            Target::Postgres(url) => Postgres::open(PostgresOptions::new(DbUrl::clone(url)))?.schema(),
        }
    }
}

pub fn run(args: MigrateArgs) -> anyhow::Result<Exit> {
    let target = Target::of(&args)?;
    if args.what.print {
        print!("{}", target.print());
        return Ok(Exit::Done);
    }
    let schema = target.check()?;
    schema.applied.iter().for_each(|name| println!("{name}: applied"));
    schema.missing.iter().for_each(|name| println!("{name}: missing"));
    Ok(if schema.missing.is_empty() { Exit::Done } else { Exit::Refused })
}
