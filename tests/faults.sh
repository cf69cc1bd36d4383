#!/usr/bin/env bash
# Every kind of fault that the wall is tried with, in one table: how often, and the violations found.
#
#   tests/faults.sh [--quick] [--write] [--report FILE] [--print]
#
#   --quick         small numbers, for a look
#   --report FILE   what stands in this file was tried before, and is not tried again; the rest is added
#   --print         tries nothing, and prints what stands in the report
#   --write         puts the table, with date and commit, into docs/faults.md
#
#   KILLS=200         of a wall on SQLite
#   PG_KILLS=100      of two walls on one PostgreSQL
#   FUZZ_SECONDS=60   for each fuzz target
#   PROOFS=3000       random proofs, beside those that change one field
#   SEED=402          of these proofs
#
# Fails when anything was violated, or a row is missing. What this machine cannot do is skipped, says
# so, and fails with CI set. FAREWALL_REPORT names the report too; every harness adds its own lines to
# it: what, how often, violations, separated by tabs. Lines of one name are added up.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() { sed -n '2,20s/^# \{0,1\}//p' tests/faults.sh >&2; exit 2; }
quick='' write='' print='' report=${FAREWALL_REPORT:-}
while [ $# -gt 0 ]; do
  case $1 in
    --quick) quick=yes ;;
    --write) write=yes ;;
    --print) print=yes ;;
    --report) report=${2:-}; [ -n "$report" ] || usage; shift ;;
    *) usage ;;
  esac
  shift
done
if [ -n "$quick" ]; then
  KILLS=${KILLS:-20} PG_KILLS=${PG_KILLS:-5} FUZZ_SECONDS=${FUZZ_SECONDS:-5} PROOFS=${PROOFS:-500}
fi
if [ -z "$report" ]; then
  report=$(mktemp)
  trap 'rm -f "$report"' EXIT
fi
touch "$report"
FAREWALL_REPORT=$(realpath "$report")
export FAREWALL_REPORT

# What must be in the table | who tries it | the name of its test.
rows() {
  cat <<'ROWS'
kills survived, SQLite|crash|
kills survived, PostgreSQL|postgres|postgres::kills::walls_killed_at_any_moment
facilitator faults survived, verify|it|facilitator_faults::verification_fails_as
facilitator faults survived, settle|it|facilitator_faults::settlement_fails_as
facilitator faults survived, resets at each byte|it|facilitator_faults::a_connection_reset_at_any_byte
copies raced, one wall|it|replay::a_thousand_copies_at_once
copies raced, two walls on PostgreSQL|postgres|postgres::walls::a_thousand_copies
request variants, HTTP/1.1, all else denied|it|variants::no_variant_reaches
request variants, HTTP/1.1, all else free|it|variants::nor_where_everything_else
request variants, h2c, all else denied|it|variants::nor_over_http2_without_tls
request variants, h2c, all else free|it|variants::nor_over_http2_without_tls
request variants, HTTP/2 over TLS, all else denied|it|variants::nor_over_http2_with_tls
request variants, HTTP/2 over TLS, all else free|it|variants::nor_over_http2_with_tls
connections at once in a flood|flood|floods::a_flood_of_everything
fuzz executions, payment|fuzz|payment
fuzz executions, header|fuzz|header
fuzz executions, target|fuzz|target
fuzz executions, config|fuzz|config
fuzz executions, facilitator|fuzz|facilitator
mutated proofs compared with the official packages|differential|
ROWS
}

has() { cut -f1 "$FAREWALL_REPORT" | grep -qxF "$1"; }

# Names or tests of one harness whose rows are missing.
missing() {
  rows | while IFS='|' read -r what who name; do
    if [ "$who" = "$1" ] && ! has "$what"; then echo "${name:-all}"; fi
  done | sort -u
}

# Why this machine cannot do it; nothing when it can.
unable() {
  case $1 in
    postgres) ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null ||
      echo "no PostgreSQL here" ;;
    differential) { command -v node && command -v npm; } >/dev/null 2>&1 || echo "no node here" ;;
    flood) files=$(ulimit -Hn)
      [ "$files" = unlimited ] || [ "$files" -ge 11500 ] || echo "only $files files may be open" ;;
    *) ;;
  esac
}

result=0
try() {
  echo "== $*" >&2
  "$@" >&2 || { result=1; echo "FAILED: $*" >&2; }
}

# Tests of tests/it by their names, one at a time: some need the machine.
try_tests() {
  [ $# -eq 0 ] || try cargo test --locked --test it -- --test-threads 1 "$@"
}

if [ -z "$print" ]; then
  [ -z "$(missing crash)" ] ||
    FAREWALL_KILLS=${KILLS:-200} try cargo test --locked --features failpoints --test crash
  for who in it flood postgres; do
    mapfile -t names < <(missing "$who")
    [ -n "$(unable "$who")" ] || FAREWALL_PG_KILLS=${PG_KILLS:-100} try_tests "${names[@]}"
  done
  mapfile -t names < <(missing fuzz)
  [ "${#names[@]}" -eq 0 ] || try fuzz/run.sh "${FUZZ_SECONDS:-60}" "${names[@]}"
  [ -z "$(missing differential)" ] || [ -n "$(unable differential)" ] ||
    DIFFERENTIAL_PROOFS=${PROOFS:-3000} DIFFERENTIAL_SEED=${SEED:-402} try tests/differential/run.sh
fi

thousands() { sed -E ':a;s/^([0-9]+)([0-9]{3})/\1,\2/;ta' <<<"$1"; }

# The row of a fault; fails when it is no good.
row() {
  local what=$1 who=$2 count violations why
  IFS=$'\t' read -r count violations < <(awk -F'\t' -v what="$what" \
    '$1 == what { n += $2; v += $3; found = 1 } END { print found ? n "\t" v : "-\t-" }' "$FAREWALL_REPORT")
  why=$(unable "$who")
  if [ "$count" = - ] && [ -n "$why" ]; then
    printf '| %s | skipped: %s | - |\n' "$what" "$why"
    [ -z "${CI:-}" ]
  elif [ "$count" = - ]; then
    printf '| %s | **missing** | - |\n' "$what"
    return 1
  else
    printf '| %s | %s | %s |\n' "$what" "$(thousands "$count")" "$violations"
    [ "$count" -gt 0 ] && [ "$violations" -eq 0 ]
  fi
}

table=$(mktemp)
commit=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
git diff --quiet HEAD -- src tests fuzz Cargo.lock 2>/dev/null || commit="$commit, changed"
{
  printf '%s, commit %s\n\n' "$(date -u +%F)" "$commit"
  printf '| what | how often | violations |\n|---|---:|---:|\n'
} >"$table"
while IFS='|' read -r what who _; do
  row "$what" "$who" >>"$table" || result=1
done < <(rows)
cat "$table"
if [ -n "$write" ] && [ "$result" -eq 0 ]; then
  sed -i -e "/<!-- table -->/,/<!-- end of table -->/{//!d}" -e "/<!-- table -->/r $table" docs/faults.md
  echo "written to docs/faults.md" >&2
fi
rm -f "$table"
[ "$result" -eq 0 ] || echo "FAILED: not everything was tried and held" >&2
exit "$result"
