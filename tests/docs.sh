#!/usr/bin/env bash
# Runs every shell command of the documentation against one binary: README.md, SECURITY.md and docs/*.md.
#
#     tests/docs.sh BINARY [PAGE…]
#
# Each page is a story: its ```sh fences are run in their order, in one empty folder and one shell. What
# begins with ```sh and a word more is run elsewhere: `systemd` by tests/systemd.sh, `debian` by
# tests/debian.sh, `image` by tests/image.sh, and `ci` by .ci/run itself, as are lines that begin with
# `make`. A comment at the end of a line may say what to expect: `# exits N`, or the status of an answer,
# as in `# 402`. Ports are those of the pages, so 8086, 8402, 8404 and 9000 must be free. Needs bash, curl,
# python3, openssl and sqlite3.
set -euo pipefail

binary=$(realpath "${1:?usage: tests/docs.sh BINARY [PAGE…]}")
shift
root=$(realpath "$(dirname "$0")/..")
cd "$root"
pages=("$@")
[ ${#pages[@]} -gt 0 ] || pages=(README.md SECURITY.md docs/*.md)
folder=$(mktemp -d)
mkdir "$folder/bin"
ln -s "$binary" "$folder/bin/farewall"
export PATH="$folder/bin:$PATH"

end_jobs() {
  local pids
  pids=$(jobs -p)
  # shellcheck disable=SC2086
  [ -z "$pids" ] || kill $pids 2>/dev/null || true
  wait || true
}
clean_up() {
  end_jobs
  rm -rf "$folder"
}
trap clean_up EXIT

fail() {
  echo "FAILED: $1" >&2
  exit 1
}

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Waits until somebody listens on the port that a command line in the background serves.
wait_for() {
  local port
  case "$1" in
    *"http.server 9000"*) port=9000 ;;
    *"farewall sandbox"*) port=8404 ;;
    *"farewall run"*) port=8402 ;;
    *) fail "tests/docs.sh does not know which port this serves: $1" ;;
  esac
  for _ in $(seq 200); do
    if listens "$port"; then return; fi
    sleep 0.05
  done
  fail "nobody listens on port $port after: $1"
}

# The commands of all sh fences of a page, a line each, with continued lines joined.
commands_of() {
  python3 - "$1" <<'PYTHON'
import sys
inside, joined = False, ""
for line in open(sys.argv[1], encoding="utf-8"):
    line = line.strip()
    if line.startswith("```"):
        inside = line == "```sh"
    elif inside and line.endswith("\\"):
        joined += line[:-1]
    elif inside and line and not (not joined and line.startswith("#")):
        print(joined + line)
        joined = ""
PYTHON
}

run_line() {
  local line=$1 code=0 wanted=0
  case "$line" in make\ *) return ;; esac
  echo "\$ $line"
  if [[ $line == *"&" ]]; then
    eval "$line"
    wait_for "$line"
    return
  fi
  eval "$line" >"$folder/output" 2>&1 || code=$?
  cat "$folder/output"
  if [[ $line =~ \#\ exits\ ([0-9]+) ]]; then wanted=${BASH_REMATCH[1]}; fi
  [ "$code" = "$wanted" ] || fail "exit code $code instead of $wanted: $line"
  if [[ $line =~ \#\ ([1-5][0-9][0-9])($|[^0-9]) ]]; then
    grep -q "^HTTP/[0-9.]* ${BASH_REMATCH[1]}" "$folder/output" || fail "no ${BASH_REMATCH[1]}: $line"
  fi
}

total=0
for page in "${pages[@]}"; do
  commands=$(commands_of "$root/$page")
  [ -n "$commands" ] || continue
  for port in 8086 8402 8404 9000; do
    ! listens "$port" || fail "port $port is taken"
  done
  echo "== $page"
  mkdir -p "$folder/story"
  cd "$folder/story"
  while IFS= read -r line <&4; do
    run_line "$line"
    total=$((total + 1))
  done 4<<<"$commands"
  end_jobs
  cd "$root"
  rm -rf "$folder/story"
done
[ "$total" -gt 0 ] || fail "there are no commands"
echo "$total commands of the documentation do what it says"
