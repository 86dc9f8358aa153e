"""How long the runs that need a GPU should take, from counted operations: assets/planned.json, for the README's table.

    python -m benchmarks.experiments.estimate

Time = views x operations per view / (published peak of the GPU x the share of it that a network reaches).
The peak is published and the operations are counted; the share is assumed, as in notebook 06.
"""

from pathlib import Path

from jepa_utils.config import TrainConfig
from jepa_utils.recipes import recipe
from jepa_utils.runtime import save_json
from jepa_utils.train import flops_per_view

ROOT = Path(__file__).resolve().parents[2]
IMAGES = 50_000  # of CIFAR-10's training set
PEAK = 989e12  # FLOP/s: an H100 SXM, bf16 without sparsity, from NVIDIA's data sheet
SHARES = 0.2, 0.05
NAMES = ("resnet18-vicreg", "resnet18-bcs", "vit-s-vicreg")


def estimate(name: str, config: TrainConfig) -> dict:
    """A row of the results table for a recipe that has not been run."""
    flops = flops_per_view(config)
    views = config.epochs * (IMAGES // config.batch_size) * config.batch_size * config.views
    return {
        "name": name, "encoder": config.model_type, "loss": config.loss_type, "epochs": config.epochs,
        "gflop_per_view": round(flops / 1e9, 3),
        "estimated_minutes": [round(views * flops / (PEAK * share) / 60, 1) for share in SHARES],
        "assumed": f"one H100 at {100 * SHARES[1]:.0f} to {100 * SHARES[0]:.0f} % of its peak",
    }


if __name__ == "__main__":
    print(save_json([estimate(name, recipe(name)) for name in NAMES], ROOT / "assets" / "planned.json"))
