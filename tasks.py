"""Everything one does with this repository, the same in PowerShell, cmd and bash.

    python tasks.py run       execute the notebooks into build/, then train and print the scoreboard
    python tasks.py lab       open the notebooks in JupyterLab
    python tasks.py check     lint and the fast tests, under a minute
    python tasks.py test      lint, types, all tests, and every notebook at the smoke budget
    python tasks.py lint      look for mistakes without running anything
    python tasks.py editions  the student's and the teacher's notebooks, and the slides, into build/
    python tasks.py site      build the web site from the committed notebooks into build/site

Call it with the Python that this package is installed for: pip install -e ".[notebooks]" is enough for
run, lab and editions, pip install -e ".[site]" for site, pip install -e ".[dev]" for all.
"""

import argparse
import os
import shlex
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent
BUDGETS = ("smoke", "quick", "quick-4", "quick-8", "quick-16", "full")
LINT = "-m ruff check ."
TYPES = "-m mypy"
TESTS = "-m pytest -n auto --dist worksteal"
NOTEBOOKS = "-m pytest -n auto --nbmake --nbmake-timeout=300 notebooks"

# Of each task: the extra it needs, a module that only this extra brings, and what Python is called with.
TASKS = {
    "run": ("notebooks", "jupyterlab", ["scripts/run_series.py build", "-m jepa_utils.scoreboard build"]),
    "lab": ("notebooks", "jupyterlab", ["-m jupyterlab notebooks"]),
    "check": ("dev", "nbmake", [LINT, f"{TESTS} -m 'not slow'"]),
    "test": ("dev", "nbmake", [LINT, TYPES, TESTS, NOTEBOOKS]),
    "lint": ("dev", "nbmake", [LINT]),
    "editions": ("notebooks", "jupyterlab", ["scripts/editions.py build", "scripts/slides.py build"]),
    "site": ("site", "myst_nb", ["scripts/build_site.py"]),
}


def settings(step: str, budget: str | None) -> dict[str, str]:
    """Environment variables for a step: those of the caller, unless the step or the command line says otherwise."""
    if step == NOTEBOOKS:
        return os.environ | {"JEPA_BUDGET": "smoke", "JEPA_OFFLINE": "1", "OMP_NUM_THREADS": "1"}  # side by side
    return os.environ | ({"JEPA_BUDGET": budget} if budget else {})


def perform(steps: list[str], budget: str | None = None) -> int:
    """Run the steps in order up to the first that fails; its exit code, 0 if none does."""
    for step in steps:
        print(f"> python {step}", flush=True)
        code = subprocess.run([sys.executable, *shlex.split(step)], cwd=ROOT, env=settings(step, budget)).returncode
        if code:
            return code if code > 0 else 128 - code  # ended by a signal: as a shell would say it
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--budget", choices=BUDGETS,
                        help="how much work run and lab do (default: JEPA_BUDGET, else quick)")
    options = parser.parse_args()
    if options.budget and options.task not in ("run", "lab"):
        parser.error(f"--budget: {options.task} has no budget to choose; accepted: with run and lab")
    extra, module, steps = TASKS[options.task]
    if not find_spec(module):
        parser.error(f'{options.task} needs what this installs: "{sys.executable}" -m pip install -e ".[{extra}]"')
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is the step's to answer: JupyterLab asks, then saves
    sys.exit(perform(steps, options.budget))


if __name__ == "__main__":
    main()
