"""How a run ends that does not end well: in one line, with nothing lost."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from shell import FINISHED, SMALL, files, one_error_line, strict_json

import main
from jepa_utils.checkpoint import Checkpoint
from jepa_utils.config import TrainConfig
from jepa_utils.runtime import InputError
from jepa_utils.train import check_installed

pytestmark = pytest.mark.slow  # every test starts processes


def start(*words, **environment):
    return subprocess.Popen([sys.executable, ROOT / "main.py", *SMALL.split(), *words], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, env=os.environ | environment)


def lines(text):
    """What is left to read of stderr when the progress bars have gone."""
    return [line for line in re.split(r"[\r\n]+", text) if line.strip() and "it/s" not in line and "%|" not in line]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no signals")
@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"])
def test_a_stopped_run_says_in_one_line_how_to_go_on(call, how, code):
    run = start("--epochs", "500", "--out", "here")
    deadline = time.monotonic() + 120
    while not Path("here/history.json").exists() and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    run.send_signal(how)
    said = run.communicate()[1]
    assert run.returncode == code, said
    assert lines(said)[-1] == f"main.py: stopped; go on with: python main.py {SMALL} --epochs 500 --out here --resume"
    assert "Traceback" not in said
    assert files("here").keys() == {"checkpoint.pt", "config.json", "history.json"}
    assert call("--resume --out here --max_steps 2").code == 2  # another length is refused, the run is kept
    assert len(strict_json(Path("here/history.json").read_text(encoding="utf-8"))) >= 1


@pytest.mark.parametrize("given", ["--resume", "--resume true", "--resume=true"])
@pytest.mark.parametrize("order", ["{} --lr 0.1 --out run", "--lr 0.1 {} --out run", "--lr 0.1 --out run {}"])
def test_the_command_that_goes_on_says_resume_once(given, order, tmp_path, monkeypatch):
    (tmp_path / "checkpoint.pt").touch()
    monkeypatch.setattr(sys, "argv", ["main.py", *order.format(given).split()])
    assert main.how_to_go_on(tmp_path).endswith(": python main.py --lr 0.1 --out run --resume")


def test_a_stopped_extension_goes_on_with_the_options_of_the_longer_run(call, monkeypatch):
    assert call(f"{SMALL} --out here").code == 0
    save = Checkpoint.save

    def stopped_after(state, history):
        save(state, history)
        if len(history) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "save", stopped_after)
    done = call("--resume --extend --epochs 5 --out here")
    assert done.code == 130
    assert done.err.splitlines()[-1].endswith("python main.py --extend --epochs 5 --out here --resume")
    monkeypatch.setattr(Checkpoint, "save", save)
    again = call("--extend --epochs 5 --out here --resume --json")
    assert strict_json(again.out[-1])["epochs"] == 5
    assert call("--resume --out here").code == 0  # as config.json says now
    assert len(strict_json(Path("here/history.json").read_text(encoding="utf-8"))) == 5


def test_runs_started_together_have_folders_of_their_own(call):
    runs = [start("--seed", str(seed)) for seed in range(2)]
    assert [run.communicate() and run.returncode for run in runs] == [0, 0]
    kept = [strict_json(path.read_text(encoding="utf-8")) for path in Path("runs").glob("*/metrics.json")]
    assert sorted(metrics["seed"] for metrics in kept) == [0, 1]


def test_without_a_compiler_compile_is_refused_by_name(call, tmp_path):
    run = start("--compile", "true", "--out", "here", PATH=str(tmp_path), CXX="")
    said = run.communicate()[1]
    assert run.returncode == 2
    assert one_error_line(said, "compile: True was given")
    assert files(".") == {}


def test_a_compiler_named_by_cxx_is_looked_for(monkeypatch):
    config, cpu = TrainConfig(compile=True), torch.device("cpu")
    monkeypatch.setenv("CXX", f"{sys.executable} -O2")  # any program that is there
    check_installed(config, cpu)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InputError, match=r"^compile: True was given; .*no-such-compiler is not"):
        check_installed(config, cpu)


def test_the_home_folder_may_be_written_as_a_tilde(call, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert call(f"{SMALL} --out ~/run").code == 0
    assert files(tmp_path / "run").keys() == FINISHED
    assert call("--resume --out ~/run").code == 0


ENTRIES = ["main.py", "tasks.py", "scripts/fill_tables.py", "-m jepa_utils.data", "-m jepa_utils.scoreboard"]


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_entry_explains_itself_even_without_docstrings(entry):
    words = [sys.executable, "-OO", *entry.split(), "--help"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")
