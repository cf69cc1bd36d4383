#!/usr/bin/env bash
# Runs every shell command of the README, in its order, against one binary:
#
#     tests/readme.sh target/release/farewall
#
# Each ```sh fence is run, in one empty folder and one shell; ```text and ```console fences are not. Lines
# that begin with `make` are left out: CI runs them itself. A comment at the end of a line may say what
# to expect: `# exits N`, or the status of an answer, as in `# 402`. Ports are those of the README, so
# 8086, 8402, 8404 and 9000 must be free. Needs bash, curl and python3.
set -euo pipefail

binary=$(realpath "${1:?usage: tests/readme.sh BINARY}")
readme=$(realpath "$(dirname "$0")/../README.md")
folder=$(mktemp -d)
mkdir "$folder/bin" "$folder/empty"
ln -s "$binary" "$folder/bin/farewall"
export PATH="$folder/bin:$PATH"
cd "$folder/empty"

clean_up() {
  local pids
  pids=$(jobs -p)
  # shellcheck disable=SC2086
  [ -z "$pids" ] || kill $pids 2>/dev/null || true
  wait || true
  rm -rf "$folder"
}
trap clean_up EXIT

fail() {
  echo "FAILED: $1" >&2
  exit 1
}

# Waits until somebody listens on the port that a command line in the background serves.
wait_for() {
  local port
  case "$1" in
    *"http.server 9000"*) port=9000 ;;
    *"farewall sandbox"*) port=8404 ;;
    *"farewall run"*) port=8402 ;;
    *) fail "tests/readme.sh does not know which port this serves: $1" ;;
  esac
  for _ in $(seq 200); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then return; fi
    sleep 0.05
  done
  fail "nobody listens on port $port after: $1"
}

for port in 8086 8402 8404 9000; do
  if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then fail "port $port is taken"; fi
done

# The lines of all sh fences, with continued lines joined.
commands=$(python3 - "$readme" <<'PYTHON'
import sys
inside, joined = False, ""
for line in open(sys.argv[1], encoding="utf-8"):
    line = line.rstrip("\n")
    if line.startswith("```"):
        inside = line == "```sh"
    elif inside and line.endswith("\\"):
        joined += line[:-1]
    elif inside and line.strip():
        print(joined + line)
        joined = ""
PYTHON
)
[ -n "$commands" ] || fail "the README has no sh fence"

while IFS= read -r line <&4; do
  case "$line" in make\ * | \#*) continue ;; esac
  echo "\$ $line"
  if [[ $line == *"&" ]]; then
    eval "$line"
    wait_for "$line"
    continue
  fi
  code=0
  eval "$line" >"$folder/output" 2>&1 || code=$?
  cat "$folder/output"
  wanted=0
  if [[ $line =~ \#\ exits\ ([0-9]+) ]]; then wanted=${BASH_REMATCH[1]}; fi
  [ "$code" = "$wanted" ] || fail "exit code $code instead of $wanted: $line"
  if [[ $line =~ \#\ ([1-5][0-9][0-9])($|[^0-9]) ]]; then
    grep -q "^HTTP/[0-9.]* ${BASH_REMATCH[1]}" "$folder/output" || fail "no ${BASH_REMATCH[1]}: $line"
  fi
done 4<<<"$commands"
echo "every command of the README works"
