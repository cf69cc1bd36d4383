#!/usr/bin/env bash
# Measures the wall against what it is compared with, and prints the table of docs/performance.md.
#
#   benches/http/run.sh             everything, about 25 minutes after the build; --help names the parts
#   benches/http/run.sh --quick     does it all work? Figures of such a run mean nothing.
#
# Needs two cores that nobody else uses, cargo, python3 (3.11), and the Debian packages wrk, nginx-light,
# haproxy, nodejs and npm; without the last three it says so and leaves their comparison out.
set -euo pipefail
exec python3 -B "$(dirname "${BASH_SOURCE[0]}")/bench.py" "$@"
