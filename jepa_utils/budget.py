"""How much work a notebook does: one setting, JEPA_BUDGET, read here and nowhere else.

`smoke` runs every code path, for CI. `quick`, the default on every device, promises minutes: the speed
of a training step is measured once; slow ones take the level `quick-4`, faster ones `quick-8` or `quick-16`
(the number is that of epochs). A level can also be asked for by its name. `full` takes all images, and
hours; nothing chooses it by itself.
"""

import json
import math
import os
import statistics
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from .models import build_model
from .recipes import recipe
from .runtime import (
    InputError,
    cache_folder,
    environment,
    grad_scaler,
    keep_freed_memory,
    pick_device,
    save_json,
    synchronize,
)
from .threads import choose_threads
from .train import build_loss, build_optimizer, train_step

FAST, FASTEST = 0.025, 0.012  # seconds of a step, below which there is time for more


@dataclass(frozen=True)
class Budget:
    """Sizes of a notebook's experiments."""

    name: str
    train_images: int  # images to train on
    test_images: int  # images to test on
    epochs: int  # passes over the training images in a training of full length
    batch_size: int
    seeds: tuple[int, ...]  # repeats, where a spread is shown; the first is that of single trainings
    reason: str = "asked for by name"

    def pick(self, smoke, quick, full):
        """The value that belongs to this budget, for sizes that do not depend on the level."""
        return {"smoke": smoke, "quick": quick, "full": full}[self.name.split("-")[0]]

    @property
    def seed(self) -> int:
        """The seed of single trainings: 0, or what JEPA_SEED says."""
        return self.seeds[0]

    def part(self, share: float) -> int:
        """A share of the epochs, at least one."""
        return max(1, round(share * self.epochs))

    def __str__(self) -> str:
        epochs = f"{self.epochs} epoch{'s' * (self.epochs > 1)} of {self.train_images:,} images"
        return f"budget {self.name} ({self.reason}): {epochs} a training"


def _quick(epochs: int) -> Budget:
    return Budget(f"quick-{epochs}", train_images=10_000, test_images=2_000, epochs=epochs, batch_size=128,
                  seeds=(0, 1, 2))


BUDGETS = {
    "smoke": Budget("smoke", train_images=512, test_images=256, epochs=1, batch_size=128, seeds=(0, 1)),
    **{f"quick-{epochs}": _quick(epochs) for epochs in (4, 8, 16)},
    "full": Budget("full", train_images=50_000, test_images=10_000, epochs=100, batch_size=256, seeds=(0, 1, 2)),
}


def budget() -> Budget:
    """The budget that JEPA_BUDGET names; for `quick`, or without it, the level that suits this device.

    JEPA_SEED, 0 if it is not set, moves all seeds: the same notebook as another run.
    """
    name = os.environ.get("JEPA_BUDGET") or "quick"
    if name not in ("quick", *BUDGETS):
        raise InputError("JEPA_BUDGET", name, ", ".join(["quick", *BUDGETS]))
    work, first = quick(remembered_step_seconds()) if name == "quick" else BUDGETS[name], first_seed()
    return replace(work, seeds=tuple(seed + first for seed in work.seeds))


def first_seed() -> int:
    """What JEPA_SEED says, or 0."""
    text = os.environ.get("JEPA_SEED") or "0"
    if not text.isascii() or not text.isdigit() or int(text) > 10**6:
        raise InputError("JEPA_SEED", text, "a whole number from 0 to 1,000,000")
    return int(text)


def quick(step_seconds: float) -> Budget:
    """The level of `quick` for a device on which a training step takes `step_seconds`."""
    epochs = 16 if step_seconds < FASTEST else 8 if step_seconds < FAST else 4
    reason = f"chosen because a training step takes {1000 * step_seconds:.0f} ms here"
    return replace(BUDGETS[f"quick-{epochs}"], reason=reason)


def remembered_step_seconds() -> float:
    """`step_seconds`, measured once for this hardware and this torch, so that a machine keeps its level."""
    file, machine = cache_folder() / "speed.json", environment()
    key = " · ".join(str(machine[name]) for name in ("hardware", "device", "precision", "torch"))
    speeds = _read_speeds(file)
    if key not in speeds:
        speeds[key] = step_seconds(pick_device())
        with suppress(OSError):  # a cache that cannot be written: measured again next time
            save_json(speeds, file)
    return speeds[key]


def _read_speeds(file: Path) -> dict[str, float]:
    """Seconds by machine, of all machines that share this home; none where the file is missing or damaged."""
    try:
        speeds = {key: float(seconds) for key, seconds in json.loads(file.read_text(encoding="utf-8")).items()}
    except Exception:  # whatever a damaged file makes json raise
        return {}
    return {key: seconds for key, seconds in speeds.items() if 0 < seconds < math.inf}


def step_seconds(device: torch.device, steps: int = 12) -> float:
    """Seconds of a training step of the laptop recipe at quick's batch size: the lower quartile of a few.

    The lower quartile, since other programs only ever make a step slower.
    """
    keep_freed_memory()
    choose_threads(device)
    config = recipe("laptop-vicreg", batch_size=BUDGETS["quick-4"].batch_size)
    model = build_model(config).to(device).to(memory_format=torch.channels_last).train()
    loss, optimizer, scaler = build_loss(config), build_optimizer(config, model), grad_scaler(device)
    images = torch.linspace(0, 1, 32 * 32, device=device).view(1, 1, 32, 32)
    views = images * torch.linspace(0.5, 1, config.batch_size, device=device).view(-1, 1, 1, 1).expand(-1, 3, 1, 1)
    views = torch.stack([views, views.flip(3)])
    times = []
    for step in range(3 + steps):  # the first ones build kernels
        started = time.perf_counter()
        train_step(model, loss, optimizer, scaler, views, step, 0.0)
        synchronize(device)
        times.append(time.perf_counter() - started)
    return statistics.quantiles(times[3:], n=4)[0]
