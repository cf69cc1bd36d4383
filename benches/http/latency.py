"""Latency under load: does paid traffic with a slow facilitator make free and 402 requests wait?"""

import servers
from load import driver, middle
from machine import Failed
from rows import Row

SETTLE_MS = 300
SHARE_PAID = 0.05
PLAIN = ["--plain", "free=/tiny:475", "--plain", "challenge=/paid:475"]
PAID = ["--paid", "paid=/paid:50", "--paid-connections", 1500]
# At a rate: as many as a short stall of the server needs, so that requests wait there and not here.
CONNECTIONS = 256
# Below the driver and the origin, with which it shares a core: what it takes is not the wall's.
NICE = 10


def latency(bench):
    """Capacity of the mix, then the same free and 402 requests at 70 % of it, with and without the paid ones."""
    row = Row("latency", f"at 70 % of capacity, 5 % paid, facilitator takes {SETTLE_MS} ms")
    sandbox = bench.start(servers.sandbox, bench.load_core, bench.folder, SETTLE_MS, NICE)
    wall = bench.wall_alone(facilitator=sandbox.port)
    seconds = 2 if bench.quick else bench.long_seconds
    at = ["run", "--connect", f"127.0.0.1:{wall.port}"]

    def mixed(extra, seconds, payments):
        proofs = bench.wallet.sign(wall.port, "/paid", int(payments))
        report = driver(*at, *PLAIN, *PAID, "--proofs", proofs, "--seconds", seconds, *extra, core=bench.load_core)
        proofs.unlink()
        return _good(report)

    def rate_of(report):
        return sum(kind["per_s"] for kind in report["classes"].values())

    probe_s = 2 if bench.quick else 4
    probes = [rate_of(mixed(["--connections", 64], probe_s, probe_s * bench.payments_per_s))
              for _ in range(1 if bench.quick else 3)]
    capacity = middle(probes)
    rate = 0.7 * capacity
    row.notes.append(f"capacity {capacity:.0f} req/s with 64 plain requests under way; offered {rate:.0f} req/s, "
                     f"of which {rate * SHARE_PAID:.0f} payments, for {seconds} s; latency from the moment at which "
                     f"a request was due")
    steady = ["--connections", CONNECTIONS, "--rate"]
    plain = _good(driver(*at, *PLAIN, "--seconds", seconds, *steady, rate * (1 - SHARE_PAID), core=bench.load_core))
    busy = mixed([*steady, rate], seconds, rate * SHARE_PAID * seconds * 1.05 + 200)
    for name, report in (("without paid traffic", plain), ("with paid traffic", busy)):
        for kind, result in report["classes"].items():
            row.add(f"{kind}, {name}", {"req_s": result["per_s"], **result})
        _remark(row, name, report)
    for kind in ("free", "challenge"):
        ratio = busy["classes"][kind]["p99_us"] / plain["classes"][kind]["p99_us"]
        row.target(f"p99 of {kind}, times that without", ratio, 1.3, at_least=False)
    return row


def _remark(row, name, report):
    """What the driver has to say about itself."""
    late = report["late"]
    row.notes.append(f"{name} the driver itself took up requests {late['p50_us'] / 1000:.2f}/{late['p99_us'] / 1000:.2f} ms "
                     f"(p50/p99) after they were due, which is in the figures")
    left = report["never_sent"] + report["unanswered"]
    if left:
        row.notes.append(f"{name} {left} requests were not answered within 10 s after the end; each counts as what it "
                         f"had waited by then")


def _good(report):
    wanted = {"free": "200", "challenge": "402", "paid": "200"}
    wrong = {name: kind["answers"] for name, kind in report["classes"].items() if set(kind["answers"]) != {wanted[name]}}
    if wrong or report["out_of_proofs"]:
        left = {name: value for name, value in report.items() if name != "classes"}
        raise Failed(f"not every request was answered well: {wrong}, {left}")
    return report
