#!/usr/bin/env bash
# Builds the image of the Dockerfile and runs it, as docs/install.md says: every fence of that page that
# begins with ```sh image is run. Then: who is it, what is in it, is a payment kept, how does it end.
#
#     cargo build --release && tests/image.sh
#
# No registry of images is asked. Under the names of the two base images stand others, put together from
# the packages of Debian that those are made of, by tests/debian_root.sh and here; the Rust of the first
# and the crates are this machine's, and what cargo has compiled for target/release is not compiled again.
# The `docker` is podman. All of it has a folder of its own, which is removed; the Debian stays in target/roots.
# Needs root, podman, crun, netavark, iptables, mmdebstrap, curl, python3, and port 8402. Where no container can be
# started it says so and tries nothing: 0, or 1 with FAREWALL_IMAGE=required.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
program=$(realpath "${FAREWALL_BIN:-target/release/farewall}")

fail() {
  echo "FAILED: $1" >&2
  [ ! -s "${scratch:-}/run.log" ] || tail -20 "$scratch/run.log" >&2
  exit 1
}
skip() {
  echo "SKIPPED: the image was not built: $1" >&2
  [ "${FAREWALL_IMAGE:-}" != required ] || exit 1
  exit 0
}

[ -x "$program" ] || fail "$program is missing: cargo build --release"
[ "$(id -u)" = 0 ] || skip "only root can start a container"
for tool in podman crun mmdebstrap; do
  command -v "$tool" >/dev/null || skip "$tool is missing"
done
[ -e /usr/lib/podman/netavark ] && command -v iptables >/dev/null || skip "netavark or iptables is missing"
! (exec 3<>/dev/tcp/127.0.0.1/8402) 2>/dev/null || fail "port 8402 is taken"
# In mounts of our own. There the cgroups are of one version only; with both, crun starts nothing.
if [ -z "${FAREWALL_IMAGE_MOUNTS:-}" ]; then
  FAREWALL_IMAGE_MOUNTS=own exec unshare --mount "$root/tests/image.sh"
fi
if [ -d /sys/fs/cgroup/memory ] && mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi

mkdir -p target
scratch=$(mktemp -d "$root/target/image.XXXXXX")
origin=''
finish() {
  podman rm --all --force --time 0 >/dev/null 2>&1 || true
  [ -z "$origin" ] || kill "$origin" 2>/dev/null || true
  wait 2>/dev/null || true
  umount "$scratch"/storage/overlay 2>/dev/null || true
  rm -rf "$scratch"
}
trap finish EXIT

# Images, volumes and networks of our own. What is under way at a build is said to podman here, and not on
# the command line, which is the documentation's.
settings() {
  cat <<TOML
[containers]
# Not more than root has where it may not raise its limits.
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
$1
[engine]
tmp_dir = "$scratch/tmp"
[network]
network_backend = "netavark"
network_config_dir = "$scratch/networks"
TOML
}
cargo_home=${CARGO_HOME:-$HOME/.cargo}
toolchain=$(rustc --print sysroot)
volumes="\"$toolchain:/usr/local/rust:ro\", \"$cargo_home/registry:$cargo_home/registry:O\", \"$root/target:/compiled:O\""
for file in config.toml config; do
  [ ! -e "$cargo_home/$file" ] || volumes+=", \"$cargo_home/$file:$cargo_home/$file:ro\""
done
# The network and its certificates as here, because the way to a mirror may be one that only this machine knows.
[ ! -d /etc/ssl/certs ] || volumes+=", \"/etc/ssl/certs:/etc/ssl/certs:ro\""
settings "netns = \"host\"
volumes = [$volumes]" >"$scratch/build.conf"
settings '' >"$scratch/run.conf"
driver() { printf '[storage]\ndriver = "%s"\ngraphroot = "%s"\nrunroot = "%s"\n' "$1" "$scratch/storage" "$scratch/containers" >"$scratch/storage.conf"; }
export CONTAINERS_STORAGE_CONF=$scratch/storage.conf CONTAINERS_CONF=$scratch/run.conf
driver overlay
if ! podman info >/dev/null 2>&1; then
  rm -rf "$scratch/storage" "$scratch/tmp"
  driver vfs
fi
mkdir "$scratch/bin"
ln -s "$(command -v podman)" "$scratch/bin/docker"
export PATH=$scratch/bin:$PATH

# Under this name: a tar file on standard input. The other arguments are lines of a Dockerfile.
import() {
  local name=$1 changes=()
  shift
  for line in "$@"; do changes+=(--change "$line"); done
  podman import "${changes[@]}" - "$name" >"$scratch/import.log" 2>&1 || fail "no image $name: $(cat "$scratch/import.log")"
}
mapfile -t bases < <(sed -n 's/^FROM \([^ ]*\).*/\1/p' Dockerfile)
[ "${#bases[@]}" = 2 ] || fail "the Dockerfile has ${#bases[@]} base images"
case "${bases[0]} ${bases[1]}" in
  rust:*-bookworm\ gcr.io/distroless/cc-debian12:nonroot) suite=bookworm ;;
  *) fail "nobody has put these together: ${bases[*]}" ;;
esac

echo "the first base image: Debian, a C compiler, and this machine's $(rustc --version)"
tests/debian_root.sh "$suite" "target/roots/$suite-build.tar" gcc libc6-dev make ca-certificates
environment=("ENV PATH=/usr/local/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" "ENV CARGO_HOME=$cargo_home" "ENV CARGO_BUILD_BUILD_DIR=/compiled")
# Another profile than here would compile everything anew.
while IFS= read -r line; do environment+=("ENV $line"); done < <(env | grep '^CARGO_PROFILE_' || true)
import "docker.io/library/${bases[0]}" "${environment[@]}" <"target/roots/$suite-build.tar"

echo "the second base image: the packages of Debian that it is made of"
mkdir "$scratch/debian" "$scratch/packages" "$scratch/distroless"
tar -C "$scratch/debian" -xf "target/roots/$suite-build.tar"
cp /etc/resolv.conf "$scratch/debian/etc/resolv.conf"
mount --bind "$scratch/packages" "$scratch/debian/mnt"
chroot "$scratch/debian" sh -ec 'apt-get update -qq
  cd /mnt
  apt-get download -qq base-files ca-certificates libc6 libgcc-s1 libgomp1 libssl3 libstdc++6 media-types netbase tzdata' \
  >"$scratch/download.log" 2>&1 || fail "no packages: $(tail -3 "$scratch/download.log")"
umount "$scratch/debian/mnt"
rm -rf "$scratch/debian"
distroless=$scratch/distroless
for package in "$scratch"/packages/*.deb; do dpkg-deb -x "$package" "$distroless"; done
mkdir -p "$distroless/home/nonroot" "$distroless/tmp" "$distroless/etc/ssl/certs"
chmod 1777 "$distroless/tmp"
chown 65532:65532 "$distroless/home/nonroot"
cat "$distroless"/usr/share/ca-certificates/mozilla/*.crt >"$distroless/etc/ssl/certs/ca-certificates.crt"
printf 'root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n' >"$distroless/etc/passwd"
printf 'root:x:0:\nnonroot:x:65532:\n' >"$distroless/etc/group"
tar -C "$distroless" -c . | import "${bases[1]}" 'USER 65532' \
  'ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt' 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
podman run --rm --network none --entrypoint /lib64/ld-linux-x86-64.so.2 "${bases[1]}" --version >"$scratch/run.log" 2>&1 ||
  skip "no container starts here: $(tail -1 "$scratch/run.log")"

# The commands of the documentation, a line each, with continued lines joined.
mapfile -t documented < <(awk '/^```/ { inside = 0 } inside { print } /^```sh image$/ { inside = 1 }' docs/*.md |
  sed -e ':a' -e '/\\$/{N;s/\\\n *//;ba}' | grep -v '^ *\(#\|$\)')
command_of() {
  printf '%s\n' "${documented[@]}" | grep "^docker $1 " || fail "the documentation does not say how to docker $1"
}
[ "$(printf '%s\n' "${documented[@]}" | cut -d' ' -f1-2 | tr '\n' ' ')" = "docker build docker run docker exec docker stop " ] ||
  fail "tests/image.sh does not know what to do with all of this: $(printf '%s; ' "${documented[@]}")"

echo "building: $(command_of build)"
(CONTAINERS_CONF=$scratch/build.conf eval "$(command_of build)") >"$scratch/build.log" 2>&1 || {
  tail -40 "$scratch/build.log" >&2
  fail "the image cannot be built"
}
echo "  $(grep -c '^ *Compiling ' "$scratch/build.log") packages compiled, $(sed -n 's/^ *Finished.* in //p' "$scratch/build.log")"
[ "$(podman image inspect --format '{{.Config.User}}' farewall)" = 65532:65532 ] || fail "it would not run as nobody"

echo "what is in it"
base=$(podman image mount "${bases[1]}")
image=$(podman image mount farewall)
added=$( (cd "$image" && find . | sort) | comm -13 <(cd "$base" && find . | sort) - | tr '\n' ' ')
[ "$added" = "./usr/bin/farewall ./var/lib/farewall " ] || fail "it adds other things to its base image: $added"
[ -z "$(find "$image" -name sh -o -name bash -o -name dash -o -name busybox)" ] || fail "there is a shell"
if podman run --rm --network none --entrypoint /bin/sh farewall -c true >/dev/null 2>&1; then fail "a shell can be started"; fi
podman image unmount --all >/dev/null

# What the wall needs outside: a facilitator in a container of its own, from the same image, and an origin here.
podman run --detach --name sandbox farewall sandbox --listen 0.0.0.0:8404 >"$scratch/run.log" 2>&1 || fail "the facilitator does not start"
facilitator=$(podman inspect --format '{{.NetworkSettings.IPAddress}}' sandbox)
here=$(podman inspect --format '{{.NetworkSettings.Gateway}}' sandbox)
mkdir "$scratch/origin" "$scratch/reader"
echo '{"quote": 1}' >"$scratch/origin/quote"
python3 -m http.server 14025 --bind "$here" --directory "$scratch/origin" >/dev/null 2>&1 &
origin=$!
cat >"$scratch/reader/farewall.toml" <<TOML
[server]
public_origin = "http://127.0.0.1:8402"
admin = "off"
[[listen]]
address = "0.0.0.0:8402"
[ledger]
path = "/var/lib/farewall/farewall.db"
[facilitator.sandbox]
sandbox = true
url = "http://$facilitator:8404"
[accept.base-sepolia]
network = "base-sepolia"
asset = "USDC"
pay_to = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
[upstream.api]
url = "http://$here:14025"
[[rule]]
name = "quote"
path = "/quote"
price = "\$0.001"
TOML
# The well-known first key of test chains; it owns play money only.
echo ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80 >"$scratch/key"
chmod 600 "$scratch/key"
pay() { "$program" pay http://127.0.0.1:8402/quote --key-file "$scratch/key" --max-price '$0.10' 2>"$scratch/pay.log"; }

# Starts a wall in the background, as documented, in the folder of its configuration; returns when it listens.
start() {
  (cd "$scratch/reader" && eval "exec $1") >"$scratch/run.log" 2>&1 &
  wall=$!
  for _ in $(seq 600); do
    [ "$(curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8402/quote)" != 402 ] || return 0
    kill -0 "$wall" 2>/dev/null || break
    sleep 0.1
  done
  fail "it does not listen: $1"
}
payments() { (cd "$scratch/reader" && eval "$(command_of exec)") | tee "$scratch/payments"; }
stop() {
  local code=0
  eval "$(command_of stop)" >"$scratch/stop.log" 2>&1 || fail "it cannot be stopped: $(cat "$scratch/stop.log")"
  wait "$wall" || code=$?
  [ "$code" = 0 ] || fail "SIGTERM ends it with exit code $code"
}

echo "running: $(command_of run)"
start "$(command_of run)"
pid=$(podman inspect --format '{{.State.Pid}}' farewall)
for what in Uid Gid; do
  ids=$(sed -n "s/^$what:[[:space:]]*//p" "/proc/$pid/status" | tr '\t' ' ')
  [ "$ids" = "65532 65532 65532 65532" ] || fail "its $what is $ids"
done
grep -q '^CapEff:[[:space:]]*0*$' "/proc/$pid/status" || fail "it has rights of root: $(grep '^CapEff' "/proc/$pid/status")"
[ "$(pay)" = '{"quote": 1}' ] || fail "a payment through the published port is not served: $(cat "$scratch/pay.log")"
before=$(payments)
[ "$(grep -c '^[0-9].* delivered ' <<<"$before")" = 1 ] || fail "the payment is not in the ledger: $before"
stop

echo "running it again, with nothing to write to but the volume"
command=$(command_of run)
start "${command/docker run /docker run --read-only --cap-drop all --security-opt no-new-privileges }"
[ "$(payments)" = "$before" ] || fail "the volume does not keep the ledger: $before, now $(cat "$scratch/payments")"
[ "$(pay)" = '{"quote": 1}' ] || fail "read-only, nothing can be bought: $(cat "$scratch/pay.log")"
[ "$(payments | grep -c '^[0-9].* delivered ')" = 2 ] || fail "the second payment is not in the ledger: $(cat "$scratch/payments")"
stop
podman stop --time 20 sandbox >/dev/null 2>&1 || fail "the facilitator does not end"
echo "the image works: $(podman image inspect --format '{{.Size}}' farewall) bytes, $(podman --version)"
