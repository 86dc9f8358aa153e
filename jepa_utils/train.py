"""Training: loss, schedule and loop, as a configuration describes them."""

import math
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from . import losses
from .augment import PRESETS, Augmentation, make_views, partial_views
from .checkpoint import Checkpoint, claimed
from .config import TrainConfig
from .data import Dataset
from .distributed import gather, parallel, processes, rank, share, whole_batch
from .encoders import whiten
from .models import JEPA, build_model, embedding_size
from .optimizers import build_optimizer, set_rate
from .pixels import check_images
from .probe import OnlineProbe
from .replay import Replay, recordable
from .runtime import (
    InputError,
    autocast,
    generator,
    grad_scaler,
    keep_freed_memory,
    progress_bar,
    to_device,
    tried_convolutions,
)
from .threads import choose_threads

LOG_EVERY = 50  # steps between two looks at the losses: each look waits for the device
FINAL_SHARE = 1e-3  # the schedule ends at this share of lr


def operations(call: Callable[[], object]) -> int:
    """Floating point operations of a call, those of a backward pass in it included; a multiply-add counts as two."""
    from torch.utils.flop_counter import FlopCounterMode  # slow to import, and training counts nothing

    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def flops_per_view(config: TrainConfig, N: int = 2) -> float:
    """Floating point operations to train on one view, forward and backward; a multiply-add counts as two.

    What `micro_batch` computes a second time is not counted.
    """
    with torch.device("meta"):
        model, views = build_model(replace(config, micro_batch=0)), torch.rand(config.views, N, config.dobs, 32, 32)

    def step() -> None:
        _, z, predicted = model(views)
        (z.sum() + predicted.sum()).backward()

    return operations(step) / (config.views * N)


@dataclass(frozen=True)
class Loss:
    """The loss that a configuration describes: z and predicted, (V, N, D) each, and the step -> weighted terms by name.

    It comes in two halves, so that a recorded step can be given new random slices.
    """

    config: TrainConfig

    def __call__(self, z: Tensor, predicted: Tensor, step: int) -> dict[str, Tensor]:
        return self.given(*self.draw(step, z.shape[-1], z.device))(z, predicted, step)

    def draw(self, step: int, D: int, device: torch.device) -> tuple[Tensor, ...]:
        """What is random about a step: slices (D, K), or nothing."""
        c = self.config
        if c.loss_type not in ("bcs", "visreg"):
            return ()
        return (losses.slices_of(step, c.seed, D, c.slices, device),)

    def given(self, *drawn: Tensor) -> Callable[[Tensor, Tensor, int], dict[str, Tensor]]:
        """The same loss, with what is random about a step given."""
        return lambda z, predicted, step: self.terms(z, predicted, *drawn)

    def terms(self, z: Tensor, predicted: Tensor, directions: Tensor | None = None) -> dict[str, Tensor]:
        """The weighted terms; `directions` are what `draw` gave."""
        c = self.config
        if c.loss_type == "vc":
            return losses.vc(z, predicted, c.std_coeff, c.cov_coeff)
        if c.loss_type == "vicreg":
            return losses.vicreg(z, predicted, c.sim_loss_weight, c.var_loss_weight, c.cov_loss_weight)
        if c.loss_type == "bcs":
            return losses.bcs(z, predicted, c.lmbd, points=c.points, scale=c.scale, directions=directions)
        if c.loss_type == "visreg":
            return losses.visreg(z, predicted, c.lmbd, scale=c.scale, directions=directions)
        return {"prediction": losses.prediction(predicted, z)}


build_loss = Loss  # beside build_model and build_optimizer


def check_installed(config: TrainConfig, device: torch.device) -> None:
    """InputError where the configuration needs what this machine does not have."""
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
    check_installed(config, device)
    head = OnlineProbe(model.encoder.features, labels, config.probe_lr).to(device)
    optimizer, scaler = build_optimizer(config, model), grad_scaler(device)
    g = generator(config.seed)
    parts = {"model": model, "optimizer": optimizer, "scaler": scaler, "head": head, "head_optimizer": head.optimizer}
    state = Checkpoint(out, config, parts, g, images, labels)
    with claimed(out if rank() == 0 else None), tried_convolutions(device):
        history = state.load(extend) if resume else []
        if history and rank() == 0:
            state.save_history(history)  # which a kill may have kept from following its checkpoint
        if config.compile:
            model.compile()
        recorded = loss if isinstance(loss, Loss) and may_record(config, device, scaler) else None
        for each in (optimizer, head.optimizer):
            recordable(each, device, recorded is not None)
        forward = parallel(model)

        def update(views: Tensor, pick: Tensor, lr: float | Tensor, step: int, loss: Callable) -> dict[str, Tensor]:
            """One step of the model and of the probe: what goes into the log, by name."""
            terms, h = train_step(forward, loss, optimizer, scaler, views, step, lr)
            return terms | head.step(gather(h[0], dim=0), pick)

        advance = recording(update, recorded, model, device) if recorded else partial(update, loss=whole_batch(loss))
        if on_epoch and not history:
            on_epoch(0, model)

        done = min(len(history) * per_epoch, steps)
        with progress_bar(total=steps, initial=done, desc=config.loss_type, disable=not progress or rank() > 0) as bar:
            for epoch in range(len(history), math.ceil(steps / per_epoch)):
                started, log = time.perf_counter(), []
                choose_threads(device)
                model.train()
                order = to_device(torch.randperm(N, generator=g), device)
                for step in range(epoch * per_epoch, min((epoch + 1) * per_epoch, steps)):
                    pick = order[(step % per_epoch) * B :][:B]
                    views = draw_views(model, images[pick], augmentation, config.views, g, part)
                    lr = lr_at(step, steps, config.lr, config.warmup)
                    terms = advance(views, pick, lr, step)
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


def may_record(config: TrainConfig, device: torch.device, scaler: torch.amp.GradScaler) -> bool:
    """Whether a step can be one CUDA graph: compiled, by one process, and not in float16, which asks at every step
    whether a gradient overflowed.
    """
    return config.compile and device.type == "cuda" and processes() == 1 and not scaler.is_enabled()


def recording(update: Callable, loss: Loss, model: JEPA, device: torch.device) -> Callable:
    """`update` recorded: rate and random slices, drawn outside, come in as tensors."""
    replay = Replay(lambda views, pick, lr, *drawn: update(views, pick, lr, 0, loss.given(*drawn)), device)
    D = embedding_size(model.encoder, model.projector)
    return lambda views, pick, lr, step: replay(
        views, pick, to_device(torch.tensor(lr), device), *loss.draw(step, D, device))


def epoch_means(values: list[list[float]], names: list[str]) -> dict[str, float]:
    """Means over the steps of an epoch: the loss, the sum of its terms; then the terms and the online probe."""
    means = {name: sum(column) / len(column) for name, column in zip(names, zip(*values, strict=True), strict=True)}
    return {"loss": sum(mean for name, mean in means.items() if name != "online_probe")} | means


def train_step(model: nn.Module, loss: Callable, optimizer, scaler, views: Tensor, step: int,
               lr: float | Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """One update on views (V, N, C, H, W); the loss's terms and the features h (V, N, F), detached."""
    set_rate(optimizer, lr)
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
    model, views = new_model(config, images), augmentation or PRESETS[images.name]
    history = train(model, build_loss(config), images.train_images, views, config,
                    labels=labels, out=out, resume=resume, extend=extend, on_epoch=on_epoch, progress=progress)
    return model, history


def new_model(config: TrainConfig, images: Dataset) -> JEPA:
    """The model that `config` describes as it starts on a data set: normalised for it, and whitened if it has a stem
    for that.
    """
    model = build_model(config, *images.statistics())
    whiten(model.encoder, images.train_images)
    return model


def draw_views(model: JEPA, images: Tensor, augmentation: Augmentation, views: int, g: torch.Generator,
               part: slice = slice(None)) -> Tensor:
    """The views (V, N, C, H, W) of images (N, C, H, W), uint8: independent ones, or a partial and the whole of a crop.

    With `part`, those of images[part] alone.
    """
    if model.dense:
        return partial_views(make_views(images, augmentation, 1, g), g)[:, part]
    return make_views(images, augmentation, views, g, part)


def check_finite(log: list[Tensor], names: list[str], step: int, out: Path | None) -> list[list[float]]:
    """Read the logged terms (one wait for the device); raise if any is not finite, and name the first."""
    values = torch.stack(log).tolist()
    for at, row in enumerate(values, step + 1 - len(values)):
        if bad := [f"{name} = {value}" for name, value in zip(names, row, strict=True) if not math.isfinite(value)]:
            checkpoint = out and out / Checkpoint.NAME
            kept = f"; the last good checkpoint is {checkpoint}" if checkpoint and checkpoint.exists() else ""
            raise FloatingPointError(f"step {at}: {', '.join(bad)}; try a smaller lr{kept}")
    return values
