//! What the system says about this machine and about CPU time, read from `/proc` and `/sys`.

use std::fs;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Pid, SysconfVar, sysconf};
use serde::Serialize;

use crate::units::{NS_PER_S, float};

/// Raises the limit on open files to what the system allows; each connection is one.
pub fn raise_open_files() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // When this fails the limit stays, and opening too many connections reports it.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Ties the calling thread to one CPU.
///
/// # Errors
/// Why the system refused, in words.
pub fn pin_thread(core: usize) -> Result<(), String> {
    let refused = |error| {
        format!(
            "cannot pin a thread to core {core}: {error}; is it among the CPUs this process may use?"
        )
    };
    let mut set = CpuSet::new();
    set.set(core).map_err(refused)?;
    sched_setaffinity(Pid::from_raw(0), &set).map_err(refused)
}

/// Parses a list of cores: `2`, `0-3`, `0-3,8,10-11`.
///
/// # Errors
/// A sentence that says what was wrong and shows the accepted form.
pub fn parse_cores(text: &str) -> Result<Vec<usize>, String> {
    let bad = || format!("`{text}` is not a list of cores; write for example 1 or 0-3,8");
    let mut cores = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: usize = first.trim().parse().map_err(|_| bad())?;
        let last: usize = last.trim().parse().map_err(|_| bad())?;
        // CPU sets of the system hold 1024.
        if first > last || last >= 1024 {
            return Err(bad());
        }
        cores.extend(first..=last);
    }
    Ok(cores)
}

/// CPU time the calling thread has taken, in nanoseconds; 0 when the system does not say.
#[must_use]
pub fn thread_cpu_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(0, |time| {
        let part = |value: i64| u64::try_from(value).unwrap_or(0);
        part(time.tv_sec()) * NS_PER_S + part(time.tv_nsec())
    })
}

/// CPU seconds, user and system, that a process has taken so far; `None` when there is no such process (any more).
#[must_use]
pub fn process_cpu_s(pid: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    process_ticks(&stat).map(|ticks| float(ticks) / ticks_per_s())
}

/// `utime` + `stime`: fields 14 and 15 of `/proc/PID/stat` (proc(5)). The second field is the command in parentheses and
/// may itself hold spaces and parentheses, so counting starts behind the last one.
fn process_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn ticks_per_s() -> f64 {
    let ticks = sysconf(SysconfVar::CLK_TCK)
        .ok()
        .flatten()
        .and_then(|ticks| u64::try_from(ticks).ok());
    float(ticks.unwrap_or(100).max(1))
}

/// CPU time of the whole machine, in ticks, as `/proc/stat` counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MachineTicks {
    /// Everything, idle time included.
    pub total: u64,
    /// Time in which the hypervisor ran somebody else.
    pub steal: u64,
}

impl MachineTicks {
    /// Reads them now; `None` where there is no such file.
    #[must_use]
    pub fn read() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/stat").ok()?)
    }

    /// The first line: `cpu user nice system idle iowait irq softirq steal guest guest_nice`; guest time is contained in
    /// user time already.
    fn parse(stat: &str) -> Option<Self> {
        let fields: Vec<u64> = stat
            .lines()
            .next()?
            .strip_prefix("cpu ")?
            .split_whitespace()
            .map_while(|field| field.parse().ok())
            .take(8)
            .collect();
        Some(Self {
            total: fields.iter().sum(),
            steal: fields.get(7).copied()?,
        })
    }

    /// The share of CPU time stolen between two readings.
    #[must_use]
    pub fn steal_until(&self, later: &Self) -> f64 {
        let total = later.total.saturating_sub(self.total);
        if total == 0 {
            0.0
        } else {
            float(later.steal.saturating_sub(self.steal)) / float(total)
        }
    }
}

/// What a report says about the machine it was made on. No names or addresses of it.
#[derive(Clone, Debug, Serialize)]
pub struct Host {
    /// `model name` of the first CPU.
    pub cpu: String,
    /// CPUs this process may use.
    pub cpus: usize,
    /// Kernel release.
    pub kernel: String,
    /// What the kernel reads time from; `hpet` or `acpi_pm` would be too slow for this.
    pub clocksource: String,
    /// Frequency governor of the first CPU, `unknown` in most virtual machines.
    pub governor: String,
}

impl Host {
    /// Reads it all; what is missing says `unknown`.
    #[must_use]
    pub fn read() -> Self {
        let line = |path: &str| {
            fs::read_to_string(path)
                .ok()
                .map(|text| text.trim().to_owned())
        };
        let or_unknown = |text: Option<String>| {
            text.filter(|text| !text.is_empty())
                .unwrap_or_else(|| "unknown".to_owned())
        };
        let cpu = line("/proc/cpuinfo").and_then(|text| {
            let model = text.lines().find(|line| line.starts_with("model name"))?;
            model
                .split_once(':')
                .map(|(_, name)| name.trim().to_owned())
        });
        Self {
            cpu: or_unknown(cpu),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: or_unknown(line("/proc/sys/kernel/osrelease")),
            clocksource: or_unknown(line(
                "/sys/devices/system/clocksource/clocksource0/current_clocksource",
            )),
            governor: or_unknown(line(
                "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_lists_parse() {
        assert_eq!(parse_cores("2").unwrap(), [2]);
        assert_eq!(parse_cores("0-2,5").unwrap(), [0, 1, 2, 5]);
        for bad in ["", "a", "3-1", "0-", "0-99999", "-1"] {
            assert!(parse_cores(bad).is_err(), "{bad} was accepted");
        }
    }

    #[test]
    fn process_times_are_found_behind_any_command_name() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194304 100 0 0 0 1234 66 0 0 20 0 3 0 5 6 7";
        assert_eq!(process_ticks(stat), Some(1300));
        assert!(process_cpu_s(std::process::id()).is_some());
        assert_eq!(process_cpu_s(u32::MAX), None);
    }

    #[test]
    fn steal_is_a_share_of_all_time() {
        let before = MachineTicks::parse("cpu  100 0 50 800 0 0 0 50 7 7\ncpu0 1 2 3").unwrap();
        assert_eq!(
            before,
            MachineTicks {
                total: 1000,
                steal: 50
            }
        );
        let after = MachineTicks {
            total: 2000,
            steal: 60,
        };
        assert!((before.steal_until(&after) - 0.01).abs() < 1e-12);
        assert!(before.steal_until(&before).abs() < 1e-12);
        assert!(MachineTicks::read().is_some());
    }
}
