"""Peak memory of the documented commands on a CPU, each held to 8 GB: batches of 256 images, recipes their own.

Two steps on the digits, then the probe, in a process of its own that may not have more than 8 GB of data
(RLIMIT_DATA: what it allocates, shared libraries aside; Linux). How much a GPU needs is not measured here.
"""

import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from jepa_utils.recipes import recipe

from .timing import row

MAIN = Path(__file__).resolve().parent.parent / "main.py"
LIMIT = 8_000_000_000  # bytes
COMMANDS = {
    "main.py (ResNet5, predictive)": "",
    "ResNet-18, VICReg": "--model_type resnet --loss_type vicreg",
    "ResNet-18, BCS": "--model_type resnet --loss_type bcs --lmbd 10.0",
    "ViT-S, patch 2, VICReg": "--model_type vit_s --patch_size 2 --loss_type vicreg",
    "ViT-B, patch 2, VICReg": "--model_type vit_b --patch_size 2 --loss_type vicreg",
}
RECIPES = "laptop-vicreg", "whitenet-vicreg-10min", "whitenet-vicreg-30min"
WATCHED = """
import resource, subprocess, sys
limit, *command = sys.argv[1:]
held = lambda: resource.setrlimit(resource.RLIMIT_DATA, (int(limit), int(limit)))
subprocess.run(command, check=True, stdout=subprocess.DEVNULL, preexec_fn=held)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)  # kB
"""


def peak_gigabytes(options: str, steps: int, batch_size: int) -> float:
    """Largest resident size of a short run of main.py; raises CalledProcessError if the limit stops it."""
    short = (f"--dataset digits --task classes --device cpu --epochs 300 --max_steps {steps} --batch_size {batch_size} "
             f"--limit {batch_size} --probe_epochs 1 --out")
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, str(MAIN), *shlex.split(options), *short.split(), out]
        watch = [sys.executable, "-c", WATCHED, str(LIMIT), *command]
        return int(subprocess.run(watch, check=True, stdout=subprocess.PIPE, text=True).stdout) * 1024 / 1e9


def measure(quick: bool = False) -> list[dict]:
    steps, batch_size = (1, 8) if quick else (2, 256)
    chosen = {name: (options, batch_size) for name, options in COMMANDS.items()}
    chosen |= {f"recipe {name}": (f"--recipe {name}", recipe(name).batch_size) for name in RECIPES}
    rows = []
    for name, (options, images) in list(chosen.items())[: 1 if quick else None]:
        case = f"{steps} steps of {images} images under a limit of {LIMIT / 1e9:.0f} GB"
        rows.append(row(f"memory, {name}", case, "ours", "GB", [peak_gigabytes(options, steps, images)], ""))
    return rows
