//! What this machine is, and what this process has used of it: read from /proc.

use serde::Serialize;

#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub kernel: String,
}

impl Machine {
    pub fn this() -> Machine {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        Machine {
            cpu: model.map_or_else(|| "unknown".to_owned(), |(_, name)| name.trim().to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub cpu_seconds: f64,
    pub rss_bytes: u64,
}

impl Usage {
    pub fn now() -> Usage {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        Usage::parse(&stat, rustix::param::clock_ticks_per_second(), rustix::param::page_size() as u64)
            .unwrap_or_default()
    }

    /// proc_pid_stat(5): the name may hold spaces and parentheses, so fields count from the last one.
    fn parse(stat: &str, ticks_per_second: u64, page_bytes: u64) -> Option<Usage> {
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        // Field 3 of the manual is the first here: utime is 14, stime 15, rss 24.
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Usage {
            cpu_seconds: (number(14)? + number(15)?) as f64 / ticks_per_second as f64,
            rss_bytes: number(24)? * page_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_stat_of_a_process_with_an_awkward_name() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 1 0 0 0 250 150 0 0 20 0 2 0 100 1000000 300 184 1";
        let usage = Usage::parse(stat, 100, 4_096).expect("parses");
        assert_eq!((usage.cpu_seconds, usage.rss_bytes), (4.0, 300 * 4_096));
        assert!(Usage::now().rss_bytes > 0);
        assert!(Machine::this().cores > 0);
    }
}
