"""The day before: is this computer ready for the notebooks?

    python -m jepa_utils.ready              in the folder of the repository, or anywhere once the package is installed
    python -m jepa_utils.ready --cifar10    the same, with CIFAR-10 where it will be needed

Looks at everything, says what it found and what there is to do. The exit code is 0 where nothing is. Until the packages
are known to be there it uses the standard library alone, in words that older Pythons understand.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import sys
import sysconfig
import tempfile
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

PYTHON = (3, 11)
PROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"  # of a clone; an installed package has none
MEMORY, DISK = 4.0, 1.0  # GB
DISK_TO_INSTALL = 8.0 if platform.system() == "Linux" else 3.0  # GB; on Linux the default torch brings CUDA
THIS = f'"{sys.executable}"' if " " in sys.executable else sys.executable  # as one types it, in PowerShell too
KERNEL = "import sys, jepa_utils; print(sys.prefix)"


class ToDo(Exception):
    """Something is missing; says what, and how to get it."""


# ------------------------------------------------------------------------------------- before anything is installed


def python() -> str:
    """This Python, if the package accepts it and PyTorch is made for it."""
    wanted = ".".join(map(str, PYTHON))
    if sys.version_info < PYTHON:
        raise ToDo(f"this is {platform.python_version()}: install Python {wanted} or newer and call this with it")
    if sys.maxsize < 2**32:
        raise ToDo("this one is made for 32 bits, and PyTorch is not: install the 64-bit Python")
    if (platform.system(), platform.machine()) == ("Darwin", "x86_64"):
        raise ToDo("PyTorch is no longer made for Intel Macs: use Colab. On an Apple chip, install the arm64 Python")
    return f"{platform.python_version()} in {sys.prefix}"


def required() -> dict[str, str]:
    """What the notebooks need and the lowest version of each, as pyproject.toml says, or the installed package."""
    if PROJECT.exists():
        import tomllib  # Python 3.11's

        project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
        extras = project["optional-dependencies"]
        lines = project["dependencies"] + extras["shell"] + extras["notebooks"]
    else:
        lines = [line for line in metadata.requires("jepa-utils") or []
                 if "extra ==" not in line or re.search(r"extra == .(shell|notebooks)\b", line)]
    return dict(re.findall(r"^([\w-]+)>=([\d.]+)", "\n".join(lines), re.M))


def numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: 2.13.0+cpu is (2, 13, 0)."""
    return tuple(map(int, re.findall(r"\d+", re.split(r"[^\d.]", version)[0])))


def version(name: str) -> str:
    """The installed version of a package, or nothing."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def kept_by_the_system() -> bool:
    """Whether pip refuses to install here, because the system manages this Python (PEP 668)."""
    return sys.prefix == sys.base_prefix and Path(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED").exists()


def installing(what: str) -> str:
    """What to call so that pip installs something: in an environment that is made first, where it has to be."""
    where = f" in {PROJECT.parent}" if PROJECT.exists() else ""
    if not kept_by_the_system():
        return f"call{where}  {THIS} -m pip install {what}"
    own = r".venv\Scripts\python" if platform.system() == "Windows" else ".venv/bin/python"
    first = "" if find_spec("ensurepip") else "sudo apt install python3-venv , then  "  # apart on Debian and Ubuntu
    return (f"the system keeps this Python to itself. Call{where}  {first}{THIS} -m venv .venv , then  "
            f"{own} -m pip install {what} , and from then on  {own} -m jepa_utils.ready")


def packages() -> str:
    """The versions of all packages, if they are there and new enough."""
    wanted = required()
    missing = [f"{name}>={least}" for name, least in wanted.items() if numbers(version(name)) < numbers(least)]
    if missing or not version("jepa-utils"):
        what = '-e ".[notebooks]"' if PROJECT.exists() else "-U " + " ".join(f'"{line}"' for line in missing)
        raise ToDo(f'{", ".join(missing) or "jepa-utils"}: {installing(what)}')
    return f"{len(wanted)} as required, among them torch {version('torch')} and jupyterlab {version('jupyterlab')}"


def memory() -> str:
    """How much memory the computer has, if that is enough for a notebook and a browser."""
    size = _memory_bytes() / 1e9
    if size < MEMORY:
        raise ToDo(f"{size:.1f} GB, and {MEMORY:.0f} are needed: use another computer, or Colab")
    return f"{size:.1f} GB"


def _memory_bytes() -> int:
    if platform.system() != "Windows":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    import ctypes

    status = (ctypes.c_uint64 * 8)()  # a MEMORYSTATUSEX: first its own length, second the total
    status[0] = ctypes.sizeof(status)
    ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))  # type: ignore[attr-defined]
    return status[1]


def disk() -> str:
    """How much room there is where this is called, if that is enough to install, or to keep runs."""
    free, wanted = shutil.disk_usage(Path.cwd()).free / 1e9, DISK if version("torch") else DISK_TO_INSTALL
    if free < wanted:
        raise ToDo(f"{free:.1f} GB free in {Path.cwd()}, and {wanted:.0f} are needed: make room")
    return f"{free:.1f} GB free in {Path.cwd()}"


# ------------------------------------------------------------------------------------------ once the packages are there


def computing() -> str:
    """What trainings run on; a GPU that torch does not see is named, but nothing needs one."""
    from .runtime import environment

    here = environment()
    blind = "; an NVIDIA GPU is here that this torch does not use" if (
        here["device"] == "cpu" and shutil.which("nvidia-smi")) else ""
    return f"{here['device']}: {here['hardware']}, threads: {here['threads']}, precision {here['precision']}{blind}"


def speed() -> str:
    """How much the notebooks will do here; measures a training step, as the first notebook would."""
    from .budget import budget

    return str(budget())


def digits() -> str:
    """The images of the notebooks, made on the spot."""
    from . import data

    return f"{len(data.digits(train=1000, test=100).train_images):,} images made"


def cifar10() -> str:
    """CIFAR-10 in the data folder, read once."""
    from . import cifar10, data

    if cifar10.at_hand() is None:
        folder = cifar10.data_folder()
        raise ToDo(f"none in {folder}: put cifar10.npz there, or call  {THIS} -m jepa_utils.data cifar10")
    return f"{len(data.cifar10().train_images):,} training images in {cifar10.at_hand()}"


def notebook() -> str:
    """A notebook of one cell, run as Jupyter would, in a folder that is not the repository's."""
    import nbformat
    from nbclient import NotebookClient

    cell = nbformat.v4.new_code_cell(KERNEL)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(nbformat.v4.new_notebook(cells=[cell]), timeout=120, kernel_name="python3",
                       extra_arguments=["--log-level=ERROR"], resources={"metadata": {"path": folder}}).execute()
    prefix = cell.outputs[0].text.strip()
    if not os.path.samefile(prefix, sys.prefix):
        raise ToDo(f"Jupyter starts the Python of {prefix}: call  {THIS} -m ipykernel install --sys-prefix")
    return "a cell was run"


# ------------------------------------------------------------------------------------------------------------ all of it


def attempt(check) -> bool:
    """Call a check and print its line; whether there is nothing to do."""
    try:
        mark, said = "ok", check()
    except ToDo as todo:
        mark, said = "TO DO", str(todo)
    except Exception as error:  # a package may be there and broken in any way
        mark, said = "TO DO", f"{type(error).__name__}: {str(error).strip() or 'no reason given'}"
    print(f"{mark:<7}{check.__name__:<11}{said}", flush=True)
    return mark == "ok"


def main() -> None:
    """Exit code 0 if this computer is ready, else 1."""
    parser = argparse.ArgumentParser(prog="python -m jepa_utils.ready", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cifar10", action="store_true", help="CIFAR-10 will be needed too")
    wanted = parser.parse_args().cifar10
    good = {check: attempt(check) for check in (python, memory, disk)}
    good[packages] = good[python] and attempt(packages)  # an older Python cannot read pyproject.toml
    if good[packages]:
        later = (computing, speed, digits, *([cifar10] if wanted else []), notebook)
        good.update({check: attempt(check) for check in later})
    print("\nready" if all(good.values()) else "\nnot ready: do what stands behind TO DO, then call this again")
    sys.exit(not all(good.values()))


if __name__ == "__main__":
    main()
