//! Figures of the process itself, under the names that every exporter gives them.

use std::fs;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::metrics::gauge::Gauge;
use rustix::param::clock_ticks_per_second;
use rustix::process::{Resource, getrlimit};

use super::figures::{Register, ToldSeconds};

#[derive(Debug)]
pub(super) struct Process {
    processor_seconds: ToldSeconds,
    resident_bytes: Gauge,
    open_files: Gauge,
    open_files_limit: Gauge,
    threads: Gauge,
    start_seconds: Gauge<f64, AtomicU64>,
    began_seconds: Gauge<f64, AtomicU64>,
}

/// When this program began to run, as far as the first call knows: it belongs to the beginning of `main`. The process may be older, for another program,
/// such as cargo or a shell, may have become this one.
pub fn began() -> SystemTime {
    static BEGAN: OnceLock<SystemTime> = OnceLock::new();
    *BEGAN.get_or_init(SystemTime::now)
}

impl Process {
    pub(super) fn register(register: &mut Register) -> Self {
        let process = Self {
            processor_seconds: register.add(
                "process_cpu_seconds",
                &[],
                "Processor time used, in seconds",
                ToldSeconds::default(),
            ),
            resident_bytes: register.add("process_resident_memory_bytes", &[], "Resident memory", Gauge::default()),
            open_files: register.add("process_open_fds", &[], "Open files, connections included", Gauge::default()),
            open_files_limit: register.add("process_max_fds", &[], "How many files may be open", Gauge::default()),
            threads: register.add("process_threads", &[], "Threads", Gauge::default()),
            start_seconds: register.add(
                "process_start_time_seconds",
                &[],
                "When the process started, in seconds since 1970",
                Gauge::default(),
            ),
            began_seconds: register.add(
                "settle_start_time_seconds",
                &[],
                "When this program began to run, in seconds since 1970: later than its process, if that was another program before",
                Gauge::default(),
            ),
        };
        process.began_seconds.set(began().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
        process.start_seconds.set(start_seconds().unwrap_or_default());
        process
    }

    /// Looks at the process. What the system does not tell stays as it was.
    pub(super) fn look(&self) {
        if let Some(ticks) = stat().and_then(|stat| Some(field(&stat, 14)? + field(&stat, 15)?)) {
            self.processor_seconds.tell(ticks as f64 / clock_ticks_per_second() as f64);
        }
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<i64>().ok()
        };
        number("VmRSS:").into_iter().for_each(|kib| _ = self.resident_bytes.set(kib * 1024));
        number("Threads:").into_iter().for_each(|threads| _ = self.threads.set(threads));
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            self.open_files.set(i64::try_from(open.count()).unwrap_or(i64::MAX));
        }
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        self.open_files_limit.set(i64::try_from(limit).unwrap_or(i64::MAX));
    }
}

fn stat() -> Option<String> {
    fs::read_to_string("/proc/self/stat").ok()
}

/// A numbered field, from 1; those behind the name in brackets, which may hold anything.
fn field(stat: &str, number: usize) -> Option<u64> {
    let (_, behind) = stat.rsplit_once(')')?;
    behind.split_whitespace().nth(number - 3)?.parse().ok()
}

/// When this process started, in seconds since 1970, to the hundredth: the system tells its own start in whole seconds, but how long it runs more
/// precisely.
fn start_seconds() -> Option<f64> {
    let since_boot = field(&stat()?, 22)? as f64 / clock_ticks_per_second() as f64;
    let uptime: f64 = fs::read_to_string("/proc/uptime").ok()?.split_whitespace().next()?.parse().ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs_f64();
    Some(now - (uptime - since_boot))
}
