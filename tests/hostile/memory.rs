//! What a process needs of memory, where the system tells.

use std::fs;

/// The most that an attack may cost: some tens of MiB of queues and windows, twenty-five times the intake for what is
/// decoded, and what the allocator keeps. A single one of the mistakes that these tests are about costs more.
pub const BYTES_MAX: u64 = 320 << 20;

/// The memory of a node during an attack.
pub struct Memory {
    process: u32,
    name: &'static str,
    before: u64,
}

impl Memory {
    /// Begins to watch a process.
    pub fn watch(process: u32, name: &'static str) -> Self {
        // The system then forgets the highest value so far. Where it cannot, that value is only larger.
        let _ = fs::write(format!("/proc/{process}/clear_refs"), "5");
        Self { process, name, before: resident(process, "VmRSS:").unwrap_or(0) }
    }

    /// Asserts that it never took much more than at the start, and says how much.
    #[track_caller]
    pub fn assert_bounded(&self) {
        let Some(highest) = resident(self.process, "VmHWM:") else { return };
        let after = resident(self.process, "VmRSS:").unwrap_or(0);
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let (before, peak, after) = (mib(self.before), mib(highest), mib(after));
        eprintln!("memory | {} | {before:.1} | {peak:.1} | {after:.1} | MiB before, at most, after", self.name);
        let grown = highest.saturating_sub(self.before);
        assert!(grown <= BYTES_MAX, "{}: the node grew by {grown} bytes", self.name);
    }
}

fn resident(process: u32, field: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with(field))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib << 10)
}
