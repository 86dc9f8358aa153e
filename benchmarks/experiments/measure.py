"""Train a recipe once per seed and keep what it gave as a row of the results table.

    python -m benchmarks.experiments.measure laptop-vicreg-10min --seeds 0 1 2

Writes assets/results/NAME.json after every seed; seeds that are there already, from the same
command, are not run again, and none is added on another machine. `scripts/fill_tables.py` turns
the rows into the README's table.
"""

import argparse
import json
import shlex
import subprocess
import sys
from datetime import date
from pathlib import Path

from jepa_utils.recipes import RECIPES
from jepa_utils.runtime import described, environment, save_json

ROOT = Path(__file__).resolve().parents[2]


def run(words: list[str], seed: int, out: Path) -> tuple[dict, dict]:
    """The metrics and the configuration of one run; goes on where an interrupted one stopped."""
    resume = ["--resume"] if (out / "checkpoint.pt").exists() else []
    command = [sys.executable, str(ROOT / "main.py"), *words, "--seed", str(seed), "--out", str(out), "--json", *resume]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1]), json.loads((out / "config.json").read_text(encoding="utf-8"))


def machine_of(hardware: str) -> list[str]:
    """What has to be equal in one row; the number of threads may change beside a busy program."""
    return [part for part in hardware.split(", ") if not part.endswith(("thread", "threads"))]


def main() -> None:
    after = "After -- more options of main.py, for a trial; what the results table shows has none."
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0], epilog=after)
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--results", type=Path, default=ROOT / "assets" / "results")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the runs themselves are kept")
    given = sys.argv[1:]
    cut = given.index("--") if "--" in given else len(given)
    options = parser.parse_args(given[:cut])
    words = ["--recipe", options.name, *given[cut + 1 :]]
    path, command = options.results / f"{options.name}.json", shlex.join(["python", "main.py", *words])
    row = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if row.get("command") != command:
        row = {"seeds": [], "linear_probe": [], "minutes": []}
    missing = [seed for seed in options.seeds if seed not in row["seeds"]]
    here = described(environment())
    if missing and machine_of(row.get("hardware", here)) != machine_of(here):
        parser.error(f"--results: {path} holds runs of {row['hardware']}, and this is {here}; give another folder")
    for seed in missing:
        metrics, config = run(words, seed, options.runs / f"{options.name}-{seed}")
        machine, mirrored = metrics["environment"], row.get("linear_probe_mirrored", [])
        row = {
            "name": options.name, "dataset": metrics["dataset"],
            "loss": metrics["loss_type"], "encoder": metrics["model_type"],
            "device": metrics["device"].split(":")[0],
            "hardware": described(machine),
            "epochs": config["epochs"], "seeds": [*row["seeds"], seed],
            "linear_probe": [*row["linear_probe"], metrics["linear_probe"]],
            "minutes": [*row["minutes"], round(metrics["train_seconds"] / 60, 2)],
            "command": command, "date": f"{date.today()}", "torch": machine["torch"],
        }
        if "linear_probe_mirrored" in metrics:
            row["linear_probe_mirrored"] = [*mirrored, metrics["linear_probe_mirrored"]]
        save_json(row, path)
        percent, minutes = metrics["linear_probe"], row["minutes"][-1]
        print(f"{options.name} seed {seed}: {percent:.2f} % in {minutes:.1f} min", flush=True)


if __name__ == "__main__":
    main()
