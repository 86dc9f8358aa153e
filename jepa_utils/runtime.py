"""Where a run happens: device, precision, seeds, files, and errors a person can act on."""

import ctypes
import io
import json
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TextIO

import numpy as np
import torch
from filelock import BaseFileLock
from torch import Tensor
from tqdm import tqdm


class InputError(ValueError):
    """A value that cannot be used: names the parameter, what was given and what is accepted."""

    def __init__(self, parameter: str, given, accepted: str):
        super().__init__(parameter, given, accepted)  # as they are, so that pickle and copy can make it again
        self.parameter, self.given, self.accepted = parameter, given, accepted

    def __str__(self) -> str:
        return f"{self.parameter}: {self.given!r} was given; accepted: {self.accepted}"


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
    """Whether bfloat16 arithmetic is native and fast here: Ampere GPUs or newer, CPUs with AMX, AMD's with AVX512-BF16.

    Intel's CPUs with AVX512-BF16 alone take 1.2 to 1.7 times as long in bfloat16 as in float32 (measured on a Xeon
    with ResNet5, ResNet-18 and ViT-S).
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        has: dict = getattr(torch.cpu, "get_capabilities", dict)()
        return bool(has.get("amx_bf16") or (has.get("avx512_bf16") and "Intel" not in has.get("cpu_name", "")))
    return False


def precision(device: torch.device) -> torch.dtype:
    """What networks multiply in here: bfloat16 where it is native, float16 on older GPUs with tensor cores
    (T4, V100), float32 elsewhere. Weights, losses and the optimizer stay in float32 everywhere.
    """
    if fast_bf16(device):
        return torch.bfloat16
    volta = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (7, 0)
    return torch.float16 if volta else torch.float32


def autocast(device: torch.device):
    """A context in which networks multiply in this device's `precision`."""
    dtype = precision(device)
    return nullcontext() if dtype is torch.float32 else torch.autocast(device.type, dtype)


def grad_scaler(device: torch.device) -> torch.amp.GradScaler:
    """Keeps float16 gradients from vanishing: the loss is scaled up, a step that overflows is skipped.

    In any other precision it passes everything through. Micikevicius et al. 2018 (arXiv 1710.03740), section 3.2.
    """
    return torch.amp.GradScaler(device.type, enabled=precision(device) is torch.float16)


@contextmanager
def tried_convolutions(device: torch.device):
    """On CUDA, let cuDNN try its algorithms for every new shape and keep the fastest, inside the block."""
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark
    cudnn.benchmark = before or device.type == "cuda"
    try:
        yield
    finally:
        cudnn.benchmark = before


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """Copy a small CPU tensor without waiting for the device: from page-locked memory, where that is a GPU's."""
    return (x.pin_memory() if device.type == "cuda" else x).to(device, non_blocking=True)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given; for timing."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def generator(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A random stream of its own, on the device that will use it."""
    return torch.Generator(device=device).manual_seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, the CPU's random numbers come from a seed; on every device the caller's go on afterwards as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would set those of the GPUs as well
        yield


def environment(device: torch.device | None = None) -> dict[str, str | int]:
    """What a reader needs to compare timings: hardware, versions, precision; of `pick_device()` without a device."""
    device = device or pick_device()
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()
    return {
        "device": device.type,
        "hardware": hardware,
        "threads": torch.get_num_threads(),
        "precision": str(precision(device)).removeprefix("torch."),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def described(machine: dict) -> str:
    """What `environment` gave, in a few words: hardware, threads, precision."""
    return f"{machine['hardware']}, {machine['threads']} threads, {machine['precision']}"


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def watched() -> TextIO:
    """Where somebody may be watching: stderr, in a notebook stdout."""
    kernel = sys.modules.get("ipykernel.kernelapp")  # others than kernels may have imported it, too
    return sys.stdout if kernel and kernel.IPKernelApp.initialized() else sys.stderr


def progress_bar(*args, **options) -> tqdm:
    """A text progress bar that vanishes when done; in a notebook on stdout, which no front end paints red."""
    return tqdm(*args, file=watched(), leave=False, mininterval=0.5, **options)


def cache_folder() -> Path:
    """Where files that can be made again are kept, in the user's home."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jepa"


def runs_folder() -> Path:
    """Where runs are kept: JEPA_RUNS if set; in Colab a mounted Drive, which outlives the session; else runs/."""
    drive = Path("/content/drive/MyDrive")
    return Path(os.environ.get("JEPA_RUNS") or (drive / "jepa-runs" if drive.is_dir() else "runs")).expanduser()


@contextmanager
def atomic(path: str | Path):
    """Yield a temporary path beside `path`; it takes the final name only if the block succeeds.

    An OSError names `path`, not the temporary file, and comes before anything is lost.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())  # else a power cut could leave the name without the content
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def released(lock: BaseFileLock):
    """Release `lock`, which is held, after the block, and delete its file, unless an outer block holds it too."""
    try:
        yield
    finally:
        if lock.lock_counter < 2:
            with suppress(OSError):  # Windows deletes it on release
                os.unlink(lock.lock_file)  # while it is held: whoever waits sees that it is gone, and makes another
        lock.release()


def save_tensors(value, path: str | Path) -> Path:
    """Write `value` by torch.save, all or nothing."""
    with atomic(path) as temporary:
        raw = Remembering(temporary, "wb")
        try:
            with io.BufferedWriter(raw) as file:
                torch.save(value, file)
        except RuntimeError as error:
            raise raw.error or error from error
    return Path(path)


class Remembering(io.FileIO):
    """A file that remembers why it could not be written; torch.save says only that it failed."""

    error = None

    def write(self, data) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.error = error
            raise


def save_json(value, path: str | Path) -> Path:
    """Write `value` as JSON, all or nothing."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
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
    if mallopt(M_MMAP_THRESHOLD, 1 << 30):  # else refused, and without it the other would not help
        mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)
