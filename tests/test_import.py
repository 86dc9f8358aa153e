"""Nothing happens at import: no random numbers are drawn, no memory is tuned, no file is made."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

MODULES = sorted(".".join(path.relative_to(ROOT).with_suffix("").parts)
                 for path in (ROOT / "jepa_utils").rglob("[a-z]*.py"))

CODE = """
import ctypes, importlib, json, random, sys
import numpy, torch

asked = []  # functions of the C library

class Library(ctypes.CDLL):
    def __getattr__(self, name):
        asked.append(name)
        return super().__getattr__(name)

ctypes.CDLL = Library

def state():
    streams = torch.get_rng_state().tolist(), numpy.random.get_state()[1].tolist(), random.getstate()
    return streams, torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()

torch.manual_seed(3), numpy.random.seed(3), random.seed(3)
before, called = state(), []

def profile(frame, event, _):
    if event == "call":
        called.append((frame.f_globals.get("__name__"), frame.f_code.co_name))

sys.setprofile(profile)
for name in sys.argv[1:]:
    importlib.import_module(name)
sys.setprofile(None)
report = {"same state": state() == before, "mallopt": "mallopt" in asked}
report["called"] = sorted({f"{module}.{name}" for module, name in called if str(module).startswith("jepa_utils")})
from jepa_utils.runtime import keep_freed_memory
keep_freed_memory()
report["would have been seen"] = "mallopt" in asked
print(json.dumps(report))
"""


@pytest.mark.slow
def test_an_import_leaves_random_numbers_threads_memory_and_disk_alone(tmp_path):
    home, cwd = tmp_path / "home", tmp_path / "cwd"
    home.mkdir(), cwd.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment |= {
        "HOME": str(home), "USERPROFILE": str(home), "XDG_CACHE_HOME": str(home / "cache"),
        "PYTHONDONTWRITEBYTECODE": "1", "MPLBACKEND": "agg",
        "MPLCONFIGDIR": str(tmp_path / "matplotlib"),  # whose list of fonts is not our doing
    }
    assert {"jepa_utils.budget", "jepa_utils.threads", "jepa_utils.plots", "jepa_utils.scoreboard"} <= set(MODULES)
    done = subprocess.run([sys.executable, "-c", CODE, "jepa_utils", *MODULES],
                          capture_output=True, text=True, env=environment, cwd=cwd, timeout=200)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["same state"]
    assert not report["mallopt"]
    if sys.platform == "linux":
        assert report["would have been seen"]
    functions = {"keep_freed_memory", "choose_threads", "step_seconds", "budget", "environment", "pick_device"}
    assert {name for name in report["called"] if name.rsplit(".")[-1] in functions} == set()
    assert "jepa_utils.config.TrainConfig" in report["called"]  # class bodies run at import: the profile saw what did
    assert list(home.iterdir()) == list(cwd.iterdir()) == []
