#!/usr/bin/env bash
# Holds our verdict on thousands of proofs against that of the official packages (see README.md).
#
#   tests/differential/run.sh       builds examples/verdict unless VERDICT_BIN names a binary
#
# Needs node >= 20.11 with npm, and cargo; the packages are those of tests/e2e. Without node it says
# SKIPPED and succeeds; with CI set it fails instead.
#
#   DIFFERENTIAL_SEED=N     other random proofs; default 402
#   DIFFERENTIAL_PROOFS=N   how many of them, beside those that change one field; default 3000
#   CARGO_TARGET_DIR=DIR    as for cargo
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
packages="$root/tests/e2e"

skip() {
  if [[ -n "${CI:-}" ]]; then
    echo "FAILED: the differential test cannot run: $1" >&2
    exit 1
  fi
  echo "SKIPPED: the differential test did not run: $1"
  exit 0
}

command -v node >/dev/null || skip "node is missing (20.11 or newer is needed)"
command -v npm >/dev/null || skip "npm is missing"
node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 20 || (a == 20 && b >= 11) ? 0 : 1)' ||
  skip "node $(node --version) is older than 20.11"

lock_sum=$(sha256sum "$packages/package-lock.json" | cut -d' ' -f1)
if [[ "$(cat "$packages/node_modules/.lock-sum" 2>/dev/null || true)" != "$lock_sum" ]]; then
  echo "installing node packages"
  npm ci --prefix "$packages" --no-update-notifier --loglevel=error
  echo "$lock_sum" >"$packages/node_modules/.lock-sum"
fi
ln -sfn ../e2e/node_modules "$here/node_modules"
node -e '
  const wanted = require(process.argv[1] + "/package.json").dependencies;
  for (const [name, version] of Object.entries(wanted)) {
    const found = JSON.parse(require("fs").readFileSync(`${process.argv[1]}/node_modules/${name}/package.json`)).version;
    if (found !== version) { console.error(`FAILED: ${name} is ${found}, not ${version}`); process.exit(1); }
  }' "$here"

if [[ -z "${VERDICT_BIN:-}" ]]; then
  echo "building examples/verdict"
  (cd "$root" && cargo build --quiet --locked --example verdict)
  VERDICT_BIN="${CARGO_TARGET_DIR:-$root/target}/debug/examples/verdict"
fi
VERDICT_BIN=$(realpath "$VERDICT_BIN")
export VERDICT_BIN
exec node "$here/driver.mjs"
