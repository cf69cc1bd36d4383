"""Measures the wall against nginx, haproxy, bare pingora and the official seller. See docs/performance.md."""

import argparse
import contextlib
import datetime
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import growth
import latency
import load
import machine
import paid
import report
import rows
import servers
import size
from machine import Failed
from servers import ROOT, TARGET

PARTS = {
    "challenge": (rows.challenge, "402 against nginx"),
    "free-3": (rows.small, "3 bytes against bare pingora, nginx, haproxy"),
    "free-100k": (rows.large, "100 KiB against the same"),
    "two-workers": (rows.two_workers, "those three with two workers"),
    "first-proof": (paid.first_proof, "what checking a proof costs"),
    "known-verdict": (paid.known_verdict, "what a proof with a known verdict costs"),
    "paid": (paid.paid, "payments against @x402/express"),
    "sse": (paid.sse, "first byte of a paid stream"),
    "rules": (size.rules, "10,000 rules"),
    "memory": (size.memory, "memory after the start and of connections"),
    "latency": (latency.latency, "two minutes under constant load, with and without payments"),
}
GROWTH = {"growth-rules": growth.rules, "growth-connections": growth.connections}
# What parts run of `cargo bench`: built before anything is measured.
CRITERION = {"known-verdict": ["admit"], "rules": ["rule_lookup"], "growth-rules": ["rule_lookup"]}
ORDER = ["challenge", "free-3", "free-100k", "first-proof", "known-verdict", "paid", "sse", "rules", "memory",
         "latency", "challenge-2", "free-3-2", "free-100k-2"]


class Bench:
    """What every part needs: servers that run once, and how long to measure."""

    def __init__(self, args, folder):
        self.quick = args.quick
        self.rounds = 1 if args.quick else args.rounds
        self.rounds_of_growth = 1 if args.quick else 3
        self.seconds = 1 if args.quick else args.seconds
        self.long_seconds = args.long_seconds
        self._work_stealing = args.work_stealing
        self.payments_per_s = 12000
        self.measured_core, self.load_core = machine.cores()
        self.workers_max = len(os.sched_getaffinity(0))
        self.folder = folder
        self.stack = contextlib.ExitStack()
        self.wallet = load.Wallet(folder)
        self._walls = {}
        self._missing = set()

    def __enter__(self):
        core, folder = self.load_core, self.folder
        self.origin = self.start(servers.origin, core, folder)
        self.events = self.start(servers.events, core, folder)
        self.sandbox = self.start(servers.sandbox, core, folder)
        return self

    def __exit__(self, *_):
        self.stack.close()

    def start(self, make, *args, **more):
        server = make(*args, **more)
        self.stack.callback(server.stop)
        return server

    def work_stealing(self, workers):
        """As the wall does it by itself, unless told otherwise."""
        return workers > 1 if self._work_stealing is None else self._work_stealing

    def core(self, workers):
        return self.measured_core if workers == 1 else None

    def key(self, name, workers):
        return name if workers == 1 else f"{name}-{workers}"

    def wall(self, workers=1):
        """The wall that parts share."""
        if workers not in self._walls:
            self._walls[workers] = self.wall_alone(workers=workers)
        return self._walls[workers]

    def wall_alone(self, workers=1, facilitator=None, extra_rules=0, under=()):
        """A wall of one's own."""
        facilitator = facilitator or self.sandbox.port
        return self.start(servers.Wall, self.core(workers), self.folder, self.origin.port, facilitator, workers,
                          self.work_stealing(workers), self.events.port, extra_rules, under=under)

    def has(self, name):
        """Whether a peer is installed; says so loudly when it is not."""
        if servers.program(name):
            return True
        if name not in self._missing:
            self._missing.add(name)
            say(f"MISSING: {name} is not installed and is left out (Debian: apt-get install {servers.PACKAGES[name]})")
        return False

    def has_express(self):
        if not (self.has("node") and self.has("npm")):
            return False
        install_express()
        return True


def install_express():
    """The packages of tests/e2e, and a link so that node finds them from here."""
    home = ROOT / "tests/e2e"
    if not (home / "node_modules/@x402/express").exists():
        say("installing node packages")
        subprocess.run(["npm", "ci", "--prefix", home, "--no-update-notifier", "--loglevel=error"], check=True,
                       stdout=subprocess.DEVNULL)
    link = servers.HERE / "node_modules"
    if not link.is_symlink():
        link.symlink_to("../../tests/e2e/node_modules")


def say(text):
    print(text, file=sys.stderr, flush=True)


def build(parts):
    profile = servers.Built.profile
    say(f"building the wall (profile {profile}), bare pingora and the load driver")
    argv = ["cargo", "build", "--locked", "--profile", profile, "--bin", "farewall"]
    now = commit()
    subprocess.run(argv + ["--example", "bare_proxy", "--example", "load"], cwd=ROOT, check=True)
    inside = sorted({name for part in parts for name in CRITERION.get(part, [])})
    if inside:
        benches = [word for name in inside for word in ("--bench", name)]
        subprocess.run(["cargo", "bench", "--locked", "--profile", profile, "--no-run", *benches], cwd=ROOT, check=True)
    built_from().write_text(now)


def built_from():
    """The file that remembers what was built: sources may change before they are measured."""
    return servers.Built.file("farewall-built-from")


def commit():
    ask = lambda *words: subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    measured = ["--", "src", "Cargo.lock", "Cargo.toml", "examples"]
    changed = ask("status", "--porcelain", *measured)
    return ask("log", "-1", "--format=%h", *measured) + (" with changes" if changed else "")


def arguments():
    parts = "\n".join(f"  {name:14} {what}" for name, (_, what) in PARTS.items())
    parser = argparse.ArgumentParser(
        prog="benches/http/run.sh", formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__,
        epilog=f"parts:\n{parts}\n  growth-rules, growth-connections   CSV files and plots in docs/performance")
    parser.add_argument("parts", nargs="*", metavar="PART", help="default: all but growth-*")
    parser.add_argument("--quick", action="store_true", help="one round of a second: does it all work?")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of one run")
    parser.add_argument("--long-seconds", type=int, default=60, help="of a run at a constant rate")
    parser.add_argument("--work-stealing", action=argparse.BooleanOptionalAction,
                        help="[server] work_stealing of the wall and of bare pingora; default: with several workers")
    parser.add_argument("--profile", default="dist", help="figures of any other than dist mean nothing")
    parser.add_argument("--no-build", action="store_true", help="what is built is new enough")
    parser.add_argument("--out", type=pathlib.Path, default=TARGET / "bench-http", help="for the JSON and the chart")
    parser.add_argument("--page", action="store_true", help="write the result into docs/performance.md too, where rows of other parts stay as they are")
    args = parser.parse_args()
    args.parts = args.parts or list(PARTS)
    if args.quick and args.page:
        parser.error("figures of a quick run mean nothing: they do not go into the page")
    for part in args.parts:
        if part not in PARTS and part not in GROWTH:
            parser.error(f"there is no part {part}")
    return args


def run_parts(bench, parts):
    """Rows as JSON, and the parts that gave none: one that fails does not take the others with it."""
    rows, failed = [], []
    for part in parts:
        say(f"== {part}")
        try:
            if part in GROWTH:
                GROWTH[part](bench)
                continue
            done = PARTS[part][0](bench)
            rows += [row.json() for row in (done if isinstance(done, list) else [done])]
        except Failed as failure:
            say(f"FAILED: {part}: {failure}")
            failed.append(part)
    return rows, failed


def main():
    args = arguments()
    servers.Built.profile = args.profile
    for needed in ("wrk", "nginx"):
        if not servers.program(needed):
            raise Failed(f"{needed} is missing (Debian: apt-get install {servers.PACKAGES[needed]})")
    if not args.no_build:
        build(args.parts)
    args.out.mkdir(parents=True, exist_ok=True)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="farewall-bench."))
    folder.chmod(0o755)
    try:
        with Bench(args, folder) as bench:
            measured, failed = run_parts(bench, args.parts)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if not args.quick:
        growth.plots()
    run = {"machine": machine.describe(), "commit": built_from().read_text().strip(),
           "date": datetime.date.today().isoformat(), "profile": args.profile,
           "how": f"Medians of {args.rounds} alternated rounds of {args.seconds} s, lowest and highest in brackets."}
    results = {"order": ORDER, "rows": [{**row, "run": run} for row in measured]}
    if measured:
        if args.page:
            report.write_page(results)
        print(report.text(results))
        results = report.save(args.out / ("quick.json" if args.quick else "results.json"), results)
        report.chart(args.out / "http.svg", results)
    if failed:
        raise Failed(f"these parts gave no figures: {', '.join(failed)}")


if __name__ == "__main__":
    try:
        main()
    except Failed as failure:
        sys.exit(f"benches/http: {failure}")
