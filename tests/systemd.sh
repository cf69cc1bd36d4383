#!/usr/bin/env bash
# The units, under a real systemd: start, pay, reload, a wrong reload, restarts with waiting sockets, an
# upgrade, a wall that is killed, a wall that hangs. It is installed and kept as the documentation says:
# every fence of docs/*.md that begins with ```sh systemd is run.
#
#     cargo build --release && tests/systemd.sh [PROGRAM]
#
# systemd runs in a container with the /usr of this machine and an empty /etc and /var, so that no service
# of this machine is touched. Needs root, systemd-container, curl, python3, and ports 14020 to 14022.
# Where a container cannot be started it says so and tries nothing: 0, or 1 with FAREWALL_SYSTEMD=required.
set -euo pipefail
cd "$(dirname "$0")/.."
program=$(realpath "${1:-${FAREWALL_BIN:-target/release/farewall}}")

fail() {
  echo "FAILED: $1" >&2
  [ -z "${leader:-}" ] || inside journalctl -u farewall --no-pager -o cat | grep -v '"message":"request"' | tail -30 >&2 || true
  exit 1
}
skip() {
  echo "SKIPPED: the units were not run by systemd: $1" >&2
  [ "${FAREWALL_SYSTEMD:-}" != required ] || exit 1
  exit 0
}

[ -x "$program" ] || fail "$program is missing: cargo build --release"
[ "$(id -u)" = 0 ] || skip "only root can start a container"
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

start_container --directory=/ --volatile=yes --tmpfs=/usr/local/bin:mode=755 \
  --bind-ro="$PWD/conf:/opt/farewall/conf" --bind-ro="$PWD/systemd:/opt/farewall/systemd" \
  --bind-ro="$program:/opt/farewall/target/release/farewall"
start_others
service_configuration >"$scratch/farewall.toml"
inside mkdir -p /etc/ssl/certs /etc/farewall/tls
inside sh -c 'cat >/etc/ssl/certs/ca-certificates.crt' </etc/ssl/certs/ca-certificates.crt

echo "installing by hand"
documented systemd docs/install.md 2
inside cmp /opt/farewall/conf/debian.toml /etc/farewall/farewall.toml || fail "the first configuration is not there"
inside sh -c 'cat >/etc/farewall/farewall.toml' <"$scratch/farewall.toml"
inside sed -i 's#^ListenStream=.*#ListenStream=127.0.0.1:14020#' /etc/systemd/system/farewall.socket
# So that a wall that hangs is found out in seconds.
inside sh -c 'mkdir /etc/systemd/system/farewall.service.d
  printf "[Service]\nWatchdogSec=2\nTimeoutStopSec=5\nTimeoutAbortSec=1\nRestartSec=0\n" >/etc/systemd/system/farewall.service.d/quick.conf
  systemctl daemon-reload'
rule_price() { inside sed -i "s#^price = .*#price = \"$1\"#" /etc/farewall/farewall.toml; }
asked_price() {
  curl -s http://127.0.0.1:14020/quote | sed -n 's/.*"maxAmountRequired":"\([0-9]*\)".*/\1/p'
}

echo "start"
documented systemd docs/install.md 1
documented systemd docs/operate.md 1
[ "$(inside systemctl is-active farewall)" = active ] || fail "it is not active"
owner=$(inside sh -c 'ls -ld /var/lib/private/farewall' | cut -d' ' -f1,3)
case "$owner" in "drwx------ root") fail "the state belongs to root" ;; drwx------*) ;; *) fail "others can read the ledger: $owner" ;; esac

echo "a payment"
[ "$(pay)" = '{"quote": 1}' ] || fail "a payment is not served"

echo "a reload"
[ "$(asked_price)" = 1000 ] || fail "the price is not asked"
rule_price '$0.002'
inside systemctl reload farewall || fail "it is not reloaded"
[ "$(asked_price)" = 2000 ] || fail "the reload did not change the price"

echo "a reload with a mistake"
rule_price 'free beer'
if inside systemctl reload farewall 2>/dev/null; then fail "systemctl does not say that the reload was refused"; fi
inside journalctl -u farewall --no-pager -o cat | grep -q 'free beer' || fail "the journal does not name the mistake"
[ "$(asked_price)" = 2000 ] || fail "a mistake changed something"
rule_price '$0.002'
[ "$(inside systemctl is-active farewall)" = active ] || fail "a mistake ended it"

echo "restarts while systemd keeps the sockets"
inside systemctl stop farewall || fail "it does not stop"
[ "$(inside systemctl show farewall -p Result --value)" = success ] || fail "it did not end well"
inside systemctl start farewall.socket farewall || fail "it does not start with sockets of systemd"
for _ in $(seq 300); do
  curl -s -o /dev/null -m 20 -w '%{http_code}\n' http://127.0.0.1:14020/health
done >"$scratch/statuses" &
load=$!
for _ in 1 2 3; do inside systemctl restart farewall || fail "it does not restart"; done
wait "$load" || true
[ "$(sort -u "$scratch/statuses")" = 200 ] || fail "a restart refused somebody: $(sort "$scratch/statuses" | uniq -c | tr '\n' ' ')"

echo "an upgrade"
main_pid() { inside systemctl show farewall -p MainPID --value; }
again() {
  before=$1
  for _ in $(seq 200); do
    now=$(main_pid)
    if [ "$now" != "$before" ] && [ "$now" != 0 ] && [ "$(inside systemctl is-active farewall)" = active ]; then return 0; fi
    sleep 0.1
  done
  return 1
}
pid=$(main_pid)
for _ in $(seq 300); do
  curl -s -o /dev/null -m 20 -w '%{http_code}\n' http://127.0.0.1:14020/health
done >"$scratch/statuses" &
load=$!
inside systemctl kill --signal=SIGUSR2 --kill-whom=main farewall
again "$pid" || fail "no other process takes its place"
wait "$load" || true
[ "$(sort -u "$scratch/statuses")" = 200 ] || fail "an upgrade refused somebody: $(sort "$scratch/statuses" | uniq -c | tr '\n' ' ')"
[ "$(inside systemctl show farewall -p NRestarts --value)" = 0 ] || fail "systemd took the upgrade for the end of the service"
[ "$(pay)" = '{"quote": 1}' ] || fail "after an upgrade nothing can be bought"
for _ in $(seq 100); do
  inside sh -c "kill -0 $pid 2>/dev/null" || break
  sleep 0.1
done
if inside sh -c "kill -0 $pid 2>/dev/null"; then fail "the process before does not end"; fi
[ "$(inside systemctl is-active farewall)" = active ] || fail "the end of the process before ended the service"

pid=$(main_pid)
# Another file stands where the old one was, as after an installation.
inside install -m 755 /opt/farewall/target/release/farewall /usr/local/bin/
documented systemd docs/upgrade.md 1
[ "$(main_pid)" != "$pid" ] || fail "farewall upgrade replaces nothing"

echo "a key of another group"
inside sh -c 'groupadd --system ssl-cert; echo key >/etc/farewall/tls/api.key
  printf "#!/bin/sh\nprintf \"[Service]\\\\nSupplementaryGroups=ssl-cert\\\\n\" >\"\$1\"\n" >/etc/editor; chmod 755 /etc/editor'
documented systemd docs/install.md 3
inside systemctl restart farewall
inside grep -q "^Groups:.*$(inside getent group ssl-cert | cut -d: -f3)" "/proc/$(main_pid)/status" || fail "it may not read keys of the group"

echo "a wall that is killed"
pid=$(main_pid)
inside kill -KILL "$pid" 2>/dev/null || inside sh -c "kill -KILL $pid"
again "$pid" || fail "it is not started again after a kill"
[ "$(pay)" = '{"quote": 1}' ] || fail "after a kill nothing can be bought"

echo "a new process that is killed while the one before finishes"
pid=$(main_pid)
# A request whose body is yet to come.
exec 3<>/dev/tcp/127.0.0.1/14020
printf 'POST /health HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n' >&3
sleep 0.5
inside systemctl kill --signal=SIGUSR2 --kill-whom=main farewall
again "$pid" || fail "no other process takes its place"
new=$(main_pid)
inside sh -c "kill -KILL $new"
inside sh -c "kill -0 $pid" || fail "the process before does not finish what it has begun"
printf 12345 >&3
exec 3>&-
again "$new" || fail "systemd does not see that the new process was killed"
inside journalctl -u farewall --no-pager -o cat -n 30 | grep -q 'Main process exited, code=killed' ||
  fail "systemd was not told how the new process ended"
[ "$(pay)" = '{"quote": 1}' ] || fail "after that nothing can be bought"

echo "a wall that hangs"
pid=$(main_pid)
inside sh -c "kill -STOP $pid"
again "$pid" || fail "the watchdog does not see that it hangs"
[ "$(pay)" = '{"quote": 1}' ] || fail "after a hang nothing can be bought"

all_were_followed systemd
echo "the units work under systemd $(inside systemctl --version | sed -n '1s/systemd \([0-9]*\).*/\1/p')"
