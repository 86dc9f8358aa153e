"""The configuration of a training: model, loss and optimisation, checked where it is made."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from .checks import number, whole
from .pixels import SIZE
from .runtime import InputError

CHOICES = {
    "model_type": ("resnet5", "whitenet", "resnet", "vit_s", "vit_b"),
    "dobs": (1, 3),
    "predictor": ("identity", "mlp", "conv"),
    "loss_type": ("vc", "vicreg", "bcs", "visreg", "none"),
    "scale": ("eb", "lejepa"),
    "optimizer": ("adamw", "lars", "muon"),
}
LEAST = {  # of whole numbers
    "henc": 1, "dstc": 1, "stride": 1, "patch_size": 1, "micro_batch": 0, "hpre": 1, "slices": 1, "points": 2,
    "views": 2, "batch_size": 2, "epochs": 1, "checkpoint_every": 1, "seed": 0,
}
MOST = {"seed": 2**32 - 1}
WEIGHTS = ("std_coeff", "cov_coeff", "sim_loss_weight", "var_loss_weight", "cov_loss_weight", "lmbd", "weight_decay")
READ_BY = {  # fields that some configurations alone read: the field that decides, and its values
    **dict.fromkeys(("henc", "dstc"), ("model_type", ("resnet5", "whitenet"))),
    "stride": ("model_type", ("resnet5",)),
    "patch_size": ("model_type", ("vit_s", "vit_b")),
    "hpre": ("predictor", ("mlp", "conv")),
    **dict.fromkeys(("std_coeff", "cov_coeff"), ("loss_type", ("vc",))),
    **dict.fromkeys(("sim_loss_weight", "var_loss_weight", "cov_loss_weight"), ("loss_type", ("vicreg",))),
    **dict.fromkeys(("lmbd", "slices", "scale"), ("loss_type", ("bcs", "visreg"))),
    "points": ("loss_type", ("bcs",)),
}


@dataclass(frozen=True)
class TrainConfig:
    """Model, loss and optimisation of one training. Raises InputError for the first value that cannot be used."""

    model_type: str = "resnet5"  # encoder: resnet5, whitenet, resnet (ResNet-18), vit_s, vit_b
    dobs: int = 1  # input channels: 1 grayscale, 3 RGB
    henc: int = 32  # hidden width of resnet5 and whitenet
    dstc: int = 16  # output width of resnet5 and whitenet; the others have their own: 512, 384, 768
    stride: int = 1  # stride of resnet5's first convolution; 2 is a quarter of the arithmetic
    patch_size: int = 2  # side of a ViT's patches, in pixels
    micro_batch: int = 0  # ViTs: views encoded at a time, computed again for the gradient: less memory; 0: all
    projector: str = ""  # widths of the projector, such as 2048-2048-2048; empty: z is h
    predictor: str = "identity"  # identity, mlp, or conv (predicts the whole image's maps from a partial view)
    hpre: int = 32  # hidden width of the predictor
    loss_type: str = "vc"  # vc, vicreg, bcs (SIGReg), visreg, none (no regularizer: watch it collapse)
    std_coeff: float = 10.0  # vc: weight of the variance term
    cov_coeff: float = 100.0  # vc: weight of the covariance term
    sim_loss_weight: float = 25.0  # vicreg: weight of the prediction term (lambda)
    var_loss_weight: float = 25.0  # vicreg: weight of the variance term (mu)
    cov_loss_weight: float = 1.0  # vicreg: weight of the covariance term (nu)
    lmbd: float = 10.0  # bcs, visreg: weight of the regularizer
    slices: int = 256  # bcs, visreg: random directions per step
    points: int = 10  # bcs: frequencies at which the characteristic function is compared
    scale: str = "eb"  # bcs, visreg: normalisation, eb or lejepa
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
    compile: bool = False  # torch.compile, and on a GPU each step as one CUDA graph; needs a C++ compiler on a CPU

    MAY_DIFFER_ON_RESUME: ClassVar[frozenset[str]] = frozenset({"checkpoint_every", "compile", "micro_batch"})

    def __post_init__(self):
        for name, accepted in CHOICES.items():
            self._refuse_unless(name, getattr(self, name) in accepted, ", ".join(map(str, accepted)))
        self._number("dobs", int, whole(self.dobs), "1, 3")
        for name, least in LEAST.items():
            value, most = getattr(self, name), MOST.get(name, math.inf)
            span = f"of at least {least}" if most == math.inf else f"from {least} to {most}"
            self._number(name, int, whole(value) and least <= value <= most, f"a whole number {span}")
        for name in WEIGHTS:
            value = getattr(self, name)
            self._number(name, float, number(value) and value >= 0, "a finite number of at least 0")
        for name in ("lr", "probe_lr"):
            value = getattr(self, name)
            self._number(name, float, number(value) and value > 0, "a finite number above 0")
        self._number("warmup", float, number(self.warmup) and 0 <= self.warmup <= 1, "a share from 0 to 1")
        self._refuse_unless("compile", isinstance(self.compile, bool), "true or false")
        if self.max_steps is not None:
            self._number("max_steps", int, whole(self.max_steps) and self.max_steps >= 1,
                         "a whole number of at least 1")
        widths = isinstance(self.projector, str) and re.fullmatch(r"([1-9][0-9]*(-[1-9][0-9]*)*)?", self.projector)
        self._refuse_unless("projector", widths, "widths joined by -, such as 512-512-128, or nothing")
        self._refuse_unless("micro_batch", not self.micro_batch or self.model_type.startswith("vit"),
                            f"0 with {self.model_type}: its BatchNorm takes statistics of the whole batch")
        self._refuse_unless("patch_size", not self.model_type.startswith("vit") or SIZE % self.patch_size == 0,
                            f"a divisor of the image size, {SIZE}")
        self._refuse_unless("lmbd", self.scale == "eb" or self.lmbd <= 1, "a share from 0 to 1, with scale lejepa")
        self._refuse_unless("weight_decay", self.optimizer != "lars" or self.weight_decay,
                            "a number above 0 with lars, which scales only decayed weights")
        if self.predictor == "conv":
            self._refuse_unless("views", self.views == 2, "2 with predictor conv: a partial view and the whole")
            self._refuse_unless("projector", not self.projector,
                                "none with predictor conv, which works on feature maps")

    def _number(self, name: str, kind: type, fine, accepted: str) -> None:
        """Check, and keep a plain Python number: NumPy's could be saved, but not loaded."""
        self._refuse_unless(name, fine, accepted)
        object.__setattr__(self, name, kind(getattr(self, name)))

    def _refuse_unless(self, name: str, fine, accepted: str) -> None:
        if not fine:
            raise InputError(name, getattr(self, name), accepted)


def check_effect(config: TrainConfig, given: Iterable[str]) -> None:
    """InputError for the first of the `given` fields that `config` does not read: a wish that would be passed over."""
    for name in given:
        decides, values = READ_BY.get(name, ("", ()))
        if decides and getattr(config, decides) not in values:
            raise InputError(name, getattr(config, name),
                             f"nothing with {decides} {getattr(config, decides)}, which does not read it; "
                             f"{' and '.join(values)} {'do' if len(values) > 1 else 'does'}")
