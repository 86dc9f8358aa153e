"""Configurations by name: those of the notebooks, of the results table, and what a model type takes by default.

`recipe("laptop-vicreg", epochs=4)` is one of them with a change; `python main.py --recipe NAME` trains one.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

from .config import TrainConfig, check_effect
from .runtime import InputError


@dataclass(frozen=True)
class Recipe:
    """A configuration and the data it is meant for."""

    config: TrainConfig
    dataset: str = "digits"
    task: str = "classes"


# Two CPU cores, the embedded digits: the notebooks' recipe. Optimizer and rate were chosen on held-out training images
# (assets/search.jsonl), and SIGReg's slices, four to a dimension; the loss weights in the first edition.
LAPTOP = TrainConfig(dobs=3, dstc=128, stride=2, projector="512-512-256", loss_type="none",
                     batch_size=128, epochs=4, optimizer="muon", lr=1e-2)
# Two CPU cores, CIFAR-10, so many minutes: a wider encoder, Muon, four views. What was tried is in assets/search.jsonl.
CIFAR = TrainConfig(dobs=3, henc=48, dstc=384, stride=2, views=4, batch_size=64, optimizer="muon", lr=5e-3)
CIFAR_VICREG = replace(CIFAR, projector="512-512-512", loss_type="vicreg", var_loss_weight=50)
CIFAR_BCS = replace(CIFAR, projector="512-256", loss_type="bcs", lmbd=5, slices=1024)
WHITE_BCS = replace(CIFAR_BCS, lmbd=10)
WHITE_VISREG = replace(WHITE_BCS, loss_type="visreg", lmbd=4)


def whitenet(config: TrainConfig, steps: int = 3300, henc: int = 48, weight_decay: float = 0.3) -> TrainConfig:
    """The same with an encoder made for CPUs; 3,300 steps at this width are ten minutes of a Xeon with AMX."""
    return replace(config, model_type="whitenet", henc=henc, dstc=1024, stride=1, weight_decay=weight_decay,
                   epochs=math.ceil(steps / (50_000 // config.batch_size)), max_steps=steps)


# Wider, since after eight minutes on one thread that was a tie; neither width nor decay was tried at this length.
HALF_AN_HOUR: dict[str, Any] = {"steps": 7400, "henc": 64, "weight_decay": 0.15}

# The joint-embedding commands of main.py, and the runs of 300 epochs for a GPU.
JOINT = TrainConfig(model_type="resnet", dobs=3, projector="2048-2048-2048")
LARGE = replace(JOINT, loss_type="vicreg", batch_size=256, epochs=300, compile=True)

RECIPES = {
    "predictive": Recipe(TrainConfig(predictor="conv"), task="present"),
    "joint-resnet18": Recipe(JOINT, "cifar10"),
    "joint-vit-s": Recipe(replace(JOINT, model_type="vit_s", micro_batch=16), "cifar10"),
    "joint-vit-b": Recipe(replace(JOINT, model_type="vit_b", micro_batch=8), "cifar10"),
    "laptop-none": Recipe(LAPTOP),
    "laptop-vicreg": Recipe(replace(LAPTOP, loss_type="vicreg", var_loss_weight=50, cov_loss_weight=2)),
    "laptop-bcs": Recipe(replace(LAPTOP, loss_type="bcs", slices=1024, lmbd=30)),
    "laptop-vicreg-10min": Recipe(replace(CIFAR_VICREG, weight_decay=1, epochs=3, max_steps=2200), "cifar10"),
    "laptop-vicreg-30min": Recipe(replace(CIFAR_VICREG, weight_decay=0.25, epochs=8), "cifar10"),
    "laptop-bcs-10min": Recipe(replace(CIFAR_BCS, weight_decay=1, epochs=3, max_steps=2200), "cifar10"),
    "laptop-bcs-30min": Recipe(replace(CIFAR_BCS, weight_decay=0.25, epochs=9), "cifar10"),
    "whitenet-vicreg-10min": Recipe(whitenet(CIFAR_VICREG), "cifar10"),
    "whitenet-vicreg-30min": Recipe(whitenet(CIFAR_VICREG, **HALF_AN_HOUR), "cifar10"),
    "whitenet-bcs-10min": Recipe(whitenet(WHITE_BCS), "cifar10"),
    "whitenet-visreg-10min": Recipe(whitenet(WHITE_VISREG), "cifar10"),
    "whitenet-bcs-30min": Recipe(whitenet(WHITE_BCS, **HALF_AN_HOUR), "cifar10"),
    "resnet18-vicreg": Recipe(replace(LARGE, optimizer="lars", lr=0.3), "cifar10"),
    "resnet18-bcs": Recipe(replace(LARGE, loss_type="bcs", projector="2048-128", optimizer="lars", lr=0.3), "cifar10"),
    "vit-s-vicreg": Recipe(replace(LARGE, model_type="vit_s"), "cifar10"),
}
# Model type -> the recipe that it takes by default.
DEFAULTS = {
    "resnet5": "predictive", "whitenet": "whitenet-vicreg-10min",
    "resnet": "joint-resnet18", "vit_s": "joint-vit-s", "vit_b": "joint-vit-b",
}


def named(name: str) -> Recipe:
    """The recipe of that name; InputError if there is none."""
    if name not in RECIPES:
        raise InputError("recipe", name, ", ".join(RECIPES))
    return RECIPES[name]


def recipe(name: str, **changes) -> TrainConfig:
    """The configuration of that name, with `changes` to its fields; InputError for what it would not read."""
    config = replace(named(name).config, **changes)
    check_effect(config, changes)
    return config
