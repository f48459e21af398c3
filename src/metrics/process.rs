//! What the kernel says of this process. Plain files of /proc: no call that needs `unsafe`.

use std::fs;

/// Memory, processor time and open files, now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Process {
    pub rss_bytes: u64,
    /// User and system time of all threads, in hundredths of a second's resolution.
    pub cpu_seconds: f64,
    pub open_files: u64,
}

/// /proc shows times in these a second, on every architecture we build for (USER_HZ).
const TICKS_PER_SECOND: f64 = 100.0;

impl Process {
    /// Zeros where /proc does not say.
    pub fn read() -> Process {
        Process {
            rss_bytes: fs::read_to_string("/proc/self/status").ok().and_then(|text| rss(&text)).unwrap_or(0),
            cpu_seconds: fs::read_to_string("/proc/self/stat").ok().and_then(|text| cpu(&text)).unwrap_or(0.0),
            open_files: fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count().saturating_sub(1) as u64),
        }
    }
}

fn rss(status: &str) -> Option<u64> {
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    Some(line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()? << 10)
}

/// utime and stime: fields 14 and 15, counted behind the command's name, which may hold anything.
fn cpu(stat: &str) -> Option<f64> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace().skip(11);
    let ticks: u64 = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(ticks as f64 / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_proc() {
        assert_eq!(rss("Name:\tx\nVmRSS:\t    2048 kB\n"), Some(2 << 20));
        assert_eq!(cpu("7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20"), Some(2.0));
        let now = Process::read();
        assert!(now.rss_bytes > 0 && now.open_files >= 3);
    }
}
