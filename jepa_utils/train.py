"""Training: configuration, schedule, loop, checkpoints."""

import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from . import losses
from .augment import PRESETS, Augmentation, make_views
from .checkpoint import Checkpoint
from .data import Dataset
from .distributed import gather, parallel, rank, share, whole_batch
from .models import ENCODERS, JEPA, PREDICTORS, build_encoder, build_predictor, build_projector, partial_views
from .probe import OnlineProbe
from .runtime import InputError, autocast, generator, grad_scaler, keep_freed_memory, progress_bar, to_device
from .threads import choose_threads

LOSSES = ("vc", "vicreg", "bcs", "none")
OPTIMIZERS = ("adamw", "lars", "muon")
LOG_EVERY = 50  # steps between two looks at the losses: each look waits for the device
FINAL_LR = 1e-3  # the schedule ends at this share of lr


@dataclass
class TrainConfig:
    """Model, loss and optimisation of one run."""

    model_type: str = "resnet5"  # encoder: resnet5, resnet (ResNet-18), vit_s, vit_b
    dobs: int = 1  # input channels: 1 grayscale, 3 RGB
    henc: int = 32  # hidden width of resnet5
    dstc: int = 16  # output width of resnet5; the others have their own: 512, 384, 768
    stride: int = 1  # stride of resnet5's first convolution; 2 is about five times faster
    patch_size: int = 2  # side of a ViT's patches, in pixels
    micro_batch: int = 0  # ViTs: views encoded at a time, the rest recomputed when the gradient comes: less memory; 0: all
    projector: str = ""  # widths of the projector, such as 2048-2048-2048; empty: z is h
    predictor: str = "identity"  # identity, mlp, or conv (predicts the whole image's maps from a partial view)
    hpre: int = 32  # hidden width of the predictor
    loss_type: str = "vc"  # vc, vicreg, bcs (SIGReg), none (no regularizer: watch it collapse)
    std_coeff: float = 10.0  # vc: weight of the variance term
    cov_coeff: float = 100.0  # vc: weight of the covariance term
    sim_loss_weight: float = 25.0  # vicreg: weight of the prediction term (lambda)
    var_loss_weight: float = 25.0  # vicreg: weight of the variance term (mu)
    cov_loss_weight: float = 1.0  # vicreg: weight of the covariance term (nu)
    lmbd: float = 10.0  # bcs: weight of SIGReg
    slices: int = 256  # bcs: random directions per step
    points: int = 10  # bcs: frequencies at which the characteristic function is compared
    scale: str = "eb"  # bcs: normalisation, eb or lejepa
    views: int = 2  # views of each image per step
    batch_size: int = 64  # images per step
    epochs: int = 100  # passes over the training images
    max_steps: int | None = None  # stop after this many steps
    optimizer: str = "adamw"  # adamw, lars or muon
    lr: float = 1e-3  # peak learning rate
    weight_decay: float = 1e-4  # on weight matrices and kernels; never on biases and norms
    warmup: float = 0.05  # share of the training over which the rate rises
    probe_lr: float = 1e-3  # learning rate of the linear probes, online and final
    seed: int = 0  # of weights, batches, views and slices
    checkpoint_every: int = 1  # epochs between checkpoints
    compile: bool = False  # torch.compile: pays on a GPU, needs a C++ compiler on a CPU

    MAY_DIFFER_ON_RESUME: ClassVar[frozenset[str]] = frozenset({"checkpoint_every", "compile", "micro_batch"})

    def validate(self) -> "TrainConfig":
        """Raise InputError for the first value that cannot be used; returns itself."""
        for name, accepted in {"model_type": ENCODERS, "loss_type": LOSSES, "predictor": PREDICTORS,
                               "optimizer": OPTIMIZERS, "scale": ("eb", "lejepa"), "dobs": (1, 3)}.items():
            if getattr(self, name) not in accepted:
                raise InputError(name, getattr(self, name), ", ".join(map(str, accepted)))
        for name in ("std_coeff", "cov_coeff", "sim_loss_weight", "var_loss_weight", "cov_loss_weight", "lmbd", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(name, getattr(self, name), "a finite number of at least 0")
        for name in ("lr", "probe_lr"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(name, getattr(self, name), "a finite number above 0")
        least = {"batch_size": 2, "views": 2, "points": 2, "micro_batch": 0}
        for name in ("henc", "dstc", "hpre", "stride", "patch_size", "slices", "points", "views", "batch_size", "epochs",
                     "checkpoint_every", "micro_batch"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < least.get(name, 1):
                raise InputError(name, getattr(self, name), f"a whole number of at least {least.get(name, 1)}")
        if self.micro_batch and not self.model_type.startswith("vit"):
            raise InputError("micro_batch", self.micro_batch, f"0 with {self.model_type}: its BatchNorm takes statistics of the whole batch")
        if self.max_steps is not None and not (isinstance(self.max_steps, int) and self.max_steps >= 1):
            raise InputError("max_steps", self.max_steps, "a whole number of at least 1")
        if not 0 <= self.warmup <= 1:
            raise InputError("warmup", self.warmup, "a share from 0 to 1")
        if self.scale == "lejepa" and self.lmbd > 1:
            raise InputError("lmbd", self.lmbd, "a share from 0 to 1, with scale lejepa")
        if self.projector and not re.fullmatch(r"[1-9][0-9]*(-[1-9][0-9]*)*", self.projector):
            raise InputError("projector", self.projector, "widths joined by -, such as 512-512-128")
        if self.optimizer != "adamw" and not find_spec("timm"):
            raise InputError("optimizer", self.optimizer, "adamw; lars and muon where timm is installed: pip install timm")
        if self.optimizer == "lars" and not self.weight_decay:
            raise InputError("weight_decay", 0, "a number above 0 with lars, which scales only decayed weights")
        if self.predictor == "conv" and self.views != 2:
            raise InputError("views", self.views, "2 with predictor conv: a partial view and the whole")
        if self.predictor == "conv" and self.projector:
            raise InputError("projector", self.projector, "none with predictor conv, which works on feature maps")
        return self


def laptop(loss_type: str, **changes) -> TrainConfig:
    """The series' recipe for two CPU cores: a fast ResNet5 with a projector, in colour.

    Chosen on a validation split of the embedded digits. `changes` are fields of TrainConfig.
    """
    recipe = TrainConfig(
        model_type="resnet5", dobs=3, dstc=128, stride=2, projector="512-512-256", loss_type=loss_type,
        sim_loss_weight=25, var_loss_weight=50, cov_loss_weight=2, batch_size=256, epochs=8, lr=3e-3,
    )
    if loss_type == "bcs":
        recipe.projector, recipe.lmbd = "512-512-64", 30
    return replace(recipe, **changes).validate()


def build_model(config: TrainConfig, mean: list[float] | None = None, std: list[float] | None = None) -> JEPA:
    """The JEPA that `config` describes, with weights from its seed; mean and std normalise the images."""
    torch.manual_seed(config.seed)
    encoder = build_encoder(config.model_type, config.dobs, config.henc, config.dstc, config.stride, config.patch_size, mean, std)
    D = int(config.projector.split("-")[-1]) if config.projector else encoder.features
    return JEPA(encoder, build_projector(encoder.features, config.projector), build_predictor(config.predictor, D, config.hpre), config.micro_batch)


def flops_per_view(config: TrainConfig, N: int = 2) -> float:
    """Floating point operations to train on one view: forward and backward, a multiplication and an addition counted as two.

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
        "vicreg": lambda z, predicted, step: losses.vicreg(z, predicted, c.sim_loss_weight, c.var_loss_weight, c.cov_loss_weight),
        "bcs": lambda z, predicted, step: losses.bcs(z, predicted, c.lmbd, c.seed * 10**7 + step, c.slices, c.points, scale=c.scale),
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
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr)
    from timm.optim import Lars, Muon

    if config.optimizer == "muon":
        return Muon(groups, lr=config.lr, momentum=0.95, nesterov=True)
    return Lars(groups, lr=config.lr, momentum=0.9, trust_coeff=0.02, trust_clip=True)


def lr_at(step: int, steps: int, lr: float, warmup: float = 0.05, final: float = FINAL_LR) -> float:
    """Learning rate of a step from 0 to steps - 1: a linear rise over a share `warmup`, then a cosine down to final * lr."""
    rising = round(warmup * steps)
    if step < rising:
        return lr * (step + 1) / rising
    progress = (step - rising) / max(1, steps - 1 - rising)
    return lr * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress)))


def train(
    model: JEPA, loss: Callable, images: Tensor, augmentation: Augmentation, config: TrainConfig,
    labels: Tensor | None = None, out: Path | None = None, resume: bool = False,
    on_epoch: Callable[[int, JEPA], None] | None = None, progress: bool = True,
) -> list[dict[str, float]]:
    """Train `model` in place on images (N, C, H, W), uint8, on the device where they lie.

    Labels (N,), if given, train a linear probe beside the model, on detached features: the online
    probe. With `out`, checkpoint.pt and history.json are kept there, and `resume` goes on from them
    as if never interrupted. `on_epoch(epoch, model)` is called before the first epoch and after
    each. Returns one record per epoch: loss, its terms, online probe (percent), lr, seconds.

    Under torchrun (see `distributed`) the processes share each batch, and the first writes the files.

    Raises FloatingPointError, naming step and term, when a term is not finite.
    """
    N, B = len(images), config.batch_size
    check_batch_size(B, N)
    device, part = images.device, share(B)
    keep_freed_memory()
    per_epoch = N // B
    steps = min(config.epochs * per_epoch, config.max_steps or math.inf)
    model.to(device, memory_format=torch.channels_last)
    head = OnlineProbe(model.encoder.features, labels, config.probe_lr).to(device)
    optimizer, scaler = build_optimizer(config, model), grad_scaler(device)
    g = generator(config.seed)
    parts = {"model": model, "optimizer": optimizer, "scaler": scaler, "head": head, "head_optimizer": head.optimizer}
    state = Checkpoint(out, config, parts, g)
    history = state.load() if resume else []
    if config.compile:
        model.compile()
    forward, loss = parallel(model), whole_batch(loss)
    if on_epoch and not history:
        on_epoch(0, model)

    with progress_bar(total=steps, initial=min(len(history) * per_epoch, steps), desc=config.loss_type, disable=not progress or rank() > 0) as bar:
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
            values = check_finite(log, list(terms), step, out)
            record = dict(zip(terms, (sum(column) / len(column) for column in zip(*values, strict=True)), strict=True))
            record = {"epoch": epoch + 1, "loss": sum(v for k, v in record.items() if k != "online_probe")} | record
            history.append(record | {"lr": lr, "seconds": time.perf_counter() - started})
            bar.set_postfix({key: f"{record[key]:.3g}" for key in ("loss", "online_probe") if key in record})
            if out and rank() == 0 and ((epoch + 1) % config.checkpoint_every == 0 or step == steps - 1):
                state.save(history)
            if on_epoch:
                on_epoch(epoch + 1, model)
    model.eval()
    return history


def train_step(model: JEPA, loss: Callable, optimizer, scaler, views: Tensor, step: int, lr: float) -> tuple[dict[str, Tensor], Tensor]:
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


def check_batch_size(batch_size: int, N: int) -> None:
    """Refuse a batch that no epoch over N images can fill."""
    if batch_size > N:
        raise InputError("batch_size", batch_size, f"2 to {N}, the number of training images")


def fit(config: TrainConfig, images: Dataset, augmentation: Augmentation | None = None, **options) -> tuple[JEPA, list[dict]]:
    """Build the model that `config` describes and train it on a data set with its preset views.

    Returns the trained model and the history. `options` go to `train`.
    """
    model = build_model(config, *images.statistics())
    views = augmentation or PRESETS[images.name]
    return model, train(model, build_loss(config), images.train_images, views, config, **options)


def draw_views(model: JEPA, images: Tensor, augmentation: Augmentation, views: int, g: torch.Generator, part: slice = slice(None)) -> Tensor:
    """The views a model trains on: independent ones, or a partial and the whole of one crop. With `part`, of images[part] alone."""
    if model.dense:
        return partial_views(make_views(images, augmentation, 1, g), g)[:, part]
    return make_views(images, augmentation, views, g, part)


def check_finite(log: list[Tensor], names: list[str], step: int, out: Path | None) -> list[list[float]]:
    """Read the logged terms (one wait for the device); raise if any is not finite."""
    values = torch.stack(log).tolist()
    for back, row in enumerate(reversed(values)):
        bad = [f"{name} = {value}" for name, value in zip(names, row, strict=True) if not math.isfinite(value)]
        if bad and (back + 1 == len(values) or all(map(math.isfinite, values[-back - 2]))):
            kept = f"; the last good checkpoint is {out / Checkpoint.NAME}" if out and (out / Checkpoint.NAME).exists() else ""
            raise FloatingPointError(f"step {step - back}: {', '.join(bad)}; try a smaller lr{kept}")
    return values
