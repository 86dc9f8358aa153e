"""The scoreboard of the series: what each way of making features is worth.

`python -m jepa_utils.scoreboard build` trains its rows at the budget and saves table, figure and JSON.
"""

import argparse
import json
import time
from pathlib import Path

from torch import Tensor

from . import data, probe
from .budget import Budget, budget
from .models import build_model, embeddings, settle_batchnorm
from .recipes import recipe
from .runtime import InputError, cache_folder, environment, pick_device, save_json
from .spectra import collapse_report, effective_rank, eigenvalues
from .train import fit

ORDER = ("raw pixels", "untrained", "collapsed", "VICReg", "SIGReg", "supervised")
FIELDS = {"name": str, "probe": float, "error": float, "effective_rank": float, "dimensions": float,
          "seconds": float, "state": str}
LOSS_TYPES = {"collapsed": "none", "VICReg": "vicreg", "SIGReg": "bcs"}


def row(name: str, train_h: Tensor, test_h: Tensor, images: data.Dataset,
        seconds: float = 0.0, z: Tensor | None = None) -> dict:
    """One line: probe accuracy (percent) with its standard error and effective rank of features h (N, F), seconds.

    With embeddings z (N, D) of the test images, of a trained model, also the state the collapse report gives them.
    """
    percent = probe.linear_probe(train_h, images.train_labels, test_h, images.test_labels)
    return {
        "name": name,
        "probe": percent,
        "error": probe.standard_error(percent, len(test_h)),
        "effective_rank": effective_rank(test_h),
        "dimensions": test_h.shape[1],
        "seconds": seconds,
        "state": collapse_report(z).state if z is not None else "",
    }


def keep(new: dict, images: data.Dataset) -> list[dict]:
    """Remember a row for this data set and budget, between notebooks too; returns the scoreboard so far.

    Rows under other names than those of ORDER are remembered as well, for `runs`. Where the cache cannot be
    written, a line says so and the scoreboard has what there is: rows are a convenience, no reason to stop.
    """
    rows = [line for line in runs(images) if line["name"] != new["name"]] + [new]
    try:
        save_json(rows, _file(images))
    except OSError as error:
        print(f"The scoreboard's row cannot be kept for other notebooks: {error}")
    return sorted((line for line in rows if line["name"] in ORDER), key=lambda line: ORDER.index(line["name"]))


def runs(images: data.Dataset) -> list[dict]:
    """Every row remembered for this data set and budget; none, and a line that says why, if the file is damaged."""
    try:
        rows = json.loads(_file(images).read_text(encoding="utf-8"))
        if not isinstance(rows, list) or not all(map(_is_row, rows)):
            raise ValueError("these are no rows of a scoreboard")
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:  # ValueError: neither JSON nor UTF-8, too
        print(f"Rows of other notebooks are left out: {_file(images)} cannot be read: {error}")
        return []
    return rows


def _is_row(line) -> bool:
    """Whether it has the fields of a row, with values of their kind; whole numbers are floats too."""
    return isinstance(line, dict) and all(
        isinstance(line.get(name), (int, float) if kind is float else kind) for name, kind in FIELDS.items())


def _file(images: data.Dataset) -> Path:
    work = budget()
    return cache_folder() / f"runs-{images.name}-{work.name}{f'-seed-{work.seed}' if work.seed else ''}.json"


def table(board: list[dict]) -> str:
    """The rows as aligned text; behind ± the standard error of a test on so many images.

    Time and state are of trainings: blank in a row without one, and no column where no row has them.
    """
    timed, judged = (any(line[field] for line in board) for field in ("seconds", "state"))
    lines = [f"{'features':<12} {'linear probe':>14} {'effective rank':>16}"
             + f" {'training':>10}" * timed + "  embeddings" * judged]
    for line in board:
        spent = f"{line['seconds']:.0f} s" if line["seconds"] else ""
        measured = f"{line['probe']:.1f} ± {line['error']:.1f} %"
        lines.append(f"{line['name']:<12} {measured:>14} "
                     f"{line['effective_rank']:>9.1f} of {line['dimensions']:<4}"
                     + f" {spent:>9}" * timed + f"  {line['state']}" * judged)
    return "\n".join(text.rstrip() for text in lines)


def make(images: data.Dataset, budget: Budget) -> tuple[list[dict], dict[str, Tensor]]:
    """Train every row that needs no labels; also the spectra of the embeddings z, by name."""
    pixels = probe.raw_pixels(images.train_images), probe.raw_pixels(images.test_images)
    board, spectra = [row("raw pixels", *pixels, images)], {}
    for name in ("untrained", *LOSS_TYPES):
        config = recipe(f"laptop-{LOSS_TYPES.get(name, 'none')}", epochs=budget.epochs,
                        batch_size=budget.batch_size, seed=budget.seed)
        started = time.perf_counter()
        if name == "untrained":
            model = build_model(config, *images.statistics()).to(images.train_images.device)
            model = settle_batchnorm(model, images.train_images)
        else:
            model, _ = fit(config, images)
        seconds = time.perf_counter() - started
        z = embeddings(model, images.test_images)
        h = probe.features(model.encoder, images.train_images), probe.features(model.encoder, images.test_images)
        board.append(row(name, *h, images, seconds * (name != "untrained"), z if name != "untrained" else None))
        spectra[name] = eigenvalues(z)
        print(table(board[-1:]).splitlines()[1], flush=True)
    return board, spectra


def main() -> None:
    from . import plots  # matplotlib only when a figure is wanted

    parser = argparse.ArgumentParser(description="Train the rows of the scoreboard; save table, figure and JSON.")
    parser.add_argument("out", nargs="?", default="build", type=Path)
    out = parser.parse_args().out
    try:
        work = budget()
    except InputError as error:
        parser.exit(2, f"error: {error}\n")
    images = data.load("digits").limited(work.train_images, work.test_images).to(pick_device())
    board, spectra = make(images, work)
    print("\n" + table(board))
    out.mkdir(parents=True, exist_ok=True)
    plots.board(board, spectra).savefig(out / "scoreboard.png", bbox_inches="tight")
    machine = environment() | {"budget": work.name, "seed": work.seed}
    save_json({"rows": board, "environment": machine}, out / "scoreboard.json")
    print(f"\nsaved {out / 'scoreboard.json'} and {out / 'scoreboard.png'}")


if __name__ == "__main__":
    main()
