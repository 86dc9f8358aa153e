"""The workshop's day-before command: what it finds, what it tells to do, and that it needs nothing installed."""

import ctypes
import re
import subprocess
import sys
import tomllib
from collections import namedtuple
from types import SimpleNamespace

import pytest
from conftest import ROOT

from jepa_utils import ready

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ALL = ("python", "memory", "disk", "packages", "computing", "speed", "digits", "cifar10", "notebook")


@pytest.fixture
def answers(monkeypatch):
    """Every check passes, but for those that are given another answer."""
    def set_answers(**others):
        for name in ALL:
            def check(name=name):
                if isinstance(said := others.get(name, "fine"), Exception):
                    raise said
                return said
            check.__name__ = name
            monkeypatch.setattr(ready, name, check)
    return set_answers


def call(monkeypatch, capsys, *words):
    """Exit code, and what was said of each check, by its name."""
    monkeypatch.setattr(sys, "argv", ["ready", *words])
    with pytest.raises(SystemExit) as leaving:
        ready.main()
    *lines, _, verdict = capsys.readouterr().out.splitlines()
    return leaving.value.code, {line[7:18].strip(): line[:7].strip() + ": " + line[18:] for line in lines}, verdict


def test_a_computer_that_has_everything_is_ready(answers, monkeypatch, capsys):
    answers()
    code, said, verdict = call(monkeypatch, capsys, "--cifar10")
    assert (code, verdict) == (0, "ready")
    assert tuple(said) == ALL
    assert "cifar10" not in call(monkeypatch, capsys)[1]


@pytest.mark.parametrize("name", ALL)
def test_one_thing_to_do_is_said_and_is_enough_not_to_be_ready(name, answers, monkeypatch, capsys):
    answers(**{name: ready.ToDo("do this")})
    code, said, verdict = call(monkeypatch, capsys, "--cifar10")
    assert code == 1
    assert verdict.startswith("not ready")
    assert [check for check, line in said.items() if line == "TO DO: do this"] == [name]


def test_what_breaks_in_another_way_is_something_to_do(answers, monkeypatch, capsys):
    answers(computing=OSError("a library is missing"))
    code, said, _ = call(monkeypatch, capsys)
    assert (code, said["computing"]) == (1, "TO DO: OSError: a library is missing")
    assert said["notebook"] == "ok: fine"


def test_without_packages_it_looks_no_further(answers, monkeypatch, capsys):
    answers(packages=ready.ToDo("install"))
    assert tuple(call(monkeypatch, capsys)[1]) == ALL[:4]
    answers(python=ready.ToDo("upgrade"))
    assert tuple(call(monkeypatch, capsys)[1]) == ALL[:3]


def test_it_asks_for_what_the_project_asks_for(monkeypatch, tmp_path):
    lines = PROJECT["dependencies"] + [line for extra in ("shell", "notebooks")
                                       for line in PROJECT["optional-dependencies"][extra] if ">=" in line]
    wanted = dict(line.split(">=") for line in lines)
    assert ready.required() == wanted
    assert PROJECT["requires-python"] == ">=" + ".".join(map(str, ready.PYTHON))
    monkeypatch.setattr(ready, "PROJECT", tmp_path / "none")  # installed, without a clone
    marked = [f'{line}; extra == "{extra}"' for extra, of in PROJECT["optional-dependencies"].items() for line in of]
    monkeypatch.setattr(ready.metadata, "requires", lambda name: PROJECT["dependencies"] + marked)
    assert ready.required() == wanted


@pytest.mark.parametrize(("version", "numbers"), [
    ("2.13.0+cpu", (2, 13, 0)), ("3.8.1", (3, 8, 1)), ("4.2rc1", (4, 2)), ("10.0.post1", (10, 0)), ("", ())])
def test_versions_are_compared_by_their_numbers(version, numbers):
    assert ready.numbers(version) == numbers


def test_old_and_missing_packages_are_named_with_the_command_that_installs_them(monkeypatch, tmp_path):
    monkeypatch.setattr(ready, "required", lambda: {"torch": "2.4", "tqdm": "4.66", "numpy": "1.26"})
    monkeypatch.setattr(ready, "version", {"torch": "2.10", "tqdm": "4.9", "numpy": "", "jepa-utils": "1"}.get)
    with pytest.raises(ready.ToDo, match=r'^tqdm>=4\.66, numpy>=1\.26: call .* -m pip install -e "\.\[notebooks\]"'):
        ready.packages()
    monkeypatch.setattr(ready, "PROJECT", tmp_path / "none")
    with pytest.raises(ready.ToDo, match=r'-m pip install -U "tqdm>=4\.66" "numpy>=1\.26"$'):
        ready.packages()


@pytest.mark.parametrize(("system", "own"), [("Linux", ".venv/bin/python"), ("Darwin", ".venv/bin/python"),
                                             ("Windows", r".venv\Scripts\python")])
def test_where_the_system_keeps_its_python_an_environment_is_made_first(system, own, monkeypatch, tmp_path):
    monkeypatch.setattr(ready.platform, "system", lambda: system)
    monkeypatch.setattr(ready.sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setattr(ready.sys, "base_prefix", sys.prefix)
    assert " -m venv " not in ready.installing("tqdm")
    (tmp_path / "EXTERNALLY-MANAGED").touch()
    made, installed, called = ready.installing("tqdm").split(" , ")
    assert made.endswith(f"  {ready.THIS} -m venv .venv")
    assert (installed, called) == (f"then  {own} -m pip install tqdm", f"and from then on  {own} -m jepa_utils.ready")
    monkeypatch.setattr(ready, "find_spec", lambda name: None)
    assert "  sudo apt install python3-venv , then  " in ready.installing("tqdm")
    monkeypatch.setattr(ready.sys, "base_prefix", "elsewhere")  # in an environment pip installs
    assert " -m venv " not in ready.installing("tqdm")


def test_little_memory_and_a_full_disk_are_noticed(monkeypatch):
    monkeypatch.setattr(ready, "_memory_bytes", lambda: 2 * 10**9)
    with pytest.raises(ready.ToDo, match=r"^2\.0 GB, and 4 are needed"):
        ready.memory()
    monkeypatch.setattr(ready.shutil, "disk_usage", lambda path: namedtuple("Usage", "free")(5 * 10**8))
    with pytest.raises(ready.ToDo, match=r"^0\.5 GB free in .*, and 1 are needed"):
        ready.disk()


def test_windows_is_asked_for_its_memory(monkeypatch):
    def fill(pointer):
        assert pointer._obj[0] == 64
        pointer._obj[1] = 8 * 10**9

    kernel = SimpleNamespace(kernel32=SimpleNamespace(GlobalMemoryStatusEx=fill))
    monkeypatch.setattr(ctypes, "windll", kernel, raising=False)
    monkeypatch.setattr(ready.platform, "system", lambda: "Windows")
    assert ready.memory() == "8.0 GB"


@pytest.mark.parametrize(("system", "machine", "size", "reason"), [
    ("Darwin", "x86_64", 2**63 - 1, "Intel Macs"), ("Windows", "x86", 2**31 - 1, "32 bits")])
def test_computers_that_pytorch_is_not_made_for_are_noticed(system, machine, size, reason, monkeypatch):
    monkeypatch.setattr(ready.platform, "system", lambda: system)
    monkeypatch.setattr(ready.platform, "machine", lambda: machine)
    monkeypatch.setattr(ready.sys, "maxsize", size)
    with pytest.raises(ready.ToDo, match=reason):
        ready.python()


def test_cifar10_is_looked_for_in_the_data_folder(cifar10_folder):
    assert ready.cifar10() == f"50 training images in {cifar10_folder / 'cifar10.npz'}"
    (cifar10_folder / "cifar10.npz").unlink()
    with pytest.raises(ready.ToDo, match=re.escape(str(cifar10_folder))):
        ready.cifar10()


def test_a_kernel_of_another_python_is_noticed(monkeypatch):
    monkeypatch.setattr(ready, "KERNEL", "print('/')")
    with pytest.raises(ready.ToDo, match="Jupyter starts the Python of /"):
        ready.notebook()


def test_it_needs_no_package_to_say_what_is_missing(tmp_path):
    """A Python with no site-packages at all."""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", "import sys; sys.path.insert(0, sys.argv.pop()); "
                           "import runpy; runpy.run_module('jepa_utils.ready', run_name='__main__')", str(ROOT)],
                          capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert (done.returncode, done.stderr) == (1, "")
    assert re.search(r"TO DO  packages   torch>=2.4, .*-m pip install -e \"\.\[notebooks\]\"", done.stdout)


@pytest.mark.slow
def test_this_computer_is_ready():
    done = subprocess.run([sys.executable, "-m", "jepa_utils.ready"], capture_output=True, text=True, timeout=240)
    assert done.stdout.splitlines()[-1] == "ready", done.stdout
    assert done.returncode == 0
