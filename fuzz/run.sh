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
#
# What a fuzzer finds is in fuzz/artifacts/TARGET. Mend it, and keep the file in fuzz/corpus/TARGET
# as found-WHAT, where tests/fuzz_corpus.rs runs it for ever.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"
seconds=${1:-60}
[[ "$seconds" =~ ^[0-9]+$ ]] || { sed -n '2,15s/^# \{0,1\}//p' run.sh >&2; exit 2; }
shift || true
targets=("$@")
[[ ${#targets[@]} -gt 0 ]] || targets=(payment header target config facilitator)

command -v cargo-fuzz >/dev/null || cargo install --locked --quiet cargo-fuzz@0.13.2
export RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}"
sanitizer=${FUZZ_SANITIZER:-address}

work=$(mktemp -d "${TMPDIR:-/tmp}/farewall-fuzz.XXXXXX")
trap 'rm -rf "$work"' EXIT

if ! cargo fuzz build --sanitizer "$sanitizer" >"$work/build.log" 2>&1; then
  cat "$work/build.log"
  echo "FAILED: the fuzz targets do not build"
  exit 1
fi
programs="$CARGO_TARGET_DIR/$(rustc -vV | sed -n 's/^host: //p')/release"
export ASAN_OPTIONS=detect_odr_violation=0
status=0
for target in "${targets[@]}"; do
  mkdir -p "$work/$target"
  log="$work/$target.log"
  mkdir -p "artifacts/$target"
  if "$programs/$target" "$work/$target" "corpus/$target" -artifact_prefix="artifacts/$target/" \
    -max_total_time="$seconds" -timeout=10 -max_len=24000 -print_final_stats=1 >"$log" 2>&1; then
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    echo "fuzz: $target $runs executions, no findings"
  else
    tail -n 60 "$log"
    echo "fuzz: $target FOUND SOMETHING; the input is in fuzz/artifacts/$target"
    status=1
  fi
done
exit "$status"
