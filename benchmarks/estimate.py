"""How long the runs that need a GPU should take, from counted operations: assets/planned.json, for the README's table.

    python benchmarks/estimate.py

Time = views x operations per view / (published peak of the GPU x the share of it that a network reaches).
The peak is published and the operations are counted; the share is assumed, as in notebook 06.
"""

import shlex
from dataclasses import fields
from pathlib import Path

from jepa_utils.runtime import save_json
from jepa_utils.train import TrainConfig, flops_per_view

ROOT = Path(__file__).resolve().parent.parent
IMAGES = 50_000  # of CIFAR-10's training set
PEAK = 989e12  # FLOP/s: an H100 SXM, bf16 without sparsity, from NVIDIA's data sheet
SHARES = 0.2, 0.05

COMMON = {"dobs": 3, "batch_size": 256, "epochs": 300, "compile": True}
LARS = {"optimizer": "lars", "lr": 0.3}
RUNS = {
    "resnet18-vicreg": TrainConfig(model_type="resnet", loss_type="vicreg", projector="2048-2048-2048", **LARS, **COMMON),
    "resnet18-bcs": TrainConfig(model_type="resnet", loss_type="bcs", projector="2048-128", **LARS, **COMMON),
    "vit-s-vicreg": TrainConfig(model_type="vit_s", loss_type="vicreg", projector="2048-2048-2048", **COMMON),
}


def command(name: str, config: TrainConfig) -> str:
    """What makes the row: every field that differs from its default becomes an option of main.py."""
    changed = [(f.name, getattr(config, f.name)) for f in fields(config) if getattr(config, f.name) != f.default]
    if config.model_type.startswith("vit"):
        changed.append(("micro_batch", config.micro_batch))  # main.py saves memory with the ViTs unless told otherwise
    options = [word for key, value in changed for word in (f"--{key}", str(value))]
    return shlex.join(["python", "benchmarks/measure.py", name, "--", "--dataset", "cifar10", *options])


def estimate(name: str, config: TrainConfig) -> dict:
    """A row of the results table for a run that has not been made."""
    flops = flops_per_view(config)
    views = config.epochs * (IMAGES // config.batch_size) * config.batch_size * config.views
    return {
        "name": name, "encoder": config.model_type, "loss": config.loss_type, "epochs": config.epochs,
        "gflop_per_view": round(flops / 1e9, 3), "estimated_minutes": [round(views * flops / (PEAK * share) / 60, 1) for share in SHARES],
        "assumed": f"one H100 at {100 * SHARES[1]:.0f} to {100 * SHARES[0]:.0f} % of its peak", "command": command(name, config),
    }


if __name__ == "__main__":
    print(save_json([estimate(name, config) for name, config in RUNS.items()], ROOT / "assets" / "planned.json"))
