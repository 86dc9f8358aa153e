"""Run every notebook as a hosted service would, in an environment of chosen versions.

    python scripts/try_environment.py colab      what Colab pins
    python scripts/try_environment.py lowest     the lowest versions that pyproject.toml promises
    python scripts/try_environment.py newest     the newest of everything

The versions stand in tests/environments/NAME.txt. Each notebook starts alone in a folder, in an environment without
jepa_utils: its bootstrap cell installs the package, from a copy of this working tree, and must leave all else as it is.
Prints a table; the exit code is 1 if a notebook failed.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Environment -> the variable that its service sets.
SERVICES = {"colab": "COLAB_RELEASE_TAG", "lowest": "BINDER_SERVICE_HOST", "newest": "KAGGLE_KERNEL_RUN_TYPE"}

# Prints what torch and torchvision consist of, with all that they require: files and folders of site-packages.
PARTS = r"""
import re
from importlib.metadata import PackageNotFoundError, distribution
todo, parts = [("torch", ""), ("torchvision", "")], set()
for name, extras in todo:
    try:
        package = distribution(name)
    except PackageNotFoundError:  # required on another system
        continue
    tops = {file.parts[0] for file in package.files} - {"..", "__pycache__"}
    parts |= {str(package.locate_file(top)) for top in tops}
    for line in package.requires or ():
        extra = re.search(r"extra == .(.+?).$", line)
        required = re.match(r"([\w.-]+)(?:\[(.*?)\])?", line).groups("")
        if required not in todo and (not extra or extra[1] in extras.split(",")):
            todo.append(required)
print("\n".join(sorted(parts)))
"""


def call(*words, **options) -> str:
    """What a command prints; the script ends with its errors if it fails."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True,
                          encoding="utf-8", errors="replace", **options)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, words))}\n{done.stdout}{done.stderr}")
    return done.stdout


def python_of(environment: Path) -> Path:
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def requirements(name: str) -> list[str]:
    """The lines of tests/environments/NAME.txt without comments."""
    lines = (ROOT / "tests" / "environments" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return [line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()]


def build(environment: Path, base: str, wanted: list[str]) -> None:
    """A virtual environment with what is wanted, made by uv where there is one."""
    if shutil.which("uv"):
        call("uv", "venv", "--seed", "--allow-existing", "--python", base, environment)
        call("uv", "pip", "install", "--python", python_of(environment), *wanted)
    else:
        call(base, "-m", "venv", environment)
        call(python_of(environment), "-m", "pip", "install", *wanted)


def build_around_torch(environment: Path, base: str, wanted: list[str], lender: str, lent: Path) -> None:
    """The same, but torch and torchvision are those of the Python `lender`, which stay where they are.

    Links in the folder `lent` lead to them. A .pth file puts that folder at the end of the path, so that a version
    installed here comes first. pip sees what is there already; uv would install it again.
    """
    shutil.rmtree(lent, ignore_errors=True)
    lent.mkdir(parents=True)
    for part in call(lender, "-c", PARTS).splitlines():
        (lent / Path(part).name).symlink_to(part)
    call(base, "-m", "venv", environment)
    python = python_of(environment)
    site = call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    (Path(site) / "lent.pth").write_text(f"{lent}\n", encoding="utf-8")
    call(python, "-m", "pip", "install", *(line for line in wanted if not re.match(r"torch(vision)?\b", line)))


def publish(folder: Path) -> str:
    """The working tree as it stands, as a git repository of one commit; the address from which pip installs it."""
    names = call("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).split("\0")
    for source in (ROOT / name for name in names if name and (ROOT / name).is_file()):
        target = folder / source.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    call("git", "init", "--quiet", cwd=folder)
    call("git", "add", "--all", cwd=folder)
    author = ("-c", "user.name=nobody", "-c", "user.email=nobody@localhost", "-c", "commit.gpgsign=false")
    call("git", *author, "commit", "--quiet", "--message", "as it stands", cwd=folder)
    return f"git+{folder.as_uri()}"


def place(notebook: Path, folder: Path, address: str) -> None:
    """A new folder with nothing but the notebook, whose bootstrap cell installs from `address`."""
    text, places = re.subn(r"git\+https://[^\"\\]+", lambda _: address, notebook.read_text(encoding="utf-8"))
    if places != 1:
        sys.exit(f"{notebook.name}: {places} addresses to install from; accepted: one")
    folder.mkdir(parents=True)
    (folder / notebook.name).write_text(text, encoding="utf-8")


def variables(service: str, files: Path) -> dict[str, str]:
    """The environment of a session at a service: nothing in it leads to this checkout, or to the user's settings."""
    kept = {name: value for name, value in os.environ.items()
            if not name.startswith(("PYTHONPATH", "JEPA_", "JUPYTER_"))}
    own = {"XDG_CACHE_HOME": "cache", "JUPYTER_CONFIG_DIR": "jupyter",
           "JUPYTER_DATA_DIR": "jupyter", "IPYTHONDIR": "jupyter"}
    return kept | {name: str(files / folder) for name, folder in own.items()} | {
        service: "tried", "JEPA_BUDGET": "smoke", "JEPA_OFFLINE": "1", "PYTHONNOUSERSITE": "1"}


def installed(python: Path) -> set[str]:
    return set(call(python, "-m", "pip", "list", "--format", "freeze").split())


def execute(python: Path, folder: Path, name: str, environment: dict[str, str]) -> str:
    """Run the notebook in `folder` with the kernel of `python`; why that failed, or nothing if it passed."""
    call(python, "-m", "pip", "uninstall", "--yes", "jepa-utils")
    before = installed(python)
    words = [python, "-m", "nbconvert", "--to", "notebook", "--execute", "--inplace",
             "--ExecutePreprocessor.timeout=600", name]
    done = subprocess.run(words, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, encoding="utf-8", errors="replace")
    if done.returncode:
        return re.sub(r"\x1b\[[\d;]*m", "", done.stdout)  # without the colours of a terminal
    changed = before ^ installed(python)
    if len(changed) == 1 and re.match(r"jepa[-_]utils==", *changed):
        return ""
    return f"the bootstrap cell should install jepa-utils alone, it changed: {', '.join(sorted(changed)) or 'nothing'}"


def series(python: Path, files: Path, service: str, only: str = "") -> list[tuple[str, bool, float]]:
    """Every notebook whose name starts with `only`, whether it passed and how many seconds it took."""
    shutil.rmtree(files, ignore_errors=True)
    (files / "repository").mkdir(parents=True)
    address, environment, rows = publish(files / "repository"), variables(service, files), []
    for notebook in sorted((files / "repository" / "notebooks").glob(f"{only}*.ipynb")):
        folder = files / notebook.stem
        place(notebook, folder, address)
        started = time.perf_counter()
        fault = execute(python, folder, notebook.name, environment)
        rows.append((notebook.stem, not fault, time.perf_counter() - started))
        print(f"{notebook.stem}: {fault or 'passed'}", flush=True)
    return rows


def table(rows: list[tuple[str, bool, float]]) -> str:
    lines = [f"| {name} | {'passed' if passed else 'failed'} | {seconds:.0f} |" for name, passed, seconds in rows]
    return "\n".join(["| notebook | result | seconds |", "| --- | --- | --- |", *lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=SERVICES)
    parser.add_argument("--python", default=sys.executable, metavar="PATH",
                        help="whose environment to make (default: this one)")
    parser.add_argument("--folder", type=Path, metavar="PATH",
                        help="the environment; one that is there is used and kept (default: build/env-NAME)")
    parser.add_argument("--torch-from", metavar="PYTHON",
                        help="see that Python's torch and torchvision instead of installing them (not on Windows)")
    parser.add_argument("--only", default="", help="start of the names to run, such as 03")
    parser.add_argument("--keep", action="store_true", help="keep the environment and the executed notebooks")
    options = parser.parse_args()
    environment = (options.folder or ROOT / "build" / f"env-{options.name}").resolve()
    # Not below the environment, nor of a name that begins with its: pip would take what lies there for its own.
    files, lent = (environment.with_name(f"{kind}-{environment.name}") for kind in ("files", "lent"))
    made = [files, lent] if environment.exists() else [files, lent, environment]
    try:
        if options.torch_from:
            build_around_torch(environment, options.python, requirements(options.name), options.torch_from, lent)
        else:
            build(environment, options.python, requirements(options.name))
        print(f"{python_of(environment)}\n{' '.join(sorted(installed(python_of(environment))))}\n", flush=True)
        rows = series(python_of(environment), files, SERVICES[options.name], options.only)
    finally:
        for folder in [] if options.keep else made:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"\n{table(rows)}")
    sys.exit(not rows or not all(passed for _, passed, _ in rows))


if __name__ == "__main__":
    main()
