"""Gather all that a workshop without network needs into one folder: packages, notebooks, and an installer.

    python scripts/offline_kit.py kit                                      for computers like this one
    python scripts/offline_kit.py kit --systems windows macos --python 3.12
    python scripts/offline_kit.py kit --cifar10 ~/.cache/jepa/cifar10.npz  with CIFAR-10
    python scripts/offline_kit.py kit --cpu --pip --extra-index-url ADDRESS

The versions are those of requirements.lock. Called again, it adds what is missing, such as the packages of another
system. On Linux PyTorch's default brings CUDA, gigabytes of it: --cpu leaves that away. pip then has to be told the
address of the small packages, which pytorch.org shows under "Get started" for Linux, pip and CPU. What follows --pip
is for pip.
"""

import argparse
import json
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
LOCK, KIT = ROOT / "requirements.lock", ROOT / "scripts" / "kit"
CUDA = re.compile(r"nvidia-|cuda-|triton$")
# Of each system: what the lock file's markers ask for, and the platforms that wheels may be made for.
SYSTEMS = {
    "linux": ({"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "platform_machine": "x86_64"},
              ["manylinux2014_x86_64", *(f"manylinux_2_{minor}_x86_64" for minor in range(5, 29))]),
    "windows": ({"sys_platform": "win32", "platform_system": "Windows", "os_name": "nt", "platform_machine": "AMD64"},
                ["win_amd64"]),
    "macos": ({"sys_platform": "darwin", "platform_system": "Darwin", "os_name": "posix", "platform_machine": "arm64"},
              ["macosx_14_0_arm64"]),
}
THIS = platform.system(), platform.machine()
HERE = next((name for name, (about, _) in SYSTEMS.items()
             if (about["platform_system"], about["platform_machine"]) == THIS), None)
WITH_NOTEBOOKS = ("assets", "docs/toy")  # what they open of the repository; no pictures


def wanted(lock: Path, system: str, python: str, cpu: bool = False) -> list[str]:
    """The pins `name==version` of the lock file that a system and a Python such as 3.12 need."""
    lines = [line for line in lock.read_text(encoding="utf-8").splitlines() if re.match(r"[\w-]", line)]
    about = SYSTEMS[system][0] | {"python_version": python, "python_full_version": f"{python}.0",
                                  "implementation_name": "cpython", "platform_python_implementation": "CPython"}
    pins = [pin for pin in map(Requirement, lines) if pin.marker is None or pin.marker.evaluate(about)]
    return [f"{pin.name}{pin.specifier}" for pin in pins if not (cpu and CUDA.match(pin.name))]


def pip(*words) -> None:
    """Call pip; the script ends with its exit code if it fails."""
    done = subprocess.run([sys.executable, "-m", "pip", *map(str, words)])
    if done.returncode:
        sys.exit(done.returncode)


def download(folder: Path, pins: list[str], system: str, python: str, options: list[str]) -> None:
    """The wheels of the pins, for a system and a Python; nothing is built."""
    tags = [word for tag in SYSTEMS[system][1] for word in ("--platform", tag)]
    pip("download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", folder, "--python-version", python,
        "--implementation", "cp", *tags, *options, *pins)


def own_wheel(folder: Path, options: list[str]) -> None:
    """The wheel of this package, built from a copy, so that nothing of an earlier build gets in."""
    with tempfile.TemporaryDirectory() as copy:
        shutil.copytree(ROOT / "jepa_utils", Path(copy, "jepa_utils"), ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, copy)
        pip("wheel", "--quiet", "--no-deps", "--wheel-dir", folder, *options, copy)


def place(source: Path, target: Path, *without: str) -> None:
    """A copy of a file or a folder, without what running notebooks leaves there, and without further patterns."""
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("runs", ".*", *without))
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def describe(kit: Path, targets: list[list[str]]) -> None:
    """kit.json, which the installer reads, and a page for the participants; both name earlier targets too."""
    path = kit / "kit.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    known += [target for target in targets if target not in known]
    path.write_text(json.dumps(known) + "\n", encoding="utf-8")
    lines = "\n".join(f"  - {system} ({machine}), Python {python}" for system, machine, python in known)
    page = (KIT / "README.txt").read_text(encoding="utf-8").replace("TARGETS", lines)
    (kit / "README.txt").write_text(page, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the kit is gathered")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=[HERE], required=HERE is None)
    parser.add_argument("--python", nargs="+", default=["{}.{}".format(*sys.version_info)], metavar="3.12")
    parser.add_argument("--cpu", action="store_true", help="leave CUDA out")
    parser.add_argument("--cifar10", type=Path, metavar="FILE", help="a cifar10.npz to hand out")
    parser.add_argument("--notebooks", type=Path, default=ROOT / "notebooks", metavar="FOLDER",
                        help="which to hand out, such as build/student")
    parser.add_argument("--lock", type=Path, default=LOCK, metavar="FILE", help="take other versions")
    parser.add_argument("--pip", nargs=argparse.REMAINDER, default=[], metavar="OPTION", help="last: options for pip")
    options = parser.parse_args()
    missing = [str(path) for path in (options.cifar10, options.notebooks, options.lock) if path and not path.exists()]
    if missing:
        parser.error(f"{missing[0]}: there is no such file or folder")
    kit, targets = options.folder, [(system, python) for system in options.systems for python in options.python]
    for system, python in targets:
        print(f"packages for Python {python} on {system}", flush=True)
        download(kit / "wheels", wanted(options.lock, system, python, options.cpu), system, python, options.pip)
    own_wheel(kit / "wheels", options.pip)
    place(options.notebooks, kit / "notebooks")
    for name in WITH_NOTEBOOKS:
        place(ROOT / name, kit / name, "*.png", "*.gif", "*.svg")
    if options.cifar10:
        place(options.cifar10, kit / "data" / "cifar10.npz")
    place(KIT / "install.py", kit / "install.py")
    about = [[SYSTEMS[system][0][key] for key in ("platform_system", "platform_machine")] for system, _ in targets]
    describe(kit, [[*where, python] for where, (_, python) in zip(about, targets, strict=True)])
    size = sum(path.stat().st_size for path in kit.rglob("*") if path.is_file())
    print(f"{kit}: {len(list((kit / 'wheels').iterdir()))} packages, {size / 1e9:.2f} GB; try it with the network off")


if __name__ == "__main__":
    main()
