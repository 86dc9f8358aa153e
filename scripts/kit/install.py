"""Install the notebooks from this folder. No network is needed.

    python install.py            installs into .venv beside this file, then checks that this computer is ready
    python install.py --start    opens the notebooks in JupyterLab

On Windows call  py install.py  instead, on Linux and macOS  python3 install.py. After an interruption call it again.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import venv
from pathlib import Path

KIT = Path(__file__).resolve().parent
OWN = KIT / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")  # the Python of the notebooks


def call(*words):
    """Call the notebooks' Python without network; ends with its exit code if that is not 0."""
    done = subprocess.run([str(OWN), *words], cwd=str(KIT), env=dict(os.environ, JEPA_OFFLINE="1"))
    if done.returncode:
        sys.exit(done.returncode)


def check_target():
    """End in one line if this kit has no packages for this Python on this computer."""
    targets = [tuple(target) for target in json.loads((KIT / "kit.json").read_text(encoding="utf-8"))]
    here = platform.system(), platform.machine(), "{}.{}".format(*sys.version_info)
    if here not in targets:
        held = "; ".join("{} ({}), Python {}".format(*target) for target in targets)
        sys.exit("This is {} ({}), Python {}. The kit is for: {}.".format(*here, held))


def install():
    check_target()
    print("Installing: some minutes.", flush=True)
    try:
        venv.create(str(KIT / ".venv"), with_pip=True)
    except subprocess.CalledProcessError:
        sys.exit("No environment could be made. On Debian and Ubuntu: sudo apt install python3-venv")
    call("-m", "pip", "install", "--quiet", "--no-index", "--find-links", "wheels", "jepa-utils[notebooks]")
    extra = []
    if (KIT / "data" / "cifar10.npz").exists():
        extra = ["--cifar10"]
        place = "from jepa_utils.cifar10 import data_folder as f; f().mkdir(parents=True, exist_ok=True); print(f())"
        folder = subprocess.run([str(OWN), "-c", place], stdout=subprocess.PIPE, text=True, check=True)
        shutil.copy(str(KIT / "data" / "cifar10.npz"), folder.stdout.strip())
    call("-m", "jepa_utils.ready", *extra)
    print(f"To begin:  {Path(sys.executable).name} install.py --start")


if __name__ == "__main__":
    if sys.argv[1:] == ["--start"]:
        call("-m", "jupyterlab", "notebooks")
    elif sys.argv[1:]:
        sys.exit(__doc__)
    else:
        install()
