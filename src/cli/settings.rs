//! `assent settings`: the table of settings for people, or as the README shows it.

use super::Exit;
use crate::config::{self, SETTINGS};
use crate::metrics;
use std::io::{self, Write};

#[derive(Debug, clap::Args)]
#[command(after_help = "A flag wins over the environment, that over the file (--config), that over the default.")]
pub struct SettingsArgs {
    /// As the README's table
    #[arg(long, hide = true)]
    markdown: bool,
    /// The metrics instead of the settings
    #[arg(long, hide = true)]
    metrics: bool,
}

pub fn run(args: SettingsArgs) -> anyhow::Result<Exit> {
    let text = match (args.metrics, args.markdown) {
        (true, _) => metrics::table::markdown(),
        (false, true) => config::markdown(),
        (false, false) => plain(),
    };
    // A reader that closed the pipe (`| head`) has what it wanted.
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(Exit::Done),
    }
}

fn plain() -> String {
    let mut text = String::new();
    for setting in SETTINGS {
        text += &format!("--{} ({}; in the file {})\n", setting.flag, setting.variable(), setting.key);
        text += &format!("    {}\n", setting.help);
        text += &format!("    default {}; {}\n\n", setting.default_shown(), setting.kind.bound());
    }
    text
}
