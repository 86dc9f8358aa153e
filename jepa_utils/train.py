"""Training: loss, optimizer, schedule and loop, as a configuration describes them."""

import math
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from . import losses
from .augment import PRESETS, Augmentation, make_views, partial_views
from .checkpoint import Checkpoint, claimed
from .config import TrainConfig
from .data import Dataset
from .distributed import gather, parallel, rank, share, whole_batch
from .models import JEPA, build_model
from .pixels import check_images
from .probe import OnlineProbe
from .runtime import InputError, autocast, generator, grad_scaler, keep_freed_memory, progress_bar, to_device
from .threads import choose_threads

LOG_EVERY = 50  # steps between two looks at the losses: each look waits for the device
FINAL_SHARE = 1e-3  # the schedule ends at this share of lr


def flops_per_view(config: TrainConfig, N: int = 2) -> float:
    """Floating point operations to train on one view, forward and backward; a multiply-add counts as two.

    What `micro_batch` computes a second time is not counted.
    """
    from torch.utils.flop_counter import FlopCounterMode  # slow to import, and training counts nothing

    with torch.device("meta"):
        model, views = build_model(replace(config, micro_batch=0)), torch.rand(config.views, N, config.dobs, 32, 32)
    with FlopCounterMode(display=False) as counter:
        model(views)[1].sum().backward()
    return counter.get_total_flops() / (config.views * N)


def build_loss(config: TrainConfig) -> Callable[[Tensor, Tensor, int], dict[str, Tensor]]:
    """The loss that `config` describes: (z, predicted, step) -> weighted terms by name."""
    c = config
    return {
        "vc": lambda z, predicted, step: losses.vc(z, predicted, c.std_coeff, c.cov_coeff),
        "vicreg": lambda z, predicted, step: losses.vicreg(
            z, predicted, c.sim_loss_weight, c.var_loss_weight, c.cov_loss_weight),
        "bcs": lambda z, predicted, step: losses.bcs(
            z, predicted, c.lmbd, c.seed * 10**7 + step, c.slices, c.points, scale=c.scale),
        "visreg": lambda z, predicted, step: losses.visreg(
            z, predicted, c.lmbd, c.seed * 10**7 + step, c.slices, scale=c.scale),
        "none": lambda z, predicted, step: {"prediction": losses.prediction(predicted, z)},
    }[c.loss_type]


def build_optimizer(config: TrainConfig, model: nn.Module) -> torch.optim.Optimizer:
    """AdamW, LARS or Muon; weight decay (and LARS's scaling) spare biases and norms.

    Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) makes the update of every matrix or
    kernel orthogonal, at AdamW's size per weight, so that `lr` is of AdamW's order; what has fewer
    than two dimensions gets AdamW.
    """
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    check_installed(config, parameters[0].device)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr)
    from timm.optim import Lars, Muon

    if config.optimizer == "muon":
        return Muon(groups, lr=config.lr, momentum=0.95, nesterov=True)
    return Lars(groups, lr=config.lr, momentum=0.9, trust_coeff=0.02, trust_clip=True)


def check_installed(config: TrainConfig, device: torch.device) -> None:
    """InputError where the configuration needs what this machine does not have."""
    if config.optimizer != "adamw" and not find_spec("timm"):
        raise InputError("optimizer", config.optimizer,
                         "adamw; lars and muon where timm is installed: pip install timm")
    compiler = os.environ.get("CXX") or {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    if config.compile and device.type == "cpu" and not shutil.which(compiler.split()[0]):
        raise InputError("compile", True, f"false, or true where there is a C++ compiler; {compiler} is not")


def lr_at(step: int, steps: int, lr: float, warmup: float = 0.05, final: float = FINAL_SHARE) -> float:
    """Learning rate of a step from 0 to steps - 1: a linear rise over a share `warmup`, then a cosine to final * lr."""
    rising = round(warmup * steps)
    if step < rising:
        return lr * (step + 1) / rising
    progress = (step - rising) / max(1, steps - 1 - rising)
    return lr * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress)))


def train(
    model: JEPA, loss: Callable, images: Tensor, augmentation: Augmentation, config: TrainConfig,
    labels: Tensor | None = None, out: str | Path | None = None, resume: bool = False, extend: bool = False,
    on_epoch: Callable[[int, JEPA], None] | None = None, progress: bool = True,
) -> list[dict[str, float]]:
    """Train `model` in place on images (N, C, H, W), uint8, on the device where they lie.

    Labels (N,), if given, train a linear probe beside the model, on detached features: the online
    probe. With `out`, checkpoint.pt and history.json are kept there, and `resume` goes on from them
    as if never interrupted; `extend` also lets the run become longer than it was begun with (see
    `Checkpoint`). `on_epoch(epoch, model)` is called before the first epoch and after each.
    Returns one record per epoch: loss, its terms, online probe (percent), lr, seconds.

    Under torchrun (see `distributed`) the processes share each batch, and the first writes the files.

    Raises InputError for images, labels or a folder that cannot be used, and FloatingPointError,
    naming step and term, when a term is not finite.
    """
    check_training_set(images, labels, config)
    N, B = len(images), config.batch_size
    device, part = images.device, share(B)
    keep_freed_memory()
    per_epoch = N // B
    steps = min(config.epochs * per_epoch, config.max_steps or config.epochs * per_epoch)
    out, labels = Path(out).expanduser() if out else None, None if labels is None else labels.to(device)
    model.to(device).to(memory_format=torch.channels_last)
    head = OnlineProbe(model.encoder.features, labels, config.probe_lr).to(device)
    optimizer, scaler = build_optimizer(config, model), grad_scaler(device)
    g = generator(config.seed)
    parts = {"model": model, "optimizer": optimizer, "scaler": scaler, "head": head, "head_optimizer": head.optimizer}
    state = Checkpoint(out, config, parts, g, images, labels)
    with claimed(out if rank() == 0 else None):
        history = state.load(extend) if resume else []
        if history and rank() == 0:
            state.save_history(history)  # which a kill may have kept from following its checkpoint
        if config.compile:
            model.compile()
        forward, loss = parallel(model), whole_batch(loss)
        if on_epoch and not history:
            on_epoch(0, model)

        done = min(len(history) * per_epoch, steps)
        with progress_bar(total=steps, initial=done, desc=config.loss_type, disable=not progress or rank() > 0) as bar:
            for epoch in range(len(history), math.ceil(steps / per_epoch)):
                started, log = time.perf_counter(), []
                if device.type == "cpu":
                    choose_threads()
                model.train()
                order = to_device(torch.randperm(N, generator=g), device)
                for step in range(epoch * per_epoch, min((epoch + 1) * per_epoch, steps)):
                    pick = order[(step % per_epoch) * B :][:B]
                    views = draw_views(model, images[pick], augmentation, config.views, g, part)
                    lr = lr_at(step, steps, config.lr, config.warmup)
                    terms, h = train_step(forward, loss, optimizer, scaler, views, step, lr)
                    terms |= head.step(gather(h[0], dim=0), pick)
                    log.append(torch.stack(list(terms.values())))  # stays on the device
                    if len(log) % LOG_EVERY == 0:
                        check_finite(log, list(terms), step, out)
                    bar.update()
                record = {"epoch": epoch + 1} | epoch_means(check_finite(log, list(terms), step, out), list(terms))
                history.append(record | {"lr": lr, "seconds": time.perf_counter() - started})
                bar.set_postfix({key: f"{record[key]:.3g}" for key in ("loss", "online_probe") if key in record})
                if rank() == 0 and ((epoch + 1) % config.checkpoint_every == 0 or step == steps - 1):
                    state.save(history)
                if on_epoch:
                    on_epoch(epoch + 1, model)
    model.eval()
    return history


def epoch_means(values: list[list[float]], names: list[str]) -> dict[str, float]:
    """Means over the steps of an epoch: the loss, the sum of its terms; then the terms and the online probe."""
    means = {name: sum(column) / len(column) for name, column in zip(names, zip(*values, strict=True), strict=True)}
    return {"loss": sum(mean for name, mean in means.items() if name != "online_probe")} | means


def train_step(model: nn.Module, loss: Callable, optimizer, scaler, views: Tensor, step: int,
               lr: float) -> tuple[dict[str, Tensor], Tensor]:
    """One update on views (V, N, C, H, W); the loss's terms and the features h (V, N, F), detached."""
    for group in optimizer.param_groups:
        group["lr"] = lr
    with autocast(views.device):
        h, z, predicted = model(views)
    terms = loss(z, predicted, step)
    optimizer.zero_grad()
    scaler.scale(sum(terms.values())).backward()
    scaler.step(optimizer)  # not if a gradient overflowed, which only float16 can
    scaler.update()
    return {name: term.detach() for name, term in terms.items()}, h.detach()


def check_training_set(images: Tensor, labels: Tensor | None, config: TrainConfig) -> None:
    """Refuse images or labels that the loop would train on wrongly, or not at all."""
    check_images(images, config.dobs)
    if images.dtype != torch.uint8:
        raise InputError("images", str(images.dtype), "torch.uint8: a training set is kept as bytes")
    check_batch_size(config.batch_size, len(images))
    if labels is not None and labels.shape != (len(images),):
        raise InputError("labels", tuple(labels.shape), f"shape ({len(images)},): one label an image")


def check_batch_size(batch_size: int, N: int) -> None:
    """Refuse a batch that no epoch over N images can fill."""
    if batch_size > N:
        raise InputError("batch_size", batch_size, f"2 to {N}, the number of training images")


def fit(
    config: TrainConfig, images: Dataset, augmentation: Augmentation | None = None, *, labels: Tensor | None = None,
    out: str | Path | None = None, resume: bool = False, extend: bool = False,
    on_epoch: Callable[[int, JEPA], None] | None = None, progress: bool = True,
) -> tuple[JEPA, list[dict]]:
    """Build the model that `config` describes and train it on a data set, by default with its preset views.

    Returns the trained model and the history; what is left is as in `train`.
    """
    model, views = build_model(config, *images.statistics()), augmentation or PRESETS[images.name]
    history = train(model, build_loss(config), images.train_images, views, config,
                    labels=labels, out=out, resume=resume, extend=extend, on_epoch=on_epoch, progress=progress)
    return model, history


def draw_views(model: JEPA, images: Tensor, augmentation: Augmentation, views: int, g: torch.Generator,
               part: slice = slice(None)) -> Tensor:
    """The views a model trains on: independent ones, or a partial and the whole of one crop.

    With `part`, those of images[part] alone.
    """
    if model.dense:
        return partial_views(make_views(images, augmentation, 1, g), g)[:, part]
    return make_views(images, augmentation, views, g, part)


def check_finite(log: list[Tensor], names: list[str], step: int, out: Path | None) -> list[list[float]]:
    """Read the logged terms (one wait for the device); raise if any is not finite."""
    values = torch.stack(log).tolist()
    for back, row in enumerate(reversed(values)):
        bad = [f"{name} = {value}" for name, value in zip(names, row, strict=True) if not math.isfinite(value)]
        if bad and (back + 1 == len(values) or all(map(math.isfinite, values[-back - 2]))):
            checkpoint = out and out / Checkpoint.NAME
            kept = f"; the last good checkpoint is {checkpoint}" if checkpoint and checkpoint.exists() else ""
            raise FloatingPointError(f"step {step - back}: {', '.join(bad)}; try a smaller lr{kept}")
    return values
