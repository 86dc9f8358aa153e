"""The workshop's kit: what is gathered for which computer, and that it installs without network."""

import importlib
import json
import os
import platform
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest
from conftest import ROOT
from packaging.requirements import Requirement
from series import dead_links

from jepa_utils import ready

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
THIS_PYTHON = "{}.{}".format(*sys.version_info)


@pytest.fixture
def kit(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("offline_kit")


def wheel(folder, name, requires=(), extra="", **files):
    """A wheel of a few lines: version 1.0 of a package."""
    folder.mkdir(parents=True, exist_ok=True)
    about = [f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0", *(f"Requires-Dist: {line}" for line in requires)]
    files |= {"METADATA": "\n".join(about + [f"Provides-Extra: {extra}"] * bool(extra)), "RECORD": f"{name},,",
              "WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any"}
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as packed:
        for path, text in files.items():
            packed.writestr(f"{name}-1.0.dist-info/{path}" if path.isupper() else path, text + "\n")


# The lock file


def test_the_lock_file_says_how_it_was_made_and_names_no_host():
    assert "uv pip compile pyproject.toml --extra notebooks --universal" in LOCK
    assert not re.search(r"://|--index|\.org|\.io\b", LOCK)


@pytest.mark.parametrize("system", ["linux", "windows", "macos"])
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_the_lock_file_has_one_version_of_all_that_the_project_asks_for(kit, system, python):
    pins = dict(pin.split("==") for pin in kit.wanted(kit.LOCK, system, python))
    assert len(pins) == len(kit.wanted(kit.LOCK, system, python))
    for name, least in ready.required().items():
        assert ready.numbers(pins[name]) >= ready.numbers(least), name


def test_each_system_gets_what_it_alone_needs_and_cuda_can_stay_away(kit):
    names = {system: {pin.split("==")[0] for pin in kit.wanted(kit.LOCK, system, "3.12")} for system in kit.SYSTEMS}
    assert {"pywinpty", "colorama"} <= names["windows"] - names["linux"] - names["macos"]
    assert "appnope" in names["macos"] - names["linux"] - names["windows"]
    gone = names["linux"] - {pin.split("==")[0] for pin in kit.wanted(kit.LOCK, "linux", "3.12", cpu=True)}
    assert {"triton", "nvidia-nccl-cu13"} <= gone
    assert "torch" not in gone
    assert not any(kit.CUDA.match(name) for name in names["windows"] | names["macos"])


def test_markers_are_answered_for_the_computer_that_is_asked_about(kit, tmp_path):
    lines = ["both==1", "old==1 ; python_full_version < '3.12'", "arm==1 ; platform_machine == 'arm64'", "    # via x"]
    (tmp_path / "lock").write_text("# how\n" + "\n".join(lines), encoding="utf-8")
    assert kit.wanted(tmp_path / "lock", "linux", "3.11") == ["both==1", "old==1"]
    assert kit.wanted(tmp_path / "lock", "macos", "3.13") == ["both==1", "arm==1"]


@pytest.mark.parametrize(("system", "machine", "here"), [
    ("Linux", "x86_64", "linux"), ("Windows", "AMD64", "windows"), ("Darwin", "arm64", "macos"),
    ("Linux", "aarch64", None), ("Darwin", "x86_64", None), ("Windows", "ARM64", None),
])
def test_a_computer_is_known_by_its_system_and_its_processor(kit, monkeypatch, system, machine, here):
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert runpy.run_path(kit.__file__)["HERE"] == here


# Gathering and installing


@pytest.mark.slow
def test_a_kit_is_gathered_and_gathered_again_for_another_python(tmp_path):
    wheel(tmp_path / "index", "tiny")
    (tmp_path / "lock").write_text("tiny==1.0\n", encoding="utf-8")
    (tmp_path / "cifar10.npz").write_bytes(b"pixels")
    words = [sys.executable, "scripts/offline_kit.py", tmp_path / "kit", "--systems", "linux"]
    lock = ["--lock", tmp_path / "lock"]
    for_pip = ["--pip", "--no-index", "--no-build-isolation", "--find-links", tmp_path / "index"]
    for more in (["--python", "3.12", "--cifar10", tmp_path / "cifar10.npz"], ["--python", "3.12", "3.13"]):
        subprocess.run([*words, *lock, *more, *for_pip], check=True, cwd=ROOT, timeout=240)
    made = tmp_path / "kit"
    assert json.loads((made / "kit.json").read_text(encoding="utf-8")) == [
        ["Linux", "x86_64", "3.12"], ["Linux", "x86_64", "3.13"]]
    assert "  - Linux (x86_64), Python 3.12\n  - Linux (x86_64), Python 3.13\n" in (
        made / "README.txt").read_text(encoding="utf-8")
    assert {path.name.split("-")[0] for path in (made / "wheels").iterdir()} == {"tiny", "jepa_utils"}
    assert (made / "data" / "cifar10.npz").read_bytes() == b"pixels"
    assert {path.name for path in (made / "notebooks").iterdir()} == {
        path.name for path in (ROOT / "notebooks").glob("*.ipynb")}
    opened = [path for path in (ROOT / "assets").rglob("*.*") if path.suffix in (".json", ".jsonl", ".pt")]
    assert [path for path in opened if not (made / path.relative_to(ROOT)).exists()] == []
    assert [path for path in made.glob("notebooks/*.ipynb") if dead_links(path)] == []
    assert (made / "install.py").exists()


def test_a_file_that_is_not_there_is_named(tmp_path):
    done = subprocess.run([sys.executable, "scripts/offline_kit.py", tmp_path / "kit", "--cifar10", tmp_path / "none"],
                          cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(f"{tmp_path / 'none'}: there is no such file or folder")
    assert not (tmp_path / "kit").exists()


@pytest.fixture
def room(tmp_path, monkeypatch):
    """A folder with the installer, and a kit.json for this very computer."""
    monkeypatch.delenv("PYTHONPATH")
    shutil.copy(ROOT / "scripts" / "kit" / "install.py", tmp_path)
    here = [platform.system(), platform.machine(), THIS_PYTHON]
    (tmp_path / "kit.json").write_text(json.dumps([here]), encoding="utf-8")
    return tmp_path


def install(room, *words):
    """Exit code and words of the installer, with the network cut off where this system can do that."""
    cut = ["unshare", "-rn"]
    can = shutil.which("unshare") and not subprocess.run([*cut, "true"], capture_output=True).returncode
    call = [*(cut if can else []), sys.executable, room / "install.py", *words]
    done = subprocess.run(call, capture_output=True, text=True, cwd=room.parent, timeout=240,
                          env=os.environ | {"PIP_CONFIG_FILE": os.devnull})
    return done.returncode, done.stdout + done.stderr


def test_a_kit_for_other_computers_is_refused_in_one_line(room):
    (room / "kit.json").write_text('[["Plan9", "mips", "3.1"]]', encoding="utf-8")
    code, said = install(room)
    assert code == 1
    assert said.startswith(f"This is {platform.system()} ({platform.machine()}), Python {THIS_PYTHON}. ")
    assert said.endswith("The kit is for: Plan9 (mips), Python 3.1.\n")
    assert not (room / ".venv").exists()


@pytest.mark.slow
def test_a_kit_installs_without_network_and_ends_with_what_the_check_says(room):
    wheel(room / "wheels", "tiny")
    files = {"jepa_utils/__init__.py": "", "jepa_utils/ready.py": "import sys, tiny_lab; print('ready', *sys.argv[1:])",
             "jepa_utils/cifar10.py": "import pathlib, sys\ndata_folder = lambda: pathlib.Path(sys.prefix, 'cache')"}
    wheel(room / "wheels", "jepa_utils", ['tiny-lab; extra == "notebooks"'], "notebooks", **files)
    code, said = install(room)
    assert (code, "No matching distribution found for tiny-lab" in said) == (1, True)
    wheel(room / "wheels", "tiny_lab", **{"tiny_lab.py": ""})
    (room / "data").mkdir()
    (room / "data" / "cifar10.npz").write_bytes(b"pixels")
    code, said = install(room)  # again, as its page says
    assert code == 0, said
    assert "ready --cifar10\nTo begin:" in said
    assert (room / ".venv" / "cache" / "cifar10.npz").read_bytes() == b"pixels"


def test_the_installer_says_what_it_accepts(room):
    code, said = install(room, "--begin")
    assert code == 1
    assert "--start" in said


# Other places


def test_binder_installs_the_notebooks_without_cuda():
    post = ROOT / ".binder" / "postBuild"
    assert "--torch-backend cpu --editable '.[notebooks]'" in post.read_text(encoding="utf-8")
    assert os.name == "nt" or os.access(post, os.X_OK)
    version = (ROOT / ".binder" / "runtime.txt").read_text(encoding="utf-8").strip().removeprefix("python-")
    assert Requirement("python" + PROJECT["requires-python"]).specifier.contains(version)
