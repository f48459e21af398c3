//! `assent doctor`: what this machine has, what that means for a node, and what to do about it.
//!
//! It takes the flags of `serve` and checks for exactly that node. It writes only one file of 4 KiB
//! in the data folder's disk, and takes it away again.

use super::{Exit, probe, serve::ServeArgs};
use crate::config::{Config, Io, Machine};
use serde::Serialize;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

#[derive(Debug, clap::Args)]
pub struct DoctorArgs {
    /// One JSON object with all findings
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    /// The node runs, slower or with less room.
    Warn,
    /// The node does not start, or loses what it promises.
    Fail,
}

#[derive(Debug, Serialize)]
struct Finding {
    name: &'static str,
    level: Level,
    found: String,
    /// What that means, and what to do; for an ok finding only what it means, or nothing.
    #[serde(skip_serializing_if = "String::is_empty")]
    advice: String,
}

fn ok(name: &'static str, found: impl Into<String>) -> Finding {
    Finding { name, level: Level::Ok, found: found.into(), advice: String::new() }
}

fn warn(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding { name, level: Level::Warn, found: found.into(), advice: advice.into() }
}

fn fail(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding { name, level: Level::Fail, found: found.into(), advice: advice.into() }
}

/// Exit code 1 when a finding is a failure.
pub fn run(args: DoctorArgs) -> anyhow::Result<Exit> {
    let config = args.serve.load()?;
    let findings = examine(&config);
    let worst = findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok);
    if args.json {
        println!("{}", serde_json::json!({ "schema": 1, "worst": worst, "findings": findings }));
    } else {
        show(&findings);
    }
    Ok(if worst == Level::Fail { Exit::Refused } else { Exit::Done })
}

fn show(findings: &[Finding]) {
    for finding in findings {
        let mark = match finding.level {
            Level::Ok => "ok  ",
            Level::Warn => "warn",
            Level::Fail => "FAIL",
        };
        println!("{mark}  {:<16}  {}", finding.name, finding.found);
        if !finding.advice.is_empty() {
            println!("      {:<16}  {}", "", finding.advice);
        }
    }
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    println!("\n{} ok, {} to look at, {} failed", count(Level::Ok), count(Level::Warn), count(Level::Fail));
}

fn examine(config: &Config) -> Vec<Finding> {
    let machine = Machine::detect();
    let clocks = (SystemTime::now(), Instant::now());
    let folder = nearest_folder(&config.data_dir);
    let mut findings = vec![kernel(), io_uring(config.io), cores(config, &machine), memory(config, &machine)];
    findings.extend([huge_pages(), locked_memory(), open_files(config)]);
    findings.extend([space(config, &folder), disk_sync(&folder), direct_io(&folder)]);
    findings.extend([port("grpc port", "--grpc", config.grpc_addr), port("http port", "--http", config.http_addr)]);
    findings.push(clock(clocks));
    findings
}

fn kernel() -> Finding {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_string();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) >= (5, 8) => ok("kernel", release),
        (Some(_), Some(_)) => {
            warn("kernel", release, "older than 5.8: io_uring is not complete there. --io posix works everywhere.")
        }
        _ => warn("kernel", "not known", "/proc is not readable; the node needs Linux."),
    }
}

fn io_uring(wanted: Io) -> Finding {
    let name = "io_uring";
    let Err(error) = probe::io_uring() else { return ok(name, "available") };
    let reason = match error.raw_os_error() {
        Some(libc::ENOSYS) => "this kernel was built without it",
        Some(libc::EPERM | libc::EACCES) => {
            "forbidden here: sysctl kernel.io_uring_disabled, or a container's seccomp profile (Docker's default \
             blocks it)"
        }
        Some(libc::ENOMEM) => "no memory may be locked: raise memlock",
        _ => "the kernel refused",
    };
    let found = format!("not available ({error}): {reason}");
    match wanted {
        Io::Uring => fail(name, found, "--io uring cannot start. Allow io_uring, or use --io auto."),
        _ => warn(name, found, "The journal uses pwrite and fdatasync; nothing is lost by it but some speed."),
    }
}

fn cores(config: &Config, machine: &Machine) -> Finding {
    let found = format!("{} for {} shard(s)", machine.cores, config.shard.count);
    if config.shard.count > machine.cores {
        return warn("cores", found, "More shards than cores: they take turns. Lower --shards.");
    }
    ok("cores", found)
}

/// Resident bytes of a pending approval with some votes, by the bar of the engine.
const APPROVAL_BYTES: u64 = 192;

fn memory(config: &Config, machine: &Machine) -> Finding {
    let needed = config.limits.approvals_max as u64 * APPROVAL_BYTES
        + config.limits.eligible_bytes_max as u64
        + config.limits.watchers_max as u64 * config.limits.watcher_buffer_bytes as u64;
    let found = format!("{}; every limit reached at once takes about {}", size(machine.memory_bytes), size(needed));
    if needed > machine.memory_bytes / 10 * 9 {
        return warn("memory", found, "The limits allow more than there is. Lower --approvals-max or --watchers-max.");
    }
    ok("memory", found)
}

fn huge_pages() -> Finding {
    let setting = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    let chosen = setting.split(['[', ']']).nth(1).unwrap_or("unknown");
    match chosen {
        "always" | "madvise" => ok("huge pages", chosen),
        _ => warn(
            "huge pages",
            chosen,
            "With many approvals in memory votes are up to 1.3 times slower. \
             echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
        ),
    }
}

/// The soft limit of a line of /proc/self/limits; `u64::MAX`: unlimited.
fn soft_limit(limits: &str, name: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    match line.split_ascii_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

fn limit(name: &str) -> Option<u64> {
    soft_limit(&fs::read_to_string("/proc/self/limits").ok()?, name)
}

fn locked_memory() -> Finding {
    const NEEDED: u64 = 8 << 20;
    match limit("Max locked memory") {
        Some(u64::MAX) => ok("memlock", "unlimited"),
        Some(bytes) if bytes >= NEEDED => ok("memlock", size(bytes)),
        Some(bytes) => warn(
            "memlock",
            size(bytes),
            "io_uring needs about 8 MiB. ulimit -l 8192, LimitMEMLOCK=8M in systemd, or --io posix.",
        ),
        None => warn("memlock", "not known", "/proc/self/limits is not readable."),
    }
}

fn open_files(config: &Config) -> Finding {
    // Connections, and the journal's files beside them.
    let needed = (config.limits.connections_max + config.http.connections_max + 256) as u64;
    match limit("Max open files") {
        Some(count) if count >= needed => ok("open files", format!("{count}, of {needed} needed at most")),
        Some(count) => warn(
            "open files",
            format!("{count}, of {needed} needed at most"),
            format!("Beyond it connections are refused. ulimit -n {needed}, or lower --connections-max."),
        ),
        None => warn("open files", "not known", "/proc/self/limits is not readable."),
    }
}

/// The data folder, or the folder above it in which it would be made.
fn nearest_folder(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.into());
    absolute.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/")).into()
}

fn space(config: &Config, folder: &Path) -> Finding {
    let name = "disk space";
    let room = match probe::room(folder) {
        Ok(room) => room,
        Err(error) => return fail(name, format!("{}: {error}", folder.display()), "Name another folder with --data."),
    };
    let journal = &config.journal;
    let needed =
        journal.segment_bytes * (journal.pool_segments as u64 + 2) * config.shard.count as u64 + journal.reserve_bytes;
    let found = format!("{} free of {} in {}", size(room.free), size(room.total), folder.display());
    if room.in_memory {
        return fail(name, found, "This folder lives in memory: nothing in it survives a restart. Use a disk.");
    }
    if room.free < needed {
        let advice = format!("A start takes {}. Make room, or lower --segment-bytes or --pool-segments.", size(needed));
        return fail(name, found, advice);
    }
    ok(name, found)
}

/// A file in the data folder's disk, gone when dropped.
struct Trial {
    path: PathBuf,
    file: File,
}

impl Trial {
    fn open(folder: &Path, flags: libc::c_int) -> io::Result<Trial> {
        let path = folder.join(format!(".assent-doctor-{}", std::process::id()));
        let file = OpenOptions::new().write(true).create_new(true).custom_flags(flags).open(&path)?;
        Ok(Trial { path, file })
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        // Nothing depends on it; a file of 4 KiB that stays is named after us.
        let _ = fs::remove_file(&self.path);
    }
}

const BLOCK: usize = 4_096;
const TRIES: usize = 100;

fn disk_sync(folder: &Path) -> Finding {
    let name = "disk sync";
    let times = match sync_times(folder) {
        Ok(times) => times,
        Err(error) => {
            let advice = "The journal cannot be written there. Check the folder's owner, or name another with --data.";
            return fail(name, format!("{}: {error}", folder.display()), advice);
        }
    };
    let (p50, p99) = (times[TRIES / 2], times[TRIES * 99 / 100]);
    let found = format!("4 KiB write + fdatasync: p50 {} us, p99 {} us", p50.as_micros(), p99.as_micros());
    if p50 < Duration::from_micros(20) {
        let advice = "Faster than disks are: it may not reach one (a memory file system, or a host that ignores \
                      syncs). What is acknowledged would not survive power loss.";
        return warn(name, found, advice);
    }
    if p99 > Duration::from_millis(20) {
        let advice = "Every answer waits for a sync: latency will be at least this. Batches still go fast. Look for \
                      other writers on this disk, or use a local SSD.";
        return warn(name, found, advice);
    }
    ok(name, found)
}

fn sync_times(folder: &Path) -> io::Result<Vec<Duration>> {
    let trial = Trial::open(folder, 0)?;
    let block = [0x5a; BLOCK];
    // The first sync also makes the file's blocks; the journal writes into prepared ones.
    trial.file.write_all_at(&block, 0)?;
    trial.file.sync_all()?;
    let mut times = Vec::with_capacity(TRIES);
    for _ in 0..TRIES {
        let start = Instant::now();
        trial.file.write_all_at(&block, 0)?;
        trial.file.sync_data()?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    Ok(times)
}

fn direct_io(folder: &Path) -> Finding {
    let name = "direct I/O";
    // Twice the room, so that an aligned block lies in it.
    let room = vec![0x5a_u8; 2 * BLOCK];
    let start = room.as_ptr().align_offset(BLOCK).min(BLOCK);
    let written =
        Trial::open(folder, libc::O_DIRECT).and_then(|trial| trial.file.write_all_at(&room[start..start + BLOCK], 0));
    match written {
        Ok(()) => ok(name, "supported (O_DIRECT, 4 KiB)"),
        Err(error) => warn(
            name,
            format!("not supported: {error}"),
            "The file system does not do O_DIRECT: the journal goes through the page cache, with --io posix.",
        ),
    }
}

fn port(name: &'static str, flag: &str, address: SocketAddr) -> Finding {
    match TcpListener::bind(address) {
        Ok(_) => ok(name, format!("{address} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => fail(
            name,
            format!("{address} is in use"),
            format!("Another program, perhaps another node, listens there. End it, or give {flag} another port."),
        ),
        Err(error) => fail(
            name,
            format!("{address}: {error}"),
            format!("Give {flag} an address of this machine and a port that this user may open."),
        ),
    }
}

/// Expiry is judged by the wall clock, and a jump of more than 10 s stops it.
fn clock((wall, steady): (SystemTime, Instant)) -> Finding {
    let name = "clock";
    let passed = wall.elapsed().map_or_else(|error| -error.duration().as_secs_f64(), |passed| passed.as_secs_f64());
    let drift = passed - steady.elapsed().as_secs_f64();
    if drift.abs() > 1.0 {
        let advice = "Somebody sets the clock while we look. Let a time service (chrony, systemd-timesyncd) slew it; \
                      after a jump of 10 s the node refuses to open approvals until --accept-clock is given.";
        return fail(name, format!("jumped by {drift:+.1} s within this check"), advice);
    }
    match probe::clock_state() {
        Ok(state) if state.synchronised => {
            ok(name, format!("synchronised, at most {} ms wrong", state.error_micros.div_ceil(1_000)))
        }
        Ok(_) => warn(
            name,
            "steady, but no time service keeps it",
            "Approvals expire by this clock. Run chrony or systemd-timesyncd (in a container: on its host).",
        ),
        Err(error) => warn(name, format!("steady; its state is not readable ({error})"), "Check it on the host."),
    }
}

/// With a unit a person reads.
fn size(bytes: u64) -> String {
    let units = [(1_u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{:.1} {name}", bytes as f64 / *unit as f64),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_limits() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max open files            1024                 524288               files     \n\
                    Max locked memory         unlimited            unlimited            bytes     \n";
        assert_eq!(soft_limit(text, "Max open files"), Some(1_024));
        assert_eq!(soft_limit(text, "Max locked memory"), Some(u64::MAX));
        assert_eq!(soft_limit(text, "Max cpu time"), None);
    }

    #[test]
    fn looks_where_the_folder_would_be_made() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        assert_eq!(nearest_folder(&folder.path().join("not/there")), folder.path());
    }

    #[test]
    fn a_taken_port_is_a_failure_that_says_what_to_do() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let finding = port("grpc port", "--grpc", taken.local_addr().expect("it is bound"));
        assert_eq!(finding.level, Level::Fail);
        assert!(finding.advice.contains("--grpc"), "{finding:?}");
    }

    #[test]
    fn leaves_no_file_behind() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        assert_ne!(disk_sync(folder.path()).level, Level::Fail);
        let _ = direct_io(folder.path());
        assert_eq!(fs::read_dir(folder.path()).expect("it is there").count(), 0);
    }
}
