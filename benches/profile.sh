#!/usr/bin/env bash
# Where does the time of a request go? Starts the wall and load on one path of the table in docs/performance.md,
# and prints who owns the CPU time (pingora, tokio, the wall's modules, the kernel), and the hottest functions.
#
#   benches/profile.sh free-3                    with perf; --help names the paths
#   benches/profile.sh free-3 --tool callgrind   instructions, where perf does not work; the kernel is not in them
#
# Needs what benches/http/run.sh needs, and perf (Debian: linux-perf) or valgrind.
set -euo pipefail
exec python3 -B "$(dirname "${BASH_SOURCE[0]}")/http/profile_path.py" "$@"
