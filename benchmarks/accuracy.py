"""Accuracy after so many minutes on CIFAR-10: WhiteNet's recipe, a plain one, and the plain one with lightly's parts.

The loss is VICReg, the precision the same, and every schedule follows the clock. The plain recipe is ResNet5 under
AdamW on two views of 256 images a step, with the paper's weights, in this project's loop; then in the usual one, with
lightly's transform, head and loss: between these two rows the parts differ, and how many images pass in the time.
"""

import time

from lightly.loss import VICRegLoss
from lightly.models.modules.heads import VICRegProjectionHead

from jepa_utils import data
from jepa_utils.encoders import build_encoder
from jepa_utils.recipes import recipe
from jepa_utils.runtime import pick_device
from jepa_utils.train import lr_at

from .experiments.search import score
from .timing import row
from .training import PLAIN, ours, per_image
from .views import lightly_views

WHITENET = recipe("whitenet-vicreg-10min")


def until(minutes, step, lr):
    """Train for so long, the schedule following the clock; the number of steps."""
    step(lr_at(0, 1000, lr))  # before the clock starts: workers have to be up
    started, done = time.perf_counter(), 0
    while (share := (time.perf_counter() - started) / (60 * minutes)) < 1:
        step(lr_at(int(1000 * share), 1000, lr))
        done += 1
    return done


def with_lightly(images, device):
    """The plain recipe in the usual loop, with lightly's transform, head and loss: encoder and step."""
    mean, std = images.statistics()  # the encoder normalises, as it must where it is probed
    encoder = build_encoder("resnet5", 3, PLAIN.henc, PLAIN.dstc, PLAIN.stride, mean=mean, std=std)
    head = VICRegProjectionHead(PLAIN.dstc, 512, 512, num_layers=3)
    views = lightly_views(normalize=False)
    return per_image(images.train_images, views, encoder, head, VICRegLoss(), PLAIN.batch_size, device)


def measure(quick: bool = False) -> list[dict]:
    device = pick_device()
    images = (data.digits(train=512) if quick else data.cifar10()).to(device)
    rows = []
    for minutes in (0.02,) if quick else (1, 3, 10):
        contenders = {
            "ours": (WHITENET, *ours(images, WHITENET, device)),
            "plain recipe": (PLAIN, *ours(images, PLAIN, device)),
            "plain recipe, lightly": (PLAIN, *with_lightly(images, device)),
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
