#!/usr/bin/env bash
# Builds the Debian package from target/release/farewall, installs it into a root of its own, and uses
# what is in it:
#
#     cargo build --release && tests/package.sh
#
# The package stays in target/debian. Nothing is installed on this machine. Needs cargo-deb, dpkg and man.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
  echo "FAILED: $1" >&2
  exit 1
}

for tool in cargo-deb dpkg dpkg-deb man; do
  command -v "$tool" >/dev/null || fail "$tool is missing"
done
built=target/release/farewall
[ -x "$built" ] || fail "$built is missing: cargo build --release"

# What the binary writes about itself.
rm -rf target/package
mkdir -p target/package/completions
"$built" man target/package/man
"$built" completions bash >target/package/completions/farewall
"$built" completions zsh >target/package/completions/_farewall
"$built" completions fish >target/package/completions/farewall.fish

rm -rf target/debian
package=$(cargo deb --no-build --quiet)
[ -f "$package" ] || fail "there is no package $package"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
root=$scratch/root

# dpkg with a database of its own. Its scripts are told the root; this machine's services are not touched.
mkdir "$scratch/bin"
for service_tool in systemctl deb-systemd-invoke; do
  ln -s "$(command -v true)" "$scratch/bin/$service_tool"
done
mkdir -p "$root"/var/lib/dpkg/{info,updates}
touch "$root/var/lib/dpkg/status"
in_root() {
  PATH=$scratch/bin:$PATH dpkg --root="$root" --log=/dev/null --force-not-root --force-script-chrootless --force-depends "$@"
}
in_root --install "$package" >"$scratch/install.log" 2>&1 || {
  cat "$scratch/install.log" >&2
  fail "it cannot be installed"
}
in_root --status farewall >"$scratch/status"
grep -qx 'Status: install ok installed' "$scratch/status" || fail "it is not installed"
grep -q '^ /etc/farewall/farewall.toml ' "$scratch/status" || fail "the configuration is no conffile"
for dependency in libc6 ca-certificates; do
  grep -q "^Depends: .*$dependency" "$scratch/status" || fail "it does not depend on $dependency"
done

# The program, and the configuration that it comes with.
program=$root/usr/bin/farewall
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -1)
[ "$("$program" --version)" = "farewall $version" ] || fail "it is not version $version"
"$program" check --config "$root/etc/farewall/farewall.toml" >"$scratch/check"
grep -q ': no errors, no warnings$\|: no problems$' "$scratch/check" || {
  cat "$scratch/check" >&2
  fail "the configuration that it comes with is not without a complaint"
}

# An upgrade restarts the wall, and never its sockets.
dpkg-deb --control "$package" "$scratch/control"
grep -q 'deb-systemd-invoke try-restart farewall.service >' "$scratch/control/postinst" || fail "an upgrade does not restart it"
! grep -rq 'restart.*farewall\.socket' "$scratch/control" || fail "an upgrade closes its sockets"
for script in "$scratch"/control/p*; do sh -n "$script"; done

# The units, as they are in the repository, and nothing that starts them.
for unit in farewall.service farewall.socket; do
  cmp "systemd/$unit" "$root/usr/lib/systemd/system/$unit" || fail "$unit is another one"
done
wants=$(find "$root/etc/systemd" -name 'farewall*' 2>/dev/null || true)
[ -z "$wants" ] || fail "installing it enables it: $wants"

# Every page of the manual, without a warning, and one for each command.
pages=$(find "$root/usr/share/man/man1" -name 'farewall*.1.gz')
for command in "" $("$program" completions fish | sed -n 's/.*__fish_farewall_needs_command" -f -a "\([a-z]*\)".*/\1/p'); do
  [ "$command" = help ] && continue
  page=$root/usr/share/man/man1/farewall${command:+-$command}.1.gz
  case "$pages" in *"$page"*) ;; *) fail "there is no page for farewall $command" ;; esac
done
for page in $pages; do
  man --warnings -E UTF-8 -l "$page" >"$scratch/page" 2>"$scratch/warnings" || fail "man cannot show $page"
  [ ! -s "$scratch/warnings" ] || fail "$page: $(cat "$scratch/warnings")"
  grep -q '^SYNOPSIS' "$scratch/page" || fail "$page has no synopsis"
done
[ "$(echo "$pages" | wc -l)" -gt 5 ] || fail "pages of the manual are missing"

# The completions, in a real bash.
completed=$(bash --norc -c '
  set -eu
  source "$1"
  function=$(complete -p farewall | sed "s/.*-F \([^ ]*\).*/\1/")
  COMP_WORDS=(farewall che) COMP_CWORD=1
  "$function" farewall che farewall
  echo "${COMPREPLY[@]}"
' bash "$root/usr/share/bash-completion/completions/farewall")
[ "$completed" = check ] || fail "bash completes \"che\" to \"$completed\""
grep -q '^#compdef farewall' "$root/usr/share/zsh/vendor-completions/_farewall" || fail "no completions for zsh"
grep -q 'complete -c farewall' "$root/usr/share/fish/vendor_completions.d/farewall.fish" || fail "no completions for fish"

# Purging it leaves nothing of it.
in_root --purge farewall >"$scratch/purge.log" 2>&1 || {
  cat "$scratch/purge.log" >&2
  fail "it cannot be purged"
}
left=$(find "$root" -name '*farewall*' -not -path '*/var/lib/dpkg/*')
[ -z "$left" ] || fail "purging it leaves $left"

echo "the package is well: $package"
