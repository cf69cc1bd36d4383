"""What was measured: text, JSON, a chart, and the part of docs/performance.md between its markers.

Parts may be measured in runs of their own. Each row remembers of which run it is; what is said at the head of
the table is that of most rows, and the others say where they differ.
"""

import collections
import json
import re
import statistics

import svg
from servers import ROOT

PAGE = ROOT / "docs/performance.md"
CHART = ROOT / "docs/performance/http.svg"
# The rows of the page: a run with --page replaces those that it measured, and leaves the others.
KEPT = ROOT / "docs/performance/http.json"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def _cells(subject):
    def cell(name, scale=1, digits=1, with_spread=False):
        values = [value / scale for value in subject.get(name, [])]
        if not values:
            return ""
        text = f"{statistics.median(values):,.{digits}f}"
        if with_spread and len(values) > 1:
            text += f" ({min(values):,.{digits}f}–{max(values):,.{digits}f})"
        return text

    latency = "/".join(filter(None, [cell("p50_us", 1000, 2), cell("p99_us", 1000, 2)]))
    return [cell("req_s", 1, 0, True), cell("cpu_us", 1, 1, True), latency, cell("rss_kib", 1024, 1)]


def _value(target):
    low, high = target["spread"]
    digits = 0 if target["value"] >= 100 else 1 if target["value"] >= 10 else 2
    spread = "" if low == high else f" ({low:.{digits}f}–{high:.{digits}f})"
    return f"{target['value']:.{digits}f}{spread} {target['unit']}".strip()


def _wanted(target):
    return f"{target['sign']} {target['limit']:g} {target['unit']}".strip()


def _title(row):
    return row["title"] + (f", {row['workers']} workers" if row["workers"] > 1 else "")


def _run(row):
    return row["run"]["commit"], row["run"]["date"], row["run"]["profile"], row["run"]["machine"]


def _usual(results):
    """The run that most rows are of."""
    return collections.Counter(_run(row) for row in results["rows"]).most_common(1)[0][0]


def _built(profile):
    return "" if profile == "dist" else f", profile {profile}, which is not what is shipped"


def _else(row, usual):
    """Of which run this row is, when that is not the usual one."""
    commit, date, profile, machine = _run(row)
    if (commit, date, profile, machine) == usual:
        return ""
    return f"measured on {date}, commit `{commit}`{_built(profile)}" + ("" if machine == usual[3] else f", {machine}")


def text(results):
    usual = _usual(results)
    out = [usual[3], f"commit {usual[0]}, {usual[1]}{_built(usual[2])}", ""]
    for row in results["rows"]:
        out.append(_title(row))
        for name, subject in row["subjects"].items():
            cells = _cells(subject)
            out.append(f"  {name:34} {cells[0]:>30} req/s {cells[1]:>22} us CPU   {cells[2]:>12} ms   {cells[3]:>6} MiB")
        for target in row["targets"]:
            verdict = "met" if target["met"] else "MISSED"
            out.append(f"  -> {target['what']}: {_value(target)}, target {_wanted(target)}: {verdict}")
        out += [f"     {note}" for note in row["notes"] + list(filter(None, [_else(row, usual)]))] + [""]
    return "\n".join(out)


def markdown(results):
    usual = _usual(results)
    how = collections.Counter(row["run"]["how"] for row in results["rows"]).most_common(1)[0][0]
    # A row of another run says its commit beside its name, and the rest below.
    title = lambda row: _title(row) + (f" (`{row['run']['commit']}`)" if _else(row, usual) else "")
    out = [f"{usual[1]}, commit `{usual[0]}`{_built(usual[2])}, {usual[3]}. {how}", "",
           "| path | compared | measured | target | |", "|---|---|---:|---:|---|"]
    for row in results["rows"]:
        for target in row["targets"]:
            met = "met" if target["met"] else "**missed**"
            out.append(f"| {title(row)} | {target['what']} | {_value(target)} | {_wanted(target)} | {met} |")
    out += ["", "| path | | req/s (min–max) | CPU us per request | p50/p99 ms | RSS MiB |",
            "|---|---|---:|---:|---:|---:|"]
    for row in results["rows"]:
        for name, subject in row["subjects"].items():
            out.append(f"| {title(row)} | {name} | " + " | ".join(_cells(subject)) + " |")
    notes = [(row, note) for row in results["rows"]
             for note in [*row["notes"], *filter(None, [_else(row, usual)]),
                          *([] if row["run"]["how"] == how else [row["run"]["how"].rstrip(".")])]]
    out += [""] + [f"* {_title(row)}: {note}." for row, note in notes]
    return "\n".join(out)


def chart(file, results):
    panels = []
    for row in results["rows"]:
        if row["workers"] > 1 or row["key"] not in ("challenge", "free-3", "free-100k", "paid"):
            continue
        bars = []
        for name, subject in row["subjects"].items():
            values = subject["req_s"]
            cpu = statistics.median(subject["cpu_us"])
            bars.append((name, statistics.median(values), min(values), max(values), f"{cpu:,.1f} us CPU per request"))
        panels.append((f"{row['title']}: requests per second", bars))
    if panels:
        file.parent.mkdir(parents=True, exist_ok=True)
        subtitle = f"one worker on one core, load on the other; median, line from lowest to highest; {_usual(results)[1]}"
        svg.bars(file, "The wall and what it is compared with", subtitle, panels)


def write_page(results):
    """Puts the tables between the markers: what this run measured, and what it did not as it was."""
    results = save(KEPT, results)
    page = PAGE.read_text()
    before, rest = page.split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{markdown(results)}\n{END}{rest.split(END)[1]}")
    chart(CHART, results)


def merge(older, newer):
    """Rows measured again replace those of earlier runs."""
    rows = {row["key"]: row for row in older["rows"] if "run" in row}
    rows.update((row["key"], row) for row in newer["rows"])
    return {**newer, "rows": [rows[key] for key in newer["order"] if key in rows]}


def save(file, results):
    """Merges into the file, and returns what is in it then."""
    if file.exists():
        results = merge(json.loads(file.read_text()), results)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(_json(results) + "\n")
    return results


def _json(results):
    """A line for each row's subject, so that changes can be read."""
    text = json.dumps(results, indent=1, ensure_ascii=False)
    return re.sub(r"\[([^\[\]{}\"]*)\]", lambda found: "[" + ", ".join(found[1].split()).replace(",,", ",") + "]", text)
