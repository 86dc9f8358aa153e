"""Masked models and a joint-embedding encoder on CIFAR-10, at equal minutes: k-NN and linear probe.

    python -m benchmarks.experiments.masks --minutes 10
    python -m benchmarks.experiments.masks --minutes 1 --trial "lr=0.01" "hold=sigreg lmbd=3"   # on held-out images

Writes assets/masks.json, a row after every training. A trial is probed on training images that were held out,
and written nowhere: settings are chosen so, and the test images are looked at once.
"""

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from benchmarks.experiments.search import hold_out, parse
from jepa_utils import data, probe
from jepa_utils.data import Dataset
from jepa_utils.encoders import Encoder
from jepa_utils.masked import MaskedConfig, fit_masked, new_masked
from jepa_utils.recipes import recipe
from jepa_utils.runtime import InputError, described, environment, pick_device, save_json
from jepa_utils.train import fit

ROOT = Path(__file__).resolve().parents[2]
CONFIG = MaskedConfig(lr=1e-3)  # of 1e-3 and 3e-3 the better after 900 steps, on held-out images of CIFAR-10


def steps_in(minutes: float, few: Callable[[int], float], count: int = 20) -> int:
    """As many steps as fit; few(count) trains so many and returns their seconds."""
    few(3)  # builds kernels
    return max(1, round(60 * minutes * count / few(count)))


def masked_encoder(config: MaskedConfig, images: Dataset, minutes: float) -> tuple[Encoder, int, float]:
    """The encoder that probes read, the steps it took, and their seconds."""
    steps = steps_in(minutes, lambda count: sum(fit_masked(config, images, count, progress=False)[1]["seconds"]))
    model, history = fit_masked(config, images, steps)
    return model.reader, steps, sum(history["seconds"])


def joint_encoder(name: str, images: Dataset, minutes: float, seed: int) -> tuple[Encoder, int, float]:
    """The same of a recipe."""
    usual = recipe(name, seed=seed)

    def trained(steps: int) -> tuple[nn.Module, float]:
        epochs = math.ceil(steps / (len(images.train_images) // usual.batch_size))
        model, history = fit(replace(usual, epochs=epochs, max_steps=steps), images)
        return model.encoder, sum(epoch["seconds"] for epoch in history)

    steps = steps_in(minutes, lambda count: trained(count)[1])
    encoder, seconds = trained(steps)
    return encoder, steps, seconds


def measured(name: str, h: list[Tensor], images: Dataset, steps: int = 0, seconds: float = 0.0) -> dict:
    """One row: k-NN and linear probe of features of training and test images, percent, with their standard errors."""
    labels = images.train_labels, images.test_labels
    knn = probe.knn_probe(h[0], labels[0], h[1], labels[1])
    linear = probe.linear_probe(h[0], labels[0], h[1], labels[1])
    N = len(h[1])
    row = {"name": name, "knn": knn, "knn_error": probe.standard_error(knn, N), "probe": linear,
           "probe_error": probe.standard_error(linear, N), "steps": steps, "minutes": round(seconds / 60, 2)}
    print(f"{name:<20} 20-NN {knn:.1f} %  probe {linear:.1f} %  {steps} steps, {seconds / 60:.1f} min", flush=True)
    return row


def features(encoder: nn.Module, images: Dataset) -> list[Tensor]:
    """`h` of training and test images."""
    return [probe.features(encoder, x) for x in (images.train_images, images.test_images)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dataset", choices=["digits", "cifar10"], default="cifar10")
    parser.add_argument("--trial", nargs="+", help="fields of MaskedConfig that differ, probed on held-out images")
    parser.add_argument("--note", default="", help="what else the machine did meanwhile")
    parser.add_argument("--out", type=Path, default=ROOT / "assets" / "masks.json")
    options = parser.parse_args()
    images, seed = data.load(options.dataset).to(pick_device()), options.seed
    if options.trial:
        images = hold_out(images)
        try:
            configs = {words: replace(CONFIG, seed=seed, **parse(words, CONFIG, "trial")) for words in options.trial}
        except InputError as error:
            parser.error(str(error))
        for words, config in configs.items():
            encoder, *spent = masked_encoder(config, images, options.minutes)
            measured(words, features(encoder, images), images, *spent)
        return
    untrained = new_masked(replace(CONFIG, seed=seed), images).encoder
    rows = [measured("raw pixels", [probe.raw_pixels(x) for x in (images.train_images, images.test_images)], images),
            measured("untrained ViT", features(untrained, images), images)]
    machine = environment()
    kept = {"dataset": images.name, "seed": seed, "date": time.strftime("%Y-%m-%d"), "torch": machine["torch"],
            "hardware": described(machine),
            "note": options.note, "rows": rows}
    for name, train in {
        "I-JEPA, centred": lambda: masked_encoder(replace(CONFIG, seed=seed), images, options.minutes),
        "masks with SIGReg": lambda: masked_encoder(replace(CONFIG, hold="sigreg", seed=seed), images, options.minutes),
        "VICReg, WhiteNet": lambda: joint_encoder("whitenet-vicreg-10min", images, options.minutes, seed),
    }.items():
        encoder, *spent = train()
        rows.append(measured(name, features(encoder, images), images, *spent))
        save_json(kept, options.out)


if __name__ == "__main__":
    main()
