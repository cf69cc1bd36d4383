# A systemd in a container, and the commands of the documentation. To be sourced by a script of bash:
#
#     scratch=$(mktemp -d)           # where logs go; `end_container` must be called before it is removed
#     start_container OPTION…        # of systemd-nspawn; calls `skip` where no container can be started
#     inside COMMAND…                # in it, as root
#     documented KIND PAGE N         # the Nth fence of a page that begins with ```sh KIND, in it
#
# Such a script has functions `fail` and `skip`, which take a sentence and end it.

machine=farewall-$$
leader=''
# How many fences were followed.
followed=0

start_container() {
  local container nspawn
  command -v systemd-nspawn >/dev/null || skip "systemd-nspawn is missing (systemd-container)"
  # A systemd with nothing of its own to do.
  setsid systemd-nspawn --boot --register=no --keep-unit --machine="$machine" --console=passive "$@" \
    -- --unit=basic.target systemd.firstboot=no </dev/null >"$scratch/container.log" 2>&1 &
  container=$!
  for _ in $(seq 100); do
    nspawn=$(pgrep -f "machine=$machine" | head -1) || true
    [ -z "$nspawn" ] || leader=$(pgrep -P "$nspawn" -x systemd | head -1) || true
    [ -z "$leader" ] || break
    kill -0 "$container" 2>/dev/null || break
    sleep 0.1
  done
  [ -n "$leader" ] || skip "no container starts here: $(tail -1 "$scratch/container.log")"
  timeout 30 nsenter -t "$leader" --mount --pid --root --wd sh -c \
    'until systemctl is-system-running 2>/dev/null | grep -q running; do sleep 0.1; done' ||
    skip "systemd does not get ready in a container here"
}

end_container() {
  [ -z "$leader" ] || kill -KILL "$leader" 2>/dev/null || true
}

inside() {
  nsenter -t "$leader" --mount --uts --ipc --net --pid --root --wd \
    env -i PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb SYSTEMD_PAGER=cat SYSTEMD_EDITOR=/etc/editor "$@"
}

fence() {
  awk -v kind="\`\`\`sh $1" -v wanted="$3" '/^```/ { inside = 0 } inside { print } $0 == kind { inside = (++count == wanted) }' "$2"
}

# In the folder of a build, /opt/farewall.
documented() {
  local commands follow edit
  commands=$(fence "$1" "$2" "$3")
  [ -n "$commands" ] || fail "$2 has no command $3 of the kind $1"
  # Who follows a journal ends that by hand, and an editor wants a terminal.
  follow='timeout 2 journalctl -u farewall -f || [ $? = 124 ]'
  commands=${commands//journalctl -u farewall -f/$follow}
  edit="script -qec 'systemctl edit farewall' /dev/null"
  commands=${commands//systemctl edit farewall/$edit}
  inside sh -ec "cd /opt/farewall; $commands" >"$scratch/documented" 2>&1 || {
    cat "$scratch/documented" >&2
    fail "this of $2 does not work: $commands"
  }
  followed=$((followed + 1))
}

# Fails unless as many fences of this kind were followed as the documentation has.
all_were_followed() {
  local all
  all=$(cat docs/*.md | grep -c "^\`\`\`sh $1\$")
  [ "$followed" = "$all" ] || fail "$all fences of the documentation are of the kind $1, and $followed were run"
}

# A wall on port 14020, in front of an origin on 14022, with a facilitator of play money on 14021.
service_configuration() {
  cat <<'TOML'
[server]
public_origin = "http://127.0.0.1:14020"
admin = "off"
[[listen]]
address = "127.0.0.1:14020"
[ledger]
path = "/var/lib/farewall/farewall.db"
[facilitator.sandbox]
sandbox = true
url = "http://127.0.0.1:14021"
[accept.base-sepolia]
network = "base-sepolia"
asset = "USDC"
pay_to = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
[upstream.api]
url = "http://127.0.0.1:14022"
[[rule]]
name = "health"
path = "/health"
free = true
[[rule]]
name = "quote"
path = "/quote"
price = "$0.001"
TOML
}

# What that wall needs outside. Their process ids are in `others`.
start_others() {
  mkdir "$scratch/origin"
  echo '{"quote": 1}' >"$scratch/origin/quote"
  echo '{}' >"$scratch/origin/health"
  python3 -m http.server 14022 --bind 127.0.0.1 --directory "$scratch/origin" >/dev/null 2>&1 &
  others+=($!)
  "$program" sandbox --listen 127.0.0.1:14021 >/dev/null 2>&1 &
  others+=($!)
}

# Buys what that wall sells, and prints it.
pay() {
  # The well-known first key of test chains; it owns play money only.
  [ -e "$scratch/key" ] || {
    echo ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80 >"$scratch/key"
    chmod 600 "$scratch/key"
  }
  "$program" pay http://127.0.0.1:14020/quote --key-file "$scratch/key" --max-price '$0.10' 2>/dev/null
}
