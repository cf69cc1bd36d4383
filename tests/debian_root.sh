#!/usr/bin/env bash
# Packs the smallest Debian, with these packages, into a tar file. One that exists is kept.
#
#     tests/debian_root.sh SUITE FILE [PACKAGE…]
#
# From the mirror that this machine uses, in the way that its apt reaches it. Needs root and mmdebstrap.
set -euo pipefail

suite=${1:?usage: tests/debian_root.sh SUITE FILE [PACKAGE…]}
file=$2
shift 2
[ ! -e "$file" ] || exit 0
mkdir -p "$(dirname "$file")"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Debian itself, its updates and its security fixes; whatever else apt knows here is no part of it.
here=$(. /etc/os-release && echo "$VERSION_CODENAME")
apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Identifier: Packages' |
  awk -v here="$here" -v suite="$suite" '
    { kind = substr($2, length(here) + 1) }
    index($2, here) == 1 && $3 == "main" && (kind == "" || kind == "-updates" || kind == "-security") {
      print "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]", $1, suite kind, "main"
    }' | sort -u >"$scratch/sources"
[ -s "$scratch/sources" ] || {
  echo "tests/debian_root.sh: apt knows no Debian mirror for $here" >&2
  exit 1
}
apt-config dump | grep -E '^Acquire::(http|https|Check-[A-Za-z-]+|ForceIPv4|Retries)(::[^ ]+)? "[^"]+";$' >"$scratch/options" || true

mmdebstrap --quiet --mode=root --variant=minbase --include="$(IFS=,; echo "$*")" \
  --aptopt="$scratch/options" "$suite" "$scratch/root.tar" "$scratch/sources"
mv "$scratch/root.tar" "$file"
