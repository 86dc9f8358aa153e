"""Accuracy after so many minutes on CIFAR-10: the laptop recipe in this project's loop and in the usual one.

Encoder, loss, batch, optimizer, precision and schedule are the same; what differs is how many images
pass in the time.
"""

import time

from search import score
from timing import row
from training import mlp, ours, per_image, plain_vicreg
from views import TwoViews

from jepa_utils import data
from jepa_utils.models import build_encoder
from jepa_utils.runtime import pick_device
from jepa_utils.train import laptop, lr_at

CONFIG = laptop("vicreg", dstc=256, projector="512-512-512", batch_size=256)


def until(minutes, step):
    """Train for so long, the schedule following the clock; the number of steps."""
    started, done = time.perf_counter(), 0
    while (share := (time.perf_counter() - started) / (60 * minutes)) < 1:
        step(lr_at(int(1000 * share), 1000, CONFIG.lr))
        done += 1
    return done


def measure(quick: bool = False) -> list[dict]:
    device = pick_device()
    images = (data.digits(train=512) if quick else data.cifar10()).to(device)
    rows = []
    for minutes in (0.02,) if quick else (1, 3):
        contenders = {
            "ours": ours(images.train_images, CONFIG, device),
            "plain loop, torchvision": per_image(
                images.train_images, TwoViews(), build_encoder("resnet5", 3, CONFIG.henc, CONFIG.dstc, CONFIG.stride),
                mlp(CONFIG.dstc, 512), plain_vicreg, CONFIG.batch_size, device),
        }
        scores, passed = {}, {}
        for name, (encoder, step) in contenders.items():
            passed[name] = until(minutes, step) * CONFIG.batch_size
            scores[name] = score(encoder, images)
        for name, percent in scores.items():
            case = f"{minutes:g} min, {passed[name]:,} images passed"
            rows.append(row("linear probe", case, name, "%", [percent], f"{scores['ours'] - percent:+.1f} points"))
    return rows
