"""Accuracy after so many minutes on CIFAR-10: the README's recipe with a smaller encoder, and a plain one.

Encoder, projector, loss, precision and schedule are the same for all. The plain recipe is AdamW on two
views of 256 images a step, once in this project's loop and once in the usual one: between these two rows
only the number of images that pass in the time differs.
"""

import time

from jepa_utils import data
from jepa_utils.encoders import build_encoder
from jepa_utils.runtime import pick_device
from jepa_utils.train import lr_at

from .experiments.search import score
from .timing import row
from .training import PLAIN, RECIPE, mlp, ours, per_image, plain_vicreg
from .views import TwoViews


def until(minutes, step, lr):
    """Train for so long, the schedule following the clock; the number of steps."""
    step(lr_at(0, 1000, lr))  # before the clock starts: workers have to be up
    started, done = time.perf_counter(), 0
    while (share := (time.perf_counter() - started) / (60 * minutes)) < 1:
        step(lr_at(int(1000 * share), 1000, lr))
        done += 1
    return done


def measure(quick: bool = False) -> list[dict]:
    device = pick_device()
    images = (data.digits(train=512) if quick else data.cifar10()).to(device)
    rows = []
    for minutes in (0.02,) if quick else (1, 3):
        contenders = {
            "ours": (RECIPE, *ours(images.train_images, RECIPE, device)),
            "ours, plain recipe": (PLAIN, *ours(images.train_images, PLAIN, device)),
            "plain recipe, plain loop, torchvision": (PLAIN, *per_image(
                images.train_images, TwoViews(), build_encoder("resnet5", 3, PLAIN.henc, PLAIN.dstc, PLAIN.stride),
                mlp(PLAIN.dstc, 512), plain_vicreg, PLAIN.batch_size, device)),
        }
        scores, passed = {}, {}
        for name, (config, encoder, step) in contenders.items():
            passed[name] = until(minutes, step, config.lr) * config.batch_size * config.views
            scores[name] = score(encoder, images)
        for name, percent in scores.items():
            case = f"after {minutes:g} min, {passed[name]:,} views"
            advantage = f"{scores['ours'] - percent:+.1f} points"
            rows.append(row(f"accuracy on {images.name}", case, name, "%", [percent], advantage))
    return rows
