#!/usr/bin/env bash
# Prints what was survived, as a table: tests/faults.sh [KILLS]. Each harness adds a line to the
# file in FAREWALL_REPORT: what, how often, violations; separated by tabs.
set -euo pipefail
cd "$(dirname "$0")/.."
report=$(mktemp)
trap 'rm -f "$report"' EXIT
export FAREWALL_REPORT=$report FAREWALL_KILLS=${1:-200}
result=0
cargo test --locked --features failpoints --test crash >&2 || result=$?
printf '%s, commit %s\n\n' "$(date -u +%F)" "$(git rev-parse --short HEAD 2>/dev/null || echo unknown)"
printf '| what | how often | violations |\n|---|---:|---:|\n'
while IFS=$'\t' read -r what count violations; do
  printf '| %s | %s | %s |\n' "$what" "$count" "$violations"
done <"$report"
exit "$result"
