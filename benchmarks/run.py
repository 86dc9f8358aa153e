"""Every comparison with its peers, and a table at the end.

    pip install -e ".[benchmarks]"
    python -m benchmarks.run                        all of them
    python -m benchmarks.run views sigreg           some of them
    python -m benchmarks.run --quick --out build    every code path; the figures mean nothing
"""

import argparse
import importlib
from datetime import date
from pathlib import Path

from jepa_utils.runtime import described, environment, save_json

from .timing import table

NAMES = ("views", "training", "sigreg", "probe", "accuracy", "memory", "limit", "blocks")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(NAMES)}; all of them by default")
    parser.add_argument("--quick", action="store_true", help="tiny sizes")
    parser.add_argument("--out", type=Path, default=Path("assets/benchmarks"))
    options = parser.parse_args()
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"name: {', '.join(unknown)} was given; accepted: {', '.join(NAMES)}")
    here = environment()
    machine = {key: here[key] for key in ("hardware", "threads", "precision", "device", "torch")}
    rows = []
    for name in options.names or NAMES:
        measured = importlib.import_module(f"benchmarks.{name}").measure(options.quick)
        save_json({"rows": measured, "environment": machine, "date": f"{date.today()}"}, options.out / f"{name}.json")
        print(table(measured), flush=True)
        rows += measured
    print(f"\n{described(machine)}, {machine['device']}\n\n{table(rows)}")


if __name__ == "__main__":
    main()
