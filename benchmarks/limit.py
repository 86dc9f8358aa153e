"""How near a training step comes to what the device can do, part by part.

The limit is measured too: the faster of a large matrix product and a 3x3 convolution, in the precision that trainings
have on this device. The model's operations are counted, a third of them as forward; those of views, loss, optimizer
and probe are not. Parts are timed one by one, each waited for; the whole is the training loop's own time. Where the
parts add up to more, the device worked while Python went on.
"""

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F

from jepa_utils import data
from jepa_utils.augment import CIFAR10
from jepa_utils.config import TrainConfig
from jepa_utils.probe import OnlineProbe
from jepa_utils.recipes import recipe
from jepa_utils.runtime import (
    autocast,
    generator,
    grad_scaler,
    keep_freed_memory,
    pick_device,
    precision,
    synchronize,
    to_device,
)
from jepa_utils.threads import choose_threads
from jepa_utils.train import build_loss, build_optimizer, draw_views, fit, flops_per_view, new_model

from .timing import row

WARMUP = 3  # calls that are not counted
LAPTOP = "laptop-vicreg", "laptop-vicreg-10min", "whitenet-vicreg-10min", "whitenet-bcs-10min"
LARGE = "resnet18-vicreg", "resnet18-bcs", "vit-s-vicreg"


def clocked(call: Callable, device: torch.device) -> tuple:
    """What a call gives, and the seconds until the device has done it."""
    started = time.perf_counter()
    result = call()
    synchronize(device)
    return result, time.perf_counter() - started


def least(call: Callable, device: torch.device, repeats: int) -> float:
    """Seconds of the fastest of some calls."""
    return min(clocked(call, device)[1] for _ in range(WARMUP + repeats))


def peaks(device: torch.device, quick: bool) -> dict[str, float]:
    """FLOP/s of the device at its best, by operation; a multiply-add counts as two."""
    dtype, repeats = precision(device), 3 if quick else 15
    size = 64 if quick else 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    N, C, side = (4, 16, 8) if quick else (4096, 256, 16) if device.type == "cuda" else (256, 192, 8)
    x, w = (torch.randn(*shape, device=device, dtype=dtype).to(memory_format=torch.channels_last)
            for shape in ((N, C, side, side), (C, C, 3, 3)))
    product = least(lambda: a @ b, device, repeats)
    with torch.no_grad():
        convolution = least(lambda: F.conv2d(x, w, padding=1), device, repeats)
    return {f"matrix product, {size}": 2 * size**3 / product,
            f"3x3 convolution, {C} channels": 2 * 9 * N * side**2 * C**2 / convolution}


def parts_of(config: TrainConfig, images: data.Dataset, repeats: int) -> dict[str, list[float]]:
    """Milliseconds of each part of a step."""
    device, milliseconds = images.train_images.device, defaultdict(list)
    model = new_model(config, images).to(device).to(memory_format=torch.channels_last).train()
    loss, optimizer, scaler, g = build_loss(config), build_optimizer(config, model), grad_scaler(device), generator(0)
    head = OnlineProbe(model.encoder.features, images.train_labels, config.probe_lr).to(device)
    if config.compile:
        model.compile()

    def timed(part: str, call: Callable):
        result, seconds = clocked(call, device)
        milliseconds[part].append(1000 * seconds)
        return result

    def step() -> None:
        pick = to_device(torch.randint(len(images.train_images), (config.batch_size,), generator=g), device)
        views = timed("views", lambda: draw_views(model, images.train_images[pick], CIFAR10, config.views, g))
        with autocast(device):
            h, z, predicted = timed("forward", lambda: model(views))
        terms = timed("loss", lambda: loss(z, predicted, 0))
        optimizer.zero_grad()
        timed("backward", lambda: scaler.scale(sum(terms.values())).backward())
        timed("optimizer", lambda: (scaler.step(optimizer), scaler.update()))
        timed("probe", lambda: head.step(h[0].detach(), pick))

    for _ in range(WARMUP + repeats):
        step()
    return {part: taken[WARMUP:] for part, taken in milliseconds.items()}


def measure_step(name: str, config: TrainConfig, images: data.Dataset, peak: float, repeats: int) -> list[dict]:
    """Rows of the parts, the whole and the share of `peak`, FLOP/s, that it reaches."""
    case, cuda = f"a step, {name}", images.train_images.device.type == "cuda"
    rows = [row(case, part, "ours", "ms", taken, "") for part, taken in parts_of(config, images, repeats).items()]
    few = images.limited(repeats * config.batch_size)
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    _, history = fit(replace(config, epochs=4, max_steps=None), few, CIFAR10, labels=few.train_labels, progress=False)
    whole = [1000 * record["seconds"] / repeats for record in history[1:]]  # the first epoch builds kernels
    rows.append(row(case, "whole", "ours", "ms", whole, ""))
    if cuda:
        rows.append(row(case, "peak memory", "ours", "GB", [torch.cuda.max_memory_allocated() / 1e9], ""))
    flops, taken = flops_per_view(config) * config.views * config.batch_size, {r["case"]: r["median"] for r in rows}
    of_the_step = {"forward": flops / 3, "backward": flops * 2 / 3, "whole": flops}  # other parts are not counted
    return rows + [row(case, f"share of the limit, {part}, {work / 1e9:,.0f} GFLOP", "ours", "%",
                       [100 * work / peak / (taken[part] / 1000)], "") for part, work in of_the_step.items()]


def measure(quick: bool = False) -> list[dict]:
    device = pick_device()
    keep_freed_memory()
    choose_threads(device)
    limits, dtype = peaks(device, quick), str(precision(device)).removeprefix("torch.")
    rows = [row(f"the limit, {dtype}", name, "ours", "TFLOP/s", [peak / 1e12], "") for name, peak in limits.items()]
    images = data.digits(train=256 if quick else 10_000).to(device)
    names = LAPTOP[:1] if quick else LAPTOP if device.type == "cpu" else LAPTOP + LARGE
    for name in names:
        config = recipe(name, batch_size=8) if quick else recipe(name)
        rows += measure_step(name, config, images, max(limits.values()), 2 if quick else 20)
    return rows
