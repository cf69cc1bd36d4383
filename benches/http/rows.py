"""The rows of the table that compare plain requests: 402, small and large answers, several workers."""

import servers
from load import measured, middle, spread, wrk
from machine import Failed


class Row:
    """What was measured for one row, and what was hoped for."""

    def __init__(self, key, title, workers=1):
        self.key, self.title, self.workers = key, title, workers
        self.subjects, self.targets, self.notes = {}, [], []

    def add(self, subject, result):
        kept = self.subjects.setdefault(subject, {})
        for name in ("req_s", "cpu_us", "p50_us", "p99_us", "rss_kib"):
            if name in result:
                kept.setdefault(name, []).append(result[name])

    def ratios(self, name, of):
        """Round by round, because a busy neighbour slows both."""
        both = zip(self.subjects[name]["req_s"], self.subjects[of]["req_s"])
        return [ours / theirs for ours, theirs in both]

    def target(self, what, values, limit, at_least=True, unit=""):
        values = values if isinstance(values, list) else [values]
        value = middle(values)
        met = value >= limit if at_least else value <= limit
        sign = ">=" if at_least else "<="
        self.targets.append({"what": what, "value": value, "spread": spread(values), "limit": limit,
                             "sign": sign, "unit": unit, "met": met})

    def json(self):
        return {"key": self.key, "title": self.title, "workers": self.workers, "subjects": self.subjects,
                "targets": self.targets, "notes": self.notes}


def compare(bench, row, subjects, path, status=200, connections=32):
    """Each subject once a round, in an order that turns. `subjects`: name, server, path of its own."""
    core = None if row.workers > 1 else bench.load_core
    threads = row.workers
    for name, server, own in subjects:
        wrk(server.port, own or path, 1, core, threads, connections * threads, status)
    for nth in range(bench.rounds):
        turn = nth % len(subjects)
        for name, server, own in subjects[turn:] + subjects[:turn]:
            run = lambda: wrk(server.port, own or path, bench.seconds, core, threads,
                              connections * threads, status)
            row.add(name, measured(server, run))


def challenge(bench, workers=1):
    row = Row(bench.key("challenge", workers), "unpaid request, full 402", workers)
    wall = bench.wall(workers)
    answer = servers.fetch(wall.port, "/paid")
    subjects = [("wall", wall, None), ("wall, any path", wall, "/glob/some/thing/7")]
    if bench.has("nginx"):
        peer = bench.start(servers.nginx_402, bench.core(workers), bench.folder, workers, answer)
        size = [sum(len(n) + len(v) + 4 for n, v in a[1]) + len(a[2]) for a in
                (answer, servers.fetch(peer.port, "/paid"))]
        row.notes.append(f"bytes of headers and body: wall {size[0]}, nginx {size[1]}")
        subjects.append(("nginx return 402", peer, None))
    compare(bench, row, subjects, "/paid", status=402)
    if bench.has("nginx"):
        row.target("req/s of nginx", row.ratios("wall", "nginx return 402"), 0.70)
    return row


def _proxies(bench, workers):
    core, port = bench.core(workers), bench.origin.port
    found = [("wall", bench.wall(workers), None)]
    peer = bench.start(servers.bare, core, bench.folder, workers, port,
                       bench.work_stealing(workers))
    found.append(("bare pingora", peer, None))
    if bench.has("nginx"):
        found.append(("nginx", bench.start(servers.nginx_proxy, core, bench.folder, workers, port), None))
    if bench.has("haproxy"):
        found.append(("haproxy", bench.start(servers.haproxy, core, bench.folder, workers, port), None))
    return found + [("origin alone", bench.origin, None)]


def small(bench, workers=1):
    row = Row(bench.key("free-3", workers), "free rule, 3 bytes", workers)
    compare(bench, row, _proxies(bench, workers), "/tiny")
    row.target("req/s of bare pingora", row.ratios("wall", "bare pingora"), 0.97)
    if bench.has("nginx"):
        row.target("req/s of nginx", row.ratios("wall", "nginx"), 0.65)
    return row


def large(bench, workers=1):
    row = Row(bench.key("free-100k", workers), "free rule, 100 KiB", workers)
    compare(bench, row, _proxies(bench, workers), "/100k")
    if bench.has("nginx"):
        row.target("req/s of nginx", row.ratios("wall", "nginx"), 1.25)
    return row


def two_workers(bench):
    """The same with two workers, which share both cores with the load: read CPU, not req/s."""
    if bench.workers_max < 2:
        raise Failed("two workers need two cores")
    return [challenge(bench, 2), small(bench, 2), large(bench, 2)]
