"""Shared fixtures: no test reads or writes the user's own files, and none goes to the network by accident."""

import importlib
import shlex
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from jepa_utils import cifar10, runtime
from jepa_utils.runtime import save_json

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # main.py is not in the installed package
torch.set_num_threads(1)  # tiny tensors: threads that wait for each other cost more than they bring
USERS_DATA = cifar10.data_folder().absolute()  # before the environment is replaced below


def multiply_in(monkeypatch, dtype):
    """Let networks multiply in `dtype`, whatever this machine is fast at."""
    monkeypatch.setattr(runtime, "precision", lambda device: dtype)


# ---------------------------------------------------------------------- how many faults were tried, and survived


def pytest_addoption(parser):
    parser.addoption("--faults", type=Path, help="write how many faults of each kind were tried and survived")


def pytest_configure(config):
    if config.getoption("--faults") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Faults(config.getoption("--faults")))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    if (mark := item.get_closest_marker("fault")) and report.when == "call":
        report.user_properties.append(("fault", mark.args[0]))
    return report


@pytest.fixture
def survived(record_property):
    """Says how many faults a test tries, if they are more than one."""
    return lambda count: record_property("count", count)


class Faults:
    """Adds up the reports of all worker processes."""

    def __init__(self, path):
        self.path, self.kinds = path, {}

    def pytest_runtest_logreport(self, report):
        about = dict(report.user_properties)
        if report.when == "call" and "fault" in about and not report.skipped:
            kind = self.kinds.setdefault(about["fault"], {"tried": 0, "survived": 0})
            kind["tried"] += about.get("count", 1)
            kind["survived"] += about.get("count", 1) * report.passed

    def pytest_sessionfinish(self):
        save_json(dict(sorted(self.kinds.items())), self.path)


@pytest.fixture(scope="session")
def session_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_environment(monkeypatch, session_cache):
    """A cache folder of the tests' own, no data folder, no network."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(session_cache))
    monkeypatch.setenv("JEPA_OFFLINE", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # for the processes that tests start
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # likewise
    for name in ("JEPA_BUDGET", "JEPA_DATA", "JEPA_DATASET", "JEPA_RUNS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def users_cifar10():
    """The data folder of whoever runs the tests, where CIFAR-10 lies in it."""
    if not any((USERS_DATA / name).exists() for name in ("cifar10.npz", "cifar-10-batches-py")):
        pytest.skip(f"no CIFAR-10 in {USERS_DATA}; JEPA_DATA can name another folder")
    return USERS_DATA


@pytest.fixture(scope="session")
def cifar10_arrays():
    """50 + 20 random images under CIFAR-10's names, each class equally often."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 50), ("test", 20)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 10).astype(np.uint8)
    return arrays


@pytest.fixture
def data_folder(tmp_path, monkeypatch):
    """An empty data folder that JEPA_DATA names."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("JEPA_DATA", str(folder))
    return folder


@pytest.fixture
def cifar10_folder(data_folder, cifar10_arrays):
    """A data folder that holds a tiny cifar10.npz."""
    np.savez(data_folder / "cifar10.npz", **cifar10_arrays)
    return data_folder


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Runs main.py's main in this process, in an empty folder: exit code, lines of stdout, lines of stderr."""
    main = importlib.import_module("main")
    cwd = tmp_path / "cwd"
    cwd.mkdir()
    monkeypatch.chdir(cwd)

    def call(options):
        monkeypatch.setattr(sys, "argv", ["main.py", *shlex.split(options)])
        capsys.readouterr()
        try:
            main.main()
            code = 0
        except SystemExit as leaving:
            code = leaving.code
        captured = capsys.readouterr()
        return SimpleNamespace(code=code, out=captured.out.splitlines(), err=captured.err)

    yield call
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(cwd)  # checkpoints of hundreds of megabytes
