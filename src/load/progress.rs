//! A progress bar, where somebody looks.

use super::report::grouped;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::Duration;

#[derive(Debug)]
pub struct Progress(Option<ProgressBar>);

impl Progress {
    /// Counts up to `total`; 0: nobody knows how far it goes.
    pub fn start(what: &str, total: u64) -> Progress {
        if !std::io::stderr().is_terminal() {
            return Progress(None);
        }
        let (bar, template) = match total {
            0 => (ProgressBar::new_spinner(), "{prefix:>10} {spinner} {elapsed} {msg}"),
            _ => (ProgressBar::new(total), "{prefix:>10} {wide_bar} {percent:>3} % {msg} {eta}"),
        };
        bar.set_style(ProgressStyle::with_template(template).expect("a legal template"));
        bar.set_prefix(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(250));
        Progress(Some(bar))
    }

    pub fn at(&self, position: u64, message: impl FnOnce() -> String) {
        if let Some(bar) = &self.0 {
            bar.set_position(position);
            bar.set_message(message());
        }
    }

    /// `12,345 votes/s`.
    pub fn rate(count: u64, seconds: f64, what: &str) -> String {
        format!("{} {what}/s", grouped((count as f64 / seconds.max(0.001)) as u64))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
