"""Try recipes on a validation split and keep a log of what each gave; the test set is never touched.

    python -m benchmarks.experiments.search digits laptop-bcs "lmbd=3" "lmbd=3 batch_size=128" --seeds 0 1
    python -m benchmarks.experiments.search cifar10 whitenet-vicreg-10min "" "henc=64" --log assets/search.jsonl

Each argument in quotes is one variant: fields of TrainConfig that differ from the recipe.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from jepa_utils import data, probe
from jepa_utils.models import embeddings
from jepa_utils.recipes import RECIPES, recipe
from jepa_utils.runtime import InputError, environment, pick_device
from jepa_utils.spectra import collapse_report
from jepa_utils.train import fit


def parse(variant: str, config: Any, parameter: str = "variants") -> dict:
    """'lmbd=3 max_steps=400' -> {"lmbd": 3.0, "max_steps": 400}, typed as the fields of config; None's are whole."""
    kinds = {field: int if value is None else type(value) for field, value in vars(config).items()}
    changes = {}
    for pair in variant.split():
        field, given, value = pair.partition("=")
        kind = kinds.get(field)
        try:
            changes[field] = {"true": True, "false": False}[value] if kind is bool else kind(value)
        except (TypeError, ValueError, KeyError) as error:
            accepted = f"field=value, a switch true or false; fields are {', '.join(kinds)}"
            raise InputError(parameter, pair, accepted) from error
    return changes


def hold_out(images: data.Dataset) -> data.Dataset:
    """The training set alone: a tenth of it stands in for the test set."""
    fit_part, held_out = probe.validation_split(len(images.train_images), seed=1)
    x, y = images.train_images, images.train_labels
    return data.Dataset(images.name, images.classes, x[fit_part], y[fit_part], x[held_out], y[held_out])


def score(encoder, images: data.Dataset) -> float:
    """Accuracy of a linear probe on the encoder's features, in percent of the test images."""
    train_h, test_h = (probe.features(encoder, x) for x in (images.train_images, images.test_images))
    return probe.linear_probe(train_h, images.train_labels, test_h, images.test_labels)


def trial(images: data.Dataset, name: str, changes: dict, seed: int) -> dict:
    """Train one variant and probe it on the held-out part."""
    started, config = time.perf_counter(), recipe(name, seed=seed, **changes)
    model, history = fit(config, images, progress=False)
    seconds = time.perf_counter() - started
    return {
        "dataset": images.name, "recipe": name, "loss": config.loss_type, "changes": changes, "seed": seed,
        "validation_probe": round(score(model.encoder, images), 2),
        "seconds": round(seconds, 1), "final_loss": history[-1]["loss"],
        "state": collapse_report(embeddings(model, images.test_images)).state,
    }


def keep(result: dict, log: Path) -> None:
    """Add one line to the log."""
    with open(log, "a", encoding="utf-8") as file:
        file.write(json.dumps(result) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("dataset", choices=["digits", "cifar10"])
    parser.add_argument("recipe", choices=RECIPES)
    parser.add_argument("variants", nargs="+", help='such as "lmbd=3 epochs=4"; "" is the recipe as it stands')
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--log", type=Path, default=Path("assets/search.jsonl"))
    options = parser.parse_args()
    images = hold_out(data.load(options.dataset)).to(pick_device())
    here = environment()
    machine = {key: here[key] for key in ("hardware", "threads", "precision", "torch")}
    try:
        tried = {variant: parse(variant, recipe(options.recipe)) for variant in options.variants}
    except InputError as error:
        parser.error(str(error))
    for variant, changes in tried.items():
        for seed in options.seeds:
            result = trial(images, options.recipe, changes, seed)
            percent, seconds = result["validation_probe"], result["seconds"]
            print(f"{percent:6.2f} %  {seconds:6.1f} s  seed {seed}  {variant}", flush=True)
            keep(result | machine, options.log)


if __name__ == "__main__":
    main()
