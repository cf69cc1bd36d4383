"""Holds counted instructions against the budget. Run by instructions.sh."""

import json
import pathlib
import sys
import tomllib

BUDGET = pathlib.Path(__file__).with_name("instructions.toml")
TOLERANCE = 0.03
HEAD = """\
# Instructions that the hot paths take, counted by valgrind: the budget that benches/instructions.sh holds
# them against. Whoever makes a path dearer changes its line in the same commit, and says why.
#
# counted with: {compiler}, {valgrind}
"""


def counted(folder):
    """{path: instructions} from the summaries that gungraun wrote."""
    found = {}
    for file in sorted(folder.glob("**/summary.json")):
        summary = json.loads(file.read_text())
        name = f"{summary['function_name']}.{summary['id']}"
        found[name] = instructions(summary)
    return found


def instructions(summary):
    """`Ir` of callgrind, wherever this version of the summary keeps it."""
    ahead = [summary["profiles"]]
    while ahead:
        node = ahead.pop(0)
        if isinstance(node, dict):
            if "Ir" in node:
                return first_number(node["Ir"])
            ahead += node.values()
        elif isinstance(node, list):
            ahead += node
    raise SystemExit("a summary of gungraun has no instruction count")


def first_number(node):
    while isinstance(node, (dict, list)):
        node = next(iter(node.values())) if isinstance(node, dict) else node[0]
    return int(node)


def main():
    folder, write = pathlib.Path(sys.argv[1]), "--write" in sys.argv[2:]
    found = counted(folder)
    if not found:
        raise SystemExit("nothing was counted")
    if write:
        import subprocess
        said = lambda *argv: subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
        head = HEAD.format(compiler=said("rustc", "--version"), valgrind=said("valgrind", "--version"))
        lines = [f'"{name}" = {count}' for name, count in found.items()]
        BUDGET.write_text(head + "\n".join(lines) + "\n")
        print(f"{BUDGET.name}: {len(found)} paths")
        return
    budget = tomllib.loads(BUDGET.read_text())
    wrong = 0
    for name in sorted(budget.keys() | found.keys()):
        allowed, took = budget.get(name), found.get(name)
        if allowed is None or took is None:
            verdict, change = "is not in the budget" if allowed is None else "was not counted", 0
        else:
            change = took / allowed - 1
            verdict = ("ok" if abs(change) <= TOLERANCE else
                       "GREW: make it smaller, or change the budget in the same commit and say why" if change > 0 else
                       "SHRANK: write the new count down, so that the budget stays honest")
        wrong += verdict != "ok"
        print(f"{name:32} {took or 0:>10,} of {allowed or 0:>10,}  {change:+6.1%}  {verdict}")
    if wrong:
        raise SystemExit(f"{wrong} of {len(found)} paths do not fit benches/instructions.toml "
                         "(benches/instructions.sh --write writes it)")


main()
