"""Probe the features of two layers of WhiteNet, for the runs of a row of the results table.

    python -m benchmarks.experiments.layers whitenet-vicreg-10min --runs runs

Beside `h`, the classifier reads what goes into the 1x1 layer, averaged over positions. It is the table's own probe.
Adds `linear_probe_two_layers` to assets/results/NAME.json; the folders of the runs are those that `measure` left.
"""

import argparse
import json
from pathlib import Path

import torch

from jepa_utils import data, probe
from jepa_utils.encoders import Encoder, load_encoder
from jepa_utils.recipes import RECIPES, recipe
from jepa_utils.runtime import pick_device, save_json

from .measure import ROOT

WIDE = 2  # modules at the end of WhiteNet: the 1x1 convolution and its ReLU


def two_layers(encoder: Encoder, images: torch.Tensor) -> torch.Tensor:
    """`h` and the features before the last layer, side by side, (N, F + 4 henc)."""
    before = Encoder(encoder.normalize, encoder.body[:-WIDE], encoder.body[-WIDE].in_channels).eval()
    return torch.cat([probe.features(part, images) for part in (encoder, before)], dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", choices=[name for name in RECIPES if recipe(name).model_type == "whitenet"])
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--results", type=Path, default=ROOT / "assets" / "results")
    options = parser.parse_args()
    path = options.results / f"{options.name}.json"
    device, config = pick_device(), recipe(options.name)
    row, images = json.loads(path.read_text(encoding="utf-8")), data.cifar10().to(device)
    scores = []
    for seed, alone in zip(row["seeds"], row["linear_probe"], strict=True):
        encoder = load_encoder(options.runs / f"{options.name}-{seed}", device)
        h = [two_layers(encoder, part) for part in (images.train_images, images.test_images)]
        sets = h[0], images.train_labels, h[1], images.test_labels
        scores.append(round(probe.linear_probe_sgd(*sets, lr=config.probe_lr, seed=seed), 2))
        print(f"{options.name} seed {seed}: {scores[-1]:.2f} %, of h alone {alone:.2f} %", flush=True)
    save_json(row | {"linear_probe_two_layers": scores}, path)


if __name__ == "__main__":
    main()
