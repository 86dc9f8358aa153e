"""The one command of tasks.py, the environment that make builds, and those that the notebooks are tried in."""

import importlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from types import SimpleNamespace

import pytest
from conftest import ROOT
from series import PATHS

import tasks

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
NBMAKE = ["-m", "pytest", "-n", "auto", "--nbmake", "--nbmake-timeout=300", "notebooks"]


# tasks.py


@pytest.fixture
def steps(monkeypatch):
    """What tasks.py would run: words, JEPA_BUDGET and JEPA_OFFLINE of each step. `codes` says how they end."""
    seen, codes = [], []

    def run(words, cwd, env):
        assert words[0] == sys.executable
        assert cwd == ROOT
        seen.append((words[1:], env.get("JEPA_BUDGET"), env.get("JEPA_OFFLINE")))
        return SimpleNamespace(returncode=codes.pop(0) if codes else 0)

    monkeypatch.setattr(tasks.subprocess, "run", run)
    monkeypatch.setattr(tasks.signal, "signal", lambda *_: None)
    monkeypatch.delenv("JEPA_OFFLINE")
    monkeypatch.delenv("JEPA_BUDGET", raising=False)
    return SimpleNamespace(seen=seen, codes=codes)


def perform(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["tasks.py", *words])
    with pytest.raises(SystemExit) as leaving:
        tasks.main()
    return leaving.value.code


def test_run_executes_the_series_then_makes_the_scoreboard(steps, monkeypatch):
    assert perform(monkeypatch, "run") == 0
    assert steps.seen == [(["scripts/run_series.py", "build"], None, None),
                          (["-m", "jepa_utils.scoreboard", "build"], None, None)]


def test_the_budget_is_that_of_the_command_line_else_of_the_environment(steps, monkeypatch):
    monkeypatch.setenv("JEPA_BUDGET", "full")
    perform(monkeypatch, "run")
    perform(monkeypatch, "run", "--budget", "quick-4")
    assert [budget for _, budget, _ in steps.seen] == ["full", "full", "quick-4", "quick-4"]


def test_check_leaves_out_the_slow_tests(steps, monkeypatch):
    perform(monkeypatch, "check")
    assert [words for words, *_ in steps.seen] == [
        ["-m", "ruff", "check", "."], ["-m", "pytest", "-n", "auto", "--dist", "worksteal", "-m", "not slow"]]


def test_test_ends_with_every_notebook_at_the_smoke_budget_without_network(steps, monkeypatch):
    monkeypatch.setenv("JEPA_BUDGET", "full")
    perform(monkeypatch, "test")
    checks = [["-m", "ruff", "check", "."], ["-m", "mypy"], ["-m", "pytest", "-n", "auto", "--dist", "worksteal"]]
    assert [words for words, *_ in steps.seen] == [*checks, NBMAKE]
    assert steps.seen[-1] == (NBMAKE, "smoke", "1")


@pytest.mark.parametrize(("codes", "left", "run"), [([0, 3, 0], 3, 2), ([2], 2, 1), ([-2], 130, 1)],
                         ids=["second", "first", "Ctrl-C"])
def test_the_first_failure_ends_a_task_and_gives_its_exit_code(steps, monkeypatch, codes, left, run):
    steps.codes.extend(codes)
    assert perform(monkeypatch, "test") == left
    assert len(steps.seen) == run


def test_a_budget_that_nothing_would_read_is_refused(steps, monkeypatch, capsys):
    assert perform(monkeypatch, "check", "--budget", "smoke") == 2
    assert perform(monkeypatch, "run", "--budget", "large") == 2
    assert "--budget" in capsys.readouterr().err
    assert steps.seen == []


def test_editions_makes_both_editions_and_the_slides(steps, monkeypatch):
    assert perform(monkeypatch, "editions") == 0
    assert [words for words, *_ in steps.seen] == [["scripts/editions.py", "build"], ["scripts/slides.py", "build"]]


def test_without_the_packages_a_task_needs_it_names_the_command_that_installs_them(steps, monkeypatch, capsys):
    monkeypatch.setattr(tasks, "find_spec", lambda name: None)
    for task, extra in (("lab", "notebooks"), ("check", "dev"), ("site", "site")):
        assert perform(monkeypatch, task) == 2
        assert f'-m pip install -e ".[{extra}]"' in capsys.readouterr().err
    assert steps.seen == []


def test_the_budgets_are_those_of_the_package(monkeypatch):
    from jepa_utils.budget import BUDGETS

    assert set(tasks.BUDGETS) == {"quick", *BUDGETS}


# The Makefile


class Make:
    """The Makefile in a folder of its own, with a Python and a pip that only write down how they were called."""

    def __init__(self, folder):
        self.folder, self.log, self.broken = folder, folder / "log", folder / "broken"
        for name in ("Makefile", "pyproject.toml"):
            shutil.copy(ROOT / name, folder)
        self.script(folder / "python", f"""
            mkdir -p "$3/bin"
            cp {folder}/fake-pip "$3/bin/pip"
            cp {folder}/fake-python "$3/bin/python"
        """)
        self.script(folder / "fake-pip", f'echo "pip $*" >> {self.log}; test ! -e {self.broken}')
        self.script(folder / "fake-python", f'echo "python $* $JEPA_BUDGET" >> {self.log}')

    @staticmethod
    def script(path, text):
        path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        path.chmod(0o755)

    def __call__(self, *words):
        """Exit code of make, and what the Python and the pip of the environment were called with."""
        self.log.write_text("", encoding="utf-8")
        run = subprocess.run(["make", *words, f"PYTHON={self.folder}/python"], cwd=self.folder, capture_output=True)
        return run.returncode, [line.strip() for line in self.log.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def make(tmp_path, monkeypatch):
    if os.name == "nt" or not shutil.which("make"):
        pytest.skip("no make")
    monkeypatch.delenv("JEPA_BUDGET", raising=False)
    return Make(tmp_path)


@pytest.mark.parametrize(("target", "extra"), [
    ("run", "notebooks"), ("lab", "notebooks"), ("check", "dev"), ("test", "dev"), ("lint", "dev"),
])
def test_make_installs_what_the_target_needs_then_calls_tasks(make, target, extra):
    assert make(target) == (0, [f"pip install --quiet --editable .[{extra}]", f"python tasks.py {target}"])
    assert make(target) == (0, [f"python tasks.py {target}"])


def test_an_install_that_failed_is_made_again(make):
    make.broken.touch()
    for _ in range(2):
        code, log = make("lint")
        assert code != 0
        assert log == ["pip install --quiet --editable .[dev]"]
    make.broken.unlink()
    assert make("lint") == (0, ["pip install --quiet --editable .[dev]", "python tasks.py lint"])


def test_what_the_tests_need_includes_what_the_notebooks_need(make):
    make("test")
    assert make("run") == (0, ["python tasks.py run"])


def test_tests_after_notebooks_install_the_rest_and_a_failure_there_leaves_no_mark(make):
    make("run")
    make.broken.touch()
    assert make("test")[0] != 0
    make.broken.unlink()
    assert make("run") == (0, ["pip install --quiet --editable .[notebooks]", "python tasks.py run"])


def test_a_changed_project_is_installed_again(make):
    make("run")
    later = (make.folder / ".venv" / "installed-notebooks").stat().st_mtime + 1
    os.utime(make.folder / "pyproject.toml", (later, later))
    assert make("run")[1][0] == "pip install --quiet --editable .[notebooks]"


def test_make_hands_the_budget_on(make, monkeypatch):
    make("run")
    assert make("run", "BUDGET=smoke")[1] == ["python tasks.py run smoke"]
    monkeypatch.setenv("JEPA_BUDGET", "full")
    assert make("run")[1] == ["python tasks.py run full"]


# The versions that are promised


def floors(requirements):
    return {line for line in requirements if not line.startswith("jepa-utils[")}


def test_the_lowest_versions_tried_are_those_promised(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    environment = importlib.import_module("try_environment")
    promised = floors(PROJECT["dependencies"] + EXTRAS["shell"] + EXTRAS["notebooks"])
    assert {line.replace("==", ">=") for line in environment.requirements("lowest")} == promised
    assert set(environment.requirements("newest")) == {line.split(">=")[0] for line in promised}
    assert {path.stem for path in (ROOT / "tests" / "environments").glob("*.txt")} == set(environment.SERVICES)


def test_conda_promises_the_same_versions():
    lines = re.findall(r"^  - ([\w-]+)(>=[\d.]+)$", (ROOT / "environment.yml").read_text(encoding="utf-8"), re.M)
    conda = {{"pytorch": "torch"}.get(name, name) + version for name, version in lines}
    required = PROJECT["dependencies"] + EXTRAS["shell"] + EXTRAS["notebooks"]
    promised = floors(required) | {f"python{PROJECT['requires-python']}"}
    assert conda == promised


def test_readers_install_no_tool_of_the_developers():
    for line in PROJECT["dependencies"] + EXTRAS["shell"] + EXTRAS["notebooks"]:
        assert not re.match(r"lightly|pytest|ruff|nbmake", line)
    assert "jepa-utils[notebooks]" in EXTRAS["dev"]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_every_notebook_has_one_address_to_install_from(path, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    environment = importlib.import_module("try_environment")
    environment.place(path, tmp_path / "alone", "git+file:///elsewhere")
    (placed,) = (tmp_path / "alone").iterdir()
    assert placed.name == path.name
    assert '\\"git+file:///elsewhere\\"' in placed.read_text(encoding="utf-8")


# The address of the repository


@pytest.mark.slow
def test_a_fork_can_put_its_address_everywhere(tmp_path):
    old = PROJECT["urls"]["repository"].removeprefix("https://github.com/")
    listed = subprocess.run(["git", "grep", "-lz", old], cwd=ROOT, capture_output=True, text=True).stdout.split("\0")
    assert "pyproject.toml" in listed
    for name in filter(None, [*listed, "scripts/set_repository.py"]):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    subprocess.run([sys.executable, "scripts/set_repository.py", "octocat/jepa"],
                   cwd=tmp_path, check=True, capture_output=True)
    for name in filter(None, listed):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert old not in text
        assert "octocat/jepa" in text
