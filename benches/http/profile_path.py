"""Where the time of a request goes, path by path. See docs/performance.md; run it as benches/profile.sh."""

import argparse
import collections
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import bench
import servers
from load import driver
from machine import Failed
from owners import owner, plain
from servers import Built

# What is asked for, with which answer; the driver's words for it.
PLAIN = {
    "challenge": ("/paid", "402", "unpaid request, full 402"),
    "challenge-any": ("/glob/some/thing/7", "402", "the same, of a rule for many paths"),
    "free-3": ("/tiny", "200", "free rule, 3 bytes"),
    "free-100k": ("/100k", "200", "free rule, 100 KiB"),
}
PAID = {
    "first-proof": ("/paid", "402", "proof checked here for the first time: one unit off"),
    "known-verdict": ("/tiny", "200", "free rule, with a payment header"),
    "paid": ("/paid", "200", "paid end to end, 64 at once"),
    "sse": ("/paid-events", "200", "paid stream of events, 64 at once"),
}
START = "start with 10,000 rules, until it is ready"
CONNECTIONS = 64


class Profile:
    """Samples or instructions by owner and function, and what they are shares of."""

    def __init__(self, unit):
        self.unit, self.total = unit, 0
        self.owners, self.functions = collections.Counter(), collections.Counter()
        self.calls = collections.Counter()

    def add(self, symbol, place, program, count):
        symbol = plain(symbol)
        self.total += count
        who = owner(symbol, place, program)
        self.owners[who] += count
        self.functions[who, symbol] += count

    def print(self, each, top):
        """`each` is the cost of one request in the unit."""
        print(f"\n{'share':>7} {self.unit:>12}  owner")
        for who, count in self.owners.most_common():
            share = count / self.total
            print(f"{share:7.1%} {share * each:12,.1f}  {who}")
        if self.calls:
            print(f"\n{'share':>7} {self.unit:>12}  of the kernel, by system call")
            for call, count in self.calls.most_common(12):
                print(f"{count / self.total:7.1%} {count / self.total * each:12,.1f}  {call}")
        print(f"\n{'share':>7} {self.unit:>12}  function")
        for (who, symbol), count in self.functions.most_common(top):
            share = count / self.total
            print(f"{share:7.1%} {share * each:12,.1f}  {symbol[:110]}  [{who}]")


def load(at, path, seconds):
    """Runs the load of a path; the driver's report of its only class, and of its answers what was wanted."""
    words = ["run", "--connect", f"127.0.0.1:{at.wall.port}", "--seconds", seconds]
    wanted = (PLAIN.get(path) or PAID[path])[1]
    target = (PLAIN.get(path) or PAID[path])[0]
    if path in PLAIN:
        words += ["--plain", f"it={target}", "--connections", CONNECTIONS]
    else:
        again = path in ("first-proof", "known-verdict")
        count = 20000 if again else int(seconds * at.bench.payments_per_s)
        proofs = at.bench.wallet.sign(at.wall.port, "/paid" if again else target, count, overpay=path == "first-proof")
        words += ["--paid", f"it={target}", "--paid-connections", CONNECTIONS, "--proofs", proofs]
        words += ["--reuse"] if again else []
    return lambda: checked(driver(*words, core=at.bench.load_core)["classes"]["it"], wanted)


def checked(report, wanted):
    if set(report["answers"]) != {wanted}:
        raise Failed(f"answers should be {wanted}: {report['answers']}")
    return report


class Measured:
    """A wall, and the path that it is asked for."""

    def __init__(self, shared, under=()):
        self.bench = shared
        self.wall = shared.wall_alone(under=under)


def with_perf(shared, path, seconds, top, folder):
    at = Measured(shared)
    load(at, path, 1)()
    run = load(at, path, seconds)
    data = folder / "perf.data"
    before = at.wall.cpu_s()
    recorder = subprocess.Popen(["perf", "record", "-q", "-F", "997", "-e", "cpu-clock", "-g", "-o", data, "-p",
                                 str(at.wall.child.pid)], stderr=subprocess.DEVNULL)
    time.sleep(0.3)
    report = run()
    each = (at.wall.cpu_s() - before) / report["count"] * 1e6
    recorder.send_signal(signal.SIGINT)
    recorder.wait()
    print(f"{path}: {report['per_s']:,.0f} requests a second while perf looks, {each:,.1f} us of CPU for each")
    samples(data).print(each, top)


def of_start(shared, top, folder):
    data = folder / "perf.data"
    under = ["perf", "record", "-q", "-F", "4999", "-e", "cpu-clock", "-g", "-o", data, "--"]
    wall = shared.wall_alone(extra_rules=10000, under=under)
    took, cpu = wall.ready_after_s, wall.cpu_s()
    wall.stop()
    print(f"start with 10,000 rules: ready after {took * 1000:.0f} ms while perf looks, {cpu * 1000:.0f} ms of CPU")
    samples(data).print(cpu * 1e6, top)


def samples(data):
    """Each sample's own function; of the kernel also the system call that it is in."""
    words = ["perf", "script", "-i", data, "-F", "comm,tid,ip,sym,dso"]
    text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    profile = Profile("us")
    program = str(Built.file("farewall"))
    for block in text.split("\n\n"):
        frames = re.findall(r"^\s+[0-9a-f]+ (.*) \(([^()]*|\[[^\]]*\])\)$", block, re.MULTILINE)
        if not frames or not block.lstrip().startswith(names_of_the_wall()):
            continue
        symbol, place = frames[0]
        profile.add(symbol, place, program, 1)
        if place.startswith("["):
            call = next((name for name, where in frames if re.match(r"__(x64|arm64|se)_sys_", name)), "interrupts and faults")
            profile.calls[re.sub(r"^__\w+?_sys_", "", call)] += 1
    return profile


def names_of_the_wall():
    """perf's own beginning is in a profile of the start."""
    return ("farewall", "payments", "ledger-writer", "Pingora", "tokio", "Timer", "BG", "pingora", "admin", "reconc", "http", "ledger")


def with_callgrind(shared, path, seconds, top, folder):
    out = folder / "callgrind.out"
    under = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", "-q"]
    at = Measured(shared, under)
    # Under valgrind everything is 50 times slower: fewer requests are as good, because counts repeat.
    load(at, path, 2)()
    control = lambda word: subprocess.run(["callgrind_control", word, str(at.wall.child.pid)], check=True,
                                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    run = load(at, path, seconds)
    control("--zero")
    report = run()
    control("--dump")
    dumped = sorted(folder.glob("callgrind.out.*"))
    text = subprocess.run(["callgrind_annotate", "--threshold=100", "--show-percs=no", "--auto=no", dumped[-1]],
                          capture_output=True, text=True, check=True).stdout
    profile = Profile("instructions")
    program = str(Built.file("farewall"))
    for count, symbol, place in re.findall(r"^\s*([\d,]+)\s+[^:\s]+:(.*?)(?: \[([^\]]*)\])?$", text, re.MULTILINE):
        profile.add(symbol, place, program, int(count.replace(",", "")))
    each = profile.total / report["count"]
    print(f"{path}: {each:,.0f} instructions in user space for each of {report['count']} requests")
    profile.print(each, top)


def arguments():
    paths = "\n".join(f"  {name:14} {what[2]}" for name, what in {**PLAIN, **PAID}.items())
    parser = argparse.ArgumentParser(prog="benches/profile.sh", formatter_class=argparse.RawDescriptionHelpFormatter,
                                     description=__doc__, epilog=f"paths:\n{paths}\n  {'start':14} {START}")
    parser.add_argument("path", choices=[*PLAIN, *PAID, "start"], metavar="PATH")
    parser.add_argument("--tool", choices=["perf", "callgrind"], default="perf" if shutil.which("perf") else "callgrind")
    parser.add_argument("--seconds", type=int, default=6, help="under load")
    parser.add_argument("--top", type=int, default=40, help="functions that are named")
    parser.add_argument("--profile", default="dist", help="what cargo builds: dist is what is shipped")
    parser.add_argument("--no-build", action="store_true", help="what is built is new enough")
    args = parser.parse_args()
    if args.path == "start" and args.tool != "perf":
        parser.error("the start is looked at with perf")
    # For `Bench`, which measures nothing here.
    args.quick, args.rounds, args.long_seconds, args.work_stealing = False, 1, 1, None
    return args


def main():
    args = arguments()
    Built.profile = args.profile
    if not args.no_build:
        bench.build([])
    folder = pathlib.Path(tempfile.mkdtemp(prefix="farewall-profile."))
    folder.chmod(0o755)
    try:
        with bench.Bench(args, folder) as shared:
            if args.path == "start":
                of_start(shared, args.top, folder)
            elif args.tool == "perf":
                with_perf(shared, args.path, args.seconds, args.top, folder)
            else:
                with_callgrind(shared, args.path, args.seconds, args.top, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    try:
        main()
    except Failed as failure:
        sys.exit(f"benches/profile: {failure}")
