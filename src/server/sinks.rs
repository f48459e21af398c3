//! Which sinks a node has, from its settings; and that none is left out that its folder has fed.

use crate::config::{ArchiveKind, Config, Durability};
use crate::health::Health;
use crate::metrics::Metrics;
use crate::shard::{Keep, Started};
use crate::sinks::kafka::KafkaSink;
use crate::sinks::{ArchiveSink, BatchLimits, FileOptions, FileSink, Pump, Register, Sink, Watch, Watched};
use crate::store::Store;
use crate::store::db_url::DbUrl;
use crate::store::postgres::{Postgres, PostgresOptions};
use crate::store::sqlite::{self, Sqlite};
use anyhow::{Context, bail};
use std::sync::Arc;
use std::time::Duration;

/// Which archive the settings name.
enum Named<'a> {
    Sqlite,
    Postgres(&'a DbUrl),
}

fn named(config: &Config) -> Option<Named<'_>> {
    if config.durability == Durability::Memory {
        return None;
    }
    match (config.archive.kind, &config.db_url) {
        (ArchiveKind::None, _) => None,
        (ArchiveKind::Auto | ArchiveKind::Postgres, Some(url)) => Some(Named::Postgres(url)),
        (ArchiveKind::Postgres, None) => unreachable!("checked with the settings"),
        (ArchiveKind::Auto, None) | (ArchiveKind::Sqlite, _) => Some(Named::Sqlite),
    }
}

/// The archive that the settings name; the one place where stores are opened. The data folder is there, and locked.
/// A database that is down is met later, by the sink and by reads.
pub(super) fn archive_store(config: &Config) -> anyhow::Result<Option<Arc<dyn Store>>> {
    Ok(match named(config) {
        None => None,
        Some(Named::Sqlite) => Some(Arc::new(Sqlite::open(sqlite::Options::new(&config.data_dir))?)),
        Some(Named::Postgres(url)) => Some(Arc::new(Postgres::open(PostgresOptions::new(url.clone()))?)),
    })
}

/// Names of the sinks that the settings ask for.
fn configured(config: &Config) -> Vec<&'static str> {
    let archive = named(config).map(|_| "archive");
    let kafka = config.kafka.brokers.as_ref().map(|_| "kafka");
    let file = config.sinks.file.dir.as_ref().map(|_| "file");
    [archive, kafka, file].into_iter().flatten().collect()
}

/// The folder's register, where every sink in it is configured. Before anything is started: what a sink has not
/// seen must not be waited for unawares, nor be lost.
pub(super) fn register(config: &Config) -> anyhow::Result<Option<Register>> {
    if config.durability == Durability::Memory {
        return Ok(None);
    }
    let register = Register::read(&config.data_dir)?;
    let names = configured(config);
    let missing = register.sinks().iter().find(|sink| !names.contains(&sink.name.as_str()));
    if let Some(sink) = missing {
        let (name, data) = (&sink.name, config.data_dir.display());
        bail!(
            "the sink {name} was fed from this folder and is not configured now: the journal would grow for it without \
             an end. Configure it again ({}), or run `assent sinks forget {name} --data {data}`",
            how_to_configure(name)
        );
    }
    Ok(Some(register))
}

fn how_to_configure(name: &str) -> &'static str {
    match name {
        "archive" => "--archive, DB_URL",
        "kafka" => "KAFKA_BROKERS",
        "file" => "--file-sink-dir",
        _ => "in a build that has it",
    }
}

/// Starts to feed every sink that is configured; none: nothing is fed, and nothing given back.
pub(super) fn start(
    config: &Config,
    started: &mut Started,
    store: Option<Arc<dyn Store>>,
    register: Option<Register>,
    metrics: &Metrics,
    health: &Arc<Health>,
) -> anyhow::Result<Option<Watch>> {
    let (Some(mut register), Some(segments)) = (register, started.segments.take()) else { return Ok(None) };
    let mut sinks: Vec<Box<dyn Sink>> = Vec::new();
    if let Some(store) = store {
        let archive = &config.archive;
        let limits = BatchLimits {
            events_max: archive.batch_events_max,
            bytes_max: archive.batch_bytes_max,
            linger: Duration::from_millis(archive.linger_millis),
        };
        started.archive.turn_on();
        sinks.push(Box::new(ArchiveSink::new(store, started.deployment, limits)));
    }
    if let Some(options) = config.kafka.options(started.deployment)? {
        sinks.push(Box::new(KafkaSink::new(options)));
    }
    if let Some(dir) = &config.sinks.file.dir {
        let file = &config.sinks.file;
        let options = FileOptions { dir: dir.clone(), rotate_bytes: file.rotate_bytes, keep: file.keep };
        sinks.push(Box::new(FileSink::new(options, started.deployment)));
    }
    if sinks.is_empty() {
        return Ok(None);
    }
    // Before anything is sent: from then on its segments are kept for it.
    let mut is_new = false;
    for sink in &sinks {
        let known = register.positions(sink.name()).to_vec();
        is_new |= register.put(sink.name(), known);
    }
    if is_new {
        register.write()?;
    }
    let mut pumps = Vec::new();
    for sink in sinks {
        let name = sink.name();
        let reporter = health.register(format!("sink-{name}"));
        reporter.degraded("starting");
        let marks = (name == "archive").then(|| started.archive.clone());
        let pump = Pump::start(sink, started.logs.clone(), register.positions(name), marks, metrics.add_sink(name));
        pumps.push((pump.with_context(|| format!("no thread for the sink {name}"))?, reporter));
    }
    let watched = Watched {
        data: config.data_dir.clone(),
        pumps,
        register,
        logs: started.logs.clone(),
        segments,
        keep: Keep { age: Duration::from_secs(config.journal.keep_seconds), bytes: config.journal.keep_bytes },
        gate: started.gate.clone(),
        lag_bytes_max: config.sinks.lag_bytes_max,
    };
    Ok(Some(Watch::start(watched)?))
}
