//! How many files may be open, and whether that is enough for the connections that are let in. (io)

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files and sockets that are no client's and no origin's: listeners, ledger, facilitators, log.
const OTHERS: u64 = 256;

/// A client and an origin, for each connection.
const EACH: u64 = 2;

/// What so many connections need at the most.
fn needed(connections_max: usize) -> u64 {
    let connections = u64::try_from(connections_max).unwrap_or(u64::MAX);
    connections.saturating_mul(EACH).saturating_add(OTHERS)
}

/// How many connections so many files are enough for.
fn enough_for(files: u64) -> u64 {
    files.saturating_sub(OTHERS).checked_div(EACH).unwrap_or(0)
}

/// Raises the soft limit on open files as far as so many connections need and the system allows, and
/// warns when that is not enough: a wall without files can neither accept nor forward.
pub(super) fn provide(connections_max: usize) {
    let needed = needed(connections_max);
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return;
    }
    let raised = Rlimit {
        current: Some(limit.maximum.map_or(needed, |most| most.min(needed))),
        ..limit
    };
    // Whether it worked shows in what holds now.
    let _ = setrlimit(Resource::Nofile, raised);
    let Some(open_files) = getrlimit(Resource::Nofile).current else {
        return;
    };
    if open_files < needed {
        tracing::warn!(
            open_files,
            needed,
            connections_max,
            "files may run out at about {} connections; raise the limit on open files (`ulimit -n`, \
             LimitNOFILE= of systemd) or lower connections_max in [limits]",
            enough_for(open_files)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_connection_needs_two_files() {
        assert_eq!(needed(20_000), 40_256);
        assert_eq!(enough_for(40_256), 20_000);
        assert_eq!(enough_for(100), 0);
        assert_eq!(needed(usize::MAX), u64::MAX);
    }
}
