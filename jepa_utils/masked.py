"""I-JEPA in miniature: tokens of a context predict the representations of hidden blocks (arXiv 2301.08243)."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import losses
from .checks import check_count, check_number
from .config import TrainConfig
from .data import Dataset
from .encoders import Encoder, Normalize, ViT
from .masks import sample_blocks
from .models import build_projector
from .optimizers import build_optimizer, set_rate
from .pixels import SIZE
from .runtime import InputError, generator, keep_freed_memory, progress_bar, seeded, synchronize, to_device
from .teacher import averaged, follow
from .threads import choose_threads
from .train import check_batch_size, lr_at

HOLDS = ("teacher", "sigreg", "nothing")
OPTIMIZERS = ("adamw", "muon")
SHARED = ("projector", "lmbd", "slices", "optimizer", "lr", "weight_decay", "seed")  # fields with TrainConfig
AXES = {"features": 2, "tokens": 1}  # of tokens (N, T, F)


@dataclass(frozen=True)
class MaskedConfig:
    """Model, loss and optimisation of one masked training. Raises InputError for what cannot be used."""

    hold: str = "teacher"  # what keeps the targets from collapsing: an averaged teacher, sigreg, or nothing
    over: str = "tokens"  # not sigreg: targets get mean 0 and variance 1 over a token's features or an image's tokens
    patch_size: int = 4  # side of a patch, in pixels
    width: int = 96  # of the encoder's tokens, F
    depth: int = 3  # blocks of the encoder
    heads: int = 2  # of encoder and predictor
    hpre: int = 48  # width of the predictor's tokens
    predictor_depth: int = 1  # blocks of the predictor
    momentum: float = 0.95  # of the teacher at the first step; rises towards 1
    lmbd: float = 10.0  # sigreg: its weight beside the prediction term's 1
    projector: str = "128-64"  # sigreg: widths of the projector; the last is D, the size of the targets
    slices: int = 64  # sigreg: random directions per step
    batch_size: int = 64  # images per step
    optimizer: str = "muon"  # adamw or muon
    lr: float = 3e-3  # peak learning rate
    weight_decay: float = 0.05  # on weight matrices
    seed: int = 0  # of weights, batches, layouts and slices

    def __post_init__(self):
        for name, accepted in (("hold", HOLDS), ("over", AXES), ("optimizer", OPTIMIZERS)):
            if getattr(self, name) not in accepted:
                raise InputError(name, getattr(self, name), ", ".join(accepted))
        self.shared()
        for name in ("patch_size", "width", "depth", "heads", "hpre", "predictor_depth", "batch_size"):
            check_count(getattr(self, name), name)
        if SIZE % self.patch_size:
            raise InputError("patch_size", self.patch_size, f"a divisor of the image size, {SIZE}")
        for name in ("width", "hpre"):
            if getattr(self, name) % 4 or getattr(self, name) % self.heads:
                raise InputError(name, getattr(self, name), f"a multiple of 4 and of the {self.heads} heads")
        check_number(self.momentum, "momentum", 1, "a share from 0 to 1")
        if self.hold == "sigreg" and not self.projector:
            raise InputError("projector", self.projector, "widths joined by -, such as 128-64, with hold sigreg")

    def shared(self) -> TrainConfig:
        """The fields that it shares with the configuration of other trainings, which checks them."""
        return TrainConfig(**{name: getattr(self, name) for name in SHARED})


def grid_positions(side: int, width: int) -> Tensor:
    """Where each token lies, as sines and cosines of its row and of its column: (side * side, width), fixed.

    Half of the width for the row, half for the column, in waves of 6 to 60 patches. Vaswani et al. 2017 (arXiv
    1706.03762) section 3.5, in two dimensions as in MAE (arXiv 2111.06377), with waves that suit a small grid.
    """
    rates = 10.0 ** -(torch.arange(width // 4) / (width / 4))  # (width / 4,)
    angles = torch.arange(side)[:, None] * rates  # (side, width / 4)
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)  # (side, width / 2)
    rows, columns = waves.repeat_interleave(side, dim=0), waves.repeat(side, 1)
    return torch.cat([rows, columns], dim=1)


class TokenViT(ViT):
    """A ViT with fixed positions that can leave tokens out before its first block."""

    def __init__(self, dobs: int, width: int, depth: int, heads: int, patch_size: int):
        super().__init__(dobs, width, depth, heads, patch_size)
        self.positions = nn.Parameter(grid_positions(SIZE // patch_size, width)[None], requires_grad=False)

    def tokens(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Images (N, C, S, S) -> tokens after the last block (N, T, width); with `keep` (T,), of those alone."""
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        return self.blocks(tokens if keep is None else tokens[:, keep])


class TokenEncoder(Encoder):
    """Normalisation and TokenViT; its features `h` (N, F) are the mean of all tokens."""

    body: TokenViT

    def tokens(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Images (N, C, S, S) -> tokens (N, T, F): all of them, or those of `keep` (T,), which see no others."""
        return self.body.tokens(self.normalize(x), keep)


class Predictor(nn.Module):
    """Guesses the representation at places it is asked for, from the tokens of a context: a narrow transformer.

    A question is a learned token, the same for every place, plus the place's position.
    """

    positions: Tensor

    def __init__(self, width: int, out: int, side: int, hidden: int = 32, depth: int = 1, heads: int = 2):
        super().__init__()
        self.read, self.answer = nn.Linear(width, hidden), nn.Linear(hidden, out)
        self.question = nn.Parameter(0.02 * torch.randn(1, 1, hidden))
        self.register_buffer("positions", grid_positions(side, hidden))
        block = nn.TransformerEncoderLayer(hidden, heads, 4 * hidden, 0.0, "gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, depth, nn.LayerNorm(hidden), enable_nested_tensor=False)

    def forward(self, tokens: Tensor, context: Tensor, target: Tensor) -> Tensor:
        """tokens (N, T, width) of the places context (T,) -> guesses (N, M, out) for the places target (M,)."""
        known = self.read(tokens) + self.positions[context]  # (N, T, hidden)
        asked = (self.question + self.positions[target]).expand(len(tokens), -1, -1)  # (N, M, hidden)
        return self.answer(self.blocks(torch.cat([known, asked], dim=1))[:, len(context) :])


class MaskedJEPA(nn.Module):
    """Encoder, predictor, and what makes targets: a teacher that takes no gradient, or a projector."""

    encoder: TokenEncoder
    teacher: TokenEncoder | None

    def __init__(self, config: MaskedConfig, dobs: int, mean: list[float], std: list[float]):
        super().__init__()
        c, self.hold, self.over = config, config.hold, config.over
        self.side = SIZE // c.patch_size
        body = TokenViT(dobs, c.width, c.depth, c.heads, c.patch_size)
        self.encoder = TokenEncoder(Normalize(mean, std), body, c.width)
        projected = c.hold == "sigreg"
        self.projector = build_projector(c.width, c.projector if projected else "")
        D = int(c.projector.split("-")[-1]) if projected else c.width
        self.predictor = Predictor(c.width, D, self.side, c.hpre, c.predictor_depth, c.heads)
        self.teacher = cast(TokenEncoder, averaged(self.encoder)) if c.hold == "teacher" else None

    @property
    def reader(self) -> TokenEncoder:
        """The encoder that probes read: the teacher's, if there is one, as in the paper."""
        return self.encoder if self.teacher is None else self.teacher

    def targets(self, x: Tensor) -> Tensor:
        """What there is to predict at every place of images (N, C, S, S): (N, T, D)."""
        if self.hold == "sigreg":
            tokens = self.encoder.tokens(x)
            return self.projector(tokens.flatten(0, 1)).unflatten(0, tokens.shape[:2])
        if self.teacher is None:
            return normalized(self.encoder.tokens(x), self.over)
        with torch.no_grad():
            return normalized(self.teacher.tokens(x), self.over)

    def guesses(self, x: Tensor, context: Tensor, target: Tensor) -> Tensor:
        """The prediction at the places `target` (M,) from those of `context` (T,) alone: (N, M, D)."""
        return self.predictor(self.encoder.tokens(x, context), context, target)


def normalized(tokens: Tensor, over: str) -> Tensor:
    """Tokens (N, T, F) with mean 0 and variance 1 over one axis.

    Over its features, each token by itself: LayerNorm, as I-JEPA's code makes its targets. Over the tokens of its
    image, each feature by itself: InstanceNorm, as data2vec does for speech (arXiv 2202.03555). What all tokens of an
    image share is gone then.
    """
    centred = tokens - tokens.mean(dim=AXES[over], keepdim=True)
    return centred / (centred.square().mean(dim=AXES[over], keepdim=True) + 1e-5).sqrt()


def masked_step(model: MaskedJEPA, optimizer: torch.optim.Optimizer, x: Tensor, context: Tensor, target: Tensor,
                momentum: float = 1.0, lmbd: float = 0.0, directions: Tensor | None = None) -> dict[str, Tensor]:
    """One update on images x (N, C, S, S), with one layout for all of them; the loss's terms, detached.

    `momentum` is the teacher's. With directions (D, K) every place's targets are held to a Gaussian over the images,
    with weight `lmbd`.
    """
    z = model.targets(x)  # (N, T, D)
    terms = {"prediction": F.smooth_l1_loss(model.guesses(x, context, target), z[:, target])}
    if directions is not None:
        terms["sigreg"] = lmbd * losses.sigreg(z.transpose(0, 1), directions)
    optimizer.zero_grad()
    sum(terms.values(), z.new_zeros(())).backward()
    optimizer.step()
    if model.teacher is not None:
        follow(model.teacher, model.encoder, momentum)
    return {name: term.detach() for name, term in terms.items()}


def new_masked(config: MaskedConfig, images: Dataset) -> MaskedJEPA:
    """The model that `config` describes as it starts on a data set, on the device where the images lie."""
    with seeded(config.seed):
        model = MaskedJEPA(config, images.train_images.shape[1], *images.statistics())
    return model.to(images.train_images.device)


def fit_masked(
    config: MaskedConfig, images: Dataset, steps: int, on_look: Callable[[int, MaskedJEPA], None] | None = None,
    looks: int = 4, progress: bool = True,
) -> tuple[MaskedJEPA, dict[str, list[float]]]:
    """Train on the training images for so many steps; the model, and by step each term of the loss and the seconds.
    (On a GPU only their sum up to a look means anything: between looks nothing waits for it.)

    `on_look(step, model)` is called before the first step and `looks` times, the last time after the last step.
    """
    model, g, c = new_masked(config, images).train(), generator(config.seed), config
    x, device = images.train_images, images.train_images.device
    check_count(steps, "steps")
    check_batch_size(c.batch_size, len(x))
    keep_freed_memory()
    optimizer, log, at = build_optimizer(c.shared(), model), [], {round(steps * i / looks) for i in range(1, looks + 1)}
    if on_look:
        on_look(0, model)
    order = torch.empty(0, dtype=torch.long)
    seconds = []
    for step in progress_bar(range(steps), desc=c.hold, disable=not progress):
        started = time.perf_counter()
        choose_threads(device)
        if len(order) < c.batch_size:
            order = torch.randperm(len(x), generator=g)
        pick, order = to_device(order[: c.batch_size], device), order[c.batch_size :]
        context, blocks = sample_blocks(model.side, g)
        target = torch.cat(blocks).unique()
        set_rate(optimizer, lr_at(step, steps, c.lr))
        momentum = c.momentum + (1 - c.momentum) * step / steps
        directions = None
        if c.hold == "sigreg" and c.lmbd:
            directions = losses.slices_of(step, c.seed, model.predictor.answer.out_features, c.slices, device)
        log.append(masked_step(model, optimizer, x[pick], to_device(context, device), to_device(target, device),
                               momentum, c.lmbd, directions))
        if step + 1 in at or step + 1 == steps:  # so that the seconds up to here are the device's, too
            synchronize(device)
        seconds.append(time.perf_counter() - started)
        if on_look and step + 1 in at:
            on_look(step + 1, model)
    history = {name: torch.stack([terms[name] for terms in log]).tolist() for name in log[0]}
    return model.eval(), history | {"seconds": seconds}
