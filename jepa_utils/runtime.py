"""Where a run happens: device, precision, budget, seeds, files, and errors a person can act on."""

import ctypes
import json
import os
import platform
import sys
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm


class InputError(ValueError):
    """A value that cannot be used: names the parameter, what was given and what is accepted."""

    def __init__(self, parameter: str, given, accepted: str):
        super().__init__(f"{parameter}: {given!r} was given; accepted: {accepted}")


@dataclass(frozen=True)
class Budget:
    """How much work a notebook does. Chosen by JEPA_BUDGET, read only in `budget`."""

    name: str
    train_images: int  # images to train on
    test_images: int  # images to test on
    epochs: int  # passes over the training images in one experiment
    batch_size: int
    seeds: tuple[int, ...]  # repeats, where a spread is shown

    def pick(self, smoke, quick, full):
        """The value that belongs to this budget."""
        return {"smoke": smoke, "quick": quick, "full": full}[self.name]


BUDGETS = {
    "smoke": Budget("smoke", train_images=512, test_images=256, epochs=1, batch_size=128, seeds=(0, 1)),
    "quick": Budget("quick", train_images=10_000, test_images=2_000, epochs=8, batch_size=128, seeds=(0, 1, 2)),
    "full": Budget("full", train_images=50_000, test_images=10_000, epochs=100, batch_size=256, seeds=(0, 1, 2)),
}


def budget() -> Budget:
    """The budget named by JEPA_BUDGET; without it `full` on a GPU and `quick` elsewhere."""
    name = os.environ.get("JEPA_BUDGET") or ("full" if torch.cuda.is_available() else "quick")
    if name not in BUDGETS:
        raise InputError("JEPA_BUDGET", name, ", ".join(BUDGETS))
    return BUDGETS[name]


def pick_device(name: str = "auto") -> torch.device:
    """`auto` takes CUDA where there is one, else the CPU; any other name must be a usable device.

    Apple's MPS has to be asked for by name: nobody has tested the series on it.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        if name.split(":")[0] not in ("cpu", "cuda", "mps"):
            raise RuntimeError
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # torch raises either for a missing back end
        raise InputError("device", name, "auto, cpu, mps, cuda or cuda:N, where this machine has it") from error


def fast_bf16(device: torch.device) -> bool:
    """Whether bfloat16 arithmetic is native here: Ampere GPUs or newer, CPUs with AVX512-BF16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        has = getattr(torch.cpu, "get_capabilities", dict)()
        return bool(has.get("avx512_bf16") or has.get("amx_bf16"))
    return False


def autocast(device: torch.device):
    """bf16 autocast where the device is fast at it, full precision elsewhere."""
    return torch.autocast(device.type, torch.bfloat16) if fast_bf16(device) else nullcontext()


def generator(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A random stream of its own, on the device that will use it."""
    return torch.Generator(device=device).manual_seed(seed)


def environment() -> dict[str, str | int | bool]:
    """What a reader needs to compare timings: hardware, versions, precision."""
    device = pick_device()
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()
    return {
        "device": device.type,
        "hardware": hardware,
        "threads": torch.get_num_threads(),
        "bf16": fast_bf16(device),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "budget": budget().name,
    }


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def progress_bar(*args, **options) -> tqdm:
    """A text progress bar that vanishes when done; in a notebook on stdout, which no front end paints red."""
    file = sys.stdout if "ipykernel" in sys.modules else sys.stderr
    return tqdm(*args, file=file, leave=False, mininterval=0.5, **options)


def cache_folder() -> Path:
    """Where files that can be made again are kept, in the user's home."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jepa"


@contextmanager
def atomic(path: str | Path):
    """Yield a temporary path beside `path`; it takes the final name only if the block succeeds."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save_json(value, path: str | Path) -> Path:
    """Write `value` as JSON, all or nothing."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1) + "\n")
    return Path(path)


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next allocation instead of returning it to the kernel.

    A training step allocates and frees the same megabytes again and again; by default each round
    trip costs a page fault per 4 kB, which on a CPU can take longer than the arithmetic. Does
    nothing where the C library has no `mallopt` (macOS, Windows, musl).
    """
    M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # names and values from malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # TypeError: Windows takes no None
        return
    mallopt(M_MMAP_THRESHOLD, 1 << 30)
    mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)
