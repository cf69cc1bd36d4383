#!/usr/bin/env bash
# Counts the instructions of the hot paths and holds them against benches/instructions.toml.
#
#   benches/instructions.sh            fails when a path takes 3 % more than its budget, or 3 % less
#   benches/instructions.sh --write    writes what was counted into the budget; commit it with the change
#
# Needs valgrind (Debian: apt-get install valgrind) and gungraun-runner in the version of the crate gungraun:
# cargo install --locked --debug gungraun-runner@VERSION
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

command -v valgrind >/dev/null || { echo "valgrind is missing (Debian: apt-get install valgrind)" >&2; exit 1; }
wanted=$(sed -n '/^name = "gungraun"$/{n;s/^version = "\(.*\)"$/\1/p}' Cargo.lock)
found=$(gungraun-runner --version 2>/dev/null | awk '{ print $NF }' || true)
if [ "$found" != "$wanted" ]; then
  echo "gungraun-runner is ${found:-missing}; install it: cargo install --locked --debug gungraun-runner@$wanted" >&2
  exit 1
fi
# Earlier summaries would be taken for those of this run.
folder=${CARGO_TARGET_DIR:-target}/gungraun
rm -rf "$folder"
# The folder of a package takes part in the names of its functions, and these in what the compiler inlines. So
# every checkout is built under one name, /tmp/farewall-counted, by one run at a time.
place=/tmp/farewall-counted
log=${TMPDIR:-/tmp}/farewall-instructions.log
exec 5>"$place.lock"
flock 5
ln -sfn "$PWD" "$place"
CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target} cargo bench --locked --manifest-path "$place/Cargo.toml" \
  --bench instructions -- --save-summary=json >"$log" 2>&1 5>&- || {
  cat "$log" >&2
  exit 1
}
exec python3 -B benches/instructions.py "$folder" "$@"
