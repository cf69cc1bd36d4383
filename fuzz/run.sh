#!/usr/bin/env bash
# Runs every fuzz target for some seconds, each on a copy of its corpus. Any finding fails.
#
#   fuzz/run.sh SECONDS [TARGET…]     default: 60 seconds, all targets
#
# Needs cargo; cargo-fuzz is installed when it is missing. The sanitizers are an unstable option of
# the compiler, which RUSTC_BOOTSTRAP=1 unlocks on a stable toolchain, for these builds alone.
#
#   FUZZ_SANITIZER=none     instead of address: twice as fast, sees less in C code
#   CARGO_TARGET_DIR=DIR    as for cargo; default fuzz/target
#   FAREWALL_REPORT=FILE    a file (absolute) to which lines of result are added
#
# What a fuzzer finds is in fuzz/artifacts/TARGET. Mend it, and keep the file in fuzz/corpus/TARGET
# as found-WHAT, where tests/fuzz_corpus.rs runs it for ever.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"
seconds=${1:-60}
[[ "$seconds" =~ ^[0-9]+$ ]] || { sed -n '2,16s/^# \{0,1\}//p' run.sh >&2; exit 2; }
shift || true
targets=("$@")
[[ ${#targets[@]} -gt 0 ]] || targets=(payment header target config facilitator)

command -v cargo-fuzz >/dev/null || cargo install --locked --quiet cargo-fuzz@0.13.2
export RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}"
sanitizer=${FUZZ_SANITIZER:-address}

work=$(mktemp -d "${TMPDIR:-/tmp}/farewall-fuzz.XXXXXX")
trap 'rm -rf "$work"' EXIT

if ! cargo fuzz build --sanitizer "$sanitizer" --codegen-units 16 >"$work/build.log" 2>&1; then
  cat "$work/build.log"
  echo "FAILED: the fuzz targets do not build"
  exit 1
fi
programs="$CARGO_TARGET_DIR/$(rustc -vV | sed -n 's/^host: //p')/release"
export ASAN_OPTIONS=detect_odr_violation=0
status=0
# For the table of tests/faults.sh.
result() {
  [[ -z "${FAREWALL_REPORT:-}" ]] || printf 'fuzz executions, %s\t%s\t%s\n' "$@" >>"$FAREWALL_REPORT"
}
for target in "${targets[@]}"; do
  mkdir -p "$work/$target"
  log="$work/$target.log"
  mkdir -p "artifacts/$target"
  if "$programs/$target" "$work/$target" "corpus/$target" -artifact_prefix="artifacts/$target/" \
    -max_total_time="$seconds" -timeout=10 -max_len=24000 -print_final_stats=1 >"$log" 2>&1; then
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    echo "fuzz: $target $runs executions, no findings"
    result "$target" "$runs" 0
  else
    tail -n 60 "$log"
    echo "fuzz: $target FOUND SOMETHING; the input is in fuzz/artifacts/$target"
    result "$target" 0 1
    status=1
  fi
done
exit "$status"
