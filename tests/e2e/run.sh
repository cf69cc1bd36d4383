#!/usr/bin/env bash
# Pays through the wall with the official clients, on a real chain, and checks the result on that chain.
#
#   tests/e2e/run.sh                the wall: builds target/debug/farewall unless FAREWALL_BIN names a binary
#   tests/e2e/run.sh --reference    the official seller @x402/express instead: are the tests themselves right?
#
# Needs node >= 20.11 with npm, python >= 3.10 with venv, cargo; everything else is installed in here and in a cache.
# Where node or python are missing it says SKIPPED and succeeds; with CI set it fails instead.
#
#   FAREWALL_BIN=FILE      the binary to test
#   ANVIL_BIN=FILE         the chain to use, on platforms for which npm has none
#   E2E_SKIP_RUST=1        leaves out the Rust buyer, whose first build takes minutes
#   E2E_CACHE=DIR          where the python environment is kept; default ~/.cache/farewall-e2e
#   E2E_KEEP_LOGS=1        keeps logs and ledger of a good run too; those of a failed run are always kept
#   CARGO_TARGET_DIR=DIR   as for cargo
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)

mode=()
case "${1:-}" in
  "") ;;
  --reference) mode=(--reference) ;;
  *)
    sed -n '2,15s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
    ;;
esac

skip() {
  if [[ -n "${CI:-}" ]]; then
    echo "FAILED: end-to-end tests cannot run: $1" >&2
    exit 1
  fi
  echo "SKIPPED: end-to-end tests did not run: $1"
  exit 0
}

python=${PYTHON:-python3}
command -v node >/dev/null || skip "node is missing (20.11 or newer is needed)"
command -v npm >/dev/null || skip "npm is missing"
node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 20 || b >= 11 ? 0 : 1)' ||
  skip "node $(node --version) is older than 20.11"
command -v "$python" >/dev/null || skip "python3 is missing (3.10 or newer is needed)"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || skip "$("$python" --version) is older than 3.10"
"$python" -c 'import ensurepip, venv' 2>/dev/null || skip "python3 has no venv (on Debian: apt-get install python3-venv)"

# --- packages ---------------------------------------------------------------------------------------------------------

lock_sum=$(sha256sum "$here/package-lock.json" | cut -d' ' -f1)
if [[ "$(cat "$here/node_modules/.lock-sum" 2>/dev/null || true)" != "$lock_sum" ]]; then
  echo "installing node packages"
  npm ci --prefix "$here" --no-update-notifier --loglevel=error
  echo "$lock_sum" >"$here/node_modules/.lock-sum"
fi

cache=${E2E_CACHE:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/farewall-e2e}
venv_sum=$({ cat "$here/requirements.txt"; "$python" -VV; } | sha256sum | cut -c1-16)
venv="$cache/venv-$venv_sum"
if [[ ! -e "$venv/.complete" ]]; then
  echo "installing python packages"
  rm -rf "$venv"
  mkdir -p "$cache"
  "$python" -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$here/requirements.txt"
  touch "$venv/.complete"
fi
export E2E_PYTHON="$venv/bin/python"

if [[ -z "${ANVIL_BIN:-}" ]] && ! command -v anvil >/dev/null &&
  ! compgen -G "$here/node_modules/@foundry-rs/anvil-*/bin/anvil" >/dev/null; then
  skip "there is no anvil for this platform ($(uname -sm)): put one on the PATH or name it with ANVIL_BIN"
fi

# --- programs ---------------------------------------------------------------------------------------------------------

unset E2E_RUST_BUYER
if [[ -z "${E2E_SKIP_RUST:-}" ]]; then
  echo "building the Rust buyer"
  cargo build --quiet --locked --manifest-path "$here/rust-buyer/Cargo.toml" \
    --target-dir "${CARGO_TARGET_DIR:-$here/rust-buyer/target}"
  export E2E_RUST_BUYER="${CARGO_TARGET_DIR:-$here/rust-buyer/target}/debug/rust-buyer"
fi

if [[ ${#mode[@]} -eq 0 && -z "${FAREWALL_BIN:-}" ]]; then
  echo "building the wall"
  (cd "$root" && cargo build --quiet --locked --bin farewall)
  FAREWALL_BIN="${CARGO_TARGET_DIR:-$root/target}/debug/farewall"
fi
if [[ ${#mode[@]} -eq 0 ]]; then
  [[ -x "$FAREWALL_BIN" ]] || { echo "FAILED: $FAREWALL_BIN is no program" >&2; exit 1; }
  FAREWALL_BIN=$(realpath "$FAREWALL_BIN")
  export FAREWALL_BIN
fi

# --- the run ----------------------------------------------------------------------------------------------------------

E2E_RUN_DIR=$(mktemp -d "${TMPDIR:-/tmp}/farewall-e2e.XXXXXX")
export E2E_RUN_DIR E2E_PIDS="$E2E_RUN_DIR/pids"
touch "$E2E_PIDS"
driver=

clean_up() {
  status=$?
  trap - EXIT INT TERM HUP
  if [[ -n "$driver" ]] && kill -0 "$driver" 2>/dev/null; then
    kill -TERM "$driver" 2>/dev/null || true
    wait "$driver" 2>/dev/null || true
  fi
  # The driver ends its children itself; some are left only if it was killed. Their environment shows that they are ours.
  while read -r pid; do
    if grep -qzx "E2E_RUN_DIR=$E2E_RUN_DIR" "/proc/$pid/environ" 2>/dev/null; then
      kill -KILL "$pid" 2>/dev/null || true
    fi
  done <"$E2E_PIDS"
  if [[ $status -ne 0 ]]; then
    for log in "$E2E_RUN_DIR"/*.log; do
      if [[ -s "$log" ]]; then
        echo "--- end of ${log##*/}"
        tail -n 25 "$log"
      fi
    done
  fi
  if [[ $status -eq 0 && -z "${E2E_KEEP_LOGS:-}" ]]; then
    rm -rf "$E2E_RUN_DIR"
  else
    echo "logs: $E2E_RUN_DIR"
  fi
  exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT TERM HUP

node "$here/driver.mjs" "${mode[@]}" &
driver=$!
wait "$driver"
