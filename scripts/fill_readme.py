"""Fill the README's tables from what was measured: scoreboard.json, results/*.json and benchmarks/*.json in assets/.

Runs of planned.json that have no result yet say so, with their estimated time.

    python scripts/fill_readme.py           rewrite the tables
    python scripts/fill_readme.py --check   fail if they are not what the files say
"""

import argparse
import json
import re
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.timing import table  # noqa: E402

NAMES = {"vicreg": "VICReg", "bcs": "SIGReg", "vc": "VC", "none": "no regularizer"}
ENCODERS = {"resnet5": "ResNet5", "resnet": "ResNet-18", "vit_s": "ViT-S", "vit_b": "ViT-B"}


def spread(values: list[float], digits: int) -> str:
    """Mean ± standard deviation, or the one value there is."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def scoreboard(board: dict) -> str:
    """The scoreboard that `make run` left."""
    lines = ["| features | linear probe, % | effective rank of h | training, s | embeddings z |", "| --- | --- | --- | --- | --- |"]
    for r in board["rows"]:
        seconds = f"{r['seconds']:.0f}" if r["seconds"] else ""
        lines.append(f"| {r['name']} | {r['probe']:.1f} | {r['effective_rank']:.0f} of {r['dimensions']} | {seconds} | {r['state']} |")
    machine = board["environment"]
    return "\n".join(lines) + f"\n\n{machine['hardware']}, {machine['threads']} threads, {machine['precision']}, budget {machine['budget']}, seed 0."


def results(rows: list[dict], planned: list[dict]) -> str:
    """The results table; last the runs that have not been made."""
    rows = sorted(rows, key=lambda r: statistics.mean(r["minutes"]))
    missing = [p for p in planned if p["name"] not in {r["name"] for r in rows}]
    lines = ["| row | encoder, loss | epochs | linear probe, % | minutes | seeds | hardware |", "| --- | --- | --- | --- | --- | --- | --- |"]
    for r in rows:
        seeds = ", ".join(map(str, r["seeds"]))
        lines.append(
            f"| {r['name']} | {ENCODERS[r['encoder']]}, {NAMES[r['loss']]} | {r['epochs']} | {spread(r['linear_probe'], 1)} | "
            f"{spread(r['minutes'], 1)} | {seeds} | {r['device']}: {r['hardware']} |")
    for p in missing:
        low, high = p["estimated_minutes"]
        lines.append(
            f"| {p['name']} | {ENCODERS[p['encoder']]}, {NAMES[p['loss']]} | {p['epochs']} | not run: no GPU | "
            f"estimated {low:.0f} to {high:.0f} |  | cuda: {p['assumed']} |")
    return "\n".join(lines)


def load(folder: Path) -> list[dict]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


def fill(text: str, mark: str, content: str) -> str:
    """`text` with `content` between <!-- mark --> and <!-- /mark -->."""
    pattern = rf"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)"
    filled, places = re.subn(pattern, lambda found: found[1] + content + "\n" + found[2], text, flags=re.DOTALL)
    if not places:
        sys.exit(f"README.md: the marks <!-- {mark} --> and <!-- /{mark} --> are missing")
    return filled


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    readme = ROOT / "README.md"
    before = readme.read_text(encoding="utf-8")
    benchmarks = [row for part in load(ROOT / "assets" / "benchmarks") for row in part["rows"]]
    board = json.loads((ROOT / "assets" / "scoreboard.json").read_text(encoding="utf-8"))
    after = fill(before, "scoreboard", scoreboard(board))
    after = fill(after, "results", results(load(ROOT / "assets" / "results"), json.loads((ROOT / "assets" / "planned.json").read_text(encoding="utf-8"))))
    after = fill(after, "benchmarks", table(benchmarks))
    if check and after != before:
        sys.exit("README.md: its tables are not what assets/ says; run python scripts/fill_readme.py")
    readme.write_text(after, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
