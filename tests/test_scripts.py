"""The tables of the README are what was measured, and the scripts beside the notebooks run."""

import json
import runpy
import subprocess
import sys

import pytest
from conftest import ROOT

KEYS = {"name", "dataset", "loss", "encoder", "device", "hardware", "seeds", "linear_probe", "minutes", "command", "date"}
ROWS = sorted((ROOT / "assets" / "results").glob("*.json"))


def script(*words, cwd=ROOT):
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, cwd=cwd, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("path", ROWS, ids=lambda path: path.stem)
def test_a_row_says_how_it_was_made(path):
    row = json.loads(path.read_text(encoding="utf-8"))
    assert set(row) >= KEYS
    assert row["name"] == path.stem
    assert row["command"].startswith("python main.py ")
    assert len(row["seeds"]) == len(row["linear_probe"]) == len(row["minutes"]) == len(set(row["seeds"])) > 0
    assert all(0 < value <= 100 for value in row["linear_probe"])
    assert row["device"] in ("cpu", "cuda")


@pytest.mark.slow
def test_the_readme_says_what_the_files_say():
    script("scripts/fill_readme.py", "--check")


@pytest.mark.slow
def test_a_run_without_a_result_has_an_estimate_and_a_command_that_starts_it(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import estimate
    from simple_parsing import ArgumentParser

    from main import DEFAULTS, Arguments

    planned = json.loads((ROOT / "assets" / "planned.json").read_text(encoding="utf-8"))
    assert planned == [estimate.estimate(name, config) for name, config in estimate.RUNS.items()]
    for row, (name, config) in zip(planned, estimate.RUNS.items(), strict=True):
        start, options = row["command"].split(" -- ")
        assert start == f"python benchmarks/measure.py {name}"
        parser = ArgumentParser()
        parser.add_arguments(Arguments, dest="arguments")
        given = parser.parse_args(options.split()).arguments
        assert given.dataset == "cifar10"
        filled = vars(given) | {k: v for k, v in DEFAULTS[given.model_type].items() if getattr(given, k) is None}
        assert filled.items() >= vars(config.validate()).items()
        views = 300 * 195 * 256 * 2
        assert 989e12 * 60 * row["estimated_minutes"][1] * 0.05 / views == pytest.approx(1e9 * row["gflop_per_view"], rel=0.01)


@pytest.mark.slow
def test_measure_keeps_a_row_and_adds_only_the_missing_seeds(tmp_path):
    options = ["--limit", "32", "--batch_size", "16", "--henc", "4", "--dstc", "8", "--hpre", "4", "--epochs", "1", "--probe_epochs", "1"]

    def measure(*seeds):
        return script("benchmarks/measure.py", "tiny", "--results", tmp_path, "--runs", tmp_path / "runs", "--seeds", *seeds, "--", *options)

    measure(0)
    first = json.loads((tmp_path / "tiny.json").read_text(encoding="utf-8"))
    assert set(first) >= KEYS
    assert "seed 1" in (said := measure(0, 1))
    assert "seed 0" not in said
    both = json.loads((tmp_path / "tiny.json").read_text(encoding="utf-8"))
    assert both["seeds"] == [0, 1]
    assert both["linear_probe"][0] == first["linear_probe"][0]
    assert both["command"] == "python main.py " + " ".join(options)


@pytest.mark.slow
def test_benchmarks_end_with_a_table(tmp_path):
    said = script("benchmarks/run.py", "--quick", "sigreg", "probe", "--out", tmp_path)
    kept = [json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8")) for name in ("sigreg", "probe")]
    assert all(row["median"] > 0 for part in kept for row in part["rows"])
    assert {row["contender"] for part in kept for row in part["rows"]} == {"ours", "lightly", "scikit-learn"}
    assert said.splitlines()[-1].startswith("| linear probe | 500 x 32 features, synthetic; test accuracy")


@pytest.mark.slow
def test_the_plain_loop_makes_new_views_in_every_epoch(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import torch
    from torch import nn
    from views import TwoViews

    from jepa_utils import data

    training = runpy.run_path(str(ROOT / "benchmarks" / "training.py"))  # tests/ has a training.py too
    seen = []
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4))
    encoder.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].numpy().tobytes()))
    images = data.digits(train=8).train_images
    _, step = training["per_image"](images, TwoViews(), encoder, nn.Identity(), training["plain_vicreg"], 4, torch.device("cpu"))
    for _ in range(6):  # three epochs of two batches
        step()
    assert len(set(seen)) == len(seen) == 12


@pytest.mark.slow
def test_a_search_logs_what_it_tried_and_spares_the_test_set(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import search

    from jepa_utils import data

    images = data.digits(train=100, test=20)
    held_out = search.hold_out(images)
    assert (len(held_out.train_images), len(held_out.test_images)) == (90, 10)
    assert held_out.test_images.float().mean() != images.test_images.float().mean()
    assert search.parse("lmbd=3 epochs=4 projector=8-4", "bcs") == {"lmbd": 3.0, "epochs": 4, "projector": "8-4"}
    result = search.trial(held_out, "bcs", {"epochs": 1, "batch_size": 16, "henc": 4, "dstc": 8, "projector": "8"}, seed=0)
    assert 0 <= result["validation_probe"] <= 100


@pytest.mark.slow
def test_training_from_a_folder_that_is_read_batch_by_batch(tmp_path):
    import torch
    from PIL import Image

    from jepa_utils.models import build_encoder

    for i in range(12):
        picture = tmp_path / "pictures" / "ab"[i % 2] / f"{i}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40 + i, 64), (20 * i, 100, 50)).save(picture)
    script(ROOT / "scripts/train_from_disk.py", tmp_path / "pictures", "--batch-size", 4, "--epochs", 2, "--workers", 2, "--out", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    encoder = build_encoder("resnet5", config["dobs"], config["henc"], config["dstc"], config["stride"])
    encoder.load_state_dict(torch.load(tmp_path / "encoder.pt", weights_only=True))
    assert torch.isfinite(encoder(torch.zeros(2, 3, 32, 32))).all()


@pytest.fixture
def shipped():
    """The encoder in assets/, built as its JSON says."""
    import torch

    from jepa_utils.models import build_encoder

    config = json.loads((ROOT / "assets" / "encoder_cifar10.json").read_text(encoding="utf-8"))["config"]
    encoder = build_encoder(config["model_type"], config["dobs"], config["henc"], config["dstc"], config["stride"])
    encoder.load_state_dict(torch.load(ROOT / "assets" / "encoder_cifar10.pt", weights_only=True))
    return encoder


def test_the_shipped_encoder_is_small_and_of_the_shape_its_run_says(shipped):
    assert (ROOT / "assets" / "encoder_cifar10.pt").stat().st_size < 5e6
    assert shipped.features == 256


def test_the_shipped_encoder_knows_cifar10(shipped, users_cifar10, monkeypatch):
    from jepa_utils import data, probe

    monkeypatch.setenv("JEPA_DATA", str(users_cifar10))
    images = data.load("cifar10").limited(5000, 1000)
    h = [probe.features(shipped, x) for x in (images.train_images, images.test_images)]
    assert probe.knn_probe(h[0], images.train_labels, h[1], images.test_labels) > 50  # of ten classes; 69.5 with all training images
