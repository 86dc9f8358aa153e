"""Fill the tables of README.md and docs/ from what was measured: the files in assets/.

Recipes of planned.json that have no result yet say so, with their estimated time.

    python scripts/fill_tables.py           rewrite the tables
    python scripts/fill_tables.py --check   fail if they are not what the files say
"""

import argparse
import json
import re
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ASSETS = ROOT / "assets"
sys.path.insert(0, str(ROOT))

from benchmarks.timing import table  # noqa: E402
from jepa_utils.runtime import atomic, described  # noqa: E402

NAMES = {"vicreg": "VICReg", "bcs": "SIGReg", "visreg": "VISReg", "vc": "VC", "none": "no regularizer"}
ENCODERS = {"resnet5": "ResNet5", "whitenet": "WhiteNet", "resnet": "ResNet-18", "vit_s": "ViT-S", "vit_b": "ViT-B"}
DATA = {"digits": "digits", "cifar10": "CIFAR-10"}


def spread(values: list[float], digits: int) -> str:
    """Mean ± standard deviation, or the one value there is."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def scoreboard(board: dict) -> str:
    """The scoreboard that `make run` left."""
    lines = ["| features | linear probe, % | effective rank of h | training, s | embeddings z |",
             "| --- | --- | --- | --- | --- |"]
    for r in board["rows"]:
        seconds = f"{r['seconds']:.0f}" if r["seconds"] else ""
        rank = f"{r['effective_rank']:.0f} of {r['dimensions']}"
        lines.append(f"| {r['name']} | {r['probe']:.1f} ± {r['error']:.1f} | {rank} | {seconds} | {r['state']} |")
    machine = board["environment"]
    return "\n".join(lines) + f"\n\n{described(machine)}, budget {machine['budget']}, seed {machine['seed']}."


def other(row: dict, way: str) -> str:
    """The probe of other features of the same encoders; empty unless every seed has it."""
    values = row.get(f"linear_probe_{way}", [])
    return spread(values, 1) if len(values) == len(row["seeds"]) else ""


def results(rows: list[dict], planned: list[dict]) -> str:
    """The results table; last the runs that have not been made."""
    rows = sorted(rows, key=lambda r: statistics.mean(r["minutes"]))
    missing = [p for p in planned if p["name"] not in {r["name"] for r in rows}]
    lines = ["| row | encoder, loss | epochs | linear probe, % | with mirror images, % | of two layers, % | minutes | "
             "seeds | hardware |", "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
    for r in rows:
        seeds = ", ".join(map(str, r["seeds"]))
        lines.append(
            f"| {r['name']} | {ENCODERS[r['encoder']]}, {NAMES[r['loss']]} | {r['epochs']} | "
            f"{spread(r['linear_probe'], 1)} | {other(r, 'mirrored')} | {other(r, 'two_layers')} | "
            f"{spread(r['minutes'], 1)} | {seeds} | {r['device']}: {r['hardware']} |")
    for p in missing:
        lines.append(
            f"| {p['name']} | {ENCODERS[p['encoder']]}, {NAMES[p['loss']]} | {p['epochs']} | not run |  |  | "
            f"estimated {p['estimated_minutes']:.1f} |  | cuda: {p['assumed']} |")
    return "\n".join(lines)


def faults(kinds: dict[str, dict[str, int]]) -> str:
    """How many faults of each kind a run of the tests tried, and how many were survived."""
    lines = ["| kind of fault | tried | survived |", "| --- | --- | --- |"]
    lines += [f"| {kind} | {count['tried']:,} | {count['survived']:,} |" for kind, count in kinds.items()]
    total = {key: sum(count[key] for count in kinds.values()) for key in ("tried", "survived")}
    return "\n".join([*lines, f"| all | {total['tried']:,} | {total['survived']:,} |"])


def counted(kept: dict) -> str:
    """How many of the notebooks' claims held, on which pictures and at which seed."""
    lines = ["| pictures | seed | claims that held | notebooks | hardware |", "| --- | --- | --- | --- | --- |"]
    for data, notebooks in kept.items():
        for seed in sorted({seed for n in notebooks.values() for at in n["claims"].values() for seed in at}):
            tried = [(name, at[seed]) for name, n in notebooks.items() for at in n["claims"].values() if seed in at]
            run = {name for name, _ in tried}
            hardware = " / ".join(sorted({notebooks[name]["hardware"] for name in run}))
            holding = sum(holds for _, holds in tried)
            lines.append(f"| {DATA[data]} | {seed} | {holding} of {len(tried)} | {len(run)} | {hardware} |")
    return "\n".join(lines)


def held(at: dict[str, bool]) -> str:
    """The seeds at which a claim held, and those at which it failed."""
    sides = {"held at": [seed for seed in at if at[seed]], "**failed** at": [seed for seed in at if not at[seed]]}
    return "; ".join(f"{word} {', '.join(seeds)}" for word, seeds in sides.items() if seeds)


def claims(kept: dict) -> str:
    """Each claim of each notebook, and the seeds at which it held, on each kind of pictures."""
    tables = []
    for name in sorted({name for notebooks in kept.values() for name in notebooks}):
        of_data = {data: notebooks.get(name, {"claims": {}})["claims"] for data, notebooks in kept.items()}
        lines = [f"## {name.replace('_', ' ')}", "", f"| claim | {' | '.join(DATA[data] for data in of_data)} |",
                 "| --- |" + " --- |" * len(of_data)]
        for claim in dict.fromkeys(claim for answers in of_data.values() for claim in answers):
            cells = [held(answers.get(claim, {})) for answers in of_data.values()]
            lines.append(f"| {claim} | {' | '.join(cells)} |")
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def read(name: str) -> dict:
    return json.loads((ASSETS / name).read_text(encoding="utf-8"))


def load(folder: Path) -> list[dict]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


def benchmarks(parts: list[dict]) -> str:
    """A table for each machine that benchmarks were run on: rows of two machines cannot be compared."""
    tables = {}
    for part in parts:
        machine = part["environment"]
        precision = f"{machine['precision']}, " if "precision" in machine else ""  # files of before do not say
        named = (f"{machine['hardware']}, {precision}threads: {machine['threads']}, {machine['device']}, "
                 f"torch {machine['torch']}")
        tables.setdefault(named, []).extend(part["rows"])
    return "\n\n".join(f"**{machine}**\n\n{table(rows)}" for machine, rows in tables.items())


def fill(path: Path, text: str, contents: dict[str, str]) -> str:
    """`text` with each of the contents between <!-- mark --> and <!-- /mark -->."""
    for mark, content in contents.items():
        pattern = rf"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)"
        text, places = re.subn(
            pattern, lambda found, content=content: found[1] + content + "\n" + found[2], text, flags=re.DOTALL)
        if not places:
            sys.exit(f"{path}: the marks <!-- {mark} --> and <!-- /{mark} --> are missing")
    return text


def pages() -> dict[str, dict[str, str]]:
    """What stands on each page, by mark."""
    board = {"scoreboard": scoreboard(read("scoreboard.json"))}
    return {
        "README.md": {**board, "counted": counted(read("claims.json"))},
        "docs/results.md": {**board, "results": results(load(ASSETS / "results"), read("planned.json"))},
        "docs/claims.md": {"claims": claims(read("claims.json"))},
        "docs/benchmarks.md": {"benchmarks": benchmarks(load(ASSETS / "benchmarks"))},
        "docs/faults.md": {"faults": faults(read("faults.json"))},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    for name, contents in pages().items():
        path = ROOT / name
        before = path.read_text(encoding="utf-8")
        after = fill(path, before, contents)
        if after == before:
            continue
        if check:
            sys.exit(f"{name}: its tables are not what assets/ says; run python scripts/fill_tables.py")
        with atomic(path) as temporary:
            temporary.write_text(after, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
