#!/usr/bin/env bash
# The Debian package in a Debian of its own, under its systemd: apt installs it with what it depends on,
# as docs/install.md says (fences that begin with ```sh debian); then a payment, an upgrade, removal, purge.
#
#     cargo build --release && tests/package.sh && tests/debian.sh
#
# The Debian is the smallest, of this machine's release and from its mirror; it stays in target/roots. Needs
# root, mmdebstrap, systemd-container, curl, python3, and ports 14020 to 14022. Where a container cannot be
# started it says so and tries nothing: 0, or 1 with FAREWALL_DEBIAN=required.
set -euo pipefail
cd "$(dirname "$0")/.."
program=$(realpath "${FAREWALL_BIN:-target/release/farewall}")

fail() {
  echo "FAILED: $1" >&2
  [ -z "${leader:-}" ] || inside journalctl -u farewall --no-pager -o cat | tail -30 >&2 || true
  exit 1
}
skip() {
  echo "SKIPPED: the package was not installed in a Debian: $1" >&2
  [ "${FAREWALL_DEBIAN:-}" != required ] || exit 1
  exit 0
}

[ -x "$program" ] || fail "$program is missing: cargo build --release"
ls target/debian/farewall_*.deb >/dev/null 2>&1 || fail "there is no package: tests/package.sh"
[ "$(id -u)" = 0 ] || skip "only root can start a container"
command -v mmdebstrap >/dev/null || skip "mmdebstrap is missing"
scratch=$(mktemp -d)
others=()
. tests/container.sh
finish() {
  kill "${others[@]}" 2>/dev/null || true
  end_container
  wait 2>/dev/null || true
  rm -rf "$scratch"
}
trap finish EXIT

suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
tests/debian_root.sh "$suite" "target/roots/$suite-systemd.tar" systemd
mkdir "$scratch/root"
tar -C "$scratch/root" -xf "target/roots/$suite-systemd.tar"
# Nobody is there to answer questions.
printf 'APT::Get::Assume-Yes "true";\n' >"$scratch/root/etc/apt/apt.conf.d/90assume-yes"
start_container --directory="$scratch/root" --resolv-conf=replace-host --bind-ro="$PWD/target/debian:/opt/farewall/target/debian"
start_others
installed() { inside dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null || true; }
state() { inside systemctl is-active farewall || true; }
main_pid() { inside systemctl show farewall -p MainPID --value; }

echo "installing it"
[ "$(installed ca-certificates)" != installed ] || fail "what it depends on is there already, so that nothing is tried"
inside apt-get -qq update >"$scratch/update" 2>&1 || fail "no mirror answers: $(tail -3 "$scratch/update")"
documented debian docs/install.md 1
[ "$(installed farewall)" = installed ] || fail "it is not installed"
[ "$(installed ca-certificates)" = installed ] || fail "what it depends on is not installed"
inside test -s /etc/ssl/certs/ca-certificates.crt || fail "there are no certificate authorities"
[ "$(state)" = inactive ] || fail "installing it starts it"
[ "$(inside systemctl is-enabled farewall || true)" = disabled ] || fail "installing it enables it"
inside farewall check --config /etc/farewall/farewall.toml >"$scratch/check" || fail "its first configuration: $(cat "$scratch/check")"

echo "running it"
service_configuration | inside sh -c 'cat >/etc/farewall/farewall.toml'
documented systemd docs/install.md 1
[ "$(state)" = active ] || fail "it is not active"
[ "$(pay)" = '{"quote": 1}' ] || fail "a payment is not served"
payments() { inside farewall ledger list --config /etc/farewall/farewall.toml; }
payments >"$scratch/before"
grep -q delivered "$scratch/before" || fail "the payment is not in the ledger: $(cat "$scratch/before")"

echo "an upgrade"
pid=$(main_pid)
inside sh -c 'apt-get install -qq --reinstall /opt/farewall/target/debian/farewall_*.deb' >"$scratch/upgrade" 2>&1 ||
  fail "it cannot be installed again: $(cat "$scratch/upgrade")"
[ "$(state)" = active ] || fail "an upgrade ends it"
[ "$(main_pid)" != "$pid" ] || fail "an upgrade does not restart it"
service_configuration | inside cmp - /etc/farewall/farewall.toml || fail "an upgrade changes the configuration"
[ "$(pay)" = '{"quote": 1}' ] || fail "after an upgrade nothing can be bought"

echo "removing it"
inside apt-get remove -qq farewall >"$scratch/remove" 2>&1 || fail "it cannot be removed: $(cat "$scratch/remove")"
[ "$(state)" = inactive ] || fail "removing it leaves it running: $(state)"
inside test -e /etc/farewall/farewall.toml || fail "removing it removes the configuration"
inside apt-get purge -qq farewall >"$scratch/purge" 2>&1 || fail "it cannot be purged: $(cat "$scratch/purge")"
[ "$(installed farewall)" != installed ] || fail "it is still there"
left=$(inside find /etc /usr /var -name '*farewall*' -not -path '/var/lib/dpkg/*' -not -path '/var/lib/private/*' -not -path '/var/log/*' -not -path '/var/cache/*')
[ "$left" = /var/lib/farewall ] || fail "purging it leaves $left"
inside test -s /var/lib/farewall/farewall.db || fail "purging it removes who has paid"

# The fence about the service is counted by tests/systemd.sh.
followed=$((followed - 1))
all_were_followed debian
echo "the package works in Debian $suite"
