"""How cost grows with rules and with connections; CSV files, and plots made from them."""

import csv

import svg
from load import measured, wrk
from paid import criterion
from servers import ROOT
from size import Idle

FOLDER = ROOT / "docs/performance"
RULES = [10, 100, 1000, 10000]
CONNECTIONS = [10, 100, 1000, 10000]


def rules(bench):
    """Look-ups inside, then whole requests to a wall with so many rules."""
    inside = criterion(bench, "rule_lookup")
    rows = []
    for count in RULES:
        wall = bench.wall_alone(extra_rules=count)
        path = f"/v1/r{count - 1}/7"
        wrk(wall.port, path, 1, bench.load_core, status=402)
        runs = [measured(wall, lambda: wrk(wall.port, path, bench.seconds, bench.load_core, status=402))
                for _ in range(bench.rounds_of_growth)]
        best = sorted(runs, key=lambda run: run["cpu_us"])[len(runs) // 2]
        rows.append({
            "rules": count,
            "lookup_ns": round(inside[f"rule_lookup/{count}"]),
            "any_lookup_ns": round(inside[f"rule_lookup/any_of_{count}"]),
            "req_s": round(best["req_s"]),
            "cpu_us": round(best["cpu_us"], 2),
            "start_ms": round(wall.ready_after_s * 1000),
            "rss_mib": round(best["rss_kib"] / 1024, 1),
        })
        wall.stop()
    write("rules-growth.csv", rows)


def connections(bench):
    """So many open connections, of which 32 ask for a free answer; then so many that all ask, and get a 402,
    because free answers would need as many connections to the origin, and one process has 20,000 files."""
    rows = []
    for count in CONNECTIONS:
        wall = bench.wall_alone()
        busy = min(32, count)
        with Idle(wall.port, max(count - busy, 1), "/tiny", bench.load_core):
            among = measured(wall, lambda: wrk(wall.port, "/tiny", bench.seconds, bench.load_core, connections=busy))
        wall.stop()
        wall = bench.wall_alone()
        ask = lambda seconds: wrk(wall.port, "/paid", seconds, bench.load_core, connections=count, status=402)
        # Ten thousand connections are not even open after a second.
        seconds = max(bench.seconds, count // 1000)
        ask(max(1, count // 2000))
        all_busy = measured(wall, lambda: ask(seconds))
        wall.stop()
        rows.append({
            "connections": count,
            "idle_req_s": round(among["req_s"]),
            "idle_p99_ms": round(among["p99_us"] / 1000, 2),
            "idle_rss_mib": round(among["rss_kib"] / 1024, 1),
            "busy_req_s": round(all_busy["req_s"]),
            "busy_cpu_us": round(all_busy["cpu_us"], 1),
            "busy_p99_ms": round(all_busy["p99_us"] / 1000, 2),
            "busy_rss_mib": round(all_busy["rss_kib"] / 1024, 1),
        })
    write("connections-growth.csv", rows)


def write(name, rows):
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / name).open("w", newline="") as file:
        out = csv.DictWriter(file, rows[0], lineterminator="\n")
        out.writeheader()
        out.writerows(rows)


def read(name):
    """Columns of numbers by name; empty when there is no such file."""
    file = FOLDER / name
    if not file.exists():
        return {}
    rows = list(csv.DictReader(line for line in file.open(newline="") if not line.startswith("#")))
    return {name: [float(row[name]) for row in rows] for name in (rows[0] if rows else {})}


def ledger_plot():
    """Draws what `cargo bench --bench ledger_growth` wrote, for the file and one or 64 buyers at once."""
    file = FOLDER / "ledger-growth.csv"
    if not file.exists():
        return
    rows = list(csv.DictReader(line for line in file.open(newline="") if not line.startswith("#")))
    rows = [row for row in rows if row["store"] == "sqlite" and int(row["rows"]) > 0]
    xs = sorted({int(row["rows"]) for row in rows})

    def ys(column, clients, pruning="0"):
        found = {int(row["rows"]): float(row[column]) for row in rows
                 if (row["clients"], row["pruning"]) == (str(clients), pruning)}
        return [found[x] for x in xs] if set(found) == set(xs) else None

    def panel(heading, *series):
        there = [(label, values) for label, values in series if values]
        return [(heading, "payments in the ledger", xs, there)] if there else []

    svg.lines(FOLDER / "ledger-growth.svg", "A larger ledger (SQLite)", [
        *panel("claim, one buyer at a time, us", ("p50", ys("p50_us", 1)), ("p99", ys("p99_us", 1))),
        *panel("claim, 64 at once, us", ("p50", ys("p50_us", 64)), ("p99", ys("p99_us", 64))),
        *panel("claim, 64 at once, tidying up as well, us",
               ("p50", ys("p50_us", 64, "1")), ("p99", ys("p99_us", 64, "1"))),
        *panel("payments per second, 64 at once",
               ("as it is", ys("payments_per_s", 64)), ("tidying up as well", ys("payments_per_s", 64, "1"))),
    ])


def plots():
    """Draws every CSV file that is there."""
    ledger_plot()
    table = read("rules-growth.csv")
    if table:
        svg.lines(FOLDER / "rules-growth.svg", "More rules", [
            ("rule lookup, ns", "rules", table["rules"],
             [("one rule again and again", table["lookup_ns"]), ("all rules in random order", table["any_lookup_ns"])]),
            ("402 answers, CPU us per request", "rules", table["rules"], [("one rule", table["cpu_us"])]),
            ("from start to ready, ms", "rules", table["rules"], [("start", table["start_ms"])]),
            ("resident memory, MiB", "rules", table["rules"], [("wall", table["rss_mib"])]),
        ])
    table = read("connections-growth.csv")
    if table:
        x = table["connections"]
        svg.lines(FOLDER / "connections-growth.svg", "More connections", [
            ("requests per second", "connections", x,
             [("32 busy, free answers", table["idle_req_s"]), ("all busy, 402", table["busy_req_s"])]),
            ("CPU us per request, all busy, 402", "connections", x, [("wall", table["busy_cpu_us"])]),
            ("p99 latency, ms", "connections", x,
             [("32 busy, free answers", table["idle_p99_ms"]), ("all busy, 402", table["busy_p99_ms"])]),
            ("resident memory, MiB", "connections", x,
             [("32 busy, free answers", table["idle_rss_mib"]), ("all busy, 402", table["busy_rss_mib"])]),
        ])
