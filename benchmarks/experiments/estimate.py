"""How long the runs should take that nobody has made, from the measured time of a step: assets/planned.json.

    python -m benchmarks.experiments.estimate
"""

from pathlib import Path

from jepa_utils.config import TrainConfig
from jepa_utils.recipes import recipe
from jepa_utils.runtime import save_json

ROOT = Path(__file__).resolve().parents[2]
IMAGES = 50_000  # of CIFAR-10's training set
HARDWARE = "NVIDIA H200"
STEPS = {"resnet18-vicreg": 7.7, "vit-s-vicreg": 75.9}  # milliseconds, measured: assets/benchmarks/limit-h200.json


def estimate(name: str, config: TrainConfig) -> dict:
    """A row of the results table for a recipe that has not been run."""
    minutes = config.epochs * (IMAGES // config.batch_size) * STEPS[name] / 60_000
    return {"name": name, "encoder": config.model_type, "loss": config.loss_type, "epochs": config.epochs,
            "estimated_minutes": round(minutes, 1), "assumed": f"{HARDWARE}, at its measured step of {STEPS[name]} ms"}


if __name__ == "__main__":
    print(save_json([estimate(name, recipe(name)) for name in STEPS], ROOT / "assets" / "planned.json"))
