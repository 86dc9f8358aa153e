"""Run notebooks at other seeds and print which of their claims hold.

    python scripts/check_claims.py --seeds 1 2 --only 03

Adds the answers to assets/claims.json: for every claim that a notebook makes today, on the data set of
JEPA_DATASET, the seeds at which it held, on one kind of machine. `python scripts/fill_tables.py` then writes
docs/claims.md.
"""

import argparse
import json
import os

from run_series import NOTEBOOKS, chosen, execute

from jepa_utils.claims import FAILS, HOLDS, lines
from jepa_utils.runtime import environment, save_json

KEPT = NOTEBOOKS.parent / "assets" / "claims.json"


def claims(notebook) -> dict[str, bool]:
    """What the executed notebook printed of its claims."""
    said = [line for cell in notebook.cells for output in cell.get("outputs", [])
            for line in lines(output.get("text", ""))]
    return {line.removeprefix(mark).strip(): mark == HOLDS
            for line in said for mark in (HOLDS, FAILS) if line.startswith(mark)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--only", default="", help="start of the names to run, such as 03")
    options = parser.parse_args()
    kept = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}
    of_data = kept.setdefault(os.environ.get("JEPA_DATASET") or "digits", {})
    hardware = environment()["hardware"]
    for path in chosen(parser, options.only):
        before = of_data.get(path.stem, {})
        answers = before["claims"] if before.get("hardware") == hardware else {}
        rows: dict[str, dict[str, bool]] = {}
        for seed in options.seeds:
            os.environ["JEPA_SEED"] = str(seed)
            for claim, holds in claims(execute(path)).items():
                rows.setdefault(claim, answers.get(claim, {}))[str(seed)] = holds
        for claim, at in rows.items():
            print(f"{path.stem[:3]} {sum(at.values())} of {len(at)} seeds: {claim}", flush=True)
        of_data[path.stem] = {"claims": rows, "hardware": hardware}
        save_json(kept, KEPT)


if __name__ == "__main__":
    main()
