"""The rows of sizes: many rules, the start, memory."""

import subprocess

from load import middle
from machine import Failed, pinned
from paid import criterion
from rows import Row
from servers import Built


class Idle:
    """Connections held open by a process of their own."""

    def __init__(self, port, count, path, core):
        words = ["idle", "--connect", f"127.0.0.1:{port}", "--count", str(count)]
        words += ["--path", path] if path else []
        self.child = subprocess.Popen([str(Built.file("examples/load")), *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      text=True, preexec_fn=pinned(core))
        if not self.child.stdout.readline().strip():
            raise Failed(f"{count} connections could not be opened; see `ulimit -n`")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.stdin.close()
        self.child.wait()


def rules(bench):
    row = Row("rules", "10,000 rules")
    inside = criterion(bench, "rule_lookup")
    row.target("lookup of one rule, times that with 10", inside["rule_lookup/10000"] / inside["rule_lookup/10"],
               1.3, at_least=False)
    anywhere = inside["rule_lookup/any_of_10000"] / inside["rule_lookup/any_of_10"]
    row.notes.append(f"lookup {inside['rule_lookup/10']:.0f} ns with 10 rules, {inside['rule_lookup/10000']:.0f} ns with "
                     f"10,000; of all rules in random order {anywhere:.2f} times, because 10,000 do not fit the caches")
    started = []
    for _ in range(bench.rounds):
        wall = bench.wall_alone(extra_rules=10000)
        started.append(wall.ready_after_s * 1000)
        wall.stop()
    row.target("start", started, 300, at_least=False, unit="ms")
    return row


def memory(bench):
    row = Row("memory", "resident memory")
    count = 1000 if bench.quick else 10000
    fresh, idle, silent = [], [], []
    for _ in range(1 if bench.quick else 3):
        wall = bench.wall_alone()
        fresh.append(wall.rss_kib() / 1024)
        for path, kept in (("/tiny", idle), (None, silent)):
            before = wall.rss_kib()
            with Idle(wall.port, count, path, bench.load_core):
                kept.append((wall.rss_kib() - before) / count)
            wall.stop()
            wall = bench.wall_alone()
        wall.stop()
    row.target("after the start", fresh, 40, at_least=False, unit="MiB")
    row.target(f"each of {count} idle connections", idle, 24, at_least=False, unit="KiB")
    row.notes.append(f"idle after one request; {middle(silent):.1f} KiB each when nothing was ever sent")
    row.notes.append(f"memory of the process; the kernel's buffers are not in it")
    return row
