"""The rows of payments: what a proof costs, paid requests end to end, the first byte of a stream."""

import json
import os
import subprocess

import servers
from load import driver, measured, middle, paid_run, plain_run
from machine import Failed, pinned
from rows import Row
from servers import ROOT, TARGET, Built


def first_proof(bench):
    """A rule in shadow judges a proof as every rule does (decode, match, digest, recover), asks nobody and lets
    the request through. What that costs more than a free request is the header on the wire and the check. Beside it,
    what a stranger can cause: a proof that pays a unit too much is found out last, and then looked for as a debt."""
    row = Row("first-proof", "proof checked here for the first time")
    wall = bench.wall()
    proofs = bench.wallet.sign(wall.port, "/paid", 20000, overpay=True)
    good = bench.wallet.sign(wall.port, "/paid", 20000)
    more, refused = [], []
    for _ in range(bench.rounds):
        plain = measured(wall, lambda: plain_run(wall.port, "/paid", bench.seconds, bench.load_core, expected="402"))
        paid = measured(wall, lambda: paid_run(wall.port, "/paid", proofs, bench.seconds, bench.load_core,
                                               expected="402", reuse=True))
        free = measured(wall, lambda: plain_run(wall.port, "/tiny", bench.seconds, bench.load_core))
        judged = measured(wall, lambda: paid_run(wall.port, "/shadow", good, bench.seconds, bench.load_core,
                                                 reuse=True))
        row.add("rule in shadow, good proof", judged)
        row.add("402, proof one unit off", paid)
        row.add("402, no proof", plain)
        row.add("free rule, 3 bytes", free)
        more.append(judged["cpu_us"] - free["cpu_us"])
        refused.append(paid["cpu_us"] - plain["cpu_us"])
    row.target("CPU more than a free request", more, 50, at_least=False, unit="us")
    row.notes.append(f"nobody is asked, and nothing is remembered between requests; a 402 for a proof that is one unit off "
                     f"costs {middle(refused):.1f} us more than one without a proof: there the terms that the proof names are "
                     f"read too, the ledger is searched for a debt, and a challenge with the reason is written")
    return row


def criterion(bench, name):
    """Runs a criterion bench on the measured core and returns {id: nanoseconds}. It was built before: cargo
    would build what has changed in the middle of a measurement."""
    built = [file for file in Built.file("deps").glob(f"{name}-*") if not file.suffix and os.access(file, os.X_OK)]
    if not built:
        raise Failed(f"build it first: cargo bench --profile {Built.profile} --bench {name} --no-run")
    argv = [max(built, key=lambda file: file.stat().st_mtime), "--bench", "--warm-up-time", "0.5"]
    argv += ["--measurement-time", "0.5", "--sample-size", "10"] if bench.quick else ["--measurement-time", "2"]
    # Where it keeps its results is found through cargo, if nobody says so.
    home = {**os.environ, "CRITERION_HOME": str(TARGET / "criterion")}
    subprocess.run(argv, cwd=ROOT, check=True, env=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                   preexec_fn=pinned(bench.measured_core))
    found = {}
    for file in (TARGET / "criterion").glob("**/new/estimates.json"):
        key = json.loads((file.parent / "benchmark.json").read_text())["full_id"]
        found[key] = json.loads(file.read_text())["median"]["point_estimate"]
    return found


def known_verdict(bench):
    """Without the ledger means: in this process's gate, with a ledger that costs nothing."""
    row = Row("known-verdict", "proof whose verdict is known, without the ledger")
    wall = bench.wall()
    proofs = bench.wallet.sign(wall.port, "/paid", 2000)
    more = []
    for _ in range(bench.rounds):
        plain = measured(wall, lambda: plain_run(wall.port, "/tiny", bench.seconds, bench.load_core))
        carried = measured(wall, lambda: paid_run(wall.port, "/tiny", proofs, bench.seconds, bench.load_core,
                                                  reuse=True))
        row.add("free rule", plain)
        row.add("free rule, with a payment header", carried)
        more.append(carried["cpu_us"] - plain["cpu_us"])
    inside = criterion(bench, "admit")
    admit = (inside["admit/known_verdict"] - inside["admit/free"]) / 1000
    row.target("CPU more than a free request", [value + admit for value in more], 6, at_least=False, unit="us")
    row.notes.append(f"the header on the wire {middle(more):.1f} us (HTTP), the gate {admit:.1f} us (criterion, "
                     f"admit/known_verdict less admit/free)")
    return row


def paid(bench):
    row = Row("paid", "paid request end to end, 64 at once, durable ledger")
    wall = bench.wall()
    peers = [("wall", wall)]
    if bench.has_express():
        core, port = bench.measured_core, bench.origin.port
        peers.append(("@x402/express", bench.start(servers.seller, core, bench.folder, port, bench.sandbox.port)))
    flushed = []
    for nth in range(bench.rounds + 1):
        for name, server in peers:
            count = int(bench.seconds * bench.payments_per_s) if name == "wall" else int(bench.seconds * 2000)
            proofs = bench.wallet.sign(server.port, "/paid", count)
            before = wall.metric("farewall_ledger_commits")
            result = measured(server, lambda: paid_run(server.port, "/paid", proofs, bench.seconds, bench.load_core))
            proofs.unlink()
            if nth == 0:
                continue
            row.add(name, result)
            if name == "wall":
                flushes = wall.metric("farewall_ledger_commits") - before
                flushed.append(result["requests"] / flushes)
    if len(peers) > 1:
        row.target("req/s of @x402/express", row.ratios("wall", "@x402/express"), 8)
    row.target("payments per disk flush", flushed, 8)
    return row


def sse(bench):
    """One buyer after the other: to the first byte of a paid stream, less the same stream without the
    wall, less the settlement asked for directly."""
    row = Row("sse", "first byte of a paid SSE stream")
    wall = bench.wall()
    added = []
    count = 50 if bench.quick else 300
    for _ in range(bench.rounds):
        bought, settled = (bench.wallet.sign(wall.port, "/paid-events", count) for _ in range(2))
        at = lambda port: ["first-byte", "--connect", f"127.0.0.1:{port}"]
        direct = driver(*at(bench.events.port), "--path", "/events", "--count", count, core=bench.load_core)
        free = driver(*at(wall.port), "--path", "/events", "--count", count, core=bench.load_core)
        paid = driver(*at(wall.port), "--path", "/paid-events", "--proofs", bought, core=bench.load_core)
        alone = driver(*at(bench.sandbox.port), "--path", "/settle", "--proofs", settled, "--settle",
                       core=bench.load_core)
        named = [("origin alone", direct), ("free through the wall", free), ("paid through the wall", paid),
                 ("settlement alone", alone)]
        for name, result in named:
            row.add(name, result)
        added.append((paid["p50_us"] - direct["p50_us"] - alone["p50_us"]) / 1000)
    row.target("p50 more than origin and settlement", added, 1, at_least=False, unit="ms")
    row.notes.append("this includes the facilitator's verification and the durable claim, which settling alone has not")
    return row
