//! What the system says of this process. Linux only; elsewhere nothing is shown.

use std::fs;

/// Open file descriptors, the soft limit on them, and resident memory in bytes.
pub(super) fn gauges() -> [(super::ProcessGauge, Option<i64>); 3] {
    use super::ProcessGauge::{MaxFds, OpenFds, Resident};
    [
        (OpenFds, open_fds()),
        (MaxFds, max_fds()),
        (Resident, resident_bytes()),
    ]
}

fn open_fds() -> Option<i64> {
    // The folder itself is open while it is read.
    let open = fs::read_dir("/proc/self/fd").ok()?.count();
    i64::try_from(open.saturating_sub(1)).ok()
}

fn max_fds() -> Option<i64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn resident_bytes() -> Option<i64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: i64 = line.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_descriptors_below_its_limit_and_memory() {
        let (open, max) = (open_fds().unwrap(), max_fds().unwrap());
        assert!(0 < open && open < max, "{open} of {max}");
        assert!(resident_bytes().unwrap() > 1 << 20);
    }
}
