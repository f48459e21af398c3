//! What this machine has, as far as defaults depend on it.

use std::fs;

/// Memory and cores that this process may use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Machine {
    /// The smaller of the machine's memory and the control group's limit.
    pub memory_bytes: u64,
    pub cores: usize,
}

impl Machine {
    /// Reads /proc/meminfo and the control group; 4 GiB and one core where they say nothing.
    pub fn detect() -> Machine {
        let installed = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total_bytes(&text));
        let limit = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
            .iter()
            .find_map(|path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok());
        let memory_bytes = installed.unwrap_or(4 << 30).min(limit.unwrap_or(u64::MAX));
        Machine { memory_bytes, cores: std::thread::available_parallelism().map_or(1, |cores| cores.get()) }
    }
}

/// MemTotal of /proc/meminfo, which counts in KiB.
fn total_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find(|line| line.starts_with("MemTotal:"))?;
    Some(line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()? << 10)
}

#[cfg(test)]
mod tests {
    #[test]
    fn reads_meminfo() {
        assert_eq!(super::total_bytes("MemTotal:        2048 kB\nMemFree: 1 kB\n"), Some(2 << 20));
        assert_eq!(super::total_bytes("nothing"), None);
    }
}
