"""What Colab, Kaggle and Binder do with a notebook: an empty folder, only the notebook file, torch already there."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from series import PATHS, ROOT, read, tagged

HOSTED = ("COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE", "BINDER_SERVICE_HOST")

SESSION = """
import importlib.metadata, json, sys
import numpy, torch
before = [numpy.__file__, torch.__file__]
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
for cell in json.load(open("cells.json", encoding="utf-8")):
    shell.run_cell(cell).raise_error()
import jepa_utils
after = [importlib.import_module(name).__file__ for name in ("numpy", "torch")]
print("RESULT", json.dumps({"before": before, "after": after, "jepa_utils": jepa_utils.__file__}))
"""


def git(folder, *words):
    identity = ["-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True)


@pytest.mark.slow
def test_the_bootstrap_cell_installs_the_package_and_nothing_else(tmp_path):
    # The repository as it stands, as a local git address.
    source = tmp_path / "repository"
    source.mkdir()
    shutil.copytree(ROOT / "jepa_utils", source / "jepa_utils", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    git(source, "init", "-q")
    git(source, "add", ".")
    git(source, "commit", "-q", "-m", "as it stands")
    # An environment that sees the packages installed here, but not the editable install of this project.
    colab = tmp_path / "colab"
    venv.create(colab, with_pip=True, symlinks=True)
    python = colab / "bin" / "python"
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = subprocess.check_output([python, "-c", where], text=True).strip()
    (colab / "seen.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    shutil.move(colab / "seen.pth", site)
    for old in Path(site).glob("setuptools*"):  # Python 3.11's venvs bring one too old to build with
        shutil.rmtree(old)
    # One notebook's first cells, in an empty folder.
    work = tmp_path / "work"
    work.mkdir()
    notebook = read(PATHS[0])
    bootstrap = re.sub(r"git\+https://[^\"]+", f"git+file://{source}", tagged(notebook, "bootstrap")[0])
    (work / "cells.json").write_text(json.dumps([bootstrap, *tagged(notebook, "imports")]), encoding="utf-8")
    (work / "session.py").write_text("import importlib\n" + SESSION, encoding="utf-8")
    environment = {"KAGGLE_KERNEL_RUN_TYPE": "Interactive", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path),
                   "PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    run = subprocess.run([python, "session.py"], cwd=work, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    result = json.loads(run.stdout.split("RESULT ")[1])
    assert result["before"] == result["after"]
    assert result["jepa_utils"].startswith(site)
    list_packages = [python, "-m", "pip", "list", "--path", site, "--format", "json"]
    installed = subprocess.check_output(list_packages, text=True, env=environment)
    assert {package["name"] for package in json.loads(installed)} - {"pip", "setuptools"} == {"jepa-utils"}


WITHOUT_PACKAGE = """
import subprocess, sys
sys.modules["jepa_utils"] = None
subprocess.run = lambda command, **options: print("RAN", *command[1:]) or subprocess.CompletedProcess(command, {code})
"""


def bootstrap(tmp_path, environment, code=0):
    """The bootstrap cell in a Python that lacks the package, where pip ends with `code`."""
    for name in HOSTED:
        environment.setdefault(name, "")
    script = WITHOUT_PACKAGE.format(code=code) + tagged(read(PATHS[0]), "bootstrap")[0]
    environment = {**os.environ, **{name: value for name, value in environment.items() if value}}
    return subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("service", HOSTED)
def test_each_hosted_service_installs_the_package_alone_and_says_so_in_one_line(tmp_path, service):
    said = bootstrap(tmp_path, {service: "1"}).stdout.splitlines()
    assert len(said) == 2
    assert "--no-deps" in said[0]
    assert said[1] == "Installed jepa_utils, and nothing else."


def test_without_network_the_last_line_says_what_to_switch_on(tmp_path):
    run = bootstrap(tmp_path, {"KAGGLE_KERNEL_RUN_TYPE": "Interactive"}, code=1)
    assert run.returncode != 0
    assert "switch Internet on" in run.stderr.splitlines()[-1]
    assert "Installed" not in run.stdout


def test_elsewhere_the_bootstrap_cell_names_the_command_to_run_and_runs_nothing(tmp_path):
    run = bootstrap(tmp_path, {})
    assert run.returncode != 0
    assert "pip install -e" in run.stderr.splitlines()[-1]
    assert "RAN" not in run.stdout


def test_where_the_package_is_there_the_bootstrap_cell_says_and_does_nothing(tmp_path):
    code = "import subprocess; subprocess.run = None\n" + tagged(read(PATHS[0]), "bootstrap")[0]
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, "")
