//! `assent serve`: the flags are the settings' table, one flag a setting.

use super::Exit;
use crate::config::{Config, Error, Kind, SETTINGS, Sources};
use clap::builder::styling::Style;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use std::io::IsTerminal;
use std::path::PathBuf;

/// What was given on the command line; checked by `config`, not here.
#[derive(Clone, Debug, Default)]
pub struct ServeArgs {
    file: Option<PathBuf>,
    /// (flag, value), in the order of the table.
    given: Vec<(String, String)>,
}

impl ServeArgs {
    /// The settings of this command line, environment and file together.
    pub fn load(&self) -> Result<Config, Error> {
        Config::load(&Sources::of_process(self.given.clone(), self.file.clone()))
    }
}

const AFTER: &str = "\
Each setting may also stand in the environment (--shards is ASSENT_SHARDS) or in a TOML file given
with --config; a flag wins over the environment, that over the file, that over the default.
`--help` shows all flags, `assent settings` the file's names for them.

Next: `assent submit --required 2 --total 3` in another terminal, or `assent load`.";

impl Args for ServeArgs {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new("config").long("config").value_name("FILE").value_parser(clap::value_parser!(PathBuf));
        let mut command = command.arg(config.help("Settings as TOML; unknown keys are errors [env: ASSENT_CONFIG]"));
        for setting in SETTINGS {
            let dim = Style::new().dimmed();
            let bound = match setting.kind {
                Kind::Path | Kind::Address | Kind::Switch | Kind::Hosts | Kind::Text => String::new(),
                _ => format!(" [{}]", setting.kind.bound()),
            };
            let help = format!("{} {dim}[default: {}]{bound}{dim:#}", setting.help, setting.default_shown());
            let arg = Arg::new(setting.flag).long(setting.flag).help(help).hide_short_help(!setting.common);
            let arg = arg.help_heading(heading(setting.key)).allow_hyphen_values(true);
            command = command.arg(match setting.kind {
                Kind::Switch => {
                    arg.num_args(0..=1).require_equals(true).default_missing_value("true").value_name("BOOL")
                }
                Kind::Number { .. } | Kind::PowerOfTwo { .. } => arg.value_name("N"),
                Kind::Seconds { .. } => arg.value_name("SECONDS"),
                Kind::Bytes { .. } => arg.value_name("BYTES"),
                Kind::Path if setting.key == "data" => arg.value_name("DIR"),
                Kind::Path => arg.value_name("FILE"),
                Kind::Address => arg.value_name("ADDR"),
                Kind::Choice(_) | Kind::TopicPart | Kind::Text => arg.value_name("NAME"),
                Kind::Hosts => arg.value_name("HOSTS"),
            });
        }
        command.after_help(AFTER)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ServeArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<ServeArgs, clap::Error> {
        let value = |flag: &str| Some((flag.into(), matches.get_one::<String>(flag)?.clone()));
        Ok(ServeArgs {
            file: matches.get_one("config").cloned(),
            given: SETTINGS.iter().filter_map(|setting| value(setting.flag)).collect(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn heading(key: &str) -> &'static str {
    match key.split_once('.').map(|(section, _)| section) {
        Some("shard") => "Shards",
        Some("limits") => "Limits",
        Some("journal") => "Journal",
        Some("archive" | "sinks") => "Archive and sinks",
        Some("grpc") => "gRPC",
        Some("http") => "HTTP",
        Some("tls") => "TLS",
        Some("kafka") => "Kafka",
        _ => "Node",
    }
}

/// Runs a node until it is told to stop. Settings are checked before anything starts.
pub fn run(args: ServeArgs) -> anyhow::Result<Exit> {
    let config = args.load()?;
    start_log(config.log_level);
    config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    crate::server::run(config)?;
    Ok(Exit::Done)
}

/// Lines on stderr, one an incident; colours only for a person.
fn start_log(level: tracing::Level) {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_max_level(level)
        .with_target(false)
        .init();
}
