"""How long the runs should take that nobody has made, from the measured time of a step: assets/planned.json.

    python -m benchmarks.experiments.estimate
"""

import json
from pathlib import Path

from jepa_utils.config import TrainConfig
from jepa_utils.recipes import recipe
from jepa_utils.runtime import save_json

ROOT = Path(__file__).resolve().parents[2]
IMAGES = 50_000  # of CIFAR-10's training set
NAMES = ("resnet18-vicreg", "vit-s-vicreg")


def estimate(name: str, config: TrainConfig) -> dict:
    """A row of the results table for a recipe that has not been run, from the fastest whole step that was measured."""
    measured = json.loads((ROOT / "assets" / "benchmarks" / "limit-h200.json").read_text(encoding="utf-8"))
    step = min(row["median"] for row in measured["rows"]
               if row["benchmark"] == f"a step, {name}" and row["case"].startswith("whole"))
    minutes = config.epochs * (IMAGES // config.batch_size) * step / 60_000
    return {"name": name, "encoder": config.model_type, "loss": config.loss_type, "epochs": config.epochs,
            "estimated_minutes": round(minutes, 1),
            "assumed": f"{measured['environment']['hardware']}, at its measured step of {step:.1f} ms"}


if __name__ == "__main__":
    print(save_json([estimate(name, recipe(name)) for name in NAMES], ROOT / "assets" / "planned.json"))
