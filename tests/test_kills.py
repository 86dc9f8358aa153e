"""A run that is killed at any moment, or finds the disk full, goes on to the figures of an undisturbed one."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT
from shell import SMALL, figures, files, one_error_line, strict_json
from training import IMAGES, LABELS, assert_same_weights, without

from jepa_utils import recipes
from jepa_utils.data import Dataset
from jepa_utils.encoders import load_encoder
from jepa_utils.train import fit

pytestmark = pytest.mark.slow
RUN = f"{SMALL} --epochs 120"


@pytest.mark.fault("a run killed at a random moment, or while it writes a checkpoint")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.parametrize("seed", [0])
def test_a_run_killed_21_times_ends_as_an_undisturbed_one(call, tmp_path, survived, seed):
    words = [sys.executable, ROOT / "tests" / "lives.py", tmp_path / "killed", str(seed), *RUN.split()]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=400,
                          env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    lives = json.loads(done.stdout.splitlines()[-1])
    killed = [life for life in lives if life["kill"] != "none"]
    survived(len(killed))
    assert len(killed) == 21
    assert {life["kill"] for life in killed} == {"SIGKILL", "SIGTERM", "while saving"}
    assert all(life["code"] for life in killed)
    epochs = [life["epochs"] for life in lives]
    assert epochs == sorted(epochs)  # no checkpoint was ever lost
    assert len(set(epochs)) > 10
    undisturbed = call(f"{RUN} --out undisturbed --json")
    metrics = strict_json((tmp_path / "killed/metrics.json").read_text(encoding="utf-8"))
    assert figures(metrics) == figures(strict_json(undisturbed.out[-1]))
    assert_same_weights(load_encoder(tmp_path / "killed"), load_encoder("undisturbed"))
    assert files(tmp_path / "killed").keys() == files("undisturbed").keys()  # no leftovers, and no claim


@pytest.mark.skipif(sys.platform == "win32", reason="Windows limits no file")
@pytest.mark.fault("a disk without room, or a place that cannot be written")
@pytest.mark.parametrize("most", [200, 5_000, 60_000])
def test_a_disk_with_no_room_is_one_line_and_the_run_goes_on_where_there_is(call, most):
    """`most` bytes in a file stand for a disk that is full: before the configuration, in a checkpoint, after some."""
    limit = f"import resource, runpy, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); " \
            f"resource.setrlimit(resource.RLIMIT_FSIZE, ({most}, resource.RLIM_INFINITY)); " \
            f"sys.argv = sys.argv[1:]; sys.path.insert(0, {str(ROOT)!r}); " \
            f"runpy.run_path(sys.argv[0], run_name='__main__')"
    options = f"{SMALL} --out full"
    words = [sys.executable, "-c", limit, ROOT / "main.py", *options.split()]
    done = subprocess.run(words, capture_output=True, text=True, timeout=200)
    assert done.returncode == 2, done.stderr
    assert one_error_line(done.stderr, "File too large: 'full/")
    assert not [name for name in files("full") if name.endswith((".part", ".lock"))]
    resumed, undisturbed = call(f"{options} --resume --json"), call(f"{SMALL} --out undisturbed --json")
    assert figures(strict_json(resumed.out[-1])) == figures(strict_json(undisturbed.out[-1]))


@pytest.mark.fault("a notebook cell interrupted and run again")
def test_a_notebook_cell_that_is_interrupted_and_run_again_goes_on(tmp_path, survived):
    config = recipes.recipe("laptop-none", epochs=5, batch_size=16, henc=4, dstc=8, projector="8")
    images, seen = Dataset("digits", tuple("0123"), IMAGES, LABELS, IMAGES, LABELS), []

    def cell(stop_after):
        def on_epoch(epoch, model):
            seen.append(epoch)
            if epoch == stop_after:
                raise KeyboardInterrupt

        return fit(config, images, out=tmp_path / "cell", resume=True, on_epoch=on_epoch, progress=False)

    for stop in (1, 3, 4):
        with pytest.raises(KeyboardInterrupt):
            cell(stop)
    model, history = cell(None)
    assert seen == [0, 1, 2, 3, 4, 5]
    whole, expected = fit(config, images, progress=False)
    assert_same_weights(model, whole)
    assert without(history, "seconds") == without(expected, "seconds")
    survived(3)
