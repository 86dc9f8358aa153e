"""What matters at laptop scale: weights, projector, slices, views. Three seeds each, on the embedded digits.

    python -m benchmarks.experiments.ablations    trains what assets/ablations.jsonl does not hold yet, then draws

Every run sees 6,000 images, 8 views of each: short trainings, for the shape of a curve and not its
height. All figures are on a validation split.
"""

import argparse
import json
import statistics
from itertools import product
from pathlib import Path

from jepa_utils import data, plots
from jepa_utils.config import TrainConfig
from jepa_utils.recipes import recipe
from jepa_utils.runtime import pick_device

from .search import hold_out, keep, trial

SEEDS = (0, 1, 2)
IMAGES, VIEWS = 6000, 8  # images to train on; views of each, over the epochs
PROJECTORS = {"none": "", "64": "64", "512-512-64": "512-512-64", "1024-1024-256": "1024-1024-256"}

# Panel -> method -> label on the axis -> changes to the recipe.
PANELS = {
    "SIGReg's weight": {"SIGReg": {f"{v:g}": {"lmbd": float(v)} for v in (0.3, 3, 10, 30, 100, 300)}},
    "VICReg's weights, variance / covariance": {"VICReg": {
        f"{v} / {c}": {"var_loss_weight": float(v), "cov_loss_weight": float(c)}
        for v, c in ((0, 0), (0, 2), (5, 2), (50, 0), (50, 2), (500, 2))}},
    "projector": {
        method: {name: {"projector": widths} for name, widths in PROJECTORS.items()}
        for method in ("VICReg", "SIGReg")},
    "slices": {"SIGReg": {f"{k}": {"slices": k} for k in (4, 32, 256, 1024)}},
    "views per image and step": {
        method: {f"{v}": {"views": v, "epochs": VIEWS // v} for v in (2, 4, 8)} for method in ("VICReg", "SIGReg")},
}
# As the recipes were when these were measured: AdamW, and for SIGReg a narrower z and fewer slices.
ADAMW = {"epochs": VIEWS // 2, "batch_size": 128, "optimizer": "adamw", "lr": 3e-3}
BASE = {"VICReg": ADAMW, "SIGReg": ADAMW | {"projector": "512-512-64", "slices": 256}}
LOSS = {"VICReg": "vicreg", "SIGReg": "bcs"}


def measure(log: Path) -> list[dict]:
    """Every run of the panels; those that the log holds, under whatever name, are not trained again."""
    done = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []
    images = hold_out(data.load("digits")).limited(IMAGES).to(pick_device())
    settings = [(method, changes) for methods in PANELS.values()
                for method, named in methods.items() for changes in named.values()]
    for (method, changes), seed in product(settings, SEEDS):
        if not find(done, method, changes, seed):
            result = trial(images, f"laptop-{LOSS[method]}", BASE[method] | changes, seed)
            outcome = f"{result['validation_probe']:.1f} %, {result['state']}"
            print(f"{method:<7} {changes} seed {seed}: {outcome}", flush=True)
            keep(result, log)
            done.append(result)
    return done


def find(runs: list[dict], method: str, changes: dict, seed: int) -> dict | None:
    """The run that had this configuration, however it was written: the recipe's own value may be named or left out."""
    def config(changes: dict) -> TrainConfig:
        return recipe(f"laptop-{LOSS[method]}", **BASE[method] | changes)

    same = (run for run in runs if run["loss"] == LOSS[method] and run["seed"] == seed)
    return next((run for run in same if config(run["changes"]) == config(changes)), None)


@plots.styled
def draw(runs: list[dict], path: Path) -> None:
    """One panel for each question: mean over seeds with one standard deviation, open marks where z collapsed."""
    figure, axes = plots.plt.subplots(2, 3, figsize=(11, 6.4), layout="constrained")
    for ax, (panel, methods) in zip(axes.flat, PANELS.items(), strict=False):
        for method, settings in methods.items():
            found = {label: [find(runs, method, changes, seed) for seed in SEEDS]
                     for label, changes in settings.items()}
            scores = {label: [run["validation_probe"] for run in group] for label, group in found.items()}
            mean = {label: statistics.mean(values) for label, values in scores.items()}
            ax.errorbar(list(mean), list(mean.values()), [statistics.stdev(values) for values in scores.values()],
                        marker="o", capsize=3, color=plots.COLORS[method], label=method)
            for label, group in found.items():
                if sum("collapse" in run["state"] for run in group) > len(SEEDS) / 2:
                    ax.plot(label, mean[label], "o", color="white", markeredgecolor=plots.COLORS[method], zorder=5)
        ax.set(xlabel=panel, ylabel="linear probe, % of held-out images")
        ax.tick_params(axis="x", labelsize=8)
        ax.legend()
    axes.flat[-1].axis("off")
    key = f"Mean and standard deviation of {len(SEEDS)} seeds.\nOpen circles: z collapsed in most of them."
    axes.flat[-1].text(0, 0.95, key, va="top")
    figure.suptitle("What matters at laptop scale", x=0.01, ha="left", fontsize=13)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--log", type=Path, default=Path("assets/ablations.jsonl"))
    options = parser.parse_args()
    draw(measure(options.log), options.log.with_suffix(".png"))


if __name__ == "__main__":
    main()
