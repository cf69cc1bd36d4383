"""Load: wrk for plain requests, our own driver (`examples/load`) for payments and constant rates."""

import json
import pathlib
import re
import statistics
import subprocess

from machine import Failed, pinned
from servers import Built, program

UNITS = {"us": 1, "ms": 1e3, "s": 1e6, "m": 6e7}


def wrk(port, path, seconds, core, threads=1, connections=32, status=200):
    """One run. Requests a second, p50 and p99 in microseconds, requests."""
    url = f"http://127.0.0.1:{port}{path}"
    argv = [program("wrk"), f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "--latency", url]
    text = subprocess.run(argv, preexec_fn=pinned(core), capture_output=True, text=True, check=True).stdout

    def found(pattern):
        match = re.search(pattern, text)
        return match and match[1]

    def micros(share):
        match = re.search(rf"^\s+{share}%\s+([\d.]+)(us|ms|s|m)\s*$", text, re.MULTILINE)
        if match is None:
            raise Failed(f"{url}: wrk gives no {share}th percentile:\n{text}")
        return float(match[1]) * UNITS[match[2]]

    requests = int(found(r"(\d+) requests in"))
    other = int(found(r"Non-2xx or 3xx responses: (\d+)") or 0)
    # Answers that came after the end count as neither.
    wrong = other if status == 200 else requests - other
    if requests == 0 or wrong > connections or found(r"(Socket errors: .*)"):
        raise Failed(f"{url}: not all answers were {status}:\n{text}")
    return {
        "req_s": float(found(r"Requests/sec:\s+([\d.]+)")),
        "p50_us": micros(50),
        "p99_us": micros(99),
        "requests": requests,
    }


def measured(server, run):
    """`run()`, with the CPU time that the server's processes took for each of its requests."""
    before = server.cpu_s()
    result = run()
    result["cpu_us"] = (server.cpu_s() - before) / result["requests"] * 1e6
    result["rss_kib"] = server.rss_kib()
    return result


def driver(*words, core=None):
    """The report of `load run` or `load first-byte`."""
    argv = [str(Built.file("examples/load")), *[str(word) for word in words]]
    done = subprocess.run(argv, preexec_fn=pinned(core), capture_output=True, text=True)
    if done.returncode != 0:
        raise Failed(f"{' '.join(argv)}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def paid_run(port, path, proofs, seconds, core, connections=64, expected="200", reuse=False):
    """Payments as fast as answers come."""
    words = ["run", "--connect", f"127.0.0.1:{port}", "--seconds", seconds, "--paid", f"paid={path}"]
    words += ["--paid-connections", connections, "--proofs", proofs]
    report = driver(*words, *(["--reuse"] if reuse else []), core=core)
    if report["out_of_proofs"]:
        raise Failed("there were too few proofs for this machine; sign more")
    return _checked(report["classes"]["paid"], expected)


def plain_run(port, path, seconds, core, connections=64, expected="200"):
    """Plain requests from the driver that sends payments: what payments are compared with."""
    words = ["run", "--connect", f"127.0.0.1:{port}", "--seconds", seconds, "--plain", f"plain={path}"]
    report = driver(*words, "--connections", connections, core=core)
    return _checked(report["classes"]["plain"], expected)


def _checked(run, expected):
    if set(run["answers"]) != {expected}:
        raise Failed(f"answers should be {expected}: {run['answers']}")
    return {"req_s": run["per_s"], "requests": run["count"], "p50_us": run["p50_us"], "p99_us": run["p99_us"]}


class Wallet:
    """Signs files of payments, each file once."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.files = 0

    def sign(self, port, path, count, overpay=False):
        self.files += 1
        out = self.folder / f"proofs-{self.files}"
        words = ["sign", "--from", f"127.0.0.1:{port}", "--path", path, "--count", count, "--out", out]
        words += ["--seed", self.files] + (["--overpay"] if overpay else [])
        argv = [str(Built.file("examples/load")), *[str(word) for word in words]]
        done = subprocess.run(argv, capture_output=True, text=True)
        if done.returncode != 0:
            raise Failed(f"cannot sign: {done.stderr.strip()}")
        return out


def middle(values):
    return statistics.median(values)


def spread(values):
    return [min(values), max(values)]
