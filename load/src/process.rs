//! CPU time and memory of a process, from `/proc`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Clock ticks per second: 100 on every Linux we run on.
const TICKS: u64 = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) cpu: Duration,
    /// Resident memory, bytes.
    pub(crate) resident: u64,
}

impl Usage {
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let read = |file: &str| {
            let path = format!("/proc/{pid}/{file}");
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
        };
        Self::parse(&read("stat")?, &read("status")?).context("unexpected text in /proc")
    }

    fn parse(stat: &str, status: &str) -> Option<Self> {
        // The command's name may hold spaces and brackets: fields are counted behind its last bracket.
        let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace().skip(11);
        let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kilobytes: u64 = resident.trim().trim_end_matches(" kB").parse().ok()?;
        Some(Self { cpu: Duration::from_millis(ticks * 1000 / TICKS), resident: kilobytes * 1024 })
    }
}

/// Raises what this process may open to `needed` files, or says what to do.
pub(crate) fn allow_files(needed: u64) -> Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < needed) {
        ensure!(
            maximum.is_none_or(|maximum| maximum >= needed),
            "this run needs {needed} open files, the limit is {}: raise it with `ulimit -n` as root",
            maximum.unwrap_or_default()
        );
        setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_memory_are_found_behind_an_odd_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 4 0 100 1000 200 18446744073709551615";
        let usage = Usage::parse(stat, "Name:\ta\nVmRSS:\t    2048 kB\n").expect("well formed");
        assert_eq!(usage, Usage { cpu: Duration::from_secs(2), resident: 2 << 20 });
        assert!(Usage::of(std::process::id()).is_ok_and(|usage| usage.resident > 0));
    }
}
